//! The tag of a run's images: the commit, or the commit and a digest of uncommitted changes.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Error;
use crate::git::Revision;
use crate::overlay::ContentId;

/// `<sha>`, or `<sha>-dirty-<8 hex>` for a dirty working tree if that is allowed.
pub fn tag(project: &Path, revision: &Revision, allow_dirty: bool) -> Result<String, Error> {
    if revision.dirty.is_empty() {
        return Ok(revision.sha.clone());
    }
    if !allow_dirty {
        return Err(Error::Dirty {
            dirty: revision.dirty.clone(),
            sha: revision.sha.clone(),
        });
    }
    let mut listing = String::new();
    for path in &revision.dirty {
        let file = project.join(path);
        if file.symlink_metadata().is_err() {
            // Writing to a string cannot fail.
            let _ = write!(listing, "{path}\0deleted\0");
            continue;
        }
        // Git reports a dirty submodule or a nested repository, but not the files in it.
        for entry in walkdir::WalkDir::new(&file).sort_by_file_name() {
            let failed = |source| Error::Read {
                path: file.clone(),
                source,
            };
            let entry = entry.map_err(|error| failed(error.into()))?;
            let metadata = entry.path().symlink_metadata().map_err(failed)?;
            let content = if metadata.is_symlink() {
                let target = std::fs::read_link(entry.path()).map_err(failed)?;
                ContentId::of(target.as_os_str().as_encoded_bytes())
            } else if metadata.is_file() {
                ContentId::of_file(entry.path()).map_err(failed)?
            } else {
                continue;
            };
            let inner = entry
                .path()
                .strip_prefix(project)
                .unwrap_or(entry.path())
                .display();
            let executable = metadata.permissions().mode() & 0o100;
            let _ = write!(listing, "{inner}\0{executable} {content}\0");
        }
    }
    let content = ContentId::of(listing.as_bytes());
    Ok(format!("{}-dirty-{}", revision.sha, content.short(8)))
}
