//! The events of a run, and the channel that carries them from stages to reports.
//!
//! Stages send [`Event`]s and do not know the screen. Reports read events and do not know the stages.

mod channel;
mod servers;
mod sync;

use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;

pub use channel::{Events, Received, Span, WaitingGuard, WorkingGuard};
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
    /// The time and the stage of a hook, such as `before push`. `None` if this is not a hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
}

impl EventSubject {
    /// One app of one store.
    pub fn app(stage: Stage, unit: &UnitId) -> Self {
        Self {
            stage,
            store: Some(unit.store.clone()),
            name: Some(unit.app.to_string()),
            script: None,
            hook: None,
        }
    }

    /// A workspace package.
    pub fn package(stage: Stage, name: &str) -> Self {
        Self {
            stage,
            store: None,
            name: Some(name.to_owned()),
            script: None,
            hook: None,
        }
    }

    /// A whole store.
    pub fn store(stage: Stage, store: &StoreId) -> Self {
        Self {
            stage,
            store: Some(store.clone()),
            name: None,
            script: None,
            hook: None,
        }
    }

    /// A hook of a store, which runs at this place, such as `before push`.
    pub fn hook(stage: Stage, store: &StoreId, place: String) -> Self {
        Self {
            hook: Some(place),
            ..Self::store(stage, store)
        }
    }

    /// The name of the script, of the hook, or of the stage.
    pub fn work(&self) -> String {
        if let Some(hook) = &self.hook {
            return format!("hook {hook}");
        }
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
