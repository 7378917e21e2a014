//! The memory of a project: immutable records of builds, releases and events.
//!
//! A ledger is a set. The same bytes lie in several places, and places merge by union, so no place is
//! the master and no record is ever changed. What is active follows from the events.

mod folder;
mod id;
mod record;
mod set;
mod state;

pub use folder::{DamagedRecord, FolderError, LEDGER, RecordFolder};
pub use id::{InvalidId, PrefixProblem, RecordId, RecordKind};
pub use record::{
    Actor, BuildRecord, BuildStatus, BuiltApp, CommitSummary, EventRecord, Happening, LogReference,
    Record, ReleaseReason, ReleaseRecord, SCHEMA_VERSION,
};
pub use set::{InvalidRecord, RecordSet, StoredRecord};
pub use state::{TargetState, open_runs};
