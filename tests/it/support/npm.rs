//! Programs from npm that tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

use oci::Digest;

use super::{copy_tracked, output_of};

/// The registry that the lock file of `fixtures/starter` names.
const PRIVATE_REGISTRY: &str = "https://npm.registry.example.com";

/// The folder in which packages (`<name>@<version>`) are installed, once for all test processes.
pub fn installed(packages: &[&str]) -> PathBuf {
    let all = packages.join(" ");
    let name = format!("npm-{}", &Digest::of(all.as_bytes()).hex()[..12]);
    once(&name, |folder| {
        std::fs::write(folder.join("package.json"), r#"{ "private": true }"#).expect("a file");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund"]);
        output_of(npm.args(packages).current_dir(folder));
    })
}

/// A copy of `fixtures/starter` in which yarn 1 has installed the dependencies, and the folder of
/// the command `yarn`. The packages come from npm's registry instead of the private registry that
/// the lock file names, and are installed once for all test processes.
pub fn starter_dependencies() -> (PathBuf, PathBuf) {
    let yarn = installed(&["yarn@1.22.22"]).join("node_modules/.bin");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/starter");
    let lock = std::fs::read_to_string(fixture.join("yarn.lock")).expect("a lock file");
    let name = format!("starter-{}", &Digest::of(lock.as_bytes()).hex()[..12]);
    let folder = once(&name, |folder| {
        copy_tracked(&fixture, folder);
        let registry = output_of(Command::new("npm").args(["config", "get", "registry"]));
        let registry = registry.trim().trim_end_matches('/');
        std::fs::remove_file(folder.join(".npmrc")).expect("it is there");
        let lock = lock.replace(PRIVATE_REGISTRY, registry);
        std::fs::write(folder.join("yarn.lock"), lock).expect("a lock file");
        let mut install = Command::new(yarn.join("yarn"));
        install.args(["install", "--frozen-lockfile", "--non-interactive"]);
        install.args(["--registry", registry]);
        output_of(install.current_dir(folder));
    });
    (folder, yarn)
}

/// A folder for all test processes, which the first of them fills.
fn once(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let done = folder.join("installed");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = std::fs::File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("a lock");
    if !done.exists() {
        fill(&folder);
        std::fs::write(&done, "").expect("a file");
    }
    folder
}
