//! Logs of builds, compressed, named by their digest.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use oci::Digest;

use super::folder::{FolderError, LEDGER};
use super::id::RecordId;
use super::record::LogReference;

/// The most bytes of a log that are read back. A log that this program wrote has fewer.
const MOST_BYTES: u64 = 64 << 20;

/// The level of compression: the default of zstd.
const LEVEL: i32 = 3;

/// The output of a build, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogText {
    /// Lines.
    pub text: Vec<u8>,
    /// Whether lines were left out because there were too many.
    pub truncated: bool,
}

/// The most bytes of the output of a killed run that are kept: the last ones.
const MOST_OF_KILLED: u64 = 4 << 20;

/// The most bytes of the log of a run that is under way.
const MOST_RUNNING_BYTES: u64 = 64 << 20;

/// The log of a run that is under way: a file with lines, which other processes can read. Clones
/// write to the same file.
#[derive(Debug, Clone)]
pub struct RunningLog {
    file: Arc<File>,
    bytes: Arc<AtomicU64>,
}

impl Write for RunningLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = bytes.len() as u64;
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length <= MOST_RUNNING_BYTES {
            (&*self.file).write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads the log of a run while it is written.
#[derive(Debug)]
pub struct RunningLogReader {
    file: File,
    path: PathBuf,
}

impl RunningLogReader {
    /// Reads the next bytes; 0 if there are none yet.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FolderError> {
        let read = self.file.read(buffer);
        read.map_err(FolderError::at("read", &self.path))
    }

    /// Whether the run has ended, which removes the log. What was written stays readable.
    pub fn has_ended(&self) -> bool {
        !self.path.exists()
    }
}

/// Logs in a folder.
#[derive(Debug, Clone)]
pub struct LogFolder {
    root: PathBuf,
}

impl LogFolder {
    /// The logs of a project.
    pub fn of_project(project: &Path) -> Self {
        Self::of(&project.join(LEDGER))
    }

    /// The logs in the folder of a ledger.
    pub(super) fn of(ledger: &Path) -> Self {
        Self {
            root: ledger.join("logs"),
        }
    }

    /// Begins the log of a run that is under way. This process holds a lock of the system on it until the
    /// last clone of the log is dropped.
    pub fn begin(&self, start: &RecordId) -> Result<RunningLog, FolderError> {
        let path = self.running(start);
        let open = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            let file = File::options().create(true).append(true).open(&path)?;
            // Without locks, a killed run counts as interrupted when its lease has ended.
            let _ = file.lock();
            Ok(file)
        };
        Ok(RunningLog {
            file: Arc::new(open().map_err(FolderError::at("write", &path))?),
            bytes: Arc::default(),
        })
    }

    /// Opens the log of a run that is under way, or that was killed. None if there is none.
    pub fn open_running(&self, start: &RecordId) -> Result<Option<RunningLogReader>, FolderError> {
        let path = self.running(start);
        match File::open(&path) {
            Ok(file) => Ok(Some(RunningLogReader { file, path })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FolderError::at("read", &path)(error)),
        }
    }

    fn running(&self, start: &RecordId) -> PathBuf {
        self.root
            .with_file_name("running")
            .join(format!("{start}.log"))
    }

    /// Removes the log of a run whose end is recorded.
    pub fn end(&self, start: &RecordId) {
        // What cannot be removed now is removed by the next run.
        let _ = std::fs::remove_file(self.running(start));
    }

    /// The starts of runs that have left a log and whose process has ended, each with the time of the last
    /// line.
    pub fn left_behind(&self) -> Vec<(RecordId, Timestamp)> {
        let folder = self.root.with_file_name("running");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let logs = entries.filter_map(|entry| {
            let name = entry.file_name();
            let start = name.to_str()?.strip_suffix(".log")?.parse().ok()?;
            let file = File::open(entry.path()).ok()?;
            // A shared lock, so that two questions at the same time have the same answer.
            file.try_lock_shared().ok()?;
            let written = file.metadata().and_then(|metadata| metadata.modified());
            Some((start, Timestamp::try_from(written.ok()?).ok()?))
        });
        logs.collect()
    }

    /// The output of a run that was killed, and whether its beginning is left out.
    pub fn text_of_run(&self, start: &RecordId) -> Result<(Vec<u8>, bool), FolderError> {
        let path = self.running(start);
        let read = || {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MOST_OF_KILLED)))?;
            let mut text = Vec::new();
            file.take(MOST_OF_KILLED).read_to_end(&mut text)?;
            Ok((text, length > MOST_OF_KILLED))
        };
        read().map_err(FolderError::at("read", &path))
    }

    /// Writes a log whole.
    pub fn write(&self, log: &LogText) -> Result<LogReference, FolderError> {
        let compressed = zstd::bulk::compress(&log.text, LEVEL);
        let compressed = compressed.map_err(FolderError::at("compress a log for", &self.root))?;
        let digest = Digest::of(&compressed);
        self.put(&self.path(&digest), &compressed)?;
        Ok(LogReference {
            digest: digest.to_string(),
            size: u64::try_from(compressed.len()).unwrap_or(u64::MAX),
            bytes: u64::try_from(log.text.len()).unwrap_or(u64::MAX),
            truncated: log.truncated,
        })
    }

    /// Checks a compressed log that comes from elsewhere: its digest, and its size after decompression,
    /// which is bounded. Fails with the reason.
    pub fn check(log: &LogReference, compressed: &[u8]) -> Result<(), String> {
        let digest = Digest::of(compressed);
        if digest.to_string() != log.digest {
            return Err(format!(
                "its digest is `{digest}`, which its record does not name"
            ));
        }
        if log.bytes > MOST_BYTES {
            return Err(format!("it has more than {MOST_BYTES} bytes"));
        }
        let decoder = zstd::Decoder::new(compressed);
        let read = decoder.and_then(|decoder| {
            // One byte more than the record has shows that the log is larger.
            std::io::copy(&mut decoder.take(log.bytes + 1), &mut std::io::sink())
        });
        match read {
            Ok(bytes) if bytes == log.bytes => Ok(()),
            Ok(_) => Err(format!("it does not have {} bytes", log.bytes)),
            Err(error) => Err(format!("it cannot be decompressed: {error}")),
        }
    }

    /// Writes a compressed log that was read elsewhere, if it has the digest of the reference.
    pub fn insert(&self, log: &LogReference, compressed: &[u8]) -> Result<(), FolderError> {
        let digest = Digest::of(compressed);
        let path = self.path(&digest);
        if digest.to_string() != log.digest {
            let reason = std::io::Error::other(format!("its digest is not {}", log.digest));
            return Err(FolderError::at("write", &path)(reason));
        }
        self.put(&path, compressed)
    }

    fn put(&self, path: &Path, compressed: &[u8]) -> Result<(), FolderError> {
        let make = || {
            std::fs::create_dir_all(&self.root)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            file.write_all(compressed)?;
            match file.persist_noclobber(path) {
                // Another build had the same output.
                Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error),
                _ => Ok(()),
            }
        };
        make().map_err(FolderError::at("write", path))
    }

    /// The compressed log. `None` if it is not on this machine.
    pub fn compressed(&self, log: &LogReference) -> Result<Option<Vec<u8>>, FolderError> {
        let invalid = |reason: &str| {
            let reason = std::io::Error::new(ErrorKind::InvalidData, reason.to_owned());
            FolderError::at("read", &self.root.join(&log.digest))(reason)
        };
        let digest: Digest = log
            .digest
            .parse()
            .map_err(|_| invalid("its name is not a valid digest"))?;
        let path = self.path(&digest);
        let compressed = match std::fs::read(&path) {
            Ok(compressed) => compressed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::at("read", &path)(error)),
        };
        if digest.like(&compressed) != digest {
            return Err(invalid("its content does not have the digest of its name"));
        }
        Ok(Some(compressed))
    }

    /// Removes a log. A missing log is not an error.
    pub fn remove(&self, log: &LogReference) -> Result<(), FolderError> {
        let Ok(digest) = log.digest.parse() else {
            return Ok(());
        };
        let path = self.path(&digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(FolderError::at("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The lines of a log. `None` if it is not on this machine.
    pub fn read(&self, log: &LogReference) -> Result<Option<Vec<u8>>, FolderError> {
        let Some(compressed) = self.compressed(log)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let decoder = zstd::Decoder::new(compressed.as_slice());
        decoder
            .and_then(|decoder| decoder.take(MOST_BYTES).read_to_end(&mut text))
            .map_err(FolderError::at("read", &self.root.join(&log.digest)))?;
        Ok(Some(text))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(format!("{}.zst", digest.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::{LogFolder, LogText};

    #[test]
    fn a_log_is_read_back_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogFolder::of_project(folder.path());
        let text = "a line\n".repeat(10_000).into_bytes();
        let truncated = true;
        let kept = logs
            .write(&LogText {
                text: text.clone(),
                truncated,
            })
            .unwrap();
        assert_eq!((kept.bytes, kept.truncated), (70_000, true));
        assert_eq!(logs.read(&kept).unwrap(), Some(text));
        let file = std::fs::read_dir(&logs.root)
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert!(file.metadata().unwrap().len() < 1_000);
        std::fs::write(file.path(), b"other").unwrap();
        let error = format!("{:?}", miette::Report::new(logs.read(&kept).unwrap_err()));
        assert!(error.contains("does not have the digest"), "{error}");
        std::fs::remove_file(file.path()).unwrap();
        assert_eq!(logs.read(&kept).unwrap(), None);
    }
}
