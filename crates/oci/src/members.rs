//! Reads the members of a tar like Go's `archive/tar`, which engines use. Sizes are not trusted: a
//! name of a gigabyte is an error before it is read. The `tar` crate reads such a name completely.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

use super::FileOwner;
use super::base::FolderAttributes;

/// Bytes of a tar's record.
const RECORD: usize = 512;

/// Largest extension header in bytes: Go's limit.
const EXTENSION: u64 = 1 << 20;

/// Longest path in bytes: the kernel's limit.
const PATH: usize = 4096;

/// A member without its content.
#[derive(Debug)]
pub(super) struct TarMember {
    /// The path as it is written, with `./`.
    pub path: String,
    /// The target of a link.
    pub target: String,
    pub kind: EntryType,
    /// Owner and permissions.
    pub folder: FolderAttributes,
}

/// Reads a tar.
pub(super) struct TarReader<R> {
    reader: R,
    /// Bytes of the current member's content that were not read yet.
    content: u64,
    /// Bytes of padding after the content.
    padding: u64,
}

/// Values from the extension headers before a member.
#[derive(Default)]
struct PaxFields {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    user: Option<u32>,
    group: Option<u32>,
}

impl<R: BufRead> TarReader<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            content: 0,
            padding: 0,
        }
    }

    /// The next member. Content of the current member that was not read is skipped.
    pub fn next(&mut self) -> io::Result<Option<TarMember>> {
        let mut extended = PaxFields::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => extended.path = Some(self.long(&header)?),
                EntryType::GNULongLink => extended.target = Some(self.long(&header)?),
                EntryType::XHeader => {
                    let records = self.extension(&header)?;
                    extended.add(&records)?;
                }
                EntryType::XGlobalHeader => {
                    self.begin(header.entry_size()?)?;
                }
                _ => return self.member(&header, extended).map(Some),
            }
        }
    }

    /// Reads the current member's content. More bytes than `limit` are an error.
    pub fn content(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        if self.content > limit {
            return Err(wrong(format!(
                "a member has {} bytes, more than the limit of {limit}",
                self.content
            )));
        }
        let mut content = Vec::new();
        let read = (&mut self.reader)
            .take(self.content)
            .read_to_end(&mut content)?;
        if (read as u64) < self.content {
            return Err(ended());
        }
        self.content = 0;
        Ok(content)
    }

    /// Copies the current member's content.
    pub fn copy(&mut self, to: &mut dyn io::Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.reader).take(self.content), to)?;
        if copied < self.content {
            return Err(ended());
        }
        self.content = 0;
        Ok(())
    }

    fn member(&mut self, header: &Header, extended: PaxFields) -> io::Result<TarMember> {
        let mut kind = header.entry_type();
        let path = match extended.path {
            Some(path) => path,
            None => header.path_bytes().into_owned(),
        };
        let target = match extended.target {
            Some(target) => target,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        if let Some(long) = [&path, &target].into_iter().find(|text| text.len() > PATH) {
            return Err(wrong(format!("a path has {} bytes", long.len())));
        }
        // Tars before POSIX have no type for folders.
        if kind == EntryType::Regular && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        // These types have no content, whatever size their header has.
        let is_header_only = kind.is_hard_link()
            || kind.is_symlink()
            || kind.is_dir()
            || kind.is_fifo()
            || kind.is_character_special()
            || kind.is_block_special();
        let size = match extended.size {
            _ if is_header_only => 0,
            Some(size) => size,
            None => header.entry_size()?,
        };
        if kind.is_gnu_sparse() {
            self.sparse(header)?;
        }
        self.begin(size)?;
        let number = |number: io::Result<u64>| number.ok().and_then(|it| u32::try_from(it).ok());
        Ok(TarMember {
            folder: FolderAttributes {
                owner: FileOwner {
                    user: extended
                        .user
                        .or_else(|| number(header.uid()))
                        .unwrap_or_default(),
                    group: extended
                        .group
                        .or_else(|| number(header.gid()))
                        .unwrap_or_default(),
                },
                mode: header.mode().unwrap_or(0o755) & 0o7777,
            },
            path: String::from_utf8_lossy(&path).into_owned(),
            target: String::from_utf8_lossy(&target).into_owned(),
            kind,
        })
    }

    /// Skips the extension records of a sparse file.
    fn sparse(&mut self, header: &Header) -> io::Result<()> {
        /// Offset of the flag for a further extension record.
        const FURTHER: usize = 504;
        let mut has_further = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while has_further {
            let mut record = [0; RECORD];
            self.reader.read_exact(&mut record)?;
            has_further = record[FURTHER] != 0;
        }
        Ok(())
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        let whole = size.checked_next_multiple_of(RECORD as u64);
        let whole = whole.ok_or_else(|| wrong(format!("a member has {size} bytes")))?;
        self.content = size;
        self.padding = whole - size;
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let mut left = self.content.saturating_add(self.padding);
        while left > 0 {
            let some = self.reader.fill_buf()?.len();
            if some == 0 {
                return Err(ended());
            }
            let some = usize::try_from(left).map_or(some, |left| left.min(some));
            self.reader.consume(some);
            left -= some as u64;
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header. `None` at the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut bytes = Vec::with_capacity(RECORD);
        (&mut self.reader)
            .take(RECORD as u64)
            .read_to_end(&mut bytes)?;
        if !bytes.is_empty() && bytes.len() < RECORD {
            return Err(ended());
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !is_header(&bytes) {
            return Err(wrong("the checksum of a header is wrong".into()));
        }
        Ok(Some(Header::from_byte_slice(&bytes).clone()))
    }

    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        self.begin(header.entry_size()?)?;
        self.content(EXTENSION)
    }

    /// A name in an extension header, which ends at a zero byte.
    fn long(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

impl PaxFields {
    /// Reads PAX records: `<length> <key>=<value>\n`. The length includes its own digits.
    fn add(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || wrong("a PAX header is not valid".into());
        while !records.is_empty() {
            let blank = records.iter().take(20).position(|byte| *byte == b' ');
            let blank = blank.ok_or_else(broken)?;
            let length = std::str::from_utf8(&records[..blank]).ok();
            let length: usize = length.and_then(|it| it.parse().ok()).ok_or_else(broken)?;
            if length <= blank + 1 || length > records.len() {
                return Err(broken());
            }
            let (record, rest) = records.split_at(length);
            records = rest;
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(broken)?);
            let value = &value[1..];
            let number = || std::str::from_utf8(value).map_err(|_| broken());
            match key {
                b"path" | b"GNU.sparse.name" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => self.size = Some(number()?.parse().map_err(|_| broken())?),
                // For numbers with more than the seven octal digits of a header.
                b"uid" => self.user = Some(number()?.parse().map_err(|_| broken())?),
                b"gid" => self.group = Some(number()?.parse().map_err(|_| broken())?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether these bytes are a tar header: its checksum is right.
pub(super) fn is_header(bytes: &[u8]) -> bool {
    if bytes.len() != RECORD {
        return false;
    }
    // The checksum counts its own field as spaces.
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = bytes[148..156].iter().map(|byte| u32::from(*byte)).sum();
    let written = Header::from_byte_slice(bytes).cksum();
    written.is_ok_and(|written| written == sum - own + 8 * u32::from(b' '))
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends too early")
}
