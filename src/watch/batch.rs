//! Collects events of the file system until no more arrive for a moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};

/// How long no event may arrive before a batch of few paths is taken.
const QUIET_AFTER_FEW: Duration = Duration::from_millis(10);

/// The same for a batch of many paths, such as those of a checkout.
const QUIET_AFTER_MANY: Duration = Duration::from_millis(30);

/// The most paths that are few.
const FEW: usize = 8;

/// The longest time that a batch is collected, although events arrive or a file is still open.
const LONGEST: Duration = Duration::from_millis(250);

/// A message to the thread that keeps `.out` in step.
#[derive(Debug)]
pub enum Message {
    /// An event of the file system, or its error.
    Event(notify::Result<notify::Event>),
    /// The thread has to end.
    Stop,
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Files have changed.
    Batch(Batch),
    /// Nothing has changed for the given time.
    Quiet,
    /// The thread has to end.
    Stop,
}

/// Where to look.
#[derive(Debug, Default)]
pub struct Batch {
    /// Paths whose content or permissions have changed.
    pub modified: BTreeSet<PathBuf>,
    /// Paths that were created, removed or renamed.
    pub entries: BTreeSet<PathBuf>,
    /// Whether events were lost, so that anything may have changed.
    pub is_incomplete: bool,
    /// Files that a program is writing.
    open: BTreeSet<PathBuf>,
}

impl Batch {
    /// Adds what another batch has.
    pub fn merge(&mut self, other: Self) {
        self.modified.extend(other.modified);
        self.entries.extend(other.entries);
        self.is_incomplete |= other.is_incomplete;
    }

    fn add(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            _ => {
                self.is_incomplete = true;
                return;
            }
        };
        for path in event.paths {
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    self.open.remove(&path);
                    self.modified.insert(path);
                }
                EventKind::Modify(ModifyKind::Data(_)) => {
                    // Other systems do not report when a file is closed.
                    if cfg!(target_os = "linux") {
                        self.open.insert(path.clone());
                    }
                    self.modified.insert(path);
                }
                EventKind::Modify(ModifyKind::Metadata(_)) => {
                    self.modified.insert(path);
                }
                _ => {
                    self.open.remove(&path);
                    self.entries.insert(path);
                }
            }
        }
    }

    /// How long to wait for another event.
    fn patience(&self) -> Duration {
        if !self.open.is_empty() {
            LONGEST
        } else if self.modified.len() + self.entries.len() <= FEW {
            QUIET_AFTER_FEW
        } else {
            QUIET_AFTER_MANY
        }
    }

    /// The paths that have changed in any way.
    pub fn paths(&self) -> impl Iterator<Item = (&Path, bool)> {
        let modified = self.modified.iter().map(|path| (path.as_path(), false));
        let entries = self.entries.iter().map(|path| (path.as_path(), true));
        modified.chain(entries)
    }
}

/// Passes events on, except those of programs that read.
pub fn forward(sender: Sender<Message>) -> impl FnMut(notify::Result<notify::Event>) + Send {
    move |event| {
        let is_read = event.as_ref().is_ok_and(|event| {
            let is_written = AccessKind::Close(AccessMode::Write);
            matches!(event.kind, EventKind::Access(access) if access != is_written)
        });
        if !is_read {
            // The receiver has ended only if the program ends.
            let _ = sender.send(Message::Event(event));
        }
    }
}

/// Waits for the next batch, at most for `timeout`.
pub fn next(messages: &Receiver<Message>, timeout: Option<Duration>) -> Next {
    let first = match timeout {
        Some(timeout) => messages.recv_timeout(timeout),
        None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    let mut batch = Batch::default();
    match first {
        Ok(Message::Event(event)) => batch.add(event),
        Err(RecvTimeoutError::Timeout) => return Next::Quiet,
        Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
    }
    let end = Instant::now() + LONGEST;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        match messages.recv_timeout(batch.patience().min(rest)) {
            Ok(Message::Event(event)) => batch.add(event),
            Err(RecvTimeoutError::Timeout) => return Next::Batch(batch),
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
        }
        // An endless stream of events must not delay the batch.
        if rest.is_zero() {
            return Next::Batch(batch);
        }
    }
}
