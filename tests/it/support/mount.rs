//! A small file system, for tests of a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether a test may be skipped because this user lacks a permission.
pub fn is_excused(because: &str) -> bool {
    let required = std::env::var("ALOKAI_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
    println!("skipped: {because}");
    !required
}

/// Whether the tests are run by root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// A file system of a given size, which is unmounted when it is dropped.
pub struct Mount {
    path: PathBuf,
    /// The mount point, unless the caller owns it.
    own: Option<tempfile::TempDir>,
}

impl Mount {
    /// Mounts the file system; only root can.
    pub fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Self::at(folder.path(), size)?;
        mount.own = Some(folder);
        Some(mount)
    }

    /// Mounts the file system at a folder; only root can.
    pub fn at(folder: &Path, size: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let path = folder.canonicalize().expect("it exists");
        let options = format!("size={size},mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self { path, own: None })
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
        if self.own.is_none() {
            // A temporary folder that is dropped before this one could not remove the mount point.
            for folder in self.path.ancestors().take(3) {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}
