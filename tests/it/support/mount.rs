//! A small file system, for tests of a full disk.

use std::path::PathBuf;
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
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// Mounts the file system; only root can.
    pub fn new(size: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=755"),
                "tmpfs",
            ])
            .arg(folder.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(folder))
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.0.path().canonicalize().expect("it is mounted")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
