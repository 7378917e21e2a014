//! Programs from npm that tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use oci::Digest;

use super::output_of;

/// The folder in which packages (`<name>@<version>`) are installed, once for all test processes.
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
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund"]);
        output_of(npm.args(packages).current_dir(&folder));
        std::fs::write(&done, "").expect("a file");
    }
    folder
}
