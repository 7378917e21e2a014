//! Paths as text: links are resolved in any tree, and paths are normalized without access to the
//! disk.
//!
//! [`resolve`] asks a function for the content of each path, so the tree can be a disk, a tar or
//! a map:
//!
//! ```
//! use std::path::Path;
//! use virtual_path::{MOST_LINKS, PathNode, relative, resolve};
//!
//! let tree = |path: &Path| {
//!     Ok(match path.to_str() {
//!         Some("/bin") => PathNode::Link("usr/bin".into()),
//!         _ => PathNode::Folder,
//!     })
//! };
//! let resolved = resolve(Path::new("/bin/node"), MOST_LINKS, tree)?;
//! assert_eq!(resolved, Path::new("/usr/bin/node"));
//! assert_eq!(relative(Path::new("/usr/lib"), &resolved), Path::new("../bin/node"));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io;
use std::path::{Component, Path, PathBuf};

/// The limit of links in one path, as in the Linux kernel. More links count as a loop.
pub const MOST_LINKS: usize = 40;

/// What exists at a path, for [`resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathNode {
    /// A folder: the path can continue.
    Folder,
    /// A symbolic link, with its target.
    Link(PathBuf),
    /// Anything else: the path must end here.
    Other,
}

/// Resolves all links of an absolute path. `look` returns what exists at a path whose parents have
/// no links; its error, for example for a missing path, is returned. More than `most` links are an
/// error. `..` of the root is the root.
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
                    return Err(io::Error::other("the path leads through too many links"));
                }
                resolved.pop();
                rest.extend(parts_backwards(&target));
            }
        }
    }
    Ok(resolved)
}

/// The components of a path without `.`, in reverse order.
fn parts_backwards(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().rev();
    parts
        .filter(|part| *part != Component::CurDir)
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect()
}

/// Removes `.` and `..` without access to the disk. `..` of the root is the root.
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

/// The relative path from the folder `from` to `to`. Both must be absolute and normalized.
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
