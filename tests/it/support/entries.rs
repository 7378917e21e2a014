//! Entries of a layer, and other tools that read them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use oci::{Digest, FileOwner, TreeContent, TreeEntry};
use tempfile::TempDir;

use super::output_of;

pub const TIME: i64 = 1_700_000_000;

pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn entry(path: &str, content: TreeContent) -> TreeEntry {
    let mode = match content {
        TreeContent::Folder => 0o755,
        TreeContent::File { .. } => 0o644,
        TreeContent::Link { .. } => 0o777,
    };
    TreeEntry {
        path: path.into(),
        owner: FileOwner {
            user: 1000,
            group: 1001,
        },
        mode,
        content,
    }
}

pub fn link(path: &str, target: &str) -> TreeEntry {
    let target = target.into();
    entry(path, TreeContent::Link { target })
}

/// Writes a file into `sources` and returns its entry for `path` in the image.
pub fn file(sources: &Path, path: &str, content: &[u8]) -> TreeEntry {
    let from = sources.join(Digest::of(path.as_bytes()).hex());
    std::fs::write(&from, content).expect("it is ours");
    let bytes = content.len() as u64;
    entry(path, TreeContent::File { from, bytes })
}

/// Content of this length that is not constant.
pub fn text(length: usize) -> Vec<u8> {
    (0_u64..)
        .flat_map(|number| (number * number).to_string().into_bytes())
        .take(length)
        .collect()
}

/// A small tree with everything that is difficult in a tar.
pub fn hard(sources: &Path) -> Vec<TreeEntry> {
    let long = "n".repeat(99);
    let mut entries = vec![
        entry("app", TreeContent::Folder),
        file(sources, "app/server.js", &text(3_000_000)),
        file(sources, "app/empty", b""),
        file(sources, "app/one", b"1"),
        file(sources, "app/Ünïcode – 商店.txt", "ä".as_bytes()),
        file(sources, "app/[slug] 'x' \"y\" \\z", b"brackets"),
        file(sources, &format!("app/{}", "m".repeat(200)), b"long name"),
        link("app/link", "../app/server.js"),
        link("app/far", &format!("{long}/{long}/{long}")),
    ];
    let mut deep = "app".to_owned();
    for _ in 0..4 {
        deep = format!("{deep}/{long}");
        entries.push(entry(&deep, TreeContent::Folder));
    }
    entries.push(file(sources, &format!("{deep}/deep"), b"deep"));
    entries.push(file(
        sources,
        &format!("app/{long}/{}", "e".repeat(100)),
        b"x",
    ));
    let mut tool = file(sources, "app/tool", b"#!/bin/sh\necho run\n");
    tool.mode = 0o4755;
    tool.owner = FileOwner {
        user: 3_000_000,
        group: 0,
    };
    entries.push(tool);
    entries
}

/// The output of a program that has to succeed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    output_of(Command::new(program).args(arguments))
}

/// Whether a program is installed. Fails without it if `ALOKAI_REQUIRE_DOCKER=1`.
pub fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    let required = std::env::var("ALOKAI_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
    assert!(
        found || !required,
        "ALOKAI_REQUIRE_DOCKER=1, and there is no {program}"
    );
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// Fails unless a folder contains these entries.
#[track_caller]
pub fn same(entries: &[TreeEntry], root: &Path) {
    for entry in entries {
        let path = root.join(&entry.path);
        let metadata = path.symlink_metadata().expect(&entry.path);
        match &entry.content {
            TreeContent::Folder => assert!(metadata.is_dir(), "{}", entry.path),
            TreeContent::File { from, .. } => {
                let (is, was) = (std::fs::read(&path), std::fs::read(from));
                assert!(is.expect("there") == was.expect("there"), "{}", entry.path);
                assert_eq!(metadata.mode() & 0o7777, entry.mode, "{}", entry.path);
                assert_eq!(metadata.mtime(), TIME, "{}", entry.path);
            }
            TreeContent::Link { target } => {
                let is = std::fs::read_link(&path).expect("a link");
                assert_eq!(is, Path::new(target), "{}", entry.path);
            }
        }
    }
}
