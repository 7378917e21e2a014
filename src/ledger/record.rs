//! The records: builds, releases and events. A record is never changed.
//!
//! A record has no secret. Of settings it has names and a version, and no value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::next_moment;
use super::id::{RecordId, RecordKind};
use crate::event::Stage;
use crate::store::{AppName, StoreId};

/// The version of the format. Readers ignore keys that they do not know.
pub const SCHEMA_VERSION: u32 = 1;

/// Any record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// A build of a store.
    Build(BuildRecord),
    /// A build with settings, for a target.
    Release(ReleaseRecord),
    /// Something that happened.
    Event(EventRecord),
}

impl Record {
    /// Its id.
    pub fn id(&self) -> &RecordId {
        match self {
            Self::Build(build) => &build.id,
            Self::Release(release) => &release.id,
            Self::Event(event) => &event.id,
        }
    }

    /// Its store.
    pub fn store(&self) -> &StoreId {
        match self {
            Self::Build(build) => &build.store,
            Self::Release(release) => &release.store,
            Self::Event(event) => &event.store,
        }
    }
}

/// Who did something, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The user: of the CI system, or of the machine.
    pub user: String,
    /// The machine.
    pub host: String,
    /// The address of the CI run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildStatus {
    /// All images of the store are at the destination.
    Complete,
    /// An app failed.
    Failed,
    /// The user or the CI system stopped the run.
    Interrupted,
}

/// The commit from which something was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitSummary {
    /// Full SHA.
    pub sha: String,
    /// First line of its message. None for a dirty working tree, which has no message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Whether the working tree had changes.
    #[serde(default)]
    pub dirty: bool,
}

/// A build of a store: all of its images, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildRecord {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id.
    pub id: RecordId,
    /// The store.
    pub store: StoreId,
    /// How it ended.
    pub status: BuildStatus,
    /// When it started.
    pub started: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The commit. None without a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSummary>,
    /// The tag of its images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Its apps.
    pub apps: BTreeMap<AppName, BuiltApp>,
    /// Identity of all composed files of the store. Empty if the run was killed before it recorded them.
    pub composition: String,
    /// Digest of the store's part of the plan. None in records of versions that did not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The event that recorded the start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<RecordId>,
    /// The build of which this one is a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<ImportedBuild>,
    /// The version of this program.
    pub tool: String,
    /// Who built, and where.
    pub actor: Actor,
    /// The last stage that the store reached.
    pub reached: Stage,
    /// Why it failed, one line for each failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    /// Its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReference>,
}

/// The build of which an imported build is a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedBuild {
    /// Its id.
    pub id: RecordId,
    /// Its store.
    pub store: StoreId,
    /// Who built it, and where.
    pub actor: Actor,
}

/// One app of a build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltApp {
    /// The reference of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The digest of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Digest of everything from which its image is made, without the digests of base images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Seconds of its `build` script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Where the script's result came from: `miss`, `hit`, `reused from <unit>`, `present`,
    /// `imported`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Bytes of `.deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_bytes: Option<u64>,
    /// Bytes of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_bytes: Option<u64>,
}

/// The output of a build, which is kept apart from its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReference {
    /// Digest of the compressed log.
    pub digest: String,
    /// Bytes of the compressed log.
    pub size: u64,
    /// Bytes before compression.
    pub bytes: u64,
    /// Whether lines were left out because the log was too long.
    #[serde(default)]
    pub truncated: bool,
}

/// Why a release was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    /// A deploy.
    Deploy,
    /// Other settings for the same build.
    Settings,
    /// A return to an earlier release.
    Rollback,
    /// A build of another store or place.
    Promote,
}

/// A build with settings, for a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRecord {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id.
    pub id: RecordId,
    /// The store.
    pub store: StoreId,
    /// The target, such as `docker`.
    pub target: String,
    /// The build.
    pub build: RecordId,
    /// The version of its settings. None without settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<String>,
    /// The names of its settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setting_names: Vec<String>,
    /// Why it was made.
    pub reason: ReleaseReason,
    /// The release of which it is a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<RecordId>,
    /// Whether it was made to run without traffic, so that no later run removes it as a leftover.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged_only: bool,
    /// The release that was active when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RecordId>,
    /// Who made it, and where.
    pub actor: Actor,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum StoreEvent {
    /// A run started. Until its end is recorded, it is running, or it was interrupted.
    Started {
        /// The operation, such as `deploy`.
        operation: String,
        /// Seconds after which the run counts as interrupted if nothing else is recorded.
        lease: u64,
        /// Tells the project folders of one machine apart.
        #[serde(default)]
        folder: String,
        /// The digest of the plan for this store. None for a run without a plan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
    },
    /// A run ended.
    Ended {
        /// The event that recorded its start.
        start: RecordId,
        /// Whether it succeeded.
        succeeded: bool,
        /// Whether the user stopped it, or it was killed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
    /// The apps of a release run, and get no traffic.
    Staged,
    /// The apps of a release have answered as they should.
    Healthy,
    /// A release gets the traffic.
    Released {
        /// Whether this was found out later, because the run that did it recorded nothing.
        #[serde(default)]
        observed: bool,
    },
    /// The open requests of a release have ended.
    Drained,
    /// The apps of a release were stopped.
    Retired,
    /// A release failed.
    Failed,
    /// A release failed after the switch, and another one gets the traffic again.
    SwitchedBack {
        /// The release that gets the traffic now.
        to: Option<RecordId>,
    },
    /// No further release gets the traffic until it is asked for by its id.
    Pinned,
    /// The pin was removed.
    Unpinned,
    /// A lock was taken.
    Locked,
    /// A lock was released.
    Unlocked,
    /// A hook ran.
    Hook {
        /// Its command.
        command: String,
        /// Its exit code. None if a signal or the timeout ended it.
        code: Option<i32>,
    },
    /// The images of a build were removed.
    ImagesRemoved {
        /// The build.
        build: RecordId,
    },
    /// The maintenance page was switched on or off.
    Maintenance {
        /// Whether it is on now.
        on: bool,
    },
}

/// Something that happened to a store or to one of its releases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Its id, which has its time.
    pub id: RecordId,
    /// The store.
    pub store: StoreId,
    /// The target. None for an event without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<RecordId>,
    /// The start of the run of which it is a step. None outside of runs, and in records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RecordId>,
    /// What happened.
    #[serde(flatten)]
    pub what: StoreEvent,
    /// How long it took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The reason, or what was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Who did it, and where.
    pub actor: Actor,
    /// Its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReference>,
}

/// The first line of an error, which this program has composed. Further lines may be output of apps, which
/// no record has.
pub fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

impl EventRecord {
    /// A new event of a store. Its id is later than those of all earlier events of this run.
    pub fn new(store: StoreId, what: StoreEvent, actor: Actor) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            id: RecordId::new(RecordKind::Event, next_moment()),
            store,
            target: None,
            release: None,
            run: None,
            what,
            seconds: None,
            detail: None,
            actor,
            log: None,
        }
    }

    /// Whether it is the start of a run.
    pub fn starts_run(&self) -> bool {
        matches!(self.what, StoreEvent::Started { .. })
    }
}
