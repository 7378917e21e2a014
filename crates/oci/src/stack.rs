//! Layers on top of each other: which folders and links remain.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};
use std::path::Path;

use tar::EntryType;

use super::base::FolderAttributes;
use super::members::{TarMember, TarReader};
use virtual_path::{self as path, MOST_LINKS, PathNode};

/// Bytes of the largest `etc/passwd` or `etc/group` that is read.
const ACCOUNTS: u64 = 1 << 20;

/// Bytes of all paths that are remembered. An image of 100,000 folders has some 6 MB.
const REMEMBERED: usize = 64 << 20;

/// How the name of a whiteout begins.
const WHITEOUT: &str = ".wh.";

/// The whiteout of everything that lower layers have in its folder.
const OPAQUE: &str = ".wh..wh..opq";

/// What layers that were read have, and what the one has that is being read. The two are apart
/// until its end, since its whiteouts are about what lies below it, whatever their place in it.
#[derive(Default)]
pub(super) struct LayerStack {
    lower: LayerTree,
    upper: LayerTree,
    /// Removed from below with everything in them.
    hidden: BTreeSet<String>,
    /// Folders of which everything below is removed.
    opaque: BTreeSet<String>,
    /// The folder of the last member, as it is written there and as it is.
    last: Option<(String, String)>,
    /// Bytes of all paths.
    remembered: usize,
}

#[derive(Default)]
struct LayerTree {
    /// Those without attributes were made, since something lies in them.
    folders: BTreeMap<String, Option<FolderAttributes>>,
    links: BTreeMap<String, String>,
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

/// What all layers together have.
pub(super) struct StackedTree {
    pub folders: BTreeMap<String, FolderAttributes>,
    pub links: BTreeMap<String, String>,
    /// The content of `etc/passwd`.
    pub passwd: Vec<u8>,
    /// The content of `etc/group`.
    pub group: Vec<u8>,
}

impl LayerStack {
    /// Takes the next member of the present layer.
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
        // A path that leads in circles is one that nothing could be unpacked to.
        let Some(folder) = self.folder(folder)? else {
            return Ok(());
        };
        if name == OPAQUE {
            return self.note(folder, |stack, folder| stack.opaque.insert(folder));
        }
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            // Names such as `.wh..wh.plnk` are a file system's own notes.
            let is_one = !removed.is_empty() && !removed.starts_with(WHITEOUT);
            let removed = join(&folder, removed);
            if is_one && self.lower.has(&removed) {
                self.last = None;
                return self.note(removed, |stack, removed| stack.hidden.insert(removed));
            }
            return Ok(());
        }
        let path = join(&folder, name);
        if kind == EntryType::Directory {
            if self.upper.links.remove(&path).is_some() || self.lower.links.contains_key(&path) {
                self.last = None;
            }
            return self.note(path, |stack, path| {
                stack.upper.folders.insert(path, Some(attributes)).is_none()
            });
        }
        if self.upper.has(&path) {
            self.last = None;
            self.upper.remove(&path);
        }
        if self.lower.has(&path) {
            self.last = None;
            self.note(path.clone(), |stack, path| stack.hidden.insert(path))?;
        }
        match kind {
            EntryType::Symlink => {
                self.remember(target.len())?;
                self.last = None;
                self.note(path, |stack, path| {
                    stack.upper.links.insert(path, target).is_none()
                })
            }
            EntryType::Regular | EntryType::Continuous => {
                match path.as_str() {
                    "etc/passwd" => self.upper.passwd = Some(members.content(ACCOUNTS)?),
                    "etc/group" => self.upper.group = Some(members.content(ACCOUNTS)?),
                    _ => {}
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts the present layer onto those below it.
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
            match attributes {
                Some(_) => drop(self.lower.folders.insert(path, attributes)),
                None => drop(self.lower.make(path)),
            }
        }
        for (path, target) in upper.links {
            self.lower.remove(&path);
            self.lower.links.insert(path, target);
        }
        self.lower.passwd = upper.passwd.or(self.lower.passwd.take());
        self.lower.group = upper.group.or(self.lower.group.take());
        self.last = None;
        let links = self.lower.links.iter();
        let links: usize = links.map(|(path, target)| path.len() + target.len()).sum();
        self.remembered = links + self.lower.folders.keys().map(String::len).sum::<usize>();
    }

    /// What remains.
    pub fn end(self) -> StackedTree {
        let lower = self.lower;
        let folders = lower.folders.into_iter();
        StackedTree {
            folders: folders
                .map(|(path, attributes)| (path, attributes.unwrap_or_default()))
                .collect(),
            links: lower.links,
            passwd: lower.passwd.unwrap_or_default(),
            group: lower.group.unwrap_or_default(),
        }
    }

    /// The folder that a member is put into: links are followed, and what no layer names is
    /// made, as an engine does both. Nothing if links lead in circles.
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
            self.note(above, |stack, above| stack.upper.make(above))?;
        }
        if !folder.is_empty() {
            let own = folder.clone();
            self.note(own, |stack, own| stack.upper.make(own))?;
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
        let found = path::resolve(&Path::new("/").join(path), MOST_LINKS, look).ok()?;
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

    /// Remembers a path; `insert` says whether it is new.
    fn note(
        &mut self,
        path: String,
        insert: impl FnOnce(&mut Self, String) -> bool,
    ) -> io::Result<()> {
        let length = path.len();
        if insert(self, path) {
            self.remember(length)?;
        }
        Ok(())
    }

    fn remember(&mut self, length: usize) -> io::Result<()> {
        self.remembered += length;
        if self.remembered > REMEMBERED {
            let what = "its folders and links have more names than any image should";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }
}

impl LayerTree {
    /// Makes a folder that is not there; says whether it was not.
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
            || (path == "etc/passwd" && self.passwd.is_some())
            || (path == "etc/group" && self.group.is_some())
    }

    /// Removes a path and what is in it.
    fn remove(&mut self, path: &str) {
        self.folders.remove(path);
        self.links.remove(path);
        if path == "etc/passwd" {
            self.passwd = None;
        }
        if path == "etc/group" {
            self.group = None;
        }
        self.clear(path);
    }

    /// Removes what is in a folder.
    fn clear(&mut self, folder: &str) {
        if folder.is_empty() {
            *self = Self::default();
            return;
        }
        if folder == "etc" {
            (self.passwd, self.group) = (None, None);
        }
        // Everything between `a/` and `a0`, the byte after the slash.
        let inside = format!("{folder}/")..format!("{folder}0");
        let folders = self.folders.range(inside.clone()).map(|(path, _)| path);
        for path in folders.cloned().collect::<Vec<_>>() {
            self.folders.remove(&path);
        }
        let links = self.links.range(inside).map(|(path, _)| path);
        for path in links.cloned().collect::<Vec<_>>() {
            self.links.remove(&path);
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

/// A path as seen from the root, above which there is nothing.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
