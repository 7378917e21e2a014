//! Tree objects as git stores them: `<mode> <name>\0<id>`, again and again.
//!
//! The library parses a whole tree before it can be asked for one name, and copies what it then
//! finds. In neighbouring commits nearly all entries of a tree are the same, and only the others
//! are looked at here.

use std::cmp::Ordering;

use git2::Oid;

/// Bytes of an id.
const ID: usize = 20;

/// What a tree has under a name.
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
    /// A submodule, whose files are in another repository.
    Module,
}

impl RawEntry {
    pub(super) fn of_folder(id: Oid) -> Self {
        let kind = RawEntryKind::Folder;
        Self { id, kind }
    }

    /// The folder that it is, if it is one.
    pub(super) fn folder(item: Option<Self>) -> Option<Oid> {
        item.filter(|it| it.kind == RawEntryKind::Folder)
            .map(|it| it.id)
    }

    /// The file or link that it is, if it is one.
    pub(super) fn file(item: Option<Self>) -> Option<Self> {
        item.filter(|it| !matches!(it.kind, RawEntryKind::Folder | RawEntryKind::Module))
    }
}

/// The entries of a tree in git's order. What is not well formed ends them, as `git fsck` tells.
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

/// Names whose entries differ between two trees, with what each tree has there. A name that is a
/// folder in one and a file in the other comes twice.
pub(super) struct RawChanges<'a> {
    old: RawEntries<'a>,
    new: RawEntries<'a>,
    /// Read already, and behind what the other tree has come to.
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

/// Git's order of entries: by name, a folder's with a slash at its end.
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
