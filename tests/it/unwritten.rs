//! Queries and dry runs write nothing, not even a timestamp.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::Project;

/// All entries of a folder with the metadata that a write changes. `ctime` cannot be set back.
fn everything(root: &Path) -> BTreeMap<String, String> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    let look = |entry: walkdir::DirEntry| {
        let metadata = entry.path().symlink_metadata().unwrap();
        let times = (
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        );
        let seen = format!(
            "{} {:o} {} {times:?}",
            metadata.ino(),
            metadata.mode(),
            metadata.len()
        );
        (entry.path().to_string_lossy().into_owned(), seen)
    };
    entries.map(look).collect()
}

const QUESTIONS: [&str; 17] = [
    "store build --all --dry-run",
    "store build --all --dry-run --json",
    "store build --all --dry-run --force",
    "store build --compose-only --all --dry-run",
    "store run build --all --dry-run",
    "store deploy --all --dry-run",
    "store deploy --all --dry-run --local",
    "cache stats",
    "cache stats --json",
    "store compose --all --check",
    "store list",
    "store why us storefront-unified-nextjs/texts.txt",
    "store diff us eu",
    "store diff us --since HEAD",
    "store changed --since HEAD",
    "store check",
    "store drift",
];

#[test]
fn queries_and_dry_runs_write_nothing() {
    let project = Project::shop();
    let ask = |state: &str| {
        let before = everything(project.root());
        for question in QUESTIONS {
            let run = project.alokai(question);
            assert!(run.code <= 1, "{state}, {question:?}: {}", run.stderr);
            assert_eq!(everything(project.root()), before, "{state}, {question:?}");
        }
    };
    ask("never built");
    project.alokai("store build --all").succeeds();
    let broken = ".alokai/cache/entries/broken.json";
    project.write(broken, b"{ no entry");
    ask("built");
    // The files are removed; the cache still has the results.
    std::fs::remove_dir_all(project.path(".out")).unwrap();
    ask("kept");
    project.alokai("cache gc").succeeds();
    assert!(
        !project.exists(broken),
        "a collection removes the broken entry"
    );
}

#[test]
fn a_run_that_waited_for_the_lock_plans_again() {
    let project = Project::shop();
    let address = |port: u16| format!("CLI_DOCKER_REGISTRY_URL=127.0.0.1:{port}\n");
    project.write(".env", address(1).as_bytes());
    project.alokai("store compose --all").succeeds();
    let texts = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";
    project.write(texts, b"other texts of us\n");
    let lock = std::fs::File::open(project.path(".alokai/lock")).unwrap();
    lock.lock().unwrap();
    let mut run = project.start("store deploy --changed --since HEAD --allow-dirty --until push");
    let mut told = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for another run") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it does not wait");
    }
    // Meanwhile another store changes, and the config names another registry.
    project.write(texts, b"texts of us\n");
    let texts = "apps/stores/fashion/stores/eu/storefront-unified-nextjs/texts.txt";
    project.write(texts, b"other texts of eu\n");
    project.write(".env", address(2).as_bytes());
    drop(lock);
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3), "{rest}");
    assert!(rest.contains("changed since `HEAD`: eu"), "{rest}");
    assert!(rest.contains("127.0.0.1:2"), "{rest}");
    assert!(!rest.contains("127.0.0.1:1"), "{rest}");
}
