//! Why a tree cannot be edited.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::store::{InvalidName, StoreId};
use crate::{compare, config, git, overlay};

/// Why the tree of stores cannot be edited. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// A path that an edit must not change.
    #[error("`{}` cannot be changed: {why}", path.escape_debug())]
    #[diagnostic(code(alokai::edit::path), help("{help}"))]
    Path {
        /// The path, relative to the project.
        path: String,
        /// Why.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// A path that an edit needs for something else exists.
    #[error("`{}` already exists", path.escape_debug())]
    #[diagnostic(
        code(alokai::edit::exists),
        help(
            "an edit never replaces a file or folder: rename or remove it, then run the command again"
        )
    )]
    Exists {
        /// The path, relative to the project.
        path: String,
    },
    /// A file has changed since it was read.
    #[error("`{}` has changed since the edit was shown", path.escape_debug())]
    #[diagnostic(
        code(alokai::edit::changed),
        help("run the command again to see the edit of the new content; nothing was changed")
    )]
    Changed {
        /// The path, relative to the project.
        path: String,
    },
    /// A file or folder cannot be read or written. All changes were undone.
    #[error("cannot {doing} `{}`; nothing was changed", path.display())]
    #[diagnostic(
        code(alokai::edit::io),
        help("check the permissions and the free disk space, then run the command again")
    )]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A change cannot be undone. The journal stays.
    #[error(
        "`{command}` was interrupted or failed, and its change of `{}` cannot be undone: {reason}",
        path.display()
    )]
    #[diagnostic(
        code(alokai::edit::stuck),
        help(
            "correct the cause, then run any alokai command: it undoes the rest. `.alokai/edit/journal.json` lists all changes"
        )
    )]
    Stuck {
        /// The command.
        command: String,
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The config cannot be edited.
    #[error("`alokai.config.json` cannot be edited: {reason}")]
    #[diagnostic(
        code(alokai::edit::config),
        help("correct the file; `alokai store check` shows what is wrong")
    )]
    ConfigText {
        /// Why.
        reason: String,
    },
    /// A name that cannot be a store id.
    #[error(transparent)]
    #[diagnostic(
        code(alokai::edit::id),
        help("use lower-case letters, digits and `-`, such as `us` or `fashion-brand`")
    )]
    Id(#[from] InvalidName),
    /// There is no store with this id.
    #[error("there is no store `{}`", id.escape_debug())]
    #[diagnostic(
        code(alokai::edit::no_store),
        help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` lists the stores".into(), |near| format!("did you mean `{near}`?")))
    )]
    NoStore {
        /// The id as given.
        id: String,
        /// The nearest id.
        nearest: Option<String>,
    },
    /// The id belongs to another store, or differs from its id only by case.
    #[error("the store id `{id}` {}", if id.as_str() == other { "is in use".to_owned() } else { format!("differs from `{other}` only by case") })]
    #[diagnostic(
        code(alokai::edit::id_in_use),
        help(
            "choose another id: ids are unique in the project, and names of folders on macOS and Windows do not differ by case"
        )
    )]
    IdInUse {
        /// The new id.
        id: StoreId,
        /// The id of a store.
        other: String,
    },
    /// A store would be its own ancestor.
    #[error("`{id}` cannot be moved below `{parent}`, which {}", if id == parent { "is the same store".to_owned() } else { format!("inherits from `{id}`") })]
    #[diagnostic(
        code(alokai::edit::cycle),
        help("choose a parent that is not below the moved store")
    )]
    Cycle {
        /// The moved store.
        id: StoreId,
        /// The new parent.
        parent: StoreId,
    },
    /// A store with children cannot be removed without a new parent for them.
    #[error("`{id}` has {} that inherit from it: {}", if children.len() == 1 { "1 store".to_owned() } else { format!("{} stores", children.len()) }, children.join(", "))]
    #[diagnostic(
        code(alokai::edit::children),
        help("pass `--reparent <id>` or `--reparent root` to move them first, or remove them")
    )]
    Children {
        /// The store.
        id: StoreId,
        /// Its children.
        children: Vec<String>,
    },
    /// An option does not fit the project or the other options.
    #[error("{message}")]
    #[diagnostic(code(alokai::edit::option), help("{help}"))]
    Option {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// The edit would make the project invalid.
    #[error("`{command}` would make the project invalid; nothing was changed")]
    #[diagnostic(code(alokai::edit::invalid))]
    Invalid {
        /// The command.
        command: String,
        /// Why.
        #[related]
        causes: Vec<config::Error>,
    },
    /// The stores could not be composed after the edit.
    #[error("after `{command}` stores cannot be composed; nothing was changed")]
    #[diagnostic(code(alokai::edit::uncomposable))]
    Uncomposable {
        /// The command.
        command: String,
        /// Why.
        #[related]
        causes: Vec<overlay::Error>,
    },
    /// An override cannot be made, removed or moved.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Override(#[from] super::OverrideError),
    /// The config or the folders are not valid.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// A store cannot be composed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] overlay::Error),
    /// A question about compositions cannot be answered.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compare(Box<compare::Error>),
    /// The repository cannot be read, or its index cannot be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] git::Error),
}

impl From<compare::Error> for Error {
    fn from(error: compare::Error) -> Self {
        Self::Compare(Box::new(error))
    }
}
