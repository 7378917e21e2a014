//! Making a build live: the order of the steps, and their records. The targets carry the steps out.
//!
//! [`Flow::run`] takes one [`ReleaseOrder`] for each store. An order says which release a store shall have
//! and whether it gets the traffic; [`spec_of`] makes what the target is asked to run.

mod flow;
mod hooks;
mod records;
mod spec;

use miette::Diagnostic;

pub use flow::{Flow, FlowOptions, FlowResult, ReleaseOrder, StoreOutcome, Wish};
pub use hooks::hook_record;
pub use records::{Records, ReleaseJournal};
pub use spec::{PlannedStore, spec_of};

use crate::ledger::{FolderError, RecordId};
use crate::pipeline::{DeployError, DeployFault, StageError};
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
        help("run `alokai store deploy --store {store}`, which builds it")
    )]
    NoImage {
        /// The build.
        build: RecordId,
        /// The store.
        store: StoreId,
        /// The app.
        app: AppName,
    },
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Target(error) => error.fault(),
            Self::Plan(_) | Self::NoStore { .. } => DeployFault::Input,
            Self::Records(_) | Self::NoImage { .. } => DeployFault::Work,
        }
    }
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        match error {
            Error::Target(error) => error.into(),
            error => {
                let fault = error.fault();
                DeployError::new(error, fault).into()
            }
        }
    }
}
