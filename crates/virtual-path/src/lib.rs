//! Paths as text: what can be said of them without asking the disk, and where links lead.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Links that may follow one another before they count as a circle; as in the Linux kernel.
pub const MOST_LINKS: usize = 40;

/// What lies at a path, as far as following links needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathNode {
    /// A folder: the path can go on.
    Folder,
    /// A symbolic link, with its target.
    Link(PathBuf),
    /// Anything else: the path ends here.
    Other,
}

/// The absolute path without any link in it. `look` says what lies at a path whose folders are
/// free of links; its error, for a path where nothing is, is passed on. More than `most` links
/// count as a circle. `..` of the root is the root.
pub fn resolve(
    path: &Path,
    most: usize,
    mut look: impl FnMut(&Path) -> io::Result<PathNode>,
) -> io::Result<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let mut rest = parts_backwards(path);
    let mut links = 0;
    let mut is_folder = true;
    while let Some(part) = rest.pop() {
        if !is_folder {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if part.as_os_str() == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(&part);
        if part.as_os_str() == "/" {
            continue;
        }
        match look(&resolved)? {
            PathNode::Folder => {}
            PathNode::Other => is_folder = false,
            PathNode::Link(target) => {
                links += 1;
                if links > most {
                    return Err(io::Error::other("too many links follow one another"));
                }
                resolved.pop();
                rest.extend(parts_backwards(&target));
            }
        }
    }
    Ok(resolved)
}

/// The components of a path, the last first, without `.`.
fn parts_backwards(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev();
    parts
        .filter(|part| *part != Component::CurDir)
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

/// Takes out `.` and `..` without asking the disk.
pub fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The way from the folder `from` to `to`, both absolute and normal.
pub fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let mut path = PathBuf::new();
    for _ in from.components().skip(shared) {
        path.push("..");
    }
    path.extend(to.components().skip(shared));
    if path.as_os_str().is_empty() {
        path.push(".");
    }
    path
}
