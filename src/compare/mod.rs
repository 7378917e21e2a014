//! Questions asked of compositions; nothing here writes.

mod changed;
mod check;
mod diff;
mod drift;
mod patch;
mod snapshot;
mod why;

use std::path::PathBuf;

use miette::Diagnostic;

pub use changed::{ChangeReason, ChangedPath, ChangedStore, ChangedStores, Comparison, changed};
pub use check::{CODES, CheckReport, Finding, FindingCode, check};
pub use diff::{Diff, FileDiff, across_revisions, between_stores};
pub use drift::{Drift, MergedOverride, Override, Standing, drift, merge};
pub use patch::{FileDifference, FileVersion, Patch, PatchLine, PatchLineKind};
pub use snapshot::ProjectSnapshot;
pub use why::{LayerAnswer, Why, composed_path, why};

use crate::config::{self, Project};
use crate::overlay::Owner;
use crate::store::{AppName, UnitId};

/// Paths that an error offers in place of an unknown one.
const OFFERED: usize = 3;

/// Why the question has no answer.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The path names no app of the store.
    #[error("`{}` begins with no app of `{store}`", path.escape_debug())]
    #[diagnostic(code(alokai::compare::app), help("a path is `<app>/<path in the app>`, or one of the project; {}apps of `{store}`: {}", config::nearest(path.split('/').next().unwrap_or_default(), apps.iter().map(String::as_str)).filter(|near| !path.starts_with(*near)).map_or_else(String::new, |near| format!("did you mean `{near}`? ")), apps.join(", ")))]
    App {
        /// As given.
        path: String,
        /// The store.
        store: String,
        /// Its apps.
        apps: Vec<String>,
    },
    /// No layer has the path.
    #[error("no layer of `{unit}` has `{}`", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::path),
        help("{}{}", elsewhere(others), offer(nearest))
    )]
    Path {
        /// Other stores that have it.
        others: Vec<String>,
        /// The store and the app.
        unit: UnitId,
        /// As given, without the app.
        path: String,
        /// Existing paths that are most like it.
        nearest: Vec<String>,
    },
    /// The composition cannot be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// The project of a revision cannot be read.
    #[error("the project at `{}` cannot be read", revision.escape_debug())]
    #[diagnostic(
        code(alokai::compare::project),
        help("its config has to be valid there; choose another revision")
    )]
    Project {
        /// As given.
        revision: String,
        /// What is wrong with it.
        #[source]
        source: Box<config::Error>,
    },
    /// A glob that is none.
    #[error("`{}` is no glob: {reason}", glob.escape_debug())]
    #[diagnostic(
        code(alokai::compare::glob),
        help("globs are relative to the project: `tsconfig.*.json`, `config/**`")
    )]
    Glob {
        /// As given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A store that is deployable on neither side.
    #[error("neither `{since}` nor {to} has a deployable store `{}`", store.escape_debug())]
    #[diagnostic(code(alokai::compare::no_store), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` shows them".into(), |near| format!("did you mean `{near}`?"))))]
    NoStore {
        /// As given.
        store: String,
        /// The earlier side.
        since: String,
        /// The later side.
        to: String,
        /// The nearest one.
        nearest: Option<String>,
    },
    /// The store has no such app.
    #[error("there is no app `{}` to compare", app.escape_debug())]
    #[diagnostic(code(alokai::compare::no_such_app), help("there are: {}", apps.join(", ")))]
    NoSuchApp {
        /// As given.
        app: String,
        /// What could be given.
        apps: Vec<String>,
    },
    /// A path that is no override.
    #[error("`{}` is no override", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::no_override),
        help(
            "a path is relative to the project or to this folder, as `store drift` shows it; {}",
            offer(nearest)
        )
    )]
    NoOverride {
        /// As given.
        path: String,
        /// Overrides that are most like it.
        nearest: Vec<String>,
    },
    /// A file of a store that overrides nothing.
    #[error("`{}` overrides nothing, so there is nothing to merge", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::nothing_inherited),
        help(
            "`store drift` lists overrides, and orphans with the commit that removed what they overrode"
        )
    )]
    NothingInherited {
        /// The file.
        path: String,
    },
    /// A merge of files that are no text.
    #[error("`{}` is no text and cannot be merged", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::binary),
        help("take over by hand what has changed, and commit it")
    )]
    BinaryMerge {
        /// The file.
        path: String,
    },
    /// Conflicts of an earlier merge.
    #[error("`{}` still has conflict markers", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::unresolved),
        help("resolve them first: edit the file, or bring it back with `git checkout -- <file>`")
    )]
    Unresolved {
        /// The file.
        path: String,
    },
    /// The content of a composed file.
    #[error("cannot read the content of `{path}`")]
    #[diagnostic(
        code(alokai::compare::read),
        help("check that you may read it, and that nothing changes it meanwhile")
    )]
    Read {
        /// The file.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Git's library could not compare.
    #[error("two versions of a file cannot be compared")]
    #[diagnostic(code(alokai::compare::patch))]
    Patch {
        /// The library's word.
        source: git2::Error,
    },
    /// The project is in no repository, so there are no revisions.
    #[error("`{}` is in no git repository, so it has no revisions to compare", project.display())]
    #[diagnostic(
        code(alokai::compare::no_repository),
        help("make one: `git init && git add . && git commit -m \"first commit\"`")
    )]
    NoRepository {
        /// The project.
        project: PathBuf,
    },
    /// The project itself cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// Git does not tell what is needed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] crate::git::Error),
}

fn elsewhere(others: &[String]) -> String {
    if others.is_empty() {
        String::new()
    } else {
        format!("it is in the folder of {}; ", others.join(", "))
    }
}

fn offer(nearest: &[String]) -> String {
    let quoted: Vec<_> = nearest
        .iter()
        .map(|path| format!("`{}`", path.escape_debug()))
        .collect();
    if quoted.is_empty() {
        "the composition is empty".into()
    } else {
        format!("the nearest: {}", quoted.join(", "))
    }
}

/// A layer's folder, relative to the project.
fn owner_folder(project: &Project, owner: &Owner, app: &AppName) -> String {
    match owner {
        Owner::Base => format!("apps/{app}"),
        Owner::Store(id) => {
            let store = project.stores.get(id.as_str());
            let folder = store.and_then(|store| store.folder_of(app));
            folder.unwrap_or_default()
        }
    }
}
