//! The tree of stores, changed safely: every edit is a value before it is made.
//!
//! A [`TreeEdit`] is a list of changes. [`EditedFiles`] is the tree of files as it is afterwards, so
//! that the same code composes before and after. [`TreeEdit::apply`] makes all changes or none: a
//! journal in `.alokai/edit` lets [`recover`] undo an edit whose process was killed.

mod apply;
mod change;
mod config_text;
mod error;
mod flatten;
mod journal;
mod overrides;
mod preconditions;
mod simulation;

pub use apply::apply;
pub use change::{Change, KEPT, NewContent, TreeEdit};
pub use config_text::ConfigText;
pub use error::Error;
pub use flatten::{FlattenProposal, FlattenedApp, flatten};
pub use journal::{Recovery, is_interrupted, recover};
pub use overrides::{
    OverrideChanged, OverrideError, OverrideProposal, copy_inherited, raise, revert,
};
pub use simulation::EditedFiles;
