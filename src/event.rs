//! What can be observed of a run, and the way it travels from the work to its readers.
//!
//! Stages send [`Event`]s and know no screen; reports read them and know no stage.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cache::InputChange;
use crate::store::{StoreId, UnitId};

/// The stages of `deploy`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Layers to `.out`.
    Compose,
    /// The apps' `build` scripts.
    Build,
    /// Results to `.deploy`.
    Prune,
    /// `.deploy` to an image.
    Image,
    /// Images to the registry.
    Push,
    /// The console's call.
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

/// What an event is about: something of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Unit {
    /// The stage.
    pub stage: Stage,
    /// The store; none for a workspace package, which all stores share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    /// The app or the package; none when the store is meant as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The script, if it is another one than `build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

impl Unit {
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

    /// A store as a whole.
    pub fn store(stage: Stage, store: &StoreId) -> Self {
        Self {
            stage,
            store: Some(store.clone()),
            name: None,
            script: None,
        }
    }

    /// What is done to it: the script, or the stage.
    pub fn work(&self) -> String {
        self.script
            .clone()
            .unwrap_or_else(|| self.stage.to_string())
    }
}

impl std::fmt::Display for Unit {
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
    /// It is done; the note says with what result.
    Done {
        /// Such as a size or a digest.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It failed.
    Failed {
        /// Why, in one line.
        message: String,
    },
    /// It was never begun.
    Skipped {
        /// Whose failure that is.
        because: String,
    },
}

/// Why a result is not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "miss", rename_all = "lowercase")]
pub enum Miss {
    /// Nothing is remembered of this unit.
    New,
    /// It always runs.
    Never {
        /// Why.
        because: String,
    },
    /// What the tasks before it make is not known yet.
    Depends {
        /// On whose result.
        on: Vec<String>,
    },
    /// It was asked for with `--force`.
    Forced,
    /// What the unit saw when it was last built is what it sees now, but the result is gone.
    Gone,
    /// It sees something else than when it was last built.
    Changed {
        /// What.
        changes: Vec<InputChange>,
    },
}

/// Changes that one line has room for.
const FEW: usize = 3;

impl Miss {
    /// The reason for people: one line, or with every change on a line of its own.
    pub fn text(&self, in_full: bool) -> String {
        let changes = match self {
            Self::New => return "cache miss: no earlier result".into(),
            Self::Never { because } => return format!("always runs: {because}"),
            Self::Depends { on } => {
                return format!("depends on the result of {}", on.join(", "));
            }
            Self::Forced => return "runs because of --force".into(),
            Self::Gone => {
                return "cache miss: no input has changed, but the result is no longer in the cache".into();
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
        let shown: Vec<_> = changes.iter().take(FEW).map(ToString::to_string).collect();
        let more = match changes.len().saturating_sub(FEW) {
            0 => String::new(),
            rest => format!(", and {rest} more (--explain)"),
        };
        format!("cache miss, changed: {}{more}", shown.join(", "))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Event {
    /// A stage begins.
    StageStarted {
        /// Which.
        stage: Stage,
        /// How many units it has.
        units: usize,
        /// The script, if it is another one than `build`.
        #[serde(skip_serializing_if = "Option::is_none")]
        script: Option<String>,
    },
    /// A stage ended, well or not.
    StageFinished {
        /// Which.
        stage: Stage,
        /// Wall time.
        seconds: f64,
    },
    /// A unit begins.
    Started {
        /// Which.
        #[serde(flatten)]
        unit: Unit,
    },
    /// A line that a unit's child printed, or that the engine said of it.
    Output {
        /// Whose.
        #[serde(flatten)]
        unit: Unit,
        /// Without its line end.
        line: String,
    },
    /// A unit ended.
    Finished {
        /// Which.
        #[serde(flatten)]
        unit: Unit,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
        /// Wall time.
        seconds: f64,
    },
    /// A unit's result is not there, and its script will run.
    Missed {
        /// Whose.
        #[serde(flatten)]
        unit: Unit,
        /// Why.
        #[serde(flatten)]
        miss: Miss,
    },
    /// What a `.deploy` consists of, in bytes.
    Sizes {
        /// Whose.
        #[serde(flatten)]
        unit: Unit,
        /// All of it.
        total: u64,
        /// The app's own files.
        own: u64,
        /// Dependencies at the top, each with what is nested in it; largest first.
        dependencies: IndexMap<String, u64>,
    },
    /// Something a person should know.
    Notice {
        /// One sentence.
        message: String,
    },
}

/// Lines of output that may wait for a slow reader before their children wait too.
const BACKLOG: usize = 1024;

/// The sending end: cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Events {
    sender: UnboundedSender<SentEvent>,
    room: Arc<Semaphore>,
    outside: Arc<Mutex<WaitingTime>>,
}

type SentEvent = (Event, Option<OwnedSemaphorePermit>);

/// The receiving end.
#[derive(Debug)]
pub struct Received(UnboundedReceiver<SentEvent>);

impl Iterator for Received {
    type Item = Event;

    /// Waits for the next event; none when every sender is gone.
    fn next(&mut self) -> Option<Event> {
        self.0.blocking_recv().map(|(event, _room)| event)
    }
}

impl Events {
    /// A channel. Its few events of the plan's size never wait; output does.
    pub fn channel() -> (Self, Received) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let events = Self {
            sender,
            room: Arc::new(Semaphore::new(BACKLOG)),
            outside: Arc::default(),
        };
        (events, Received(receiver))
    }

    /// Sends one event. A reader that is gone ends no work.
    pub fn send(&self, event: Event) {
        let _ = self.sender.send((event, None));
    }

    /// Sends a line of output, as soon as there is room for it: a child that prints without
    /// end waits for the reader and fills no memory. Only this task waits; a person can still
    /// end the run while the reader is stalled.
    pub async fn output(&self, unit: &Unit, line: String) {
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let unit = unit.clone();
        let _ = self.sender.send((Event::Output { unit, line }, room));
    }

    /// Tells people something.
    pub fn notice(&self, message: impl Into<String>) {
        self.send(Event::Notice {
            message: message.into(),
        });
    }

    /// Marks time as waiting for something outside this program (a script, the engine, the
    /// network, another run) until the guard is dropped. Overlapping spans count once.
    pub fn outside(&self) -> OutsideGuard {
        OutsideGuard(ActivityGuard::begin(&self.outside, Activity::Waiting))
    }

    /// Marks work of this program that may run while something else is waited for: packing,
    /// unpacking, hashing. Until the guard is dropped no time counts as waiting.
    pub fn working(&self) -> WorkingGuard {
        WorkingGuard(ActivityGuard::begin(&self.outside, Activity::Working))
    }

    /// Wall time so far in which this program did nothing but wait for others.
    pub fn outside_time(&self) -> Duration {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.change(Instant::now(), |_| ());
        outside.total
    }

    /// Runs one unit and sends its beginning and its end.
    pub fn observe<T, E: std::fmt::Display>(
        &self,
        unit: &Unit,
        note: impl FnOnce(&T) -> Option<String>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let span = self.begin(unit);
        let result = work();
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        result
    }

    /// Sends a unit's beginning; [`Span::end`] sends its end.
    pub fn begin(&self, unit: &Unit) -> Span {
        self.send(Event::Started { unit: unit.clone() });
        self.span(unit)
    }

    /// A unit whose end alone is sent: it is over before its beginning could be read.
    pub fn span(&self, unit: &Unit) -> Span {
        Span {
            events: self.clone(),
            unit: unit.clone(),
            started: Instant::now(),
        }
    }
}

/// A unit that has begun.
#[derive(Debug)]
pub struct Span {
    events: Events,
    unit: Unit,
    started: Instant,
}

impl Span {
    /// Sends the unit's end and gives the time it took.
    pub fn end(self, result: Result<Option<String>, String>) -> Duration {
        self.finish(match result {
            Ok(note) => Outcome::Done { note },
            // The rest (a script's last lines) comes with the error itself.
            Err(message) => Outcome::Failed {
                message: message.lines().next().unwrap_or_default().to_owned(),
            },
        })
    }

    /// Sends that the unit was given up before it did anything, and because of whom.
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

/// Wall time in which something outside is waited for, and nothing is done meanwhile.
#[derive(Debug, Default)]
struct WaitingTime {
    waiting: usize,
    working: usize,
    /// Since when the time counts; none while it does not.
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
    outside: Arc<Mutex<WaitingTime>>,
    kind: Activity,
}

impl ActivityGuard {
    fn begin(outside: &Arc<Mutex<WaitingTime>>, kind: Activity) -> Self {
        let doing = Self {
            outside: Arc::clone(outside),
            kind,
        };
        doing.change(|count| count + 1);
        doing
    }

    fn change(&self, count: impl FnOnce(usize) -> usize) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.kind;
        outside.change(Instant::now(), |outside| {
            let counted = outside.count(kind);
            *counted = count(*counted);
        });
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.change(|count| count - 1);
    }
}

/// While it lives, something outside is waited for.
#[derive(Debug)]
pub struct OutsideGuard(#[expect(dead_code, reason = "it is there to be dropped")] ActivityGuard);

/// While it lives, this program works, whatever else is waited for.
#[derive(Debug)]
pub struct WorkingGuard(#[expect(dead_code, reason = "it is there to be dropped")] ActivityGuard);

/// Seconds, to the millisecond: more digits are noise in a log.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A size for people, in powers of 1000: `820 B`, `3.1 MB`.
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
        let mut outside = WaitingTime::default();
        let mut at = |second: u64, kind: Activity, more: bool| {
            outside.change(start + Duration::from_secs(second), |outside| {
                let count = outside.count(kind);
                *count = if more { *count + 1 } else { *count - 1 };
            });
            outside.total.as_secs()
        };
        assert_eq!(at(1, Activity::Waiting, true), 0);
        assert_eq!(at(3, Activity::Waiting, true), 2, "a span goes on");
        assert_eq!(at(4, Activity::Working, true), 3);
        assert_eq!(at(10, Activity::Working, true), 3, "work is no waiting");
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
