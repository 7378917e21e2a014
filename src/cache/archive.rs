//! A task's result as one file: its log and what it wrote, as a tar that zstd has compressed.
//!
//! The same content gives the same bytes: members have the given order, and no times or owners.
//! Nothing of an archive is trusted: a path that leaves the folder, a link that leads out of it,
//! another kind of file, another length or another digest makes the whole archive invalid.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use oci::{Digest, Hasher};

use super::Error;
use super::key::{OutputDigest, OutputHasher};

/// The path of the log in an archive.
pub const LOG: &str = "log";

/// The folder of a task's files in an archive.
pub const FILES: &str = "files";

/// zstd's default. On bundles, higher levels take much more time for little less space.
const LEVEL: i32 = 3;

const TWICE: &str = "occurs twice";
const LINK_OUTSIDE: &str = "is a link to a path outside its folder";
const NOT_SUPPORTED: &str = "is not a file, a folder or a link";

/// Bytes that may follow the end of a tar: writers pad it with zeros.
const PADDING: u64 = 1 << 16;

/// A packed archive.
#[derive(Debug, Clone)]
pub struct PackedArchive {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Bytes of the archive.
    pub length: u64,
    /// Bytes of the files in it.
    pub bytes: u64,
    /// Identity of the files, without the log.
    pub output: OutputDigest,
}

/// Packs the log and these paths of the folder.
pub fn pack(
    folder: &Path,
    paths: &BTreeSet<String>,
    log: &Path,
    to: File,
) -> Result<PackedArchive, Error> {
    let failed = || Error::at("pack", folder);
    let stream = HashedStream::new(BufWriter::new(to));
    let mut packing = ArchiveWriter {
        tar: tar::Builder::new(zstd::Encoder::new(stream, LEVEL).map_err(failed())?),
        bytes: 0,
        output: OutputHasher::default(),
    };
    if log.is_file() {
        packing.log(log).map_err(Error::at("pack", log))?;
    }
    for path in paths {
        packing.path(folder, path)?;
    }
    let encoder = packing.tar.into_inner().map_err(failed())?;
    let mut stream = encoder.finish().map_err(failed())?;
    stream.flush().map_err(failed())?;
    Ok(PackedArchive {
        digest: stream.hasher.end(),
        length: stream.length,
        bytes: packing.bytes,
        output: packing.output.end(),
    })
}

/// An archive that is being written.
struct ArchiveWriter<W: Write> {
    tar: tar::Builder<W>,
    /// Bytes of the files so far.
    bytes: u64,
    output: OutputHasher,
}

impl<W: Write> ArchiveWriter<W> {
    fn log(&mut self, log: &Path) -> io::Result<()> {
        self.bytes += append_file(&mut self.tar, log, LOG, None)?;
        Ok(())
    }

    /// Appends what is at this path of the folder.
    fn path(&mut self, folder: &Path, path: &str) -> Result<(), Error> {
        let full = folder.join(path);
        let failed = || Error::at("pack", &full);
        let not_cacheable = |what: &str| Error::NotCacheable {
            reason: format!("`{}` {what}", path.escape_debug()),
        };
        let name = format!("{FILES}/{path}");
        let metadata = full.symlink_metadata().map_err(failed())?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(&full).map_err(failed())?;
            let text = target.to_str();
            if !text.is_some_and(|target| stays_inside(path, target)) {
                return Err(not_cacheable(LINK_OUTSIDE));
            }
            self.output
                .link(path, target.as_os_str().as_encoded_bytes());
            let mut header = header(EntryType::Symlink, 0o777, 0);
            self.tar
                .append_link(&mut header, &name, &target)
                .map_err(failed())
        } else if metadata.is_dir() {
            self.output.folder(path);
            let mut header = header(EntryType::Directory, 0o755, 0);
            self.tar
                .append_data(&mut header, format!("{name}/"), io::empty())
                .map_err(failed())
        } else if metadata.is_file() {
            let hasher = Some((&mut self.output, path));
            self.bytes += append_file(&mut self.tar, &full, &name, hasher).map_err(failed())?;
            Ok(())
        } else {
            Err(not_cacheable(NOT_SUPPORTED))
        }
    }
}

/// Identity of these paths of the folder, without an archive. `None` if one of them is not a file,
/// a folder or a link.
pub fn output(folder: &Path, paths: &BTreeSet<String>) -> io::Result<Option<OutputDigest>> {
    let mut output = OutputHasher::default();
    let mut buffer = vec![0; 1 << 16];
    for path in paths {
        let full = folder.join(path);
        let metadata = full.symlink_metadata()?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(&full)?;
            output.link(path, target.as_os_str().as_encoded_bytes());
        } else if metadata.is_dir() {
            output.folder(path);
        } else if !metadata.is_file() {
            // Opening a named pipe waits for its other end.
            return Ok(None);
        } else {
            output.file(path, metadata.permissions().mode(), metadata.len());
            let mut file = File::open(&full)?;
            loop {
                let length = file.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                output.content(&buffer[..length]);
            }
        }
    }
    Ok(Some(output.end()))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Appends a file, and adds its content to the given hasher. Returns its size.
fn append_file(
    tar: &mut tar::Builder<impl Write>,
    path: &Path,
    name: &str,
    digest: Option<(&mut OutputHasher, &str)>,
) -> io::Result<u64> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    let mode = metadata.permissions().mode() & 0o777;
    let output = digest.map(|(output, path)| {
        output.file(path, mode, size);
        output
    });
    let mut reader = ContentReader {
        inner: file.take(size),
        output,
        read: 0,
    };
    tar.append_data(
        &mut header(EntryType::Regular, mode, size),
        name,
        &mut reader,
    )?;
    if reader.read != size {
        return Err(io::Error::other("the file was truncated while it was read"));
    }
    Ok(size)
}

struct ContentReader<'a, R> {
    inner: R,
    output: Option<&'a mut OutputHasher>,
    read: u64,
}

impl<R: Read> Read for ContentReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.read += length as u64;
        if let Some(output) = &mut self.output {
            output.content(&buffer[..length]);
        }
        Ok(length)
    }
}

/// Hashes and counts all bytes that are read or written.
struct HashedStream<W> {
    inner: W,
    hasher: Hasher,
    length: u64,
}

impl<W> HashedStream<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
            length: 0,
        }
    }
}

impl<W: Write> Write for HashedStream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for HashedStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

/// Whether a link at `path` with this target stays in the folder, whatever exists there.
fn stays_inside(path: &str, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = path.matches('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// Unpacks an archive into an empty folder: the log, and the files below `files`. Returns the paths
/// of the files.
pub fn unpack(
    archive: File,
    expected: &ExpectedArchive,
    into: &Path,
) -> Result<BTreeSet<String>, Error> {
    read(archive, expected, Some(into))
}

/// Verifies an archive without unpacking it.
pub fn verify(archive: File, expected: &ExpectedArchive) -> Result<(), Error> {
    read(archive, expected, None).map(drop)
}

/// What an entry says about its archive.
pub struct ExpectedArchive {
    /// SHA-256 of the archive.
    pub digest: Digest,
    /// Bytes of the files in it.
    pub bytes: u64,
    /// Identity of the files in it.
    pub output: OutputDigest,
}

fn read(
    archive: File,
    expected: &ExpectedArchive,
    into: Option<&Path>,
) -> Result<BTreeSet<String>, Error> {
    let unreadable = |error: io::Error| invalid(error.to_string());
    let stream = HashedStream::new(archive);
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(1 << 16, stream))
        .map_err(unreadable)?;
    let mut unpacking = ArchiveReader {
        into,
        left: expected.bytes,
        paths: BTreeSet::new(),
        leaves: BTreeSet::new(),
        folders: BTreeSet::new(),
        has_log: false,
        output: OutputHasher::default(),
    };
    {
        let mut tar = tar::Archive::new(&mut decoder);
        for member in tar.entries().map_err(unreadable)? {
            unpacking.member(&mut member.map_err(unreadable)?)?;
        }
    }
    let rest = io::copy(&mut (&mut decoder).take(PADDING), &mut io::sink()).map_err(unreadable)?;
    if rest == PADDING {
        return Err(invalid("there is data after its end".into()));
    }
    let mut rest = decoder.finish();
    io::copy(&mut rest, &mut io::sink()).map_err(unreadable)?;
    let digest = rest.into_inner().hasher.end();
    if digest != expected.digest {
        return Err(invalid(format!(
            "its digest is `{digest}`, not `{}`",
            expected.digest
        )));
    }
    if unpacking.left != 0 {
        return Err(invalid(format!("{} bytes are missing", unpacking.left)));
    }
    if unpacking.output.end() != expected.output {
        return Err(invalid("its files do not match their digest".into()));
    }
    Ok(unpacking.paths)
}

/// An archive that is being read.
struct ArchiveReader<'a> {
    /// Where to unpack; `None` if the archive is only verified.
    into: Option<&'a Path>,
    /// Bytes of files that are still to come.
    left: u64,
    paths: BTreeSet<String>,
    /// Files and links: no path may be below them.
    leaves: BTreeSet<String>,
    /// Folders that other paths are below.
    folders: BTreeSet<String>,
    has_log: bool,
    output: OutputHasher,
}

/// A member of an archive, by its name and kind.
enum ArchiveMember<'a> {
    Log,
    File(&'a str),
    Folder(&'a str),
    Link(&'a str),
}

impl<'a> ArchiveMember<'a> {
    /// The member with this name; else why it is refused.
    fn parse(name: &'a str, kind: EntryType) -> Result<Self, &'static str> {
        if name == LOG && kind == EntryType::Regular {
            return Ok(Self::Log);
        }
        let path = name
            .strip_prefix("files/")
            .ok_or("is not a valid path in the archive")?;
        let member = match kind {
            EntryType::Regular => Self::File(path),
            EntryType::Directory => Self::Folder(path.strip_suffix('/').unwrap_or(path)),
            EntryType::Symlink => Self::Link(path),
            _ => return Err(NOT_SUPPORTED),
        };
        Ok(member)
    }
}

impl ArchiveReader<'_> {
    fn member(&mut self, member: &mut tar::Entry<impl Read>) -> Result<(), Error> {
        let name = String::from_utf8(member.path_bytes().into_owned())
            .map_err(|_| invalid("a path is not UTF-8".into()))?;
        let refuse = |what: &str| invalid(format!("`{}` {what}", name.escape_debug()));
        let kind = member.header().entry_type();
        match ArchiveMember::parse(&name, kind).map_err(refuse)? {
            ArchiveMember::Log => {
                if std::mem::replace(&mut self.has_log, true) {
                    return Err(refuse(TWICE));
                }
                let full = self.into.map(|into| into.join(LOG));
                self.file(member, full.as_deref(), 0o644, false)
            }
            ArchiveMember::File(path) => {
                self.claim(path, false).map_err(refuse)?;
                let full = self.target(path, false)?;
                let mode = member.header().mode().unwrap_or(0o644) & 0o777;
                let size = member.header().size().unwrap_or(0);
                self.output.file(path, mode, size);
                self.file(member, full.as_deref(), mode, true)
            }
            ArchiveMember::Folder(path) => {
                self.claim(path, true).map_err(refuse)?;
                self.target(path, true)?;
                self.output.folder(path);
                Ok(())
            }
            ArchiveMember::Link(path) => {
                self.claim(path, false).map_err(refuse)?;
                let target = member.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8(target)
                    .map_err(|_| refuse("is a link whose target is not UTF-8"))?;
                if !stays_inside(path, &target) {
                    return Err(refuse(LINK_OUTSIDE));
                }
                self.output.link(path, target.as_bytes());
                match self.target(path, false)? {
                    Some(full) => std::os::unix::fs::symlink(target, &full)
                        .map_err(Error::at("create the link", &full)),
                    None => Ok(()),
                }
            }
        }
    }

    /// Records that a path is taken. Refuses a path that leaves the folder, that is taken, or that
    /// is below a file or a link.
    fn claim(&mut self, path: &str, is_folder: bool) -> Result<(), &'static str> {
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.split('/').all(is_plain) {
            return Err("is not a path inside the folder");
        }
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if self.leaves.contains(parent) {
                return Err("is below a file or a link");
            }
            self.folders.insert(parent.to_owned());
        }
        if !self.paths.insert(path.to_owned()) || (!is_folder && self.folders.contains(path)) {
            return Err(TWICE);
        }
        if !is_folder {
            self.leaves.insert(path.to_owned());
        }
        Ok(())
    }

    /// Where a path is unpacked, with its folder created; `None` if the archive is only verified.
    fn target(&self, path: &str, is_folder: bool) -> Result<Option<PathBuf>, Error> {
        let Some(into) = self.into else {
            return Ok(None);
        };
        let full = into.join(FILES).join(path);
        let folder = if is_folder {
            Some(full.as_path())
        } else {
            full.parent()
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
        }
        Ok(Some(full))
    }

    /// Reads a file's content and writes it to `to`. The log is not part of the output.
    fn file(
        &mut self,
        from: &mut impl Read,
        to: Option<&Path>,
        mode: u32,
        is_output: bool,
    ) -> Result<(), Error> {
        let mut file = match to {
            Some(to) => {
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create_new(true).mode(mode);
                Some((options.open(to).map_err(Error::at("write", to))?, to))
            }
            None => None,
        };
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = from
                .read(&mut buffer)
                .map_err(|error| invalid(error.to_string()))?;
            if length == 0 {
                return Ok(());
            }
            self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
                invalid("its content is larger than the size in its cache entry".into())
            })?;
            if is_output {
                self.output.content(&buffer[..length]);
            }
            if let Some((file, to)) = &mut file {
                file.write_all(&buffer[..length])
                    .map_err(Error::at("write", to))?;
            }
        }
    }
}

fn invalid(reason: String) -> Error {
    Error::Invalid { reason }
}

#[cfg(test)]
mod tests;
