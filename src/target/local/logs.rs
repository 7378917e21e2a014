//! The output of apps: a file for each app, with the time of each line. When a file is large, it
//! becomes the older one of two files.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;

use super::{Error, folder};
use crate::store::AppName;
use crate::target::AppLine;

/// Bytes of a file. There are two files for each app.
const LARGEST: u64 = 8 << 20;

/// The start of the first line of a file, before the number of full files before it. It has no space, so it is
/// not a line of an app. The first file does not have it.
const NUMBER: &str = "file-";

/// Shown where a reader was slower than the app.
const MISSING: &str =
    "alokai: lines are missing here, because the app has written them faster than they were read";

/// The pause between two reads of a file that is followed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The file for the output of an app.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    number: u64,
}

impl LogFile {
    /// Opens the file. Lines are added at its end.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = folder::open(path)?;
        let size = file.metadata().map_or(0, |it| it.len());
        Ok(Self {
            path: path.to_owned(),
            number: number_of(&file),
            file,
            size,
        })
    }

    /// Adds a line. A line that cannot be written is lost.
    pub fn add(&mut self, line: &str) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
        let text = format!("{now} {line}\n");
        if self.size + text.len() as u64 > LARGEST {
            let _ = std::fs::rename(&self.path, older(&self.path));
            if let Ok(file) = folder::open(&self.path) {
                self.file = file;
                self.number += 1;
                let head = format!("{NUMBER}{}\n", self.number);
                let _ = self.file.write_all(head.as_bytes());
                self.size = head.len() as u64;
            }
        }
        if self.file.write_all(text.as_bytes()).is_ok() {
            self.size += text.len() as u64;
        }
    }
}

/// The number of a file.
fn number_of(file: &File) -> u64 {
    let mut start = [0; 32];
    let read = file.read_at(&mut start, 0).unwrap_or_default();
    let start = String::from_utf8_lossy(&start[..read]);
    let line = start.lines().next().unwrap_or_default();
    let number = line.strip_prefix(NUMBER).and_then(|it| it.parse().ok());
    number.unwrap_or_default()
}

/// The older one of the two files.
fn older(path: &Path) -> PathBuf {
    path.with_extension("1.log")
}

/// A line with its time.
type TimedLine = (Option<Timestamp>, String);

/// A file that is read.
struct OpenFile {
    reader: BufReader<File>,
    inode: u64,
    number: u64,
}

impl OpenFile {
    /// Opens a file. None for a file without content, whose number is not written yet.
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        (metadata.len() > 0).then(|| Self {
            inode: metadata.ino(),
            number: number_of(&file),
            reader: BufReader::new(file),
        })
    }
}

/// Reads the output of an app, line by line.
pub struct LogReader {
    app: AppName,
    path: PathBuf,
    file: Option<OpenFile>,
    since: Option<Timestamp>,
    /// The start of a line that is not written completely.
    partial: String,
    /// Whether a file before this one was removed before it was read.
    is_missing: bool,
}

impl LogReader {
    /// A reader of the lines since a time.
    pub fn new(app: AppName, path: PathBuf, since: Option<Timestamp>) -> Self {
        Self {
            app,
            path,
            file: None,
            since,
            partial: String::new(),
            is_missing: false,
        }
    }

    /// Sends the lines that exist. Returns false when nobody receives them any more.
    pub async fn send(&mut self, lines: &Sender<AppLine>) -> bool {
        loop {
            let (read, is_last) = self.read();
            for (at, line) in read {
                let line = AppLine {
                    app: self.app.clone(),
                    replica: 1,
                    at,
                    line,
                };
                if lines.send(line).await.is_err() {
                    return false;
                }
            }
            if is_last {
                return !lines.is_closed();
            }
        }
    }

    /// The lines that were added to the open file since the last call, and whether there is no newer file.
    fn read(&mut self) -> (Vec<TimedLine>, bool) {
        // A file with a newer one does not change any more, so this question is first.
        let next = self.next();
        let mut lines = Vec::new();
        self.read_file(&mut lines);
        let Some(next) = next else {
            return (lines, true);
        };
        if let Some(file) = &self.file {
            self.is_missing |= next.number > file.number + 1;
        }
        self.partial.clear();
        self.file = Some(next);
        (lines, false)
    }

    /// The file after the open one.
    fn next(&self) -> Option<OpenFile> {
        let newest = OpenFile::open(&self.path);
        let older = OpenFile::open(&older(&self.path));
        let Some(file) = &self.file else {
            return older.or(newest);
        };
        let newest = newest.filter(|newest| newest.inode != file.inode)?;
        let is_next = |it: &OpenFile| it.number > file.number && it.number < newest.number;
        // Without a number, the newest one is the next.
        Some(older.filter(is_next).unwrap_or(newest))
    }

    fn read_file(&mut self, lines: &mut Vec<TimedLine>) {
        let Some(OpenFile { reader: file, .. }) = &mut self.file else {
            return;
        };
        // A reader at the end of a file has to look at the file again.
        let _ = file
            .stream_position()
            .and_then(|at| file.seek(SeekFrom::Start(at)));
        while file.read_line(&mut self.partial).is_ok_and(|it| it > 0) {
            if !self.partial.ends_with('\n') {
                break;
            }
            let line = std::mem::take(&mut self.partial);
            let Some((time, text)) = line.trim_end_matches('\n').split_once(' ') else {
                continue;
            };
            let time: Option<Timestamp> = time.parse().ok();
            let is_wanted = self.since.is_none() || time >= self.since;
            if is_wanted {
                if std::mem::take(&mut self.is_missing) {
                    lines.push((time, MISSING.to_owned()));
                }
                lines.push((time, text.to_owned()));
            }
        }
    }
}

/// Sends the output of apps, and then waits for further lines if it is followed.
pub async fn send_all(mut readers: Vec<LogReader>, follow: bool, lines: &Sender<AppLine>) {
    loop {
        for reader in &mut readers {
            if !reader.send(lines).await {
                return;
            }
        }
        if !follow {
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGEST, LogFile, LogReader, MISSING, older};
    use crate::store::AppName;

    #[test]
    fn a_log_is_bounded_and_is_followed_over_its_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let mut log = LogFile::open(&path).unwrap();
        let mut reader = LogReader::new(AppName::new("app").unwrap(), path.clone(), None);
        let texts = |reader: &mut LogReader| -> Vec<String> {
            let mut texts = Vec::new();
            loop {
                let (lines, is_last) = reader.read();
                texts.extend(lines.into_iter().map(|(_, text)| text));
                if is_last {
                    return texts;
                }
            }
        };
        log.add("first line");
        assert_eq!(texts(&mut reader), ["first line"]);
        let line = "x".repeat(1 << 20);
        let mut read = 0;
        for _ in 0..20 {
            log.add(&line);
            read += texts(&mut reader).len();
        }
        assert_eq!(read, 20);
        log.add("last line");
        assert_eq!(texts(&mut reader), ["last line"]);
        for file in [older(&path), path.clone()] {
            assert!(file.metadata().unwrap().len() <= LARGEST);
        }
        let mut again = LogReader::new(AppName::new("app").unwrap(), path, None);
        let lines = texts(&mut again);
        assert!(lines.len() < 20);
        assert_eq!(lines.last().unwrap(), "last line");

        // All lines of the files that still exist are read, and a note stands for the others.
        for _ in 0..15 {
            log.add(&line);
        }
        assert_eq!(texts(&mut reader).len(), 15);
        for _ in 0..30 {
            log.add(&line);
        }
        log.add("the end");
        let lines = texts(&mut reader);
        let notes = lines.iter().filter(|it| *it == MISSING);
        assert_eq!(notes.count(), 1);
        assert!(lines.len() > 10 && lines.len() < 31, "{}", lines.len());
        assert_eq!(lines.last().unwrap(), "the end");
    }
}
