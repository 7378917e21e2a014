//! The project's lock: one run at a time in a project. A second run waits, and tells for which process.
//!
//! It is a lock of the system on `.alokai/lock`, so it is released whenever its process ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use super::failure::{Error, Io};
use super::services::Interrupt;
use crate::edit;
use crate::event::{Events, Stage};

/// The lock, held while a run writes.
#[derive(Debug)]
pub struct ProjectLock {
    _file: File,
    waited: bool,
    recovery: Option<edit::Recovery>,
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
        let lock = Self::sign(file, &path, project, told)?;
        if let Some(recovery) = &lock.recovery {
            events.notice(recovery.to_string());
        }
        Ok(lock)
    }

    /// Takes the lock if it is free; the error names the process that has it.
    pub fn take_now(project: &Path) -> Result<Self, Io> {
        let path = own_folder(project)?.join("lock");
        let mut file = open(&path)?;
        if !is_taken(&file, &path)? {
            let reason = format!("another run holds the lock ({})", holder(&mut file));
            let error = std::io::Error::new(ErrorKind::WouldBlock, reason);
            return Err(Io::at("lock", &path)(error));
        }
        Self::sign(file, &path, project, false)
    }

    /// Writes this process into the lock that it holds, and undoes or completes an edit of the tree
    /// whose process was killed.
    fn sign(mut file: File, path: &Path, project: &Path, waited: bool) -> Result<Self, Io> {
        sign(&mut file).map_err(Io::at("write", path))?;
        let recovery = edit::recover(project)
            .map_err(|error| Io::at("recover", project)(std::io::Error::other(describe(&error))))?;
        Ok(Self {
            _file: file,
            waited,
            recovery,
        })
    }

    /// The interrupted edit of the tree that was undone or completed when the lock was taken.
    pub fn recovery(&self) -> Option<&edit::Recovery> {
        self.recovery.as_ref()
    }
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
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
    /// Whether the project may have changed since this run started: another run has worked in it, or
    /// an interrupted edit of the tree was undone.
    pub fn has_waited(&self) -> bool {
        self.waited || self.recovery.is_some()
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
