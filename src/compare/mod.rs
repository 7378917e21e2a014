//! Questions about compositions. Nothing is written.

mod changed;
mod check;
mod diff;
mod drift;
mod impact;
mod lines;
mod overlays;
mod patch;
mod snapshot;
mod why;

use std::path::PathBuf;

use miette::Diagnostic;

pub use changed::{ChangeReason, ChangedPath, ChangedStore, ChangedStores, Comparison, changed};
pub use check::{CODES, CheckReport, Finding, FindingCode, check, is_dns_label};
pub use diff::{Diff, FileDiff, across_revisions, between_stores};
pub use drift::{Drift, MergedOverride, Override, OverrideState, drift, merge};
pub use impact::{
    BrokenImport, Impact, ImpactSide, OverrideChange, PathImpact, StoreImpact, impact,
};
pub use overlays::{OverlayDifference, OverlayFile, OverriddenPath, difference, overlays};
pub use patch::{FileDifference, FileVersion, Patch, PatchLine, PatchLineKind};
pub use snapshot::ProjectSnapshot;
pub use why::{
    LayerAnswer, Why, composed_path, files_in, nearest_paths, split_path, unknown_path, why,
};

use crate::config::{self, Project};
use crate::overlay::Owner;
use crate::store::{AppName, UnitId};

/// How many similar paths an error names for an unknown one.
const OFFERED: usize = 3;

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The path does not start with an app of the store.
    #[error("`{}` does not start with an app of `{store}`", path.escape_debug())]
    #[diagnostic(code(alokai::compare::app), help("give `<app>/<path in the app>` or the path of a file in the project; {}apps of `{store}`: {}", config::nearest(path.split('/').next().unwrap_or_default(), apps.iter().map(String::as_str)).filter(|near| !path.starts_with(*near)).map_or_else(String::new, |near| format!("did you mean `{near}`? ")), apps.join(", ")))]
    App {
        /// The value as given.
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
        help(
            "{}{}",
            elsewhere(others),
            similar(nearest, "the composition is empty")
        )
    )]
    Path {
        /// Other stores that have it.
        others: Vec<String>,
        /// The store and the app.
        unit: UnitId,
        /// The path as given, without the app.
        path: String,
        /// The most similar paths.
        nearest: Vec<String>,
    },
    /// The path is a folder.
    #[error("`{}` is a folder with {files} {}", path.escape_debug(), if *files == 1 { "file" } else { "files" })]
    #[diagnostic(code(alokai::compare::folder), help("name one of its files"))]
    Folder {
        /// `<app>/<path>`.
        path: String,
        /// How many files the composition has in it.
        files: usize,
    },
    /// The store cannot be composed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] crate::overlay::Error),
    /// The project of a revision cannot be read.
    #[error("the project at `{}` cannot be read", revision.escape_debug())]
    #[diagnostic(
        code(alokai::compare::project),
        help("choose a revision in which the config is valid")
    )]
    Project {
        /// The value as given.
        revision: String,
        /// Why it cannot be read.
        #[source]
        source: Box<config::Error>,
    },
    /// An invalid glob.
    #[error("`{}` is not a valid glob: {reason}", glob.escape_debug())]
    #[diagnostic(
        code(alokai::compare::glob),
        help("globs are relative to the project, such as `tsconfig.*.json` or `config/**`")
    )]
    Glob {
        /// The value as given.
        glob: String,
        /// Why it is invalid.
        reason: String,
    },
    /// A store that is not deployable on either side.
    #[error("there is no deployable store `{}` in `{since}` or in {to}", store.escape_debug())]
    #[diagnostic(code(alokai::compare::no_store), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` lists the stores".into(), |near| format!("did you mean `{near}`?"))))]
    NoStore {
        /// The value as given.
        store: String,
        /// The earlier side.
        since: String,
        /// The later side.
        to: String,
        /// The most similar store id.
        nearest: Option<String>,
    },
    /// An app that does not exist on either side.
    #[error("there is no app `{}` to compare", app.escape_debug())]
    #[diagnostic(code(alokai::compare::no_such_app), help("the apps are: {}", apps.join(", ")))]
    NoSuchApp {
        /// The value as given.
        app: String,
        /// The apps that exist.
        apps: Vec<String>,
    },
    /// A path that is not an override.
    #[error("`{}` is not an override", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::no_override),
        help(
            "use a path from the output of `alokai store drift`, relative to the project or to the current folder; {}",
            similar(nearest, "the project has no overrides")
        )
    )]
    NoOverride {
        /// The value as given.
        path: String,
        /// The most similar overrides.
        nearest: Vec<String>,
    },
    /// A file of a store that does not override another file.
    #[error("`{}` does not override a file, so there is nothing to merge", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::nothing_inherited),
        help(
            "`store drift` lists the overrides, and for each orphan the commit that removed the overridden file"
        )
    )]
    NothingInherited {
        /// The file.
        path: String,
    },
    /// A merge of binary files.
    #[error("`{}` is a binary file and cannot be merged", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::binary),
        help("apply the changes by hand and commit the file")
    )]
    BinaryMerge {
        /// The file.
        path: String,
    },
    /// A file with unresolved conflicts of an earlier merge.
    #[error("`{}` still has conflict markers", path.escape_debug())]
    #[diagnostic(
        code(alokai::compare::unresolved),
        help("resolve the conflicts, or restore the file with `git checkout -- <file>`")
    )]
    Unresolved {
        /// The file.
        path: String,
    },
    /// A file's content cannot be read.
    #[error("cannot read the content of `{path}`")]
    #[diagnostic(
        code(alokai::compare::read),
        help("check its permissions, and that no other program changes it during the run")
    )]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// libgit2 cannot compare or merge.
    #[error("two versions of a file cannot be compared")]
    #[diagnostic(code(alokai::compare::patch))]
    Patch {
        /// The library's error.
        source: git2::Error,
    },
    /// The project is not in a git repository.
    #[error("`{}` is not in a git repository, so there are no revisions to compare", project.display())]
    #[diagnostic(
        code(alokai::compare::no_repository),
        help("create a repository: `git init && git add . && git commit -m \"first commit\"`")
    )]
    NoRepository {
        /// The project.
        project: PathBuf,
    },
    /// The project itself cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// The git repository cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] crate::git::Error),
}

fn elsewhere(others: &[String]) -> String {
    if others.is_empty() {
        String::new()
    } else {
        format!("stores with this file: {}; ", others.join(", "))
    }
}

fn similar(nearest: &[String], none: &str) -> String {
    let quoted: Vec<_> = nearest
        .iter()
        .map(|path| format!("`{}`", path.escape_debug()))
        .collect();
    if quoted.is_empty() {
        none.to_owned()
    } else {
        format!("similar paths: {}", quoted.join(", "))
    }
}

/// A layer's folder, relative to the project.
pub fn owner_folder(project: &Project, owner: &Owner, app: &AppName) -> String {
    match owner {
        Owner::Base => format!("apps/{app}"),
        Owner::Store(id) => {
            let store = project.stores.get(id.as_str());
            let folder = store.and_then(|store| store.folder_of(app));
            folder.unwrap_or_default()
        }
    }
}
