//! Writes entries as a tar, block by block. The same entries give the same bytes.
//!
//! Headers are ustar. A value that does not fit (a long path, non-ASCII text, a large number) is
//! in a PAX header, as Go's `archive/tar` writes it and every runtime reads it. The headers are
//! written here, since another version of a library may write other bytes, which gives every
//! layer another digest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::{Digest, Error, FileOwner, Hasher, TreeContent, TreeEntry};

/// Bytes of a tar's record.
const RECORD: usize = 512;

/// An entry, and for a file the digest of its content.
pub(super) struct HashedEntry<'a> {
    pub entry: &'a TreeEntry,
    pub digest: Option<Digest>,
}

/// The tar of a layer, read in blocks.
pub(super) struct LayerTar<'a> {
    members: std::slice::Iter<'a, HashedEntry<'a>>,
    time: i64,
    /// The next bytes: headers and padding.
    pending: Vec<u8>,
    file: Option<OpenFile<'a>>,
    has_ended: bool,
}

struct OpenFile<'a> {
    file: File,
    from: &'a Path,
    left: u64,
    size: u64,
    hasher: Hasher,
    digest: Option<Digest>,
}

impl<'a> LayerTar<'a> {
    pub fn new(members: &'a [HashedEntry<'a>], time: i64) -> Self {
        Self {
            members: members.iter(),
            time,
            pending: Vec::new(),
            file: None,
            has_ended: false,
        }
    }

    /// Appends the next bytes to a block until it has `length` bytes, or until the tar ends.
    pub fn read(&mut self, block: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        while block.len() < length {
            let room = length - block.len();
            if !self.pending.is_empty() {
                let some = room.min(self.pending.len());
                block.extend(self.pending.drain(..some));
            } else if let Some(open) = &mut self.file {
                if open.read(block, room)? {
                    let over = usize::try_from(open.size % RECORD as u64).unwrap_or(0);
                    self.pending.resize((RECORD - over) % RECORD, 0);
                    self.file = None;
                }
            } else if let Some(member) = self.members.next() {
                self.begin(member)?;
            } else if self.has_ended {
                break;
            } else {
                self.pending.resize(2 * RECORD, 0);
                self.has_ended = true;
            }
        }
        Ok(())
    }

    fn begin(&mut self, member: &HashedEntry<'a>) -> Result<(), Error> {
        headers(member.entry, self.time, &mut self.pending)?;
        if let TreeContent::File { from, bytes } = &member.entry.content {
            self.file = Some(OpenFile {
                file: File::open(from).map_err(Error::at("open", from))?,
                from,
                left: *bytes,
                size: *bytes,
                hasher: Hasher::default(),
                digest: member.digest,
            });
        }
        Ok(())
    }
}

impl OpenFile<'_> {
    /// Appends at most `room` bytes. Returns whether the file is complete.
    fn read(&mut self, block: &mut Vec<u8>, room: usize) -> Result<bool, Error> {
        let changed = || Error::Changed {
            path: self.from.to_owned(),
        };
        if self.left > 0 {
            let begin = block.len();
            let some = self.left.min(room as u64);
            let read = (&mut self.file).take(some).read_to_end(block);
            let read = read.map_err(Error::at("read", self.from))? as u64;
            if read < some {
                return Err(changed());
            }
            self.hasher.update(&block[begin..]);
            self.left -= read;
        }
        if self.left > 0 {
            return Ok(false);
        }
        let more = self.file.read(&mut [0]);
        let is_longer = more.map_err(Error::at("read", self.from))? > 0;
        let found = std::mem::take(&mut self.hasher).end();
        if is_longer || self.digest.is_some_and(|digest| digest != found) {
            return Err(changed());
        }
        Ok(true)
    }
}

/// Appends an entry's header, after a PAX header for the values that do not fit.
fn headers(entry: &TreeEntry, time: i64, to: &mut Vec<u8>) -> Result<(), Error> {
    let mut path = entry.path.clone();
    let mut size = 0;
    let mut target = "";
    let kind = match &entry.content {
        TreeContent::Folder => {
            path.push('/');
            EntryType::Directory
        }
        TreeContent::File { bytes, .. } => {
            size = *bytes;
            EntryType::Regular
        }
        TreeContent::Link { target: leads_to } => {
            target = leads_to;
            EntryType::Symlink
        }
    };
    let mut header = Header::new_ustar();
    let mut more = Vec::new();
    let mut number = |key: &str, value: i128, digits: u32| -> u64 {
        match u64::try_from(value) {
            Ok(value) if value < 1 << (3 * digits) => value,
            _ => {
                record(&mut more, key, &value.to_string());
                0
            }
        }
    };
    header.set_uid(number("uid", entry.owner.user.into(), 7));
    header.set_gid(number("gid", entry.owner.group.into(), 7));
    header.set_size(number("size", size.into(), 11));
    header.set_mtime(number("mtime", time.into(), 11));
    header.set_mode(entry.mode & 0o7777);
    header.set_entry_type(kind);
    let Some(ustar) = header.as_ustar_mut() else {
        return Err(Error::Entry {
            path,
            reason: "its tar header cannot be written",
        });
    };
    if let Some((prefix, name)) = split(&path) {
        ustar.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
    } else {
        record(&mut more, "path", &path);
        abridge(&path, &mut ustar.name);
    }
    if target.len() <= ustar.linkname.len() && target.is_ascii() {
        ustar.linkname[..target.len()].copy_from_slice(target.as_bytes());
    } else {
        record(&mut more, "linkpath", target);
        abridge(target, &mut ustar.linkname);
    }
    if !more.is_empty() {
        extension(&more, to);
    }
    header.set_cksum();
    to.extend_from_slice(header.as_bytes());
    Ok(())
}

/// The header of a file with a short name, readable by everybody, with a constant time.
pub(super) fn file_header(name: &str, size: u64) -> Result<Vec<u8>, Error> {
    let entry = TreeEntry {
        path: name.to_owned(),
        owner: FileOwner { user: 0, group: 0 },
        mode: 0o644,
        content: TreeContent::File {
            from: PathBuf::new(),
            bytes: size,
        },
    };
    let mut header = Vec::new();
    headers(&entry, 0, &mut header)?;
    Ok(header)
}

/// Splits a path into ustar's fields `prefix` and `name`. `None` if it does not fit.
fn split(path: &str) -> Option<(&str, &str)> {
    const NAME: usize = 100;
    const PREFIX: usize = 155;
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME {
        return Some(("", path));
    }
    // The slash between both is in neither of them. A slash at the end is part of the name.
    let inner = path.strip_suffix('/').unwrap_or(path);
    let end = inner.len().min(PREFIX + 1);
    let slash = inner.as_bytes()[..end]
        .iter()
        .rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!prefix.is_empty() && name.len() <= NAME).then_some((prefix, name))
}

/// Fills a field with the ASCII characters of a text, for readers without PAX support.
fn abridge(text: &str, field: &mut [u8; 100]) {
    let ascii = text.bytes().filter(u8::is_ascii);
    for (place, byte) in field.iter_mut().zip(ascii) {
        *place = byte;
    }
}

/// Appends the PAX record `<length> <key>=<value>\n`. The length includes its own digits.
fn record(to: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

/// Appends a PAX header with these records. Its time and name are constant.
fn extension(records: &[u8], to: &mut Vec<u8>) {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(0o644);
    header.set_size(records.len() as u64);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..3].copy_from_slice(b"pax");
    }
    header.set_cksum();
    to.extend_from_slice(header.as_bytes());
    to.extend_from_slice(records);
    to.resize(to.len().next_multiple_of(RECORD), 0);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{headers, record, split};
    use crate::members::TarReader;
    use crate::{FileOwner, TreeContent, TreeEntry};

    #[test]
    fn values_that_do_not_fit_are_in_a_pax_header() {
        let of = |path: &str, bytes: u64, user: u32, time: i64| {
            let entry = TreeEntry {
                path: path.into(),
                owner: FileOwner { user, group: 0 },
                mode: 0o644,
                content: TreeContent::File {
                    from: PathBuf::new(),
                    bytes,
                },
            };
            let mut tar = Vec::new();
            headers(&entry, time, &mut tar).expect("a header");
            tar
        };
        let octal = (1 << 33) - 1;
        assert_eq!(of("a", octal, (1 << 21) - 1, 1 << 32).len(), 512);
        for (tar, record) in [
            (of("a", octal + 1, 0, 0), "19 size=8589934592\n"),
            (of("a", 0, 1 << 21, 0), "15 uid=2097152\n"),
            (of("a", 0, 0, -1), "12 mtime=-1\n"),
            (of("ä", 0, 0, 0), "11 path=ä\n"),
        ] {
            assert_eq!(tar.len(), 3 * 512, "{record}");
            assert!(tar[512..].starts_with(record.as_bytes()), "{record}");
        }
        let tar = of("ä", 1 << 40, 0, 0);
        let mut members = TarReader::new(&tar[..]);
        let member = members.next().expect("a header").expect("a member");
        assert_eq!(member.path, "ä");
        let content = members.content(0).expect_err("it is not empty").to_string();
        assert!(content.contains("1099511627776 bytes"), "{content}");
    }

    #[test]
    fn a_record_counts_its_own_length() {
        let of = |value: &str| {
            let mut to = Vec::new();
            record(&mut to, "path", value);
            String::from_utf8(to).expect("text")
        };
        assert_eq!(of("a"), "9 path=a\n");
        assert_eq!(of(""), "8 path=\n");
        for length in 0..1200 {
            let record = of(&"x".repeat(length));
            let said = record.split(' ').next().expect("a number");
            assert_eq!(said.parse(), Ok(record.len()));
        }
    }

    #[test]
    fn a_path_is_split_where_both_parts_fit() {
        let a = |length: usize| "a".repeat(length);
        assert_eq!(split("a/b"), Some(("", "a/b")));
        assert_eq!(split(&a(100)), Some(("", &*a(100))));
        assert_eq!(split(&a(101)), None);
        let long = format!("{}/{}", a(155), a(100));
        assert_eq!(split(&long), Some((&*a(155), &*a(100))));
        assert_eq!(split(&format!("{}/{}", a(156), a(100))), None);
        assert_eq!(split(&format!("{}/{}", a(155), a(101))), None);
        let folder = format!("{}/{}/", a(90), a(90));
        assert_eq!(split(&folder), Some((&*a(90), &*format!("{}/", a(90)))));
        // The slash at the end of a folder's path does not split the path.
        assert_eq!(split(&format!("{}/", a(100))), None);
        assert_eq!(split("ä"), None);
    }
}
