//! Tests of single rules. `tests/it/dockerfile.rs` compares the results with Docker's builders.

mod applied;
mod random;
mod refused;
mod words;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{BuildContext, Error, ImageChanges, read};
use crate::{BaseTree, FileOwner, FolderAttributes, TreeContent};

const NODE: FileOwner = FileOwner {
    user: 1000,
    group: 1000,
};

/// A tree similar to that of `node:22`.
fn tree() -> BaseTree {
    let folder = |owner, mode| FolderAttributes { owner, mode };
    let root = FileOwner::default();
    let mut tree = BaseTree::default();
    tree.users.insert("node".into(), NODE);
    tree.users.insert(
        "guest".into(),
        FileOwner {
            user: 405,
            group: 100,
        },
    );
    tree.groups.insert("node".into(), 1000);
    tree.groups.insert("users".into(), 100);
    for (path, folder) in [
        ("var", folder(root, 0o755)),
        ("tmp", folder(root, 0o1777)),
        ("home", folder(root, 0o755)),
        ("home/node", folder(NODE, 0o755)),
        ("usr", folder(root, 0o755)),
        ("usr/bin", folder(root, 0o755)),
    ] {
        tree.folders.insert(path.into(), folder);
    }
    tree.links.insert("bin".into(), "usr/bin".into());
    tree.links.insert("var/tmp".into(), "/tmp".into());
    tree
}

fn base() -> Value {
    json!({
        "architecture": "amd64",
        "config": {
            "Env": ["PATH=/bin", "NODE_VERSION=22"],
            "Cmd": ["node"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Unheard": 1
        },
        "rootfs": { "type": "layers", "diff_ids": [] }
    })
}

/// A folder with these files. A name that ends in `*` is executable, `a -> b` is a link.
fn context(files: &[&str], dockerignore: &str) -> (tempfile::TempDir, BuildContext) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mut listed = Vec::new();
    for file in files {
        let (name, target) = match file.split_once(" -> ") {
            Some((name, target)) => (name, Some(target)),
            None => (*file, None),
        };
        let path = folder.path().join(name.trim_end_matches('*'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = target {
            std::os::unix::fs::symlink(target, &path).unwrap();
        } else {
            std::fs::write(&path, name).unwrap();
            let mode = if name.ends_with('*') { 0o700 } else { 0o600 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        listed.push((PathBuf::from(name.trim_end_matches('*')), path));
    }
    let context = BuildContext::new(folder.path(), listed, Some(dockerignore)).unwrap();
    (folder, context)
}

fn apply(text: &str, files: &[&str]) -> Result<ImageChanges, Error> {
    let (_folder, context) = context(files, "");
    read(text)?.apply(&base(), &tree(), &context)
}

/// Entries as `path`, kind or source, mode and owner.
fn laid(applied: &ImageChanges) -> Vec<String> {
    let entries = applied.entries.iter().map(|entry| {
        let content = match &entry.content {
            TreeContent::Folder => "/".to_owned(),
            TreeContent::Link { target } => format!(" -> {target}"),
            TreeContent::File { from, .. } => {
                format!(
                    " = {}",
                    std::fs::read_to_string(from).unwrap_or_else(|_| name(from))
                )
            }
        };
        format!(
            "{}{content} {:o} {}",
            entry.path, entry.mode, entry.owner.user
        )
    });
    entries.collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
