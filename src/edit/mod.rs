//! The tree of stores, changed safely: every edit is a value before it is made.
//!
//! A [`TreeEdit`] is a list of changes. [`EditedFiles`] is the tree of files as it is afterwards, so
//! that the same code composes before and after. [`apply`] makes all changes or none: a journal in
//! `.alokai/edit` lets [`recover`] undo an edit whose process was killed.
//!
//! [`add`], [`relocate`], [`remove`] and [`rename`] only read. Each returns an [`EditProposal`].

mod add;
mod apply;
mod change;
mod config_text;
mod error;
mod flatten;
mod journal;
mod mentions;
mod overrides;
mod places;
mod preconditions;
mod proposal;
mod relocate;
mod remove;
mod rename;
mod simulation;
mod uncommitted;

pub use add::{StoreRequest, add, assumed_project_name, assumed_region, frameworks};
pub use apply::apply;
pub use change::{Change, KEPT, NewContent, TreeEdit, command_line};
pub use config_text::ConfigText;
pub use error::Error;
pub use flatten::{FlattenProposal, FlattenedApp, flatten};
pub use journal::{Recovery, is_interrupted, recover};
pub use overrides::{
    OverrideChanged, OverrideError, OverrideProposal, copy_inherited, raise, revert,
};
pub use places::{ROOT, new_id, parent, store};
pub use proposal::EditProposal;
pub use relocate::relocate;
pub use remove::remove;
pub use rename::rename;
pub use simulation::EditedFiles;
