//! A task's result as one file: its log and what it wrote, as a tar that zstd has compressed.
//!
//! The same content gives the same bytes: entries come in the order given, without times and
//! owners. What is read back is believed in nothing: a path that leaves the folder, a link that
//! leads out of it, another kind of file, another length or another digest refuses the whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tar::{EntryType, Header};

use super::Error;
use super::key::{OutputDigest, OutputHasher, Sha256};

/// Where the log lies in an archive.
pub const LOG: &str = "log";

/// Where a task's files lie in an archive.
pub const FILES: &str = "files";

/// zstd's own default: higher levels cost much more time than they save space on bundles.
const LEVEL: i32 = 3;

/// Bytes of zeros after a tar's end that its writers add.
const PADDING: u64 = 1 << 16;

/// What was packed.
#[derive(Debug, Clone)]
pub struct PackedArchive {
    /// SHA-256 of the archive.
    pub digest: String,
    /// Bytes of the archive.
    pub length: u64,
    /// Bytes of what is in it.
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
    let written = HashedStream {
        inner: BufWriter::new(to),
        digest: Sha256::default(),
        length: 0,
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            doing: "pack",
            path,
            source,
        }
    };
    let encoder = zstd::Encoder::new(written, LEVEL).map_err(failed(folder))?;
    let mut tar = tar::Builder::new(encoder);
    let mut bytes = 0;
    let mut output = OutputHasher::default();
    if log.is_file() {
        bytes += file(&mut tar, log, LOG, None).map_err(failed(log))?;
    }
    for path in paths {
        let full = folder.join(path);
        let name = format!("{FILES}/{path}");
        let metadata = full.symlink_metadata().map_err(failed(&full))?;
        if metadata.is_symlink() {
            let target = std::fs::read_link(&full).map_err(failed(&full))?;
            let inside = target
                .to_str()
                .is_some_and(|target| leads_inside(path, target));
            if !inside {
                return Err(Error::Unfit {
                    reason: format!(
                        "`{}` is a link that leads out of its folder",
                        path.escape_debug()
                    ),
                });
            }
            output.link(path, target.as_os_str().as_encoded_bytes());
            let mut header = header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, &name, &target)
                .map_err(failed(&full))?;
        } else if metadata.is_dir() {
            output.folder(path);
            let mut header = header(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, format!("{name}/"), io::empty())
                .map_err(failed(&full))?;
        } else if metadata.is_file() {
            let hasher = Some((&mut output, path.as_str()));
            bytes += file(&mut tar, &full, &name, hasher).map_err(failed(&full))?;
        } else {
            return Err(Error::Unfit {
                reason: format!("`{}` is neither file, folder nor link", path.escape_debug()),
            });
        }
    }
    let encoder = tar.into_inner().map_err(failed(folder))?;
    let written = encoder.finish().map_err(failed(folder))?;
    let (digest, length) = (written.digest, written.length);
    written
        .inner
        .into_inner()
        .map_err(|error| failed(folder)(error.into_error()))?;
    Ok(PackedArchive {
        digest: digest.end(),
        length,
        bytes,
        output: output.end(),
    })
}

/// Identity of these paths of the folder, without an archive. `None` where one of them is neither
/// file, folder nor link.
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
            // Opening a pipe would wait for its other end.
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

/// Appends a file; its content is part of the digest that is given with its path.
fn file(
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
        return Err(io::Error::other("it has become shorter while it was read"));
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

/// Digests and counts what passes.
struct HashedStream<W> {
    inner: W,
    digest: Sha256,
    length: u64,
}

impl<W: Write> Write for HashedStream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.digest.update(&bytes[..length]);
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
        self.digest.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

/// Whether a link at `path` with this target stays in the folder, whatever lies there.
fn leads_inside(path: &str, target: &str) -> bool {
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

/// Unpacks an archive into an empty folder: the log, and below `files` the rest, whose paths it
/// returns. `expected` is what the archive must have.
pub fn unpack(
    archive: File,
    expected: &ExpectedArchive,
    into: &Path,
) -> Result<BTreeSet<String>, Error> {
    read(archive, expected, Some(into))
}

/// Whether an archive could be unpacked, as far as it is the archive's own fault.
pub fn check(archive: File, expected: &ExpectedArchive) -> Result<(), Error> {
    read(archive, expected, None).map(drop)
}

/// What an entry says of its archive.
pub struct ExpectedArchive<'a> {
    /// SHA-256 of the archive.
    pub digest: &'a str,
    /// Bytes of what is in it.
    pub bytes: u64,
    /// Identity of the files in it.
    pub output: OutputDigest,
}

fn read(
    archive: File,
    expected: &ExpectedArchive,
    into: Option<&Path>,
) -> Result<BTreeSet<String>, Error> {
    let damaged = |reason: String| Error::Damaged { reason };
    let unreadable = |error: io::Error| damaged(error.to_string());
    let counted = HashedStream {
        inner: archive,
        digest: Sha256::default(),
        length: 0,
    };
    let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(1 << 16, counted))
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
        return Err(damaged("there is more after its end".into()));
    }
    let mut counted = decoder.finish();
    io::copy(&mut counted, &mut io::sink()).map_err(unreadable)?;
    if counted.into_inner().digest.end() != expected.digest {
        return Err(damaged("its digest is another one".into()));
    }
    if unpacking.left != 0 {
        return Err(damaged(format!("{} bytes are missing", unpacking.left)));
    }
    if unpacking.output.end() != expected.output {
        return Err(damaged("its files have another digest".into()));
    }
    Ok(unpacking.paths)
}

struct ArchiveReader<'a> {
    /// Where; nowhere if it is only looked at.
    into: Option<&'a Path>,
    /// Bytes that may still come.
    left: u64,
    paths: BTreeSet<String>,
    /// Files and links, in which nothing can lie.
    leaves: BTreeSet<String>,
    /// Folders in which something lies.
    folders: BTreeSet<String>,
    has_log: bool,
    output: OutputHasher,
}

impl ArchiveReader<'_> {
    fn member(&mut self, member: &mut tar::Entry<impl Read>) -> Result<(), Error> {
        let damaged = |reason: String| Error::Damaged { reason };
        let name = member.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(|_| damaged("a path is no text".into()))?;
        let refuse = |what: &str| damaged(format!("`{}` {what}", name.escape_debug()));
        let kind = member.header().entry_type();
        let path = match (name.strip_prefix("files/"), kind) {
            (_, EntryType::Regular) if name == LOG => {
                if std::mem::replace(&mut self.has_log, true) {
                    return Err(refuse("is there twice"));
                }
                let full = self.into.map(|into| into.join(LOG));
                return self.file(member, full.as_deref(), 0o644, false);
            }
            (Some(path), EntryType::Directory) => path.strip_suffix('/').unwrap_or(path),
            (Some(path), _) => path,
            (None, _) => return Err(refuse("belongs to nothing")),
        };
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !path.split('/').all(is_plain) {
            return Err(refuse("is no path inside"));
        }
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.leaves.contains(folder) {
                return Err(refuse("lies behind a file or a link"));
            }
            self.folders.insert(folder.to_owned());
        }
        let is_folder = kind == EntryType::Directory;
        if !self.paths.insert(path.to_owned()) || (!is_folder && self.folders.contains(path)) {
            return Err(refuse("is there twice"));
        }
        if !is_folder {
            self.leaves.insert(path.to_owned());
        }
        let full = self.into.map(|into| into.join(FILES).join(path));
        let full = full.as_deref();
        let folder = full.and_then(|full| if is_folder { Some(full) } else { full.parent() });
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(Error::at("make the folder", folder))?;
        }
        match kind {
            EntryType::Regular => {
                let mode = member.header().mode().unwrap_or(0o644);
                let mode = mode & 0o777;
                let size = member.header().size().unwrap_or(0);
                self.output.file(path, mode, size);
                self.file(member, full, mode, true)
            }
            EntryType::Directory => {
                self.output.folder(path);
                Ok(())
            }
            EntryType::Symlink => {
                let target = member.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8(target).map_err(|_| refuse("leads to no text"))?;
                if !leads_inside(path, &target) {
                    return Err(refuse("is a link that leads out of its folder"));
                }
                self.output.link(path, target.as_bytes());
                full.map_or(Ok(()), |full| {
                    std::os::unix::fs::symlink(target, full).map_err(Error::at("link", full))
                })
            }
            _ => Err(refuse("is neither file, folder nor link")),
        }
    }

    /// Reads a file's content, writes it to `to`, and counts it as output unless it is the log.
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
            let length = from.read(&mut buffer).map_err(|error| Error::Damaged {
                reason: error.to_string(),
            })?;
            if length == 0 {
                return Ok(());
            }
            self.left = self
                .left
                .checked_sub(length as u64)
                .ok_or_else(|| Error::Damaged {
                    reason: "it has more bytes than it should".into(),
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::EntryType::{self, Block, Directory, Link, Regular, Symlink};

    use super::{ExpectedArchive, OutputHasher, Sha256, check, leads_inside, unpack};

    /// A path, what lies there, and where it leads if it is a link.
    type TestMember = (&'static str, EntryType, &'static str);

    /// An archive with these members, of which some are such as no honest writer makes.
    fn archive(members: &[TestMember]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, target) in members {
            let mut header = super::header(*kind, 0o644, 0);
            let gnu = header.as_gnu_mut().expect("it is one");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_link_name_literal(target).expect("short");
            header.set_cksum();
            builder.append(&header, &b""[..]).expect("memory");
        }
        let tar = builder.into_inner().expect("memory");
        zstd::encode_all(&tar[..], 1).expect("memory")
    }

    #[test]
    fn what_is_looked_at_is_refused_as_what_is_unpacked() {
        let inside = [
            ("log", Regular, ""),
            ("files/a/", Directory, ""),
            ("files/a/b", Regular, ""),
            ("files/a/link", Symlink, "../c"),
            ("files/c", Regular, ""),
        ];
        let cases: &[(&str, &[TestMember])] = &[
            ("", &inside),
            ("no path inside", &[("files/../outside", Regular, "")]),
            ("no path inside", &[("files//outside", Regular, "")]),
            ("no path inside", &[("files/..", Directory, "")]),
            ("belongs to nothing", &[("../outside", Regular, "")]),
            ("belongs to nothing", &[("/outside", Regular, "")]),
            ("belongs to nothing", &[("log", Symlink, "files")]),
            ("leads out", &[("files/link", Symlink, "..")]),
            ("leads out", &[("files/link", Symlink, "/")]),
            (
                "behind a file or a link",
                &[("files/a", Symlink, "b"), ("files/a/b", Regular, "")],
            ),
            (
                "behind a file or a link",
                &[("files/a", Regular, ""), ("files/a/b", Regular, "")],
            ),
            (
                "there twice",
                &[("files/a/b", Regular, ""), ("files/a", Regular, "")],
            ),
            (
                "there twice",
                &[("files/a", Regular, ""), ("files/a", Symlink, "b")],
            ),
            ("there twice", &[("log", Regular, ""), ("log", Regular, "")]),
            ("neither file", &[("files/a", Link, "/etc/passwd")]),
            ("neither file", &[("files/a", Block, "")]),
        ];
        for (refusal, members) in cases {
            let bytes = archive(members);
            let mut digest = Sha256::default();
            digest.update(&bytes);
            let digest = digest.end();
            let folder = tempfile::tempdir().expect("a folder");
            let into = folder.path().join("into");
            std::fs::create_dir(&into).expect("a folder");
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(&bytes).expect("written");
            let open = || file.reopen().expect("it is there");
            let mut output = OutputHasher::default();
            for (name, kind, target) in *members {
                let Some(path) = name.strip_prefix("files/") else {
                    continue;
                };
                match kind {
                    Directory => output.folder(path.trim_end_matches('/')),
                    Symlink => output.link(path, target.as_bytes()),
                    _ => output.file(path, 0o644, 0),
                }
            }
            let expected = ExpectedArchive {
                digest: &digest,
                bytes: 0,
                output: output.end(),
            };
            let looked_at = check(open(), &expected);
            let unpacked = unpack(open(), &expected, &into).map(drop);
            for result in [looked_at, unpacked] {
                let said = result.err().map(|error| error.to_string());
                match said {
                    None => assert_eq!(*refusal, "", "{members:?} is taken"),
                    Some(said) => assert!(
                        !refusal.is_empty() && said.contains(refusal),
                        "{members:?}: {said}"
                    ),
                }
            }
            assert!(!folder.path().join("outside").exists());
        }
    }

    #[test]
    fn links_are_judged_by_their_text() {
        assert!(leads_inside("a/b/link", "../c"));
        assert!(leads_inside("a/b/link", "../../c"));
        assert!(!leads_inside("a/b/link", "../../../c"));
        assert!(!leads_inside("link", "../c"));
        assert!(leads_inside("link", "c/../d"));
        assert!(!leads_inside("link", "c/../../d"));
        assert!(!leads_inside("link", "/etc/passwd"));
        assert!(!leads_inside("link", ""));
    }
}
