//! What must hold before an edit is made: its paths are in the project, lead through no link, and do
//! not depend on each other's order.

use std::path::Path;

use super::Error;
use super::change::{Change, KEPT, TreeEdit, below};

/// Folders of a project that an edit never changes.
const RESERVED: [&str; 4] = [".git", ".alokai", ".out", "node_modules"];

impl TreeEdit {
    /// Fails if a change cannot be made safely in the project at `root`. Only reads.
    pub fn verify(&self, root: &Path) -> Result<(), Error> {
        for change in &self.changes {
            for path in change.paths() {
                is_inside(path)?;
                has_no_link(root, path)?;
            }
            exists_as_expected(root, change)?;
        }
        self.is_independent_of_order()
    }

    /// A new path must not be in, or above, a path that another change moves or removes. So the state
    /// of the disk says which changes were made.
    fn is_independent_of_order(&self) -> Result<(), Error> {
        let sources = self.changes.iter().filter_map(|change| match change {
            Change::Move { from, .. } => Some(from),
            Change::Remove { path, .. } => Some(path),
            _ => None,
        });
        let sources: Vec<_> = sources.collect();
        let targets = self.changes.iter().filter_map(|change| match change {
            Change::Move { to, .. } => Some(to),
            Change::Write { path, .. } | Change::MakeFolder { path } => Some(path),
            _ => None,
        });
        for target in targets {
            let meets = |source: &&&String| {
                below(target, source).is_some() || below(source, target).is_some()
            };
            if let Some(source) = sources.iter().find(meets) {
                return Err(Error::Path {
                    path: target.clone(),
                    why: format!("the same edit moves or removes `{}`", source.escape_debug()),
                    help: "run two commands, one after the other",
                });
            }
        }
        Ok(())
    }
}

/// Fails unless the path consists of plain names in the project.
pub(super) fn is_inside(path: &str) -> Result<(), Error> {
    let refused = |why: &str| {
        Err(Error::Path {
            path: path.to_owned(),
            why: why.to_owned(),
            help: "paths are relative to the project, without `.` and `..`",
        })
    };
    if below(path, KEPT).is_some_and(|rest| !rest.is_empty()) && !path.contains("..") {
        return Ok(());
    }
    let mut names = path.split('/');
    if names.clone().any(|name| matches!(name, "" | "." | "..")) || path.contains('\0') {
        return refused("it is not a path in the project");
    }
    let reserved = |name: &str| {
        let mut reserved = RESERVED.iter();
        reserved.any(|reserved| reserved.eq_ignore_ascii_case(name))
    };
    if names.any(reserved) {
        return refused("the name is reserved");
    }
    Ok(())
}

/// Fails if a folder on the way to the path, or the path itself as a folder, is a link.
pub(super) fn has_no_link(root: &Path, path: &str) -> Result<(), Error> {
    let mut place = root.to_owned();
    let parents = path.rsplit_once('/').map_or("", |(parents, _)| parents);
    for name in parents.split('/').filter(|name| !name.is_empty()) {
        place.push(name);
        let Ok(metadata) = place.symlink_metadata() else {
            return Ok(());
        };
        if !metadata.is_dir() {
            let inside = place.strip_prefix(root).unwrap_or(&place);
            return Err(Error::Path {
                path: path.to_owned(),
                why: format!(
                    "`{}` is {}",
                    inside.display(),
                    if metadata.is_symlink() {
                        "a symbolic link"
                    } else {
                        "not a folder"
                    }
                ),
                help: "an edit changes only real folders in the project: replace the link by the folder, or rename the file",
            });
        }
    }
    Ok(())
}

fn exists_as_expected(root: &Path, change: &Change) -> Result<(), Error> {
    let is_there = |path: &str| root.join(path).symlink_metadata().is_ok();
    let is_free = |path: &str| {
        if is_there(path) {
            return Err(Error::Exists {
                path: path.to_owned(),
            });
        }
        Ok(())
    };
    let is_present = |path: &str| {
        if is_there(path) {
            return Ok(());
        }
        Err(Error::Changed {
            path: path.to_owned(),
        })
    };
    match change {
        Change::Move { from, to } => is_present(from).and_then(|()| is_free(to)),
        Change::Remove { path, keep } => {
            is_present(path)?;
            keep.as_deref().map_or(Ok(()), is_free)
        }
        Change::Write {
            path, old: None, ..
        } => is_free(path),
        Change::Write {
            path,
            old: Some(old),
            ..
        } => {
            let file = root.join(path);
            let is_file = file.symlink_metadata().is_ok_and(|it| it.is_file());
            if is_file && std::fs::read(&file).is_ok_and(|now| now == *old) {
                return Ok(());
            }
            if file.is_symlink() {
                return Err(Error::Path {
                    path: path.clone(),
                    why: "it is a symbolic link".into(),
                    help: "replace the link by the file",
                });
            }
            Err(Error::Changed { path: path.clone() })
        }
        Change::MakeFolder { .. } | Change::RemoveEmptyFolder { .. } => Ok(()),
    }
}
