//! The records of a project: builds, releases and events. A record is never changed.
//!
//! A ledger is a set of records. Several places store the same bytes and merge by union, so no place is
//! the primary one. The active release is computed from the events.

mod clock;
mod folder;
mod id;
mod logs;
mod operations;
mod pack;
mod page;
mod place;
mod prune;
mod record;
mod set;
mod shared;
mod state;
mod targets;
mod transfer;

pub use clock::{continue_after, next_moment};
pub use folder::{DamagedRecord, FolderError, LEDGER, RecordFolder, folder_id};
pub use id::{InvalidId, PrefixProblem, RecordId, RecordKind};
pub use logs::{LogFolder, LogText, RunningLog, RunningLogReader};
pub use operations::{Operation, last_deploys, operations};
pub use pack::Packs;
pub use page::{TAG_PREFIX, log_of};
pub use place::{LayoutPages, RecordPlace};
pub use prune::{
    KeptBecause, NeededImages, PruneChoice, RetentionRules, choose as choose_builds, images_of,
    removed_builds, size_of as build_size,
};
pub use record::{
    Actor, BuildRecord, BuildStatus, BuiltApp, CommitSummary, EventRecord, ImportedBuild,
    LogReference, Record, ReleaseReason, ReleaseRecord, SCHEMA_VERSION, StoreEvent, first_line,
};
pub use set::{InvalidRecord, RecordSet, StoredRecord};
pub use shared::{Exchange, SharedError, SharedRecords};
pub use state::{TargetState, open_runs};
pub use targets::{LedgerTargets, ReleaseStatus, TargetHistory};
pub use transfer::{
    BuildTransferError, ExportedImage, ImagePlace, ImportName, ImportedBuildFiles, StoredImage,
    export,
};

use miette::Diagnostic;

impl From<BuildTransferError> for Error {
    fn from(error: BuildTransferError) -> Self {
        Self::Transfer(Box::new(error))
    }
}

/// Why records cannot be read or written, or a record cannot be found.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The folder of records.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Folder(#[from] FolderError),
    /// An id that names no single record.
    #[error(transparent)]
    #[diagnostic(
        code(alokai::ledger::id),
        help(
            "`alokai store builds`, `releases` and `history` list the ids; the first characters are enough"
        )
    )]
    Prefix(#[from] PrefixProblem),
    /// The record is not a build.
    #[error("{id} is not a build")]
    #[diagnostic(
        code(alokai::ledger::not_a_build),
        help("`alokai store builds` lists the builds")
    )]
    NotABuild {
        /// The id.
        id: RecordId,
    },
    /// A build cannot be exported, imported or removed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Transfer(Box<BuildTransferError>),
    /// The record is not a release.
    #[error("{id} is not a release")]
    #[diagnostic(
        code(alokai::ledger::not_a_release),
        help("`alokai store releases` lists the releases")
    )]
    NotARelease {
        /// The id.
        id: RecordId,
    },
    /// The record is not an operation.
    #[error("{id} is not an operation")]
    #[diagnostic(
        code(alokai::ledger::not_an_operation),
        help("`alokai store history` lists the operations")
    )]
    NotAnOperation {
        /// The id.
        id: RecordId,
    },
    /// The output of a run without an end is on another machine.
    #[error("the output of the run {id} is on the machine `{host}`")]
    #[diagnostic(
        code(alokai::ledger::run_elsewhere),
        help(
            "run the command there, in the folder of the project; the output is sent when the run ends"
        )
    )]
    RunElsewhere {
        /// The event of its start.
        id: RecordId,
        /// The machine.
        host: String,
    },
    /// The output of the build is not on this machine.
    #[error("the output of the build {id} is not on this machine")]
    #[diagnostic(
        code(alokai::ledger::no_log),
        help(
            "run the command on the machine that built, or open the address of the run, which `alokai store builds info {id}` shows"
        )
    )]
    NoLog {
        /// The build.
        id: RecordId,
    },
    /// The output of the operation is not on this machine.
    #[error("the output of the operation {id} is not on this machine")]
    #[diagnostic(
        code(alokai::ledger::no_output),
        help(
            "run the command on the machine of the operation, which `alokai store history info {id}` shows"
        )
    )]
    NoOutput {
        /// The operation.
        id: RecordId,
    },
}
