//! A copy of a `.deploy` with no `node_modules` above it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use walkdir::WalkDir;

use super::Error;
use crate::pipeline::failure::Io;

/// Folders for temporary files, besides that of the environment.
const FALLBACKS: [&str; 2] = ["/tmp", "/var/tmp"];

/// Copies the folder. The copy is independent, because apps write into their folder.
pub fn isolated_copy(deploy: &Path) -> Result<TempDir, Error> {
    let copy = isolated_folder(deploy)?;
    copy_tree(deploy, copy.path())?;
    Ok(copy)
}

/// A new folder for an app, with no `node_modules` above it. Only the current user can read it.
/// `app` is named if there is no such folder.
pub fn isolated_folder(app: &Path) -> Result<TempDir, Error> {
    let candidates = std::iter::once(std::env::temp_dir()).chain(FALLBACKS.map(PathBuf::from));
    let parent = first_isolated(candidates, app)?;
    let folder = tempfile::Builder::new()
        .prefix("alokai-")
        .tempdir_in(&parent)
        .map_err(Io::at("create a folder in", &parent))?;
    Ok(folder)
}

/// The first folder that exists and has no `node_modules` above it.
fn first_isolated(
    candidates: impl IntoIterator<Item = PathBuf>,
    deploy: &Path,
) -> Result<PathBuf, Error> {
    let mut found = Vec::new();
    for candidate in candidates {
        // Links are resolved, because Node resolves them in the path of its entry.
        let Ok(folder) = candidate.canonicalize() else {
            continue;
        };
        let mut above = folder.ancestors().map(|folder| folder.join("node_modules"));
        match above.find(|path| path.exists()) {
            None => return Ok(folder),
            Some(path) if found.contains(&path) => {}
            Some(path) => found.push(path),
        }
    }
    Err(Error::Surrounded {
        folder: deploy.to_owned(),
        found,
    })
}

/// Copies files with their permissions, and links with their targets. The system shares the blocks of
/// a file where the file system can.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    for entry in WalkDir::new(from).min_depth(1) {
        let entry = entry.map_err(|error| Io::at("read", from)(error.into()))?;
        let Ok(path) = entry.path().strip_prefix(from) else {
            continue;
        };
        let target = to.join(path);
        let kind = entry.file_type();
        let copied = if kind.is_dir() {
            std::fs::create_dir(&target)
        } else if kind.is_symlink() {
            std::fs::read_link(entry.path())
                .and_then(|link| std::os::unix::fs::symlink(link, &target))
        } else {
            std::fs::copy(entry.path(), &target).map(drop)
        };
        copied.map_err(Io::at("copy", entry.path()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Error, first_isolated, isolated_copy};

    #[test]
    fn a_folder_below_node_modules_is_not_isolated() {
        let root = tempfile::tempdir().unwrap();
        let deploy = root.path().join("deploy");
        let [surrounded, isolated] = ["a/b/c", "d"].map(|path| root.path().join(path));
        std::fs::create_dir_all(&surrounded).unwrap();
        std::fs::create_dir_all(&isolated).unwrap();
        let modules = root.path().join("a/node_modules");
        std::fs::create_dir(&modules).unwrap();
        let chosen = first_isolated([surrounded.clone(), isolated.clone()], &deploy).unwrap();
        assert_eq!(chosen, isolated.canonicalize().unwrap());

        // A link into the surrounded folder is the surrounded folder.
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&surrounded, &link).unwrap();
        let missing = root.path().join("missing");
        match first_isolated([surrounded, link, missing], &deploy) {
            Err(Error::Surrounded { found, .. }) => {
                assert_eq!(found, [modules.canonicalize().unwrap()]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_has_files_links_and_permissions_of_its_own() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let from = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("bin")).unwrap();
        let run = from.path().join("bin/run");
        std::fs::write(&run, "one").unwrap();
        std::fs::set_permissions(&run, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("bin", from.path().join("link")).unwrap();
        let copy = isolated_copy(from.path()).unwrap();
        let copied = copy.path().join("link/run");
        assert_eq!(copied.metadata().unwrap().mode() & 0o777, 0o755);
        std::fs::write(&copied, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&run).unwrap(), "one");
    }
}
