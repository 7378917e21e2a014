//! The tag of a run: the commit, or the commit and what differs from it.

use std::fmt::Write as _;
use std::path::Path;

use super::Error;
use crate::git::Revision;
use crate::overlay::ContentId;

/// `<sha>`, or `<sha>-dirty-<8 hex>` of a dirty tree if that is allowed.
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
        let content = match file.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => std::fs::read_link(&file)
                .map(|target| ContentId::of(target.as_os_str().as_encoded_bytes()).to_string()),
            Ok(metadata) if metadata.is_file() => {
                ContentId::of_file(&file).map(|id| id.to_string())
            }
            _ => Ok("deleted".into()),
        };
        let content = content.map_err(|source| Error::Read { path: file, source })?;
        // Writing to a string cannot fail.
        let _ = write!(listing, "{path}\0{content}\0");
    }
    let content = ContentId::of(listing.as_bytes());
    Ok(format!("{}-dirty-{}", revision.sha, content.short(8)))
}
