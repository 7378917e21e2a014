//! Making a build live: the order of the steps, and their records. The targets carry the steps out.
//!
//! [`Flow::run`] takes one [`ReleaseOrder`] for each store. An order says which release a store shall have
//! and whether it gets the traffic; [`spec_of`] makes what the target is asked to run.

mod choice;
mod cleanup;
mod describe;
mod flow;
mod hooks;
mod images;
mod lease;
mod probe;
mod prune;
mod records;
mod rules;
mod settings;
mod spec;
mod steps;
mod stop;
mod switch;
mod waves;

use miette::Diagnostic;

pub use choice::{
    Candidate, Chosen, candidates, chosen, copy_forward, earlier, new_release, no_candidate,
};
pub use describe::steps_of;
pub use flow::{Flow, FlowOptions, FlowResult, ReleaseAction, ReleaseOrder, StoreOutcome};
pub use hooks::hook_record;
pub use images::missing_images;
pub use lease::locked;
pub use probe::Symptoms;
pub use records::{Records, ReleaseJournal};
pub use rules::{CommitOrder, Older, ancestry_of, older};
pub use settings::{SettingDifference, SettingsChange, SettingsError, StoreSettings};
pub use spec::{PlannedStore, spec_of, spec_of_running};
pub use steps::{StoreRun, StoreSnapshot, build_of};
pub use waves::waves;

use crate::ledger::{FolderError, RecordId};
use crate::pipeline::{DeployError, DeployFault, HookError, StageError};
use crate::store::{AppName, StoreId};
use crate::{plan, target};

/// Why a store is not released.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The target reports an error.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Target(#[from] target::Error),
    /// The apps of the store cannot be planned.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] Box<plan::Error>),
    /// The records cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Records(#[from] FolderError),
    /// The settings cannot be read or changed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Settings(#[from] SettingsError),
    /// The store does not exist any more.
    #[error("there is no deployable store `{store}`")]
    #[diagnostic(
        code(alokai::release::no_store),
        help("`alokai store list` shows the deployable stores")
    )]
    NoStore {
        /// The store.
        store: StoreId,
    },
    /// The build has no image for an app.
    #[error("the build {build} of `{store}` has no image of `{app}`")]
    #[diagnostic(
        code(alokai::release::no_image),
        help("run `alokai store deploy {place}`, which builds it")
    )]
    NoImage {
        /// The build.
        build: RecordId,
        /// The store.
        store: StoreId,
        /// The app.
        app: AppName,
        /// The options that name the store and its target.
        place: String,
    },
    /// The project does not have all apps of the build.
    #[error(
        "the build {build} of `{store}` has apps that `{store}` does not have in this working tree: {}",
        list(apps)
    )]
    #[diagnostic(
        code(alokai::release::apps_gone),
        help(
            "run the command in a checkout of the commit of the build, which has these apps: `git checkout {commit}`"
        )
    )]
    AppsGone {
        /// The store.
        store: StoreId,
        /// The build.
        build: RecordId,
        /// The apps.
        apps: Vec<AppName>,
        /// The commit of the build.
        commit: String,
    },
    /// A target takes too long to start the apps.
    #[error(
        "the target `{target}` has not started the release {release} of `{store}` within {minutes} minutes"
    )]
    #[diagnostic(
        code(alokai::release::stage_timeout),
        help(
            "check that the target can download the images and has room for another release; the traffic is unchanged"
        )
    )]
    StageTimeout {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The target.
        target: &'static str,
        /// How long it was waited for.
        minutes: u64,
    },
    /// An app is not healthy.
    #[error("`{app}` of the release {release} of `{store}` is not healthy{why}\n{symptoms}")]
    #[diagnostic(
        code(alokai::release::unhealthy),
        help(
            "`deploy.health` in `alokai.config.json` says how `{app}` is probed; its last lines are above"
        )
    )]
    Unhealthy {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The app.
        app: AppName,
        /// ` within 60 s`, or empty.
        why: String,
        /// What was seen.
        symptoms: Box<Symptoms>,
    },
    /// A release failed after it got the traffic, and an earlier one has it again.
    #[error(
        "the release {release} of `{store}` failed after the switch; {to} gets the traffic again\n{reason}"
    )]
    #[diagnostic(
        code(alokai::release::switched_back),
        help("correct the cause and deploy again; `{to}` is live")
    )]
    SwitchedBack {
        /// The store.
        store: StoreId,
        /// The failed release.
        release: RecordId,
        /// The release that is live.
        to: RecordId,
        /// Why it failed.
        reason: String,
    },
    /// A release failed after it got the traffic, and no other one can have it.
    #[error(
        "the release {release} of `{store}` failed after the switch and stays live, because {why}\n{reason}"
    )]
    #[diagnostic(
        code(alokai::release::stays),
        help("correct the cause and deploy again")
    )]
    Stays {
        /// The store.
        store: StoreId,
        /// The failed release.
        release: RecordId,
        /// Why there is no way back.
        why: String,
        /// Why it failed.
        reason: String,
    },
    /// A release failed after it got the traffic, and does not have it any more.
    #[error(
        "the release {release} of `{store}` failed after the switch, and another run has switched the traffic since then\n{reason}"
    )]
    #[diagnostic(
        code(alokai::release::switched_away),
        help("`alokai store status` shows what is live")
    )]
    SwitchedAway {
        /// The store.
        store: StoreId,
        /// The failed release.
        release: RecordId,
        /// Why it failed.
        reason: String,
    },
    /// An app has no address that can be probed.
    #[error("`{address}` of `{app}` cannot be probed: {reason}")]
    #[diagnostic(
        code(alokai::release::probe_address),
        help("check `path` of `deploy.health`, and the addresses that the target returns")
    )]
    ProbeAddress {
        /// The app.
        app: AppName,
        /// The address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A rollback cannot be recorded.
    #[error("the rollback of `{store}` is not made live, because it cannot be recorded: {reason}")]
    #[diagnostic(
        code(alokai::release::not_pinned),
        help(
            "without the record, the next deploy would undo the rollback; make `.alokai/ledger` writable, with free space on its disk, and run the command again"
        )
    )]
    NotPinned {
        /// The store.
        store: StoreId,
        /// Why not.
        reason: String,
    },
    /// Another run has the lock.
    #[error("`{store}` is locked: {holder}")]
    #[diagnostic(
        code(alokai::release::locked),
        help(
            "wait until that run has ended; a lock that is not renewed for {lease} s is taken over, and `alokai store lock release {place}` removes the lock of a run that does not exist any more"
        )
    )]
    Locked {
        /// The store.
        store: StoreId,
        /// Who holds it.
        holder: String,
        /// Its lease in seconds.
        lease: u64,
        /// The options that name the store and its target.
        place: String,
    },
    /// Another run took the lock over.
    #[error("the lock of `{store}` was lost: {reason}")]
    #[diagnostic(
        code(alokai::release::lock_lost),
        help(
            "`alokai store status {place}` shows what is live and who has the lock now; then run the command again"
        )
    )]
    LockLost {
        /// The options that name the store and its target.
        place: String,
        /// The store.
        store: StoreId,
        /// How.
        reason: String,
    },
    /// The build is older than the one that is live.
    #[error("the release of `{store}` is older than {active}, which is live: {reason}")]
    #[diagnostic(
        code(alokai::release::older),
        help(
            "`--allow-older` releases it nevertheless; `alokai store rollback {place}` returns to an earlier release"
        )
    )]
    Older {
        /// The store.
        store: StoreId,
        /// The active release.
        active: RecordId,
        /// Why it is older.
        reason: String,
        /// The options that name the store and its target.
        place: String,
    },
    /// An id does not name a single record, or records cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ledger(Box<crate::ledger::Error>),
    /// No release of the store can be made live.
    #[error("the store `{store}` has no release at the target `{target}` that could be made live")]
    #[diagnostic(
        code(alokai::release::none),
        help(
            "`alokai store releases --store {store}` lists its releases; `alokai store deploy {}` makes one",
            target::place_options(store, target)
        )
    )]
    NoRelease {
        /// The store.
        store: StoreId,
        /// The target.
        target: String,
    },
    /// A record that cannot be made live.
    #[error("{id} {why}")]
    #[diagnostic(
        code(alokai::release::wrong),
        help(
            "`alokai store releases` lists the releases, `alokai store builds` the builds, and `alokai store rollback {place} --dry-run` the releases to return to"
        )
    )]
    WrongRelease {
        /// The record.
        id: RecordId,
        /// Why not.
        why: String,
        /// The options that name the store and its target.
        place: String,
    },
    /// No earlier release can be made live again.
    #[error("the store `{store}` has no earlier release to go back to{candidates}")]
    #[diagnostic(
        code(alokai::release::no_earlier),
        help("{}", no_earlier(*is_listed, place))
    )]
    NoEarlier {
        /// The store.
        store: StoreId,
        /// The candidates, one a line, and other releases that may be meant.
        candidates: String,
        /// Whether there is a candidate.
        is_listed: bool,
        /// The options that name the store and its target.
        place: String,
    },
    /// Images of the release are gone.
    #[error("images of {release} do not exist any more: {}", list(apps))]
    #[diagnostic(
        code(alokai::release::images_gone),
        help(
            "`alokai store rollback {place} --dry-run` lists the releases whose images exist; `store deploy` of that commit builds them again"
        )
    )]
    ImagesGone {
        /// The store.
        store: StoreId,
        /// The release or build.
        release: RecordId,
        /// The apps without an image.
        apps: Vec<AppName>,
        /// The options that name the store and its target.
        place: String,
    },
    /// A wave that is not known.
    #[error("`{}` is not a valid wave", wave.escape_debug())]
    #[diagnostic(code(alokai::release::wave), help("{help}"))]
    Wave {
        /// As given.
        wave: String,
        /// What to write.
        help: String,
    },
    /// A hook failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hook(#[from] HookError),
    /// The user interrupted it before the switch.
    #[error("interrupted before the switch; the traffic of `{store}` is unchanged")]
    #[diagnostic(code(alokai::release::interrupted), help("run the same command again"))]
    Interrupted {
        /// The store.
        store: StoreId,
    },
    /// The user interrupted it after the switch.
    #[error(
        "interrupted after the switch; {release} of `{store}` gets the traffic and was not watched to the end"
    )]
    #[diagnostic(
        code(alokai::release::unwatched),
        help(
            "the next release of the store removes the earlier one; `alokai store rollback {place}` returns to it"
        )
    )]
    Unwatched {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The options that name the store and its target.
        place: String,
    },
}

fn list(apps: &[AppName]) -> String {
    let names: Vec<_> = apps.iter().map(|app| format!("`{app}`")).collect();
    names.join(", ")
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Target(error) => error.fault(),
            Self::Plan(_)
            | Self::NoStore { .. }
            | Self::Wave { .. }
            | Self::NoRelease { .. }
            | Self::Older { .. }
            | Self::WrongRelease { .. }
            | Self::AppsGone { .. }
            | Self::NoEarlier { .. }
            | Self::ProbeAddress { .. }
            | Self::Settings(
                SettingsError::Unsupported { .. }
                | SettingsError::NoBuild { .. }
                | SettingsError::NotSet { .. }
                | SettingsError::Reserved { .. },
            ) => DeployFault::Input,
            Self::Ledger(error) if matches!(**error, crate::ledger::Error::Prefix(_)) => {
                DeployFault::Input
            }
            Self::Interrupted { .. } => DeployFault::Interrupted,
            _ => DeployFault::Work,
        }
    }
}

/// What to do if a rollback without an id has no release to go back to.
fn no_earlier(is_listed: bool, place: &str) -> String {
    let rule = "only releases that were live and stayed healthy";
    if is_listed {
        format!(
            "name one of the listed releases: `alokai store rollback {place} <ID>`; {rule} are listed"
        )
    } else {
        format!(
            "a rollback can go to {rule}, and no other one was; `alokai store release <ID> {place}` makes any release or build live"
        )
    }
}

impl From<crate::ledger::Error> for Error {
    fn from(error: crate::ledger::Error) -> Self {
        Self::Ledger(Box::new(error))
    }
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        match error {
            Error::Target(error) => error.into(),
            Error::Hook(error) => error.into(),
            error => {
                let fault = error.fault();
                DeployError::new(error, fault).into()
            }
        }
    }
}
