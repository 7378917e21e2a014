//! The project's lock: one run at a time in a project. A second run waits, and tells for which process.
//!
//! It is a lock of the system on `.alokai/lock`, so it is released whenever its process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::failure::{Error, Io};
use super::services::Interrupt;
use crate::event::{Events, Stage};

/// The lock, held while a run writes.
#[derive(Debug)]
pub struct ProjectLock {
    _file: File,
    waited: bool,
}

/// The folder `.alokai` of a project, which git ignores. Creates it if it is missing.
pub fn own_folder(project: &Path) -> Result<std::path::PathBuf, Io> {
    let folder = project.join(".alokai");
    if folder
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_symlink())
    {
        let error =
            std::io::Error::other("it is a symbolic link; alokai writes only inside the project");
        return Err(Io::at("use", &folder)(error));
    }
    std::fs::create_dir_all(&folder).map_err(Io::at("create the folder", &folder))?;
    let ignore = folder.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(&ignore, "*\n").map_err(Io::at("write", &ignore))?;
    }
    Ok(folder)
}

impl ProjectLock {
    /// Takes the lock, and waits for another run if there is one.
    pub fn take(project: &Path, events: &Events, interrupt: &Interrupt) -> Result<Self, Error> {
        let path = own_folder(project)?.join("lock");
        let mut file = open(&path)?;
        let mut told = false;
        let mut waiting = None;
        while !is_taken(&file, &path)? {
            waiting.get_or_insert_with(|| events.waiting());
            if !told {
                events.notice(format!(
                    "waiting for another run in `{}` to end ({})",
                    project.display(),
                    holder(&mut file)
                ));
                told = true;
            }
            if interrupt.stopped() {
                return Err(Error::Interrupted {
                    stage: Stage::Compose,
                    failures: Vec::new(),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        sign(&mut file).map_err(Io::at("write", &path))?;
        Ok(Self {
            _file: file,
            waited: told,
        })
    }

    /// Takes the lock if it is free; the error names the process that has it.
    pub fn take_now(project: &Path) -> Result<Self, Io> {
        let path = own_folder(project)?.join("lock");
        let mut file = open(&path)?;
        if !is_taken(&file, &path)? {
            let reason = format!("another run holds the lock ({})", holder(&mut file));
            return Err(Io::at("lock", &path)(std::io::Error::other(reason)));
        }
        sign(&mut file).map_err(Io::at("write", &path))?;
        Ok(Self {
            _file: file,
            waited: false,
        })
    }
}

fn open(path: &Path) -> Result<File, Io> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Io::at("open", path))
}

/// Tries to take the lock, and returns whether it succeeded.
fn is_taken(file: &File, path: &Path) -> Result<bool, Io> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Io::at("lock", path)(error)),
    }
}

/// The process that has the lock, as it has written into the file.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    match holder.trim() {
        "" => "another process".into(),
        holder => holder.to_owned(),
    }
}

fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    let now = humantime(std::time::SystemTime::now());
    writeln!(file, "pid {}, since {now}", std::process::id())
}

impl ProjectLock {
    /// Whether another run has worked in the project while this one waited.
    pub fn has_waited(&self) -> bool {
        self.waited
    }
}

/// The time in UTC, as in `2026-01-31 12:00:00 UTC`.
fn humantime(time: std::time::SystemTime) -> String {
    let seconds = time
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or_default())
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}
