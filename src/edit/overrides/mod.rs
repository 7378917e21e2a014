//! Overrides, made, removed and moved: `store override`.
//!
//! [`copy_inherited`], [`revert`] and [`raise`] only read. Each returns an [`OverrideProposal`].

mod copy;
mod error;
mod folders;
mod layers;
mod raise;
mod revert;

use serde::Serialize;

pub use copy::copy_inherited;
pub use error::OverrideError;
pub use raise::raise;
pub use revert::revert;

use super::change::TreeEdit;
use crate::overlay::Owner;
use crate::store::StoreId;

/// An edit of overrides, with everything that the user has to know before it is made.
#[derive(Debug, Clone)]
pub struct OverrideProposal {
    /// The changes.
    pub edit: TreeEdit,
    /// What happens to each file.
    pub files: Vec<OverrideChanged>,
    /// What else the user has to know.
    pub notes: Vec<String>,
}

impl OverrideProposal {
    /// What to do after the edit.
    pub fn next(&self) -> Vec<String> {
        let mut copied = 0_usize;
        let mut replaced = Vec::new();
        for changed in &self.files {
            match changed {
                OverrideChanged::Copy { .. } => copied += 1,
                OverrideChanged::Raise {
                    raised,
                    replaces: true,
                    ..
                } => replaced.push(format!("`{}`", raised.escape_debug())),
                _ => {}
            }
        }
        let next = match (copied, self.files.len()) {
            (_, 0) => return Vec::new(),
            (1, _) => "edit the new file, then `git add` and commit it".to_owned(),
            (2.., _) => "edit the new files, then `git add` and commit them".to_owned(),
            (0, _) if replaced.is_empty() => {
                "commit the change: git's index has it already, `git status` shows it".to_owned()
            }
            (0, _) => format!(
                "`git add` {}, which {} replaced, and commit; git's index has the removals already",
                replaced.join(", "),
                if replaced.len() == 1 { "was" } else { "were" }
            ),
        };
        vec![next]
    }
}

/// What happens to one file. Paths are relative to the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "action",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum OverrideChanged {
    /// A new override is a copy of a layer's file.
    Copy {
        /// The new file.
        file: String,
        /// The layer that has the original.
        from: Owner,
        /// The original.
        original: String,
    },
    /// An override is removed, because it is the same as the file that it hides.
    Remove {
        /// The store that has it.
        store_id: StoreId,
        /// The override.
        file: String,
        /// The layer whose file the store inherits then.
        inherits_from: Owner,
        /// That file.
        inherited: String,
    },
    /// An override moves to the layer above.
    Raise {
        /// The override.
        file: String,
        /// The layer above.
        to: Owner,
        /// The file there.
        raised: String,
        /// Whether it replaces a file there.
        replaces: bool,
        /// The deployable stores that have this file afterwards.
        stores: Vec<StoreId>,
    },
}

impl OverrideChanged {
    /// Lines for people.
    pub fn text(&self) -> String {
        match self {
            Self::Copy {
                file,
                from,
                original,
            } => format!(
                "create {}\n  a copy of {} ({from})\n",
                file.escape_debug(),
                original.escape_debug()
            ),
            Self::Remove {
                file,
                inherits_from,
                inherited,
                ..
            } => format!(
                "remove {}\n  the same as {} ({inherits_from})\n",
                file.escape_debug(),
                inherited.escape_debug()
            ),
            Self::Raise {
                file,
                to,
                raised,
                replaces,
                stores,
            } => {
                let stores: Vec<_> = stores.iter().map(StoreId::as_str).collect();
                let replaces = if *replaces {
                    ", and replaces the file there"
                } else {
                    ""
                };
                format!(
                    "move {}\n  to {} ({to}){replaces}\n  stores with this file: {}\n",
                    file.escape_debug(),
                    raised.escape_debug(),
                    if stores.is_empty() {
                        "none".to_owned()
                    } else {
                        stores.join(", ")
                    }
                )
            }
        }
    }
}
