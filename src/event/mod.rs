//! The events of a run, and the channel that carries them from stages to reports.
//!
//! Stages send [`Event`]s and do not know the screen. Reports read events and do not know the stages.

mod servers;
mod sync;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use servers::{ServerId, ServerState, TestCounts};
pub use sync::{FileChange, SyncEvent, SyncedFile};

use crate::cache::InputChange;
use crate::store::{StoreId, UnitId};

/// The stages of `deploy`, in order.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Writes each store to `.out`.
    Compose,
    /// Runs the `build` scripts.
    Build,
    /// Copies what an app needs at run time to `.deploy`.
    Prune,
    /// Makes an image of each `.deploy`.
    Image,
    /// Sends images to the registry.
    Push,
    /// Brings stores live.
    Deploy,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compose => "compose",
            Self::Build => "build",
            Self::Prune => "prune",
            Self::Image => "image",
            Self::Push => "push",
            Self::Deploy => "deploy",
        })
    }
}

/// What an event is about: one app, package or store in one stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct EventSubject {
    /// The stage.
    pub stage: Stage,
    /// The store. `None` for a workspace package, which all stores share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    /// The app or package. `None` for a whole store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The script, if it is not `build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

impl EventSubject {
    /// One app of one store.
    pub fn app(stage: Stage, unit: &UnitId) -> Self {
        Self {
            stage,
            store: Some(unit.store.clone()),
            name: Some(unit.app.to_string()),
            script: None,
        }
    }

    /// A workspace package.
    pub fn package(stage: Stage, name: &str) -> Self {
        Self {
            stage,
            store: None,
            name: Some(name.to_owned()),
            script: None,
        }
    }

    /// A whole store.
    pub fn store(stage: Stage, store: &StoreId) -> Self {
        Self {
            stage,
            store: Some(store.clone()),
            name: None,
            script: None,
        }
    }

    /// The name of the script, or of the stage.
    pub fn work(&self) -> String {
        self.script
            .clone()
            .unwrap_or_else(|| self.stage.to_string())
    }
}

impl std::fmt::Display for EventSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.store, &self.name) {
            (Some(store), Some(name)) => write!(f, "{store}/{name}"),
            (Some(store), None) => store.fmt(f),
            (None, name) => f.write_str(name.as_deref().unwrap_or_default()),
        }
    }
}

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// The unit succeeded.
    Done {
        /// The result in a few words, such as a size or a digest.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The unit failed.
    Failed {
        /// The reason, in one line.
        message: String,
    },
    /// The unit was not started.
    Skipped {
        /// The unit whose failure caused it.
        because: String,
    },
}

/// Why a script has to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "miss", rename_all = "lowercase")]
pub enum Miss {
    /// The unit has no earlier result.
    New,
    /// The script always runs.
    Never {
        /// The reason.
        because: String,
    },
    /// The key depends on results that do not exist yet.
    Depends {
        /// The tasks that make these results.
        on: Vec<String>,
    },
    /// `--force` was given.
    Forced,
    /// The inputs are those of the last result, but no usable result was found.
    Gone,
    /// The inputs differ from those of the last result.
    Changed {
        /// The differences.
        changes: Vec<InputChange>,
    },
}

/// A tool cache that was put in place before a script began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCacheUse {
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Where it comes from.
    pub from: ToolCacheOrigin,
}

/// Where a tool cache comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolCacheOrigin {
    /// The cache on this machine.
    Local,
    /// The remote cache.
    Remote,
}

/// The most changes that are listed in one line.
const CHANGES_IN_A_LINE: usize = 3;

impl Miss {
    /// The reason as text: in one line, or in full with one line for each change.
    pub fn text(&self, in_full: bool) -> String {
        let changes = match self {
            Self::New => return "cache miss: no earlier result".into(),
            Self::Never { because } => return format!("always runs: {because}"),
            Self::Depends { on } => {
                return format!("depends on the result of {}", on.join(", "));
            }
            Self::Forced => return "runs because of --force".into(),
            Self::Gone => {
                return "cache miss: the inputs have not changed, but there is no usable result"
                    .into();
            }
            Self::Changed { changes } => changes,
        };
        if in_full {
            let lines = changes.iter().map(|change| format!("\n      {change}"));
            return format!(
                "cache miss, changed since the last result:{}",
                lines.collect::<String>()
            );
        }
        let shown: Vec<_> = changes
            .iter()
            .take(CHANGES_IN_A_LINE)
            .map(ToString::to_string)
            .collect();
        let more = match changes.len().saturating_sub(CHANGES_IN_A_LINE) {
            0 => String::new(),
            rest => format!(", and {rest} more (use `--explain` to list all)"),
        };
        format!("cache miss, changed: {}{more}", shown.join(", "))
    }
}

/// One event of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    /// A stage starts.
    StageStarted {
        /// The stage.
        stage: Stage,
        /// The number of its units.
        units: usize,
        /// The script, if it is not `build`.
        #[serde(skip_serializing_if = "Option::is_none")]
        script: Option<String>,
    },
    /// A stage ended, with success or failure.
    StageFinished {
        /// The stage.
        stage: Stage,
        /// Wall time in seconds.
        seconds: f64,
    },
    /// A unit starts.
    Started {
        /// The unit.
        #[serde(flatten)]
        unit: EventSubject,
    },
    /// A line that a script or the Docker engine printed.
    Output {
        /// The unit that the line belongs to.
        #[serde(flatten)]
        unit: EventSubject,
        /// The line, without its line end.
        line: String,
    },
    /// A unit ended.
    Finished {
        /// The unit.
        #[serde(flatten)]
        unit: EventSubject,
        /// Success, failure or skipped.
        #[serde(flatten)]
        outcome: Outcome,
        /// Wall time in seconds.
        seconds: f64,
    },
    /// The cache has no result for a unit, so its script runs.
    Missed {
        /// The unit.
        #[serde(flatten)]
        unit: EventSubject,
        /// The reason.
        #[serde(flatten)]
        miss: Miss,
        /// The tool cache that was put in place before the script.
        #[serde(skip_serializing_if = "Option::is_none")]
        tool_cache: Option<ToolCacheUse>,
    },
    /// The sizes of the parts of a `.deploy` folder, in bytes.
    Sizes {
        /// The unit.
        #[serde(flatten)]
        unit: EventSubject,
        /// The whole folder.
        total: u64,
        /// The app's own files.
        own: u64,
        /// Top-level dependencies with everything nested in them, largest first.
        dependencies: IndexMap<String, u64>,
    },
    /// `.out` is kept in step with changing sources.
    Sync {
        /// What happened.
        #[serde(flatten)]
        sync: SyncEvent,
    },
    /// The state of a server has changed.
    Server {
        /// The server.
        #[serde(flatten)]
        server: ServerId,
        /// Its new state.
        #[serde(flatten)]
        state: ServerState,
    },
    /// A line that a server printed.
    ServerOutput {
        /// The server.
        #[serde(flatten)]
        server: ServerId,
        /// The line, without its line end.
        line: String,
    },
    /// The browser tests of a store have ended.
    Tested {
        /// The store and the app with the tests.
        #[serde(flatten)]
        tests: ServerId,
        /// Their results.
        #[serde(flatten)]
        counts: TestCounts,
        /// Wall time in seconds, without the start of the servers.
        seconds: f64,
    },
    /// A message to the user that is not an error.
    Notice {
        /// One sentence.
        message: String,
    },
}

/// The most lines of output that wait for a slow reader. Scripts wait when the queue is full.
const BACKLOG: usize = 1024;

/// The sending end of the channel. It is cheap to clone and can be used from any thread.
#[derive(Debug, Clone)]
pub struct Events {
    sender: UnboundedSender<SentEvent>,
    room: Arc<Semaphore>,
    waiting: Arc<Mutex<WaitingTime>>,
}

/// What goes through the channel.
#[derive(Debug)]
enum SentEvent {
    /// An event, with its room in the queue.
    Event(Box<Event>, Option<OwnedSemaphorePermit>),
    /// The reader answers when it has taken all events before.
    Flush(std::sync::mpsc::Sender<()>),
}

/// The receiving end of the channel.
#[derive(Debug)]
pub struct Received(UnboundedReceiver<SentEvent>);

impl Iterator for Received {
    type Item = Event;

    /// Waits for the next event. `None` when every sender has been dropped.
    fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.blocking_recv()? {
                SentEvent::Event(event, _room) => return Some(*event),
                // The caller may have stopped to wait.
                SentEvent::Flush(answer) => drop(answer.send(())),
            }
        }
    }
}

impl Events {
    /// Makes a channel. Only lines of output wait when the reader is slow. The number of other events
    /// is bounded by the plan, so they are sent at once.
    pub fn channel() -> (Self, Received) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let events = Self {
            sender,
            room: Arc::new(Semaphore::new(BACKLOG)),
            waiting: Arc::default(),
        };
        (events, Received(receiver))
    }

    /// Sends one event. If the reader has ended, the event is dropped and the run continues.
    pub fn send(&self, event: Event) {
        let _ = self.sender.send(SentEvent::Event(Box::new(event), None));
    }

    /// Sends a line of output when the queue has room for it, so that output cannot fill the memory.
    /// Only this task waits. The user can still interrupt the run while the reader is stalled.
    pub async fn output(&self, unit: &EventSubject, line: String) {
        let unit = unit.clone();
        self.send_line(Event::Output { unit, line }).await;
    }

    /// Sends a line of a server's output when the queue has room for it.
    pub async fn server_output(&self, server: &ServerId, line: String) {
        let server = server.clone();
        self.send_line(Event::ServerOutput { server, line }).await;
    }

    async fn send_line(&self, line: Event) {
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let _ = self.sender.send(SentEvent::Event(Box::new(line), room));
    }

    /// Sends the new state of a server.
    pub fn server(&self, server: &ServerId, state: ServerState) {
        let server = server.clone();
        self.send(Event::Server { server, state });
    }

    /// Waits until the reader has taken all events that were sent, or until the time is over because
    /// the reader is stalled.
    pub fn flush(&self, limit: Duration) {
        let (answer, answered) = std::sync::mpsc::channel();
        if self.sender.send(SentEvent::Flush(answer)).is_ok() {
            let _ = answered.recv_timeout(limit);
        }
    }

    /// Sends a message to the user.
    pub fn notice(&self, message: impl Into<String>) {
        self.send(Event::Notice {
            message: message.into(),
        });
    }

    /// Marks time as waiting for something outside this program (a script, the engine, the
    /// network, another run) until the guard is dropped. Overlapping spans count once.
    pub fn waiting(&self) -> WaitingGuard {
        WaitingGuard(ActivityGuard::begin(&self.waiting, Activity::Waiting))
    }

    /// Marks work of this program that may run while something else is waited for: packing,
    /// unpacking, hashing. Until the guard is dropped no time counts as waiting.
    pub fn working(&self) -> WorkingGuard {
        WorkingGuard(ActivityGuard::begin(&self.waiting, Activity::Working))
    }

    /// The wall time so far in which this program only waited.
    pub fn waiting_time(&self) -> Duration {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.change(Instant::now(), |_| ());
        waiting.total
    }

    /// Runs one unit, and sends its start and its end.
    pub fn observe<T, E: std::fmt::Display>(
        &self,
        unit: &EventSubject,
        note: impl FnOnce(&T) -> Option<String>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let span = self.begin(unit);
        let result = work();
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        result
    }

    /// Sends the start of a unit. [`Span::end`] sends its end.
    pub fn begin(&self, unit: &EventSubject) -> Span {
        self.send(Event::Started { unit: unit.clone() });
        self.span(unit)
    }

    /// A unit whose end is sent, but not its start, since it ends at once.
    pub fn span(&self, unit: &EventSubject) -> Span {
        Span {
            events: self.clone(),
            unit: unit.clone(),
            started: Instant::now(),
        }
    }
}

/// A unit that has started.
#[derive(Debug)]
pub struct Span {
    events: Events,
    unit: EventSubject,
    started: Instant,
}

impl Span {
    /// Sends the end of the unit and returns the time it took.
    pub fn end(self, result: Result<Option<String>, String>) -> Duration {
        self.finish(match result {
            Ok(note) => Outcome::Done { note },
            // The error itself has the other lines, such as the last output of a script.
            Err(message) => Outcome::Failed {
                message: message.lines().next().unwrap_or_default().to_owned(),
            },
        })
    }

    /// Sends that the unit was skipped because of another unit.
    pub fn skip(self, because: &str) {
        self.finish(Outcome::Skipped {
            because: because.to_owned(),
        });
    }

    fn finish(self, outcome: Outcome) -> Duration {
        let elapsed = self.started.elapsed();
        self.events.send(Event::Finished {
            unit: self.unit,
            outcome,
            seconds: seconds(elapsed),
        });
        elapsed
    }
}

/// The wall time in which the program only waits: for a script, the engine, the network or a lock.
#[derive(Debug, Default)]
struct WaitingTime {
    waiting: usize,
    working: usize,
    /// The start of the current wait. `None` while the program works.
    since: Option<Instant>,
    total: Duration,
}

impl WaitingTime {
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        if let Some(since) = self.since.take() {
            self.total += now.saturating_duration_since(since);
        }
        change(self);
        self.since = (self.waiting > 0 && self.working == 0).then_some(now);
    }

    fn count(&mut self, kind: Activity) -> &mut usize {
        match kind {
            Activity::Waiting => &mut self.waiting,
            Activity::Working => &mut self.working,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Waiting,
    Working,
}

#[derive(Debug)]
struct ActivityGuard {
    waiting: Arc<Mutex<WaitingTime>>,
    kind: Activity,
}

impl ActivityGuard {
    fn begin(waiting: &Arc<Mutex<WaitingTime>>, kind: Activity) -> Self {
        let doing = Self {
            waiting: Arc::clone(waiting),
            kind,
        };
        doing.change(|count| count + 1);
        doing
    }

    fn change(&self, count: impl FnOnce(usize) -> usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.kind;
        waiting.change(Instant::now(), |waiting| {
            let counted = waiting.count(kind);
            *counted = count(*counted);
        });
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.change(|count| count - 1);
    }
}

/// While this value exists, the program waits for something outside.
#[derive(Debug)]
pub struct WaitingGuard(#[expect(dead_code, reason = "only its drop matters")] ActivityGuard);

/// While this value exists, the program works.
#[derive(Debug)]
pub struct WorkingGuard(#[expect(dead_code, reason = "only its drop matters")] ActivityGuard);

/// Seconds, rounded to the millisecond.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A size as text, in powers of 1000: `820 B`, `3.1 MB`.
pub fn bytes(size: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = size as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Activity, WaitingTime};

    #[test]
    fn time_counts_as_waiting_only_while_nothing_is_done() {
        let start = Instant::now();
        let mut waiting = WaitingTime::default();
        let mut at = |second: u64, kind: Activity, more: bool| {
            waiting.change(start + Duration::from_secs(second), |waiting| {
                let count = waiting.count(kind);
                *count = if more { *count + 1 } else { *count - 1 };
            });
            waiting.total.as_secs()
        };
        assert_eq!(at(1, Activity::Waiting, true), 0);
        assert_eq!(at(3, Activity::Waiting, true), 2, "a span goes on");
        assert_eq!(at(4, Activity::Working, true), 3);
        assert_eq!(at(10, Activity::Working, true), 3, "work is not waiting");
        assert_eq!(at(20, Activity::Working, false), 3);
        assert_eq!(at(30, Activity::Waiting, false), 3);
        assert_eq!(at(31, Activity::Working, false), 3);
        assert_eq!(at(33, Activity::Waiting, false), 5, "the last span ends");
        assert_eq!(at(40, Activity::Working, true), 5);
        assert_eq!(at(41, Activity::Waiting, true), 5, "it works already");
        assert_eq!(at(45, Activity::Working, false), 5);
        assert_eq!(at(46, Activity::Waiting, false), 6);
    }
}
