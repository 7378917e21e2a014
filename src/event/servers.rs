//! Events of servers on this machine: apps that `dev`, `start` and `test` run.

use serde::Serialize;

use crate::store::{StoreId, UnitId};

/// The name of a server: an app of a store, or a workspace package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerId {
    /// The store. `None` for a workspace package, which all stores share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreId>,
    /// The app or package.
    pub name: String,
}

impl ServerId {
    /// An app of a store. A middleware that several stores share has the first of them.
    pub fn app(unit: &UnitId) -> Self {
        Self {
            store: Some(unit.store.clone()),
            name: unit.app.to_string(),
        }
    }

    /// A workspace package.
    pub fn package(name: &str) -> Self {
        Self {
            store: None,
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for ServerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.store {
            Some(store) => write!(f, "{store}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The state of a server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ServerState {
    /// The server waits for other servers.
    Waiting {
        /// All stores that use the server, the first one first. Empty for a workspace package.
        stores: Vec<StoreId>,
    },
    /// The process starts.
    Starting,
    /// The server accepts connections.
    Ready {
        /// Its address. `None` for a workspace package.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// The time since the process was started, in seconds.
        seconds: f64,
    },
    /// The process ended by itself.
    Ended {
        /// The reason, in one line.
        how: String,
    },
    /// The server cannot be started, or does not answer.
    CannotStart {
        /// The reason, in one line.
        how: String,
        /// What the user can do.
        #[serde(skip_serializing_if = "Option::is_none")]
        help: Option<String>,
    },
    /// The server is started again after a pause.
    Restarting {
        /// The pause in seconds.
        in_seconds: u64,
    },
    /// The server was stopped by this program.
    Stopped,
}

/// The numbers of a store's browser tests by result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestCounts {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed at first and passed when they were repeated.
    pub flaky: usize,
    /// Tests that were skipped.
    pub skipped: usize,
    /// The names of tests that failed.
    pub failed: Vec<String>,
}

impl std::fmt::Display for TestCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed.len())?;
        for (count, name) in [(self.flaky, "flaky"), (self.skipped, "skipped")] {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        Ok(())
    }
}
