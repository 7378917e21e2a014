//! The image's tree while instructions add to it: entries of the base image and added entries.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{BaseTree, FileOwner, TreeContent, TreeEntry};
use virtual_path::PathNode;

/// Links that one path may lead through, as in Docker's builders.
const MOST_LINKS: usize = 255;

/// Entries of the base image and added entries as one tree.
pub(super) struct ImageTree<'a> {
    base: &'a BaseTree,
    added: BTreeMap<String, TreeEntry>,
}

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TreeEntryKind<'a> {
    Folder,
    File,
    Link(&'a str),
}

impl<'a> ImageTree<'a> {
    pub fn new(base: &'a BaseTree) -> Self {
        Self {
            base,
            added: BTreeMap::new(),
        }
    }

    /// The base image's own tree.
    pub fn base(&self) -> &'a BaseTree {
        self.base
    }

    /// Whether an instruction has added this path.
    pub fn has_added(&self, path: &str) -> bool {
        self.added.contains_key(path)
    }

    /// What exists at a path. Files of the base image are not known, so they count as missing.
    pub fn kind(&self, path: &str) -> Option<TreeEntryKind<'_>> {
        if path.is_empty() {
            return Some(TreeEntryKind::Folder);
        }
        if let Some(entry) = self.added.get(path) {
            return Some(match &entry.content {
                TreeContent::Folder => TreeEntryKind::Folder,
                TreeContent::File { .. } => TreeEntryKind::File,
                TreeContent::Link { target } => TreeEntryKind::Link(target),
            });
        }
        if self.base.folders.contains_key(path) {
            return Some(TreeEntryKind::Folder);
        }
        let target = self.base.links.get(path)?;
        Some(TreeEntryKind::Link(target))
    }

    /// The path with its links resolved inside the image.
    pub fn resolve(&self, path: &str) -> Result<String, String> {
        resolve(path, |path| match self.kind(path) {
            Some(TreeEntryKind::Link(target)) => Some(target),
            _ => None,
        })
    }

    /// Adds a folder and its missing parents.
    pub fn make_folders(&mut self, path: &str, owner: FileOwner) -> Result<(), String> {
        let ends = path.match_indices('/').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            let folder = &path[..end];
            match self.kind(folder) {
                Some(TreeEntryKind::Folder) => {}
                Some(_) => return Err(format!("`/{folder}` is not a folder")),
                None => self.put(TreeEntry {
                    path: folder.into(),
                    owner,
                    mode: 0o755,
                    content: TreeContent::Folder,
                })?,
            }
        }
        Ok(())
    }

    /// Adds an entry. It replaces an entry of the same kind; folders are merged.
    pub fn put(&mut self, entry: TreeEntry) -> Result<(), String> {
        let is_folder = entry.content == TreeContent::Folder;
        match self.kind(&entry.path) {
            Some(TreeEntryKind::Folder) if !is_folder => Err(format!(
                "`/{}` is a folder and cannot be replaced by a file",
                entry.path
            )),
            Some(TreeEntryKind::File | TreeEntryKind::Link(_)) if is_folder => Err(format!(
                "`/{}` is not a folder and cannot be replaced by a folder",
                entry.path
            )),
            _ => {
                self.added.insert(entry.path.clone(), entry);
                Ok(())
            }
        }
    }

    /// The entries of the layer, folders before their content. Folders of the base image in which
    /// an entry was added are repeated unchanged.
    pub fn entries(mut self) -> Vec<TreeEntry> {
        let mut parents = BTreeMap::new();
        for path in self.added.keys() {
            for (end, _) in path.match_indices('/') {
                let folder = &path[..end];
                if self.added.contains_key(folder) || parents.contains_key(folder) {
                    continue;
                }
                if let Some(known) = self.base.folders.get(folder) {
                    let entry = TreeEntry {
                        path: folder.into(),
                        owner: known.owner,
                        mode: known.mode,
                        content: TreeContent::Folder,
                    };
                    parents.insert(folder.to_owned(), entry);
                }
            }
        }
        self.added.append(&mut parents);
        self.added.into_values().collect()
    }
}

/// Whether a path is inside a folder.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The path with its links resolved inside a root, without a slash at either end. `..` is removed
/// before links are resolved, and must not leave the root.
pub(super) fn resolve<'a>(
    path: &str,
    link: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let left = parts.pop();
                left.ok_or_else(|| format!("`{path}` is outside of its root"))?;
            }
            part => parts.push(part),
        }
    }
    let clean = Path::new("/").join(parts.join("/"));
    let look = |place: &Path| {
        let place = place.to_str().unwrap_or_default().trim_start_matches('/');
        Ok(link(place).map_or(PathNode::Folder, |target| PathNode::Link(target.into())))
    };
    let resolved = virtual_path::resolve(&clean, MOST_LINKS, look)
        .map_err(|_| format!("`{path}` leads through too many links"))?;
    let resolved = resolved.to_str().unwrap_or_default();
    Ok(resolved.trim_start_matches('/').to_owned())
}
