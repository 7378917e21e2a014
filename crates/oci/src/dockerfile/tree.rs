//! The image's tree while steps are laid on it: the base's, and what was added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{BaseTree, FileOwner, TreeContent, TreeEntry};
use virtual_path::{self as path, PathNode};

/// How many links a path may lead over, as the engine has it.
const MOST_LINKS: usize = 255;

/// Base and added entries as one.
pub(super) struct ImageTree<'a> {
    base: &'a BaseTree,
    added: BTreeMap<String, TreeEntry>,
    /// Folders of the base that something else has replaced, with all below them.
    hidden: BTreeSet<String>,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TreeEntryKind<'a> {
    Folder,
    File,
    Link(&'a str),
}

/// Why something cannot be put somewhere.
#[derive(Debug)]
pub(super) enum PathConflict {
    /// Docker cannot either.
    Vain(String),
    /// Docker can.
    Docker(String),
}

impl<'a> ImageTree<'a> {
    pub fn new(base: &'a BaseTree) -> Self {
        Self {
            base,
            added: BTreeMap::new(),
            hidden: BTreeSet::new(),
        }
    }

    /// The base image's own.
    pub fn base(&self) -> &'a BaseTree {
        self.base
    }

    /// Whether a step has put something there.
    pub fn has_added(&self, path: &str) -> bool {
        self.added.contains_key(path)
    }

    /// What lies there. Files of the base are not known, and nothing to this.
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
        if self.is_hidden(path) {
            None
        } else if self.base.folders.contains_key(path) {
            Some(TreeEntryKind::Folder)
        } else {
            self.base
                .links
                .get(path)
                .map(|target| TreeEntryKind::Link(target))
        }
    }

    fn is_hidden(&self, path: &str) -> bool {
        let is_above = |folder: &String| below(path, folder);
        self.hidden.contains(path) || self.hidden.iter().any(is_above)
    }

    /// Where a path leads when its links are followed, none of them out of the image.
    pub fn resolve(&self, path: &str) -> Result<String, PathConflict> {
        let link = |path: &str| match self.kind(path) {
            Some(TreeEntryKind::Link(target)) => Some(target),
            _ => None,
        };
        resolve(path, link).map_err(PathConflict::Vain)
    }

    /// Makes a folder and the ones above it, as far as they are missing.
    pub fn make_folders(&mut self, path: &str, owner: FileOwner) -> Result<(), PathConflict> {
        let ends = path.match_indices('/').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            let folder = &path[..end];
            match self.kind(folder) {
                Some(TreeEntryKind::Folder) => {}
                Some(_) => {
                    let problem = format!("`/{folder}` is in the way, which is no folder");
                    return Err(PathConflict::Vain(problem));
                }
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

    /// Puts an entry where the one before it gives way: as when a tar is unpacked, only folders
    /// are merged.
    pub fn put(&mut self, entry: TreeEntry) -> Result<(), PathConflict> {
        let path = entry.path.as_str();
        if entry.content != TreeContent::Folder {
            if self.kind(path) == Some(TreeEntryKind::Folder) {
                self.added.retain(|other, _| !below(other, path));
                if self.base.folders.contains_key(path) {
                    self.hidden.insert(path.into());
                }
            }
        } else if self.hidden.contains(path) {
            let why = format!("`/{path}` was a folder, then something else, and is a folder again");
            return Err(PathConflict::Docker(why));
        }
        self.added.insert(entry.path.clone(), entry);
        Ok(())
    }

    /// All that is to go into the layer, folders before what is in them. Folders of the base
    /// that something was put into are among it, as they were.
    pub fn entries(mut self) -> Vec<TreeEntry> {
        let mut around = BTreeMap::new();
        for path in self.added.keys() {
            for (end, _) in path.match_indices('/') {
                let folder = &path[..end];
                if self.added.contains_key(folder) || around.contains_key(folder) {
                    continue;
                }
                if let Some(known) = self.base.folders.get(folder) {
                    let entry = TreeEntry {
                        path: folder.into(),
                        owner: known.owner,
                        mode: known.mode,
                        content: TreeContent::Folder,
                    };
                    around.insert(folder.to_owned(), entry);
                }
            }
        }
        self.added.append(&mut around);
        self.added.into_values().collect()
    }
}

/// Whether a path lies below a folder.
pub(super) fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Where a path leads below a root that it does not leave, without a slash at either end.
pub(super) fn resolve<'a>(
    path: &str,
    link: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    // `..` in the path itself is taken out before links are looked at, and may not lead out.
    let mut rest: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if rest.pop().is_none() {
                    return Err(format!("`{path}` leads out of its root"));
                }
            }
            part => rest.push(part),
        }
    }
    let clean = Path::new("/").join(rest.join("/"));
    let look = |place: &Path| {
        let place = place.to_str().unwrap_or_default().trim_start_matches('/');
        Ok(link(place).map_or(PathNode::Folder, |target| PathNode::Link(target.into())))
    };
    let resolved = path::resolve(&clean, MOST_LINKS, look)
        .map_err(|_| format!("`{path}` leads over too many links"))?;
    let resolved = resolved.to_str().unwrap_or_default();
    Ok(resolved.trim_start_matches('/').to_owned())
}
