//! Which layer gives which file.
//!
//! A [`Layer`] holds one owner's files for one app. A [`Composition`] is the result of merging the
//! layers of one store and one app. It is a value: layers are read, merging is a pure function, and
//! nothing is written.

mod composition;
mod content;
mod entry;
mod gitignore;
mod known;
mod layer;
mod merge;
mod rewrite;
mod rules;
mod top;
mod walk;

pub use composition::{
    Composer, Composition, DroppedPath, Layers, UnitLayers, UnusedFile, fail_on,
};
pub use content::ContentId;
pub use entry::{Entry, EntryContent, is_from_base};
pub use known::KnownContents;
pub use layer::{ContentSource, FileKind, Layer, LayerFile, LayerReader, Owner, base_folder};
pub use merge::{LayerClash, MergedPath, merge, winner};
pub use rules::{IgnoreRules, RuleOrigin};
pub use top::{holds_secret, is_linked};

use std::path::PathBuf;

use miette::Diagnostic;

/// Why a store cannot be composed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Files that cannot be composed.
    #[error("{} cannot be composed", paths(problems.len()))]
    #[diagnostic(code(alokai::overlay::files))]
    Files {
        /// Every problem found, in a stable order.
        #[related]
        problems: Vec<LayerProblem>,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(alokai::overlay::read),
        help("check its permissions, and that no other program changes it during the run")
    )]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A base app's `package.json` or `tsconfig.json` that cannot be edited.
    #[error("`{}` is not valid JSON: {reason}", path.display())]
    #[diagnostic(
        code(alokai::overlay::rewrite),
        help(
            "correct the file; comments are allowed in `tsconfig.json` and not in `package.json`"
        )
    )]
    Rewrite {
        /// The base app's file.
        path: PathBuf,
        /// The parser's error, with line and column.
        reason: String,
    },
    /// The git repository cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] crate::git::Error),
}

fn paths(count: usize) -> String {
    if count == 1 {
        "1 path".into()
    } else {
        format!("{count} paths")
    }
}

/// One path that cannot be composed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Diagnostic)]
pub enum LayerProblem {
    /// A path is a file in one layer and a folder in another.
    #[error("`{}` is a file in {file} and a folder in {folder} (with `{}`)", path.escape_debug(), below.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::clash),
        help("rename one of the two, or drop one with `ignorePaths`")
    )]
    Clash {
        /// The path in the app, with the unit in front.
        path: String,
        /// The layer in which it is a file.
        file: String,
        /// The layer in which it is a folder.
        folder: String,
        /// A file in that folder.
        below: String,
    },
    /// A link to a path outside the repository.
    #[error("`{}` is a link to `{}`, which is outside the repository", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_outside),
        help("copy the target into the repository, or remove the link")
    )]
    LinkOutside {
        /// The link, relative to the project.
        path: String,
        /// Its target, as written.
        target: String,
    },
    /// A link to a path that does not exist.
    #[error("`{}` is a link to `{}`, which does not exist", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_dangling),
        help("correct the link's target, or remove the link")
    )]
    LinkDangling {
        /// The link, relative to the project.
        path: String,
        /// Its target, as written.
        target: String,
    },
    /// A link to a path that git ignores, or through a link that git ignores.
    #[error("`{}` is a link to `{}`, which git ignores", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_ignored),
        help("commit the link's target, or remove the link")
    )]
    LinkIgnored {
        /// The link, relative to the project.
        path: String,
        /// Its target, as written.
        target: String,
    },
    /// A link to a folder that contains the link.
    #[error("`{}` is a link to `{}`, a folder that contains the link itself", path.escape_debug(), target.escape_debug())]
    #[diagnostic(code(alokai::overlay::link_cycle), help("remove the link"))]
    LinkCycle {
        /// The link, relative to the project.
        path: String,
        /// Its target, as written.
        target: String,
    },
    /// A fifo, a socket or a device.
    #[error("`{}` is not a file, a folder or a link", path.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::special),
        help("remove it; fifos, sockets and devices cannot be composed")
    )]
    Special {
        /// The path, relative to the project.
        path: String,
    },
    /// A sparse checkout leaves files of layers out. Without them the composition would be wrong.
    #[error("the checkout is sparse: {count} {} missing under `apps/`, the first is `{}`", if *count == 1 { "file is" } else { "files are" }, path.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::sparse),
        help(
            "check out `apps/` with `git sparse-checkout add apps`, or everything with `git sparse-checkout disable`"
        )
    )]
    Sparse {
        /// The first missing file, relative to the project.
        path: String,
        /// How many files are missing.
        count: usize,
    },
    /// A file name that is not valid UTF-8.
    #[error("the name of `{path}` is not valid UTF-8")]
    #[diagnostic(code(alokai::overlay::name), help("rename the file"))]
    Name {
        /// The path, with invalid bytes replaced.
        path: String,
    },
}
