//! The output of apps: a file for each app, with the time of each line. When a file is large, it
//! becomes the older one of two files.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;

use super::{Error, folder};
use crate::store::AppName;
use crate::target::AppLine;

/// Bytes of a file. There are two files for each app.
const LARGEST: u64 = 8 << 20;

/// The pause between two reads of a file that is followed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The file for the output of an app.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    /// Opens the file. Lines are added at its end.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = folder::open(path)?;
        let size = file.metadata().map_or(0, |it| it.len());
        Ok(Self {
            path: path.to_owned(),
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
                self.size = 0;
            }
        }
        if self.file.write_all(text.as_bytes()).is_ok() {
            self.size += text.len() as u64;
        }
    }
}

/// The older one of the two files.
fn older(path: &Path) -> PathBuf {
    path.with_extension("1.log")
}

/// A line with its time.
type TimedLine = (Option<Timestamp>, String);

/// Reads the output of an app, line by line.
pub struct LogReader {
    app: AppName,
    path: PathBuf,
    file: Option<BufReader<File>>,
    since: Option<Timestamp>,
    /// The start of a line that is not written completely.
    partial: String,
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
        }
    }

    /// Sends the lines that exist. Returns false when nobody receives them any more.
    pub async fn send(&mut self, lines: &Sender<AppLine>) -> bool {
        for (at, line) in self.read() {
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
        !lines.is_closed()
    }

    /// The lines that were added since the last call.
    fn read(&mut self) -> Vec<TimedLine> {
        let mut lines = Vec::new();
        if self.file.is_none() {
            if let Ok(file) = File::open(older(&self.path)) {
                self.file = Some(BufReader::new(file));
                self.read_file(&mut lines);
            }
            self.file = File::open(&self.path).ok().map(BufReader::new);
        }
        self.read_file(&mut lines);
        if self.is_replaced() {
            self.partial.clear();
            self.file = File::open(&self.path).ok().map(BufReader::new);
            self.read_file(&mut lines);
        }
        lines
    }

    /// Whether the file has become the older one.
    fn is_replaced(&self) -> bool {
        let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.ok().map(|it| it.ino());
        let open = self.file.as_ref();
        let open = open.and_then(|file| inode(file.get_ref().metadata()));
        let named = inode(self.path.metadata());
        open.is_some() && named.is_some() && open != named
    }

    fn read_file(&mut self, lines: &mut Vec<TimedLine>) {
        let Some(file) = &mut self.file else {
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
    use super::{LARGEST, LogFile, LogReader, older};
    use crate::store::AppName;

    #[test]
    fn a_log_is_bounded_and_is_followed_over_its_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.log");
        let mut log = LogFile::open(&path).unwrap();
        let mut reader = LogReader::new(AppName::new("app").unwrap(), path.clone(), None);
        let texts = |reader: &mut LogReader| -> Vec<String> {
            reader.read().into_iter().map(|(_, text)| text).collect()
        };
        log.add("first line");
        assert_eq!(texts(&mut reader), ["first line"]);
        let line = "x".repeat(1 << 20);
        let mut read = 0;
        for _ in 0..20 {
            log.add(&line);
            read += reader.read().len();
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
    }
}
