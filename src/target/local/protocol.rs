//! The requests to the background process: one line of JSON each, answered by one line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::image::LocalImage;
use super::state::ReleaseEnvironment;
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::AppState;

/// The version of the protocol: of the requests, the answers, and the state on disk. A change of one of
/// them needs a new version. A request that changes something replaces a background process of another
/// version, which stops and starts the apps of all stores.
pub const VERSION: &str = "2";

/// A line to the background process.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestLine {
    /// The version of the protocol of the program that asks.
    pub version: String,
    /// What it asks for. Every version knows `quit`.
    pub request: serde_json::Value,
}

/// What the background process is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalRequest {
    /// To end. Apps that have to run are started again by the next process.
    Quit,
    /// The state of a store.
    Observe(StoreId),
    /// To run a release.
    Stage(Box<StageOrder>),
    /// To give the traffic of a store to a release.
    Switch {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The public host names.
        hosts: Vec<String>,
        /// The state of the traffic that was observed.
        token: String,
    },
    /// How many requests to a release are open.
    Open {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
    },
    /// To stop a release.
    Retire {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// Whether its unpacked apps are kept.
        kept: bool,
    },
    /// The states of the apps of a release.
    Health {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
    },
    /// To show a page instead of a store, or the store again.
    Maintenance {
        /// The store.
        store: StoreId,
        /// The page.
        page: Option<String>,
    },
    /// To stop all releases of a store, or of all stores.
    Stop(Option<StoreId>),
}

impl LocalRequest {
    /// Whether the request changes nothing.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Observe(_) | Self::Open { .. } | Self::Health { .. }
        )
    }
}

/// A release to run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageOrder {
    /// The store.
    pub store: StoreId,
    /// The release.
    pub release: RecordId,
    /// Its apps.
    pub apps: Vec<StagedApp>,
    /// Its variables.
    pub environment: ReleaseEnvironment,
    /// The release whose values of `.env` files it gets.
    pub copy_of: Option<RecordId>,
    /// The version of its settings.
    pub settings: Option<String>,
    /// How long an app has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// An app of a release to run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedApp {
    /// The app.
    pub app: AppName,
    /// Its image.
    pub image: LocalImage,
    /// The public path below which it answers.
    pub path_prefix: Option<String>,
    /// Whether it sees the path without the prefix.
    pub strips_prefix: bool,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalAnswer {
    /// The request was carried out.
    Done,
    /// The background process has another version.
    OtherVersion(String),
    /// The request failed.
    Failed {
        /// The message.
        message: String,
        /// What to do next.
        help: Option<String>,
    },
    /// The traffic was switched by somebody else.
    OutOfSequence,
    /// The state of a store.
    Observed(Box<ObservedStore>),
    /// The ports of a release's apps, and its address.
    Staged {
        /// By app.
        ports: BTreeMap<AppName, u16>,
        /// The address at which the release can be tried.
        address: String,
    },
    /// How many requests are open.
    Open(u64),
    /// The states of apps.
    Health(Vec<AppState>),
}

/// The state of a store.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedStore {
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
    /// Since when.
    pub since: Option<jiff::Timestamp>,
    /// The public addresses.
    pub addresses: Vec<String>,
    /// Releases that run without traffic, with their addresses.
    pub staged: Vec<(RecordId, String)>,
    /// Releases that are stopped and still unpacked.
    pub kept: Vec<RecordId>,
    /// Whether a page is shown instead of the store.
    pub maintenance: bool,
    /// What the switch compares.
    pub token: String,
}
