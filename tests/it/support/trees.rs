//! Comparing trees of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use alokai::config::DropList;

use super::git;

/// The files and links below a folder, by relative path.
fn files(root: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let entries = walkdir::WalkDir::new(root).into_iter();
    let entries = entries.map(|entry| entry.expect("readable"));
    entries
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| {
            let path = entry.path().strip_prefix(root).expect("below").to_owned();
            (path, entry.into_path())
        })
        .collect()
}

/// The apparent size of all files in bytes. Links are not followed and count as 0.
pub fn bytes_in(root: &Path) -> u64 {
    let sizes = files(root).into_values().map(|file| {
        let metadata = file.symlink_metadata().expect("it is there");
        if metadata.is_file() {
            metadata.len()
        } else {
            0
        }
    });
    sizes.sum()
}

/// A copy of a folder in another place, so that files around the original cannot be found.
pub fn copy_of(folder: &Path) -> (tempfile::TempDir, PathBuf) {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let copy = elsewhere.path().join("app");
    let mut command = Command::new("cp");
    let status = command.arg("-a").arg(folder).arg(&copy).status();
    assert!(status.expect("cp runs").success());
    (elsewhere, copy)
}

/// Copies the files of a folder of this repository that git tracks or would track.
pub fn copy_tracked(from: &Path, to: &Path) {
    let list = [
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ];
    let files = git(from, &list);
    let files = files.split('\0').filter(|file| from.join(file).is_file());
    for file in files {
        let target = to.join(file);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("folders");
        std::fs::copy(from.join(file), target).expect("a copy");
    }
}

/// Fails unless `.deploy` of the Next.js app in `workdir` equals its standalone output with the app
/// at the top, `.next/static` and `public`, without `.env` files and what the default list drops.
/// Returns the number of compared files and of dropped files.
#[track_caller]
pub fn next_is_whole(workdir: &Path) -> (usize, usize) {
    let standalone = workdir.join(".next/standalone");
    let parts: Vec<_> = workdir.components().skip(1).collect();
    let app = (0..=parts.len())
        .map(|start| parts[start..].iter().collect::<PathBuf>())
        .find(|inner| standalone.join(inner).join("server.js").is_file())
        .expect("a standalone output");
    let is_nested = app != Path::new("");
    let mut expected = BTreeMap::new();
    for (path, file) in files(&standalone) {
        if is_nested && path == Path::new("package.json") {
            continue;
        }
        let target = path.strip_prefix(&app).unwrap_or(&path).to_owned();
        expected.insert(target, file);
    }
    for folder in [".next/static", "public"] {
        if workdir.join(folder).is_dir() {
            let found = files(&workdir.join(folder)).into_iter();
            expected.extend(found.map(|(path, file)| (Path::new(folder).join(path), file)));
        }
    }
    let list = DropList::default();
    let deploy = files(&workdir.join(".deploy"));
    let mut dropped = 0;
    for (path, file) in &expected {
        let Some(copy) = deploy.get(path) else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let inner = in_package(path);
            let is_listed = inner.is_some_and(|inner| list.drops(&inner, |_| false));
            assert!(
                is_listed || name.starts_with(".env"),
                "{} is missing and not listed",
                path.display()
            );
            dropped += 1;
            continue;
        };
        let (was, is) = (std::fs::read(file), std::fs::read(copy));
        // Reading a link to a folder fails on both sides; the files in the folder are compared.
        assert!(was.ok() == is.ok(), "{} differs", path.display());
    }
    let more = deploy.keys().find(|path| !expected.contains_key(*path));
    assert!(more.is_none(), "{more:?} comes from nowhere");
    (deploy.len(), dropped)
}

/// The path relative to the innermost package.
fn in_package(path: &Path) -> Option<PathBuf> {
    let text = path.to_str().expect("UTF-8");
    let (before, inner) = text.rsplit_once("node_modules/")?;
    assert!(before.is_empty() || before.ends_with('/'), "{text}");
    let parts = if inner.starts_with('@') { 2 } else { 1 };
    Some(inner.split('/').skip(parts).collect())
}
