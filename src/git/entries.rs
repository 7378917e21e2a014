//! Reading tree objects as git stores them: a sequence of `<mode> <name>\0<id>`.
//!
//! libgit2 parses a whole tree to find one name in it, and copies the entry. In consecutive commits
//! nearly all entries of a tree are the same; here only the entries that differ are parsed.

use std::cmp::Ordering;

use git2::Oid;

/// Length of an id in bytes.
const ID: usize = 20;

/// An entry of a tree object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawEntry {
    pub(super) id: Oid,
    kind: RawEntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RawEntryKind {
    Folder,
    Link,
    Plain,
    Executable,
    /// A submodule. Its files are in another repository.
    Module,
}

impl RawEntry {
    /// The entry of a folder with this tree.
    pub(super) fn of_folder(id: Oid) -> Self {
        let kind = RawEntryKind::Folder;
        Self { id, kind }
    }

    /// The tree's id, if the entry is a folder.
    pub(super) fn folder(item: Option<Self>) -> Option<Oid> {
        item.filter(|it| it.kind == RawEntryKind::Folder)
            .map(|it| it.id)
    }

    /// The entry, if it is a file or a link.
    pub(super) fn file(item: Option<Self>) -> Option<Self> {
        item.filter(|it| !matches!(it.kind, RawEntryKind::Folder | RawEntryKind::Module))
    }
}

/// The entries of a tree object, in git's order. They end at a malformed entry, which `git fsck`
/// reports.
pub(super) struct RawEntries<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for RawEntries<'a> {
    type Item = (&'a [u8], RawEntry);

    fn next(&mut self) -> Option<Self::Item> {
        let space = self.0.iter().position(|byte| *byte == b' ')?;
        let (mode, rest) = (&self.0[..space], &self.0[space + 1..]);
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let id = Oid::from_bytes(rest.get(..ID)?).ok()?;
        self.0 = &rest[ID..];
        let mode = mode
            .iter()
            .fold(0, |mode, digit| mode << 3 | u32::from(digit & 7));
        let kind = match mode & 0o170_000 {
            0o040_000 => RawEntryKind::Folder,
            0o120_000 => RawEntryKind::Link,
            0o160_000 => RawEntryKind::Module,
            _ if mode & 0o100 != 0 => RawEntryKind::Executable,
            _ => RawEntryKind::Plain,
        };
        Some((name, RawEntry { id, kind }))
    }
}

/// The names whose entries differ between two trees, with the entry in each tree. A name that is a
/// folder in one tree and a file in the other is returned twice.
pub(super) struct RawChanges<'a> {
    old: RawEntries<'a>,
    new: RawEntries<'a>,
    /// The next entry of each tree.
    was: Option<(&'a [u8], RawEntry)>,
    is: Option<(&'a [u8], RawEntry)>,
}

impl<'a> RawChanges<'a> {
    pub(super) fn between(old: &'a [u8], new: &'a [u8]) -> Self {
        let (mut old, mut new) = (RawEntries(old), RawEntries(new));
        let (was, is) = (old.next(), new.next());
        Self { old, new, was, is }
    }
}

impl<'a> Iterator for RawChanges<'a> {
    type Item = (&'a [u8], Option<RawEntry>, Option<RawEntry>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (&self.was, &self.is) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(was), Some(is)) => compare(was, is),
            };
            let was = if order.is_le() {
                std::mem::replace(&mut self.was, self.old.next())
            } else {
                None
            };
            let is = if order.is_ge() {
                std::mem::replace(&mut self.is, self.new.next())
            } else {
                None
            };
            let item = |entry: Option<(&[u8], RawEntry)>| entry.map(|(_, item)| item);
            if item(was) != item(is) {
                let (name, _) = was.or(is)?;
                return Some((name, item(was), item(is)));
            }
        }
    }
}

/// Git's order of entries: by name, where a folder's name ends in a slash.
fn compare(one: &(&[u8], RawEntry), other: &(&[u8], RawEntry)) -> Ordering {
    let common = one.0.len().min(other.0.len());
    let next = |(name, item): &(&[u8], RawEntry)| match name.get(common) {
        Some(byte) => *byte,
        None if item.kind == RawEntryKind::Folder => b'/',
        None => 0,
    };
    let begin = one.0[..common].cmp(&other.0[..common]);
    begin.then_with(|| next(one).cmp(&next(other)))
}
