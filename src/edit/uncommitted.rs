//! Files that no commit has, so that removing them would lose them.

use std::path::Path;

use walkdir::WalkDir;

use super::Error;
use crate::disk::Stamp;
use crate::git::{self, Repository};
use crate::overlay::ContentId;

/// Folders that tools fill, and can fill again.
const MADE: [&str; 5] = ["node_modules", ".next", ".nuxt", ".output", ".turbo"];

/// The first of these files for a message, and how many more there are.
pub fn shown(files: &[String]) -> String {
    const SHOWN: usize = 5;
    let quoted = files.iter().take(SHOWN);
    let quoted: Vec<_> = quoted
        .map(|file| format!("`{}`", file.escape_debug()))
        .collect();
    let more = match files.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", quoted.join(", "))
}

/// A note about files that move along although no commit has them; `None` if there are none.
pub fn moved_along(project: &Path, folders: &[&str]) -> Result<Option<String>, Error> {
    let mut found = Vec::new();
    for folder in folders {
        found.extend(uncommitted(project, folder)?);
    }
    let note = || format!("no commit has {}; the files move along", shown(&found));
    Ok((!found.is_empty()).then(note))
}

/// The files below a folder that HEAD does not have with the same content, relative to the project:
/// changed, untracked and ignored files. Files that tools have made do not count.
pub fn uncommitted(project: &Path, folder: &str) -> Result<Vec<String>, Error> {
    let repository = Repository::around(project)?;
    let head = match &repository {
        Some(repository) => match repository.tree(&repository.objects(), "HEAD") {
            Ok(tree) => Some((repository.work_tree()?, tree)),
            Err(git::Error::Revision { .. }) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let mut found = Vec::new();
    let root = project.join(folder);
    let failed = |path: &Path, source| Error::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let is_made = |name: &std::ffi::OsStr| MADE.iter().any(|made| name == *made);
    let walk = WalkDir::new(&root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| !is_made(entry.file_name()));
    for entry in walk {
        let entry = entry.map_err(|error| failed(&root, error.into()))?;
        if entry.file_type().is_dir() {
            continue;
        }
        let is_committed = match &head {
            Some((work_tree, tree)) => {
                let committed = work_tree
                    .inside(entry.path())
                    .map(|path| tree.blob_at(path));
                let committed = committed
                    .transpose()
                    .map_err(|it| failed(entry.path(), it))?;
                match committed.flatten() {
                    Some(committed) if entry.file_type().is_file() => {
                        let stamp = Stamp::of(entry.path()).unwrap_or_default();
                        let stored = work_tree.stored(entry.path(), &stamp);
                        stored.map_err(|it| failed(entry.path(), it))?.id == committed
                    }
                    Some(committed) if entry.file_type().is_symlink() => {
                        let target = std::fs::read_link(entry.path());
                        let target = target.map_err(|it| failed(entry.path(), it))?;
                        let target = target.as_os_str().as_encoded_bytes();
                        ContentId::of(target).oid() == committed
                    }
                    Some(_) | None => false,
                }
            }
            None => false,
        };
        if !is_committed {
            let inside = entry.path().strip_prefix(project).unwrap_or(entry.path());
            found.push(inside.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}
