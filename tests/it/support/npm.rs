//! Programs from npm that tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use oci::Digest;

/// The folder where packages are installed (`<name>@<version>`): once for all tests, each of
/// which is a process of its own.
pub fn installed(packages: &[&str]) -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let all = packages.join(" ");
    let folder = tmp.join(format!("npm-{}", &Digest::of(all.as_bytes()).hex()[..12]));
    let done = folder.join("installed");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = std::fs::File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("a lock");
    if !done.exists() {
        std::fs::write(folder.join("package.json"), r#"{ "private": true }"#).expect("a file");
        let output = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund"])
            .args(packages)
            .current_dir(&folder)
            .output()
            .expect("npm runs");
        assert!(
            output.status.success(),
            "npm cannot install {all}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::write(&done, "").expect("a file");
    }
    folder
}
