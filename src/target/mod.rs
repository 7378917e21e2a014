//! Where stores run: one trait for every target.
//!
//! A target stages a release so that it runs and is not public, switches the traffic of a whole store
//! in one step, and tells what is active. It makes no decisions: the order of the steps, health
//! checks, locks and records are the concern of `release`.

mod command;
mod console;
mod container_variables;
pub mod docker;
mod haproxy;
mod hosts;
pub mod kubernetes;
mod labels;
pub mod local;
mod lock;
mod ports;
mod public_page;
mod spec;
pub mod swarm;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::local::{LocalClient, LocalTarget};
pub use command::{CommandTarget, Error as CommandError};
pub use console::{ConsoleTarget, Error as ConsoleError, reach as reach_console};
pub use hosts::hosts;
pub use spec::{EnvValues, HealthProbe, ReleaseSpec, ReleasedApp, SpecVariable};

use crate::config::Project;
use crate::ledger::RecordId;
use crate::pipeline::{DeployError, DeployFault, Services, StageError, UnpackedImage};
use crate::plan::{self, Plan};
use crate::store::{AppName, Store, StoreId, TargetKind};

/// The variable with the path of the data of a store, which outlives its releases.
const DATA_VARIABLE: &str = "DATA_DIR";

/// The options of a command that select a store and its target, for help texts.
pub fn place_options(store: &StoreId, target: &str) -> String {
    let local = if target == TargetKind::Local.name() {
        " --local"
    } else {
        ""
    };
    format!("--store {store}{local}")
}

/// A place where stores run.
///
/// Every method reads the current state. No method stops anything that gets traffic, or that does not
/// carry the labels of this program and this store.
#[async_trait]
pub trait Target: Send + Sync {
    /// Which target it is.
    fn kind(&self) -> TargetKind;

    /// The name, as `deployment.target` has it.
    fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// What this target can do for the stores of this project.
    fn capabilities(&self) -> Capabilities;

    /// Checks that the target can be reached and used. It runs before the first build.
    async fn preflight(&self) -> Result<(), Error>;

    /// What runs and what is public.
    async fn observe(&self, store: &StoreId) -> Result<Observed, Error>;

    /// Takes the lock of a store, or returns its holder. A lock whose lease has ended is taken over. The
    /// holder takes the lock again to renew its lease, which counts from the last call.
    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, Error>;

    /// Releases a lock. The lock of another holder is kept.
    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), Error>;

    /// The holder of the lock, if the target can tell.
    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, Error>;

    /// Runs all apps of a release without traffic. Repeated with the same release, it changes nothing.
    /// Settings with `spec.settings` have been stored by [`Self::store_settings`] before.
    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, Error>;

    /// The image of an app, unpacked on this machine for a hook. None where an engine runs images.
    async fn unpacked(&self, _app: &ReleasedApp) -> Result<Option<UnpackedImage>, Error> {
        Ok(None)
    }

    /// Gives the whole traffic of a store to a staged release, in one step, if nothing has changed
    /// since `token` was observed.
    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), Error>;

    /// Whether the open requests of a release without traffic have ended.
    async fn drained(&self, store: &StoreId, release: &RecordId) -> Result<Drained, Error>;

    /// Stops a release without traffic. A release that is `kept` can be staged again quickly.
    async fn retire(&self, store: &StoreId, release: &RecordId, kept: bool) -> Result<(), Error>;

    /// Ends a store: its traffic ends, its releases are stopped and removed, and other stores can use its
    /// host names. Its data and settings stay. Returns the releases.
    async fn end_store(&self, _store: &StoreId) -> Result<Vec<RecordId>, Error> {
        Err(Error::Unsupported {
            target: self.name(),
            what: "stop a whole store",
            help: "stop it with the tools of that target",
        })
    }

    /// The state of each app of a release.
    async fn health(&self, store: &StoreId, release: &RecordId) -> Result<Vec<AppState>, Error>;

    /// Stores the settings of a store under a version. A stored version is never changed: storing it again
    /// with other values fails with [`Error::SettingsExist`].
    async fn store_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<(), Error>;

    /// The settings of a version. None if the target does not have it any more.
    async fn settings(&self, store: &StoreId, version: &str) -> Result<Option<Settings>, Error>;

    /// Sends the output of the apps of a release, until the output ends or nobody receives it. Values of
    /// settings and `.env` files are replaced as far as the target knows them.
    async fn logs(&self, wanted: &LogQuery) -> Result<(), Error>;

    /// Turns the maintenance page of a store on, or off (`None`).
    async fn maintenance(&self, store: &StoreId, page: Option<&str>) -> Result<(), Error>;
}

/// The end of a switch: an error if the traffic was switched by another run meanwhile.
fn switched(is_switched: bool, store: &StoreId) -> Result<(), Error> {
    if is_switched {
        return Ok(());
    }
    let store = store.clone();
    Err(Error::OutOfSequence { store })
}

/// The end of storing settings: an error if the version has other values.
fn stored(is_stored: bool, store: &StoreId, version: &str) -> Result<(), Error> {
    if is_stored {
        return Ok(());
    }
    Err(Error::SettingsExist {
        store: store.clone(),
        version: version.to_owned(),
    })
}

/// What targets are made from.
#[derive(Clone)]
pub struct TargetContext {
    /// The project.
    pub project: Arc<Project>,
    /// Events, interruption, and access to the engine and the registry.
    pub services: Arc<Services>,
    /// The address of the console.
    pub console: String,
    /// The plan of the run, if the images are built in this run.
    pub plan: Option<Arc<Plan>>,
    /// The background process of the target `local`.
    pub local: LocalClient,
    /// Whether a check is for all stores of the project and changes nothing, as in `doctor`.
    pub examines: bool,
}

impl TargetContext {
    /// The stores of the project at a target.
    fn stores_at(&self, kind: TargetKind) -> impl Iterator<Item = &Store> {
        let stores = self.project.stores.deployables();
        stores.filter(move |store| {
            let deployment = store.deployment.as_ref();
            deployment.is_some_and(|it| self.project.target_of(it) == kind)
        })
    }

    /// The stores that become live at a target in this run, or that are examined.
    fn planned_stores(&self, kind: TargetKind) -> Vec<&Store> {
        if self.examines {
            return self.stores_at(kind).collect();
        }
        let planned = self.plan.iter().flat_map(|plan| &plan.releases);
        let planned = planned.filter(|release| release.target == kind);
        let stores = planned.map(|release| self.project.stores.get(release.store.as_str()));
        stores.flatten().collect()
    }
}

/// The target of this kind.
pub fn target_of(kind: TargetKind, context: &TargetContext) -> Result<Arc<dyn Target>, Error> {
    match kind {
        TargetKind::Console => Ok(Arc::new(ConsoleTarget::new(context.clone()))),
        TargetKind::Local => Ok(Arc::new(LocalTarget::of(context))),
        TargetKind::Docker => Ok(Arc::new(docker::DockerTarget::new(context.clone()))),
        TargetKind::Swarm => Ok(Arc::new(swarm::SwarmTarget::new(context.clone()))),
        TargetKind::Kubernetes => Ok(Arc::new(kubernetes::KubernetesTarget::new(context.clone()))),
        TargetKind::Command => Ok(Arc::new(CommandTarget::new(context)?)),
    }
}

/// The values of settings, by name. They are secrets.
pub type Settings = std::collections::BTreeMap<String, secrecy::SecretString>;

/// What a target can do. The plan tells the user what it cannot do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one ability")]
pub struct Capabilities {
    /// Whether a release runs before it gets traffic.
    pub staging: bool,
    /// Whether the switch interrupts no request.
    pub seamless: bool,
    /// Whether the target knows when open requests have ended.
    pub drain: bool,
    /// Whether the target tells what is active.
    pub observes: bool,
    /// Whether the target has locks.
    pub locks: bool,
    /// Whether the target stores settings.
    pub settings: bool,
    /// Whether there is output of apps to read.
    pub logs: bool,
    /// Whether a page can be shown instead of the store.
    pub maintenance: bool,
}

/// What runs and what is public for one store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observed {
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
    /// Since when, if the target knows.
    pub since: Option<Timestamp>,
    /// The public addresses.
    pub addresses: Vec<String>,
    /// Releases that run without traffic, each with its addresses.
    pub staged: Vec<StagedRelease>,
    /// Releases that are stopped and can be staged again quickly.
    pub kept: Vec<RecordId>,
    /// Whether the maintenance page is shown.
    pub maintenance: bool,
    /// The token that `switch` compares.
    #[serde(skip_serializing)]
    pub token: SwitchToken,
}

/// A release that runs without traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedRelease {
    /// The release.
    pub release: RecordId,
    /// The address at which the whole store can be tried.
    pub address: Option<String>,
}

/// A state of the traffic, as the target writes it. A switch with an old token fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SwitchToken(pub String);

/// The result of staging.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Staged {
    /// One for each replica of each app.
    pub replicas: Vec<Replica>,
    /// The address at which the whole store can be tried.
    pub address: Option<String>,
}

/// A running app of a release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replica {
    /// The app.
    pub app: AppName,
    /// Its own address, such as `http://127.0.0.1:41234`, at which this program can probe it.
    pub address: String,
}

/// The state of an app of a release, as the target sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppState {
    /// The app.
    pub app: AppName,
    /// Whether it runs.
    pub running: bool,
    /// How it ended: `exited with code 3`, `was killed because it reached its memory limit`.
    #[serde(default)]
    pub ended: Option<String>,
    /// How many times the target has restarted it.
    #[serde(default)]
    pub restarts: u32,
    /// Its last lines, at most 40.
    #[serde(default)]
    pub tail: Vec<String>,
}

/// Whether open requests have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// No request is open.
    Yes,
    /// This many requests are open.
    No(u64),
    /// The target cannot tell.
    Unknown,
}

/// Who holds the lock of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockClaim {
    /// Unique for each holder.
    pub holder: String,
    /// User, host and run, for people.
    pub who: String,
    /// What for: `deploy`, `rollback`.
    pub operation: String,
    /// Since when.
    pub since: Timestamp,
    /// Seconds after which another run may take the lock over. The holder renews it.
    pub lease: u64,
}

/// The result of a request for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockAnswer {
    /// The lock is taken; from whom, if its lease had ended.
    Taken {
        /// The holder before.
        from: Option<LockClaim>,
    },
    /// Somebody else has it.
    Held(LockClaim),
}

/// Which output to read.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// The store.
    pub store: StoreId,
    /// The release. None for the active one.
    pub release: Option<RecordId>,
    /// The app. None for all.
    pub app: Option<AppName>,
    /// Whether to wait for further lines.
    pub follow: bool,
    /// Only lines since then.
    pub since: Option<Timestamp>,
    /// Receives the lines.
    pub lines: tokio::sync::mpsc::Sender<AppLine>,
}

/// A line that an app printed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AppLine {
    /// The app.
    pub app: AppName,
    /// The number of its replica, counted from 1.
    #[serde(default = "first_replica")]
    pub replica: u32,
    /// When it was printed, if the target knows.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// The line, without its line end.
    pub line: String,
}

fn first_replica() -> u32 {
    1
}

/// Why a step at a target failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The target `local` failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Local(Box<local::Error>),
    /// The target cannot do it.
    #[error("the target `{target}` cannot {what}")]
    #[diagnostic(code(alokai::target::unsupported), help("{help}"))]
    Unsupported {
        /// The target.
        target: &'static str,
        /// What was asked for.
        what: &'static str,
        /// What to do instead.
        help: &'static str,
    },
    /// The traffic was switched by somebody else since it was observed.
    #[error("the traffic of `{store}` was switched by another run meanwhile")]
    #[diagnostic(
        code(alokai::target::out_of_sequence),
        help("run the command again; `alokai store status` shows what is live")
    )]
    OutOfSequence {
        /// The store.
        store: StoreId,
    },
    /// Settings of this version exist with other values.
    #[error("version {version} of the settings of `{store}` exists with other values")]
    #[diagnostic(
        code(alokai::target::settings_exist),
        help("a stored version is never changed; store the values under a new version")
    )]
    SettingsExist {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
    },
    /// The console.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Console(#[from] console::Error),
    /// The Docker engine, or its proxy.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Docker(Box<docker::Error>),
    /// The Docker Swarm, or its proxy.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Swarm(Box<swarm::Error>),
    /// The Kubernetes cluster.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kubernetes(Box<kubernetes::Error>),
    /// The program of the user.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Command(#[from] command::Error),
    /// A service that a stage of the pipeline also uses.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pipeline(#[from] Box<StageError>),
    /// The config of the store is not valid.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] Box<plan::Error>),
    /// The store has no `deployment` any more.
    #[error("the store `{store}` has no `deployment` in `alokai.config.json`")]
    #[diagnostic(
        code(alokai::target::no_deployment),
        help("`alokai store list` shows the deployable stores")
    )]
    NoDeployment {
        /// The store.
        store: StoreId,
    },
}

impl From<StageError> for Error {
    fn from(error: StageError) -> Self {
        Self::Pipeline(Box::new(error))
    }
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Docker(error) => error.fault(),
            Self::Swarm(error) => error.fault(),
            Self::Kubernetes(error) => error.fault(),
            Self::Console(console::Error::Unreachable { .. })
            | Self::Command(command::Error::Start { .. }) => DeployFault::Unreachable,
            Self::Command(command::Error::NoProgram) => DeployFault::Input,
            Self::Local(error) => error.fault(),
            Self::Unsupported { .. } | Self::NoDeployment { .. } | Self::Plan(_) => {
                DeployFault::Input
            }
            _ => DeployFault::Work,
        }
    }
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        match error {
            Error::Pipeline(error) => *error,
            error => {
                let fault = error.fault();
                DeployError::new(error, fault).into()
            }
        }
    }
}

impl From<docker::Error> for Error {
    fn from(error: docker::Error) -> Self {
        Self::Docker(Box::new(error))
    }
}

impl From<swarm::Error> for Error {
    fn from(error: swarm::Error) -> Self {
        Self::Swarm(Box::new(error))
    }
}

impl From<kubernetes::Error> for Error {
    fn from(error: kubernetes::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

impl From<local::Error> for Error {
    fn from(error: local::Error) -> Self {
        Self::Local(Box::new(error))
    }
}
