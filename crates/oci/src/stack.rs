//! Stacks layers: the folders and links that are left after all whiteouts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::path::Path;

use tar::EntryType;

use super::base::FolderAttributes;
use super::members::{TarMember, TarReader};
use virtual_path::{MOST_LINKS, PathNode, normalize};

/// Largest `etc/passwd` or `etc/group` that is read, in bytes.
const ACCOUNTS: u64 = 1 << 20;

/// Limit for the bytes of all paths in memory. An image with 100,000 folders has about 6 MB.
const MOST_STORED: usize = 64 << 20;

/// Prefix of the name of a whiteout.
const WHITEOUT: &str = ".wh.";

/// Name of the whiteout that removes everything of lower layers in its folder.
const OPAQUE: &str = ".wh..wh..opq";

/// The tree of the lower layers and the tree of the current layer. They are merged at the end of the
/// current layer: its whiteouts apply to lower layers only, wherever they are in the layer.
#[derive(Default)]
pub(super) struct LayerStack {
    lower: LayerTree,
    upper: LayerTree,
    /// Paths that are removed from the lower layers with their content.
    hidden: BTreeSet<String>,
    /// Folders whose content is removed from the lower layers.
    opaque: BTreeSet<String>,
    /// The folder of the last member: as written, and with links resolved.
    last: Option<(String, String)>,
    /// Bytes of all paths in memory.
    stored: usize,
}

#[derive(Default)]
struct LayerTree {
    /// A folder without attributes is the parent of a member, and has no member itself.
    folders: BTreeMap<String, Option<FolderAttributes>>,
    links: BTreeMap<String, String>,
    /// Files in folders of programs.
    programs: BTreeSet<String>,
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

/// The tree of all layers.
pub(super) struct StackedTree {
    pub folders: BTreeMap<String, FolderAttributes>,
    pub links: BTreeMap<String, String>,
    pub programs: BTreeSet<String>,
    /// The content of `etc/passwd`.
    pub passwd: Vec<u8>,
    /// The content of `etc/group`.
    pub group: Vec<u8>,
}

impl LayerStack {
    /// Adds the next member of the current layer.
    pub fn add(
        &mut self,
        member: TarMember,
        members: &mut TarReader<impl BufRead>,
    ) -> io::Result<()> {
        let TarMember {
            path,
            target,
            kind,
            folder: attributes,
        } = member;
        let path = normal(&path);
        if path.is_empty() {
            return Ok(());
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        // An engine cannot unpack to a path with a link loop.
        let Some(folder) = self.folder(folder)? else {
            return Ok(());
        };
        if name == OPAQUE {
            return self.store(folder, |stack, folder| stack.opaque.insert(folder));
        }
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            // Names such as `.wh..wh.plnk` are metadata of aufs.
            let is_whiteout = !removed.is_empty() && !removed.starts_with(WHITEOUT);
            let removed = join(&folder, removed);
            if is_whiteout && self.lower.has(&removed) {
                self.last = None;
                return self.store(removed, |stack, removed| stack.hidden.insert(removed));
            }
            return Ok(());
        }
        let path = join(&folder, name);
        if kind == EntryType::Directory {
            self.upper.programs.remove(&path);
            if self.upper.links.remove(&path).is_some() || self.lower.links.contains_key(&path) {
                self.last = None;
            }
            return self.store(path, |stack, path| {
                stack.upper.folders.insert(path, Some(attributes)).is_none()
            });
        }
        if self.upper.has(&path) {
            self.last = None;
            self.upper.remove(&path);
        }
        if self.lower.has(&path) {
            self.last = None;
            self.store(path.clone(), |stack, path| stack.hidden.insert(path))?;
        }
        match kind {
            EntryType::Symlink => {
                self.count(target.len())?;
                self.last = None;
                self.store(path, |stack, path| {
                    stack.upper.links.insert(path, target).is_none()
                })
            }
            EntryType::Regular | EntryType::Continuous => {
                match path.as_str() {
                    "etc/passwd" => self.upper.passwd = Some(members.content(ACCOUNTS)?),
                    "etc/group" => self.upper.group = Some(members.content(ACCOUNTS)?),
                    _ => {}
                }
                self.add_program(path)
            }
            // A hard link to another file.
            EntryType::Link => self.add_program(path),
            _ => Ok(()),
        }
    }

    /// Adds a file of the current layer if it lies in a folder of programs.
    fn add_program(&mut self, path: String) -> io::Result<()> {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_program = matches!(folder.rsplit('/').next(), Some("bin" | "sbin"));
        if !is_program {
            return Ok(());
        }
        self.store(path, |stack, path| stack.upper.programs.insert(path))
    }

    /// Merges the current layer with the lower layers.
    pub fn end_layer(&mut self) {
        for path in std::mem::take(&mut self.hidden) {
            self.lower.remove(&path);
        }
        for path in std::mem::take(&mut self.opaque) {
            self.lower.clear(&path);
        }
        let upper = std::mem::take(&mut self.upper);
        for (path, attributes) in upper.folders {
            self.lower.links.remove(&path);
            self.lower.programs.remove(&path);
            match attributes {
                Some(_) => drop(self.lower.folders.insert(path, attributes)),
                None => drop(self.lower.make(path)),
            }
        }
        for (path, target) in upper.links {
            self.lower.remove(&path);
            self.lower.links.insert(path, target);
        }
        self.lower.programs.extend(upper.programs);
        self.lower.passwd = upper.passwd.or(self.lower.passwd.take());
        self.lower.group = upper.group.or(self.lower.group.take());
        self.last = None;
        let links = self.lower.links.iter();
        let links: usize = links.map(|(path, target)| path.len() + target.len()).sum();
        let folders = self.lower.folders.keys().map(String::len);
        let programs = self.lower.programs.iter().map(String::len);
        self.stored = links + folders.sum::<usize>() + programs.sum::<usize>();
    }

    /// The tree of all layers.
    pub fn end(self) -> StackedTree {
        let lower = self.lower;
        let folders = lower.folders.into_iter();
        StackedTree {
            folders: folders
                .map(|(path, attributes)| (path, attributes.unwrap_or_default()))
                .collect(),
            links: lower.links,
            programs: lower.programs,
            passwd: lower.passwd.unwrap_or_default(),
            group: lower.group.unwrap_or_default(),
        }
    }

    /// Resolves the links of a member's folder and creates missing folders, as an engine does.
    /// `None` for a link loop.
    fn folder(&mut self, written: &str) -> io::Result<Option<String>> {
        if let Some((last, folder)) = &self.last
            && last == written
        {
            return Ok(Some(folder.clone()));
        }
        let Some(folder) = self.follow(written) else {
            return Ok(None);
        };
        for (end, _) in folder.match_indices('/') {
            let above = folder[..end].to_owned();
            self.store(above, |stack, above| stack.upper.make(above))?;
        }
        if !folder.is_empty() {
            let own = folder.clone();
            self.store(own, |stack, own| stack.upper.make(own))?;
        }
        self.last = Some((written.to_owned(), folder.clone()));
        Ok(Some(folder))
    }

    fn follow(&self, path: &str) -> Option<String> {
        let look = |place: &Path| {
            let place = place.to_str().unwrap_or_default().trim_start_matches('/');
            let target = self.link(place);
            Ok(target.map_or(PathNode::Folder, |target| PathNode::Link(target.into())))
        };
        let found = virtual_path::resolve(&Path::new("/").join(path), MOST_LINKS, look).ok()?;
        Some(found.to_str()?.trim_start_matches('/').to_owned())
    }

    fn link(&self, path: &str) -> Option<&str> {
        if let Some(target) = self.upper.links.get(path) {
            return Some(target);
        }
        let target = self.lower.links.get(path)?;
        let is_hidden = self.upper.folders.contains_key(path)
            || self.hidden.contains(path)
            || path.match_indices('/').any(|(end, _)| {
                self.hidden.contains(&path[..end]) || self.opaque.contains(&path[..end])
            });
        (!is_hidden).then_some(target)
    }

    /// Stores a path. `insert` returns whether the path is new.
    fn store(
        &mut self,
        path: String,
        insert: impl FnOnce(&mut Self, String) -> bool,
    ) -> io::Result<()> {
        let length = path.len();
        if insert(self, path) {
            self.count(length)?;
        }
        Ok(())
    }

    fn count(&mut self, length: usize) -> io::Result<()> {
        self.stored += length;
        if self.stored > MOST_STORED {
            let what = "the paths of its folders and links are too long together";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

impl LayerTree {
    /// Creates a missing folder. Returns whether the folder was missing.
    fn make(&mut self, path: String) -> bool {
        let is_new = !self.folders.contains_key(&path);
        if is_new {
            self.folders.insert(path, None);
        }
        is_new
    }

    fn has(&self, path: &str) -> bool {
        self.folders.contains_key(path)
            || self.links.contains_key(path)
            || self.programs.contains(path)
            || (path == "etc/passwd" && self.passwd.is_some())
            || (path == "etc/group" && self.group.is_some())
    }

    /// Removes a path and its content.
    fn remove(&mut self, path: &str) {
        self.folders.remove(path);
        self.links.remove(path);
        self.programs.remove(path);
        if path == "etc/passwd" {
            self.passwd = None;
        }
        if path == "etc/group" {
            self.group = None;
        }
        self.clear(path);
    }

    /// Removes the content of a folder.
    fn clear(&mut self, folder: &str) {
        if folder.is_empty() {
            *self = Self::default();
            return;
        }
        if folder == "etc" {
            (self.passwd, self.group) = (None, None);
        }
        // All paths between `a/` and `a0`; `0` is the character after `/`.
        let inside = format!("{folder}/")..format!("{folder}0");
        let folders = self.folders.range(inside.clone()).map(|(path, _)| path);
        for path in folders.cloned().collect::<Vec<_>>() {
            self.folders.remove(&path);
        }
        let links = self.links.range(inside.clone()).map(|(path, _)| path);
        for path in links.cloned().collect::<Vec<_>>() {
            self.links.remove(&path);
        }
        let programs = self.programs.range(inside);
        for path in programs.cloned().collect::<Vec<_>>() {
            self.programs.remove(&path);
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// A path relative to the root. `..` of the root is the root.
fn normal(path: &str) -> String {
    let path = normalize(&Path::new("/").join(path.trim_start_matches('/')));
    path.to_string_lossy().trim_start_matches('/').to_owned()
}
