//! Paths as text: what can be said of them without asking the disk.

use std::path::{Component, Path, PathBuf};

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
