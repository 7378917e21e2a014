//! Which layer gives which file.
//!
//! A [`Layer`] is one owner's files for one app; a [`Composition`] is what layers make together
//! for one store and one app. It is a value: listing reads, merging is pure, nothing is written.

mod composition;
mod content;
mod entry;
mod gitignore;
mod layer;
mod merge;
mod rewrite;
mod rules;
mod walk;

pub use composition::{
    Composer, Composition, DroppedPath, Layers, UnitLayers, UnusedFile, fail_on,
};
pub use content::ContentId;
pub use entry::{Entry, EntryContent, is_from_base};
pub use layer::{ContentSource, FileKind, Layer, LayerFile, LayerReader, Owner};
pub use merge::{LayerClash, MergedPath, merge, winner};
pub use rules::{IgnoreRules, RuleOrigin};

use std::path::PathBuf;

use miette::Diagnostic;

/// Why a composition could not be made.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Every file that no composition can take.
    #[error("{} cannot be composed", files(problems.len()))]
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
        help("check that you may read it, and that nothing changes it meanwhile")
    )]
    Read {
        /// What was read.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A `package.json` or `tsconfig.json` that cannot be edited.
    #[error("`{}` is no valid JSON: {reason}", path.display())]
    #[diagnostic(
        code(alokai::overlay::rewrite),
        help("mend the file; `tsconfig.json` may have comments, `package.json` may not")
    )]
    Rewrite {
        /// The base app's file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// Git knows something we need.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] crate::git::Error),
}

fn files(count: usize) -> String {
    if count == 1 {
        "1 path".into()
    } else {
        format!("{count} paths")
    }
}

/// One path that cannot be composed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Diagnostic)]
pub enum LayerProblem {
    /// A file here, a folder there.
    #[error("`{}` is a file in {file} and a folder in {folder} (which has `{}`)", path.escape_debug(), below.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::clash),
        help("rename one of the two, or drop one with `ignorePaths`")
    )]
    Clash {
        /// The path in the app, with the unit first.
        path: String,
        /// Who has it as a file.
        file: String,
        /// Who has it as a folder.
        folder: String,
        /// A file in that folder.
        below: String,
    },
    /// A link out of the repository.
    #[error("`{}` is a link to `{}`, which is outside the repository", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_outside),
        help("copy the content into the repository, or remove the link")
    )]
    LinkOutside {
        /// The link, relative to the project.
        path: String,
        /// What it says.
        target: String,
    },
    /// A link to nothing.
    #[error("`{}` is a link to `{}`, which does not exist", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_dangling),
        help("mend the link's target, or remove the link")
    )]
    LinkDangling {
        /// The link, relative to the project.
        path: String,
        /// What it says.
        target: String,
    },
    /// A link to what git ignores, or through it.
    #[error("`{}` is a link to `{}`, which git ignores", path.escape_debug(), target.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::link_ignored),
        help("commit what it leads to, or remove the link")
    )]
    LinkIgnored {
        /// The link, relative to the project.
        path: String,
        /// What it says.
        target: String,
    },
    /// A link to a folder that holds it.
    #[error("`{}` is a link to `{}`, a folder that contains the link itself", path.escape_debug(), target.escape_debug())]
    #[diagnostic(code(alokai::overlay::link_cycle), help("remove the link"))]
    LinkCycle {
        /// The link, relative to the project.
        path: String,
        /// What it says.
        target: String,
    },
    /// A fifo, a socket, a device.
    #[error("`{}` is neither a file, a folder nor a link", path.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::special),
        help("remove it; fifos, sockets and devices cannot be composed")
    )]
    Special {
        /// The path, relative to the project.
        path: String,
    },
    /// Files that a sparse checkout leaves out: what is not here cannot be composed, and a smaller
    /// composition would be wrong.
    #[error("the checkout is sparse: {count} of the files under `apps/` {} not here, the first `{}`", if *count == 1 { "is" } else { "are" }, path.escape_debug())]
    #[diagnostic(
        code(alokai::overlay::sparse),
        help(
            "bring them: `git sparse-checkout add apps`, or all of it: `git sparse-checkout disable`"
        )
    )]
    Sparse {
        /// The first one, relative to the project.
        path: String,
        /// How many there are.
        count: usize,
    },
    /// A name that is no text.
    #[error("the name of `{path}` is not valid UTF-8")]
    #[diagnostic(code(alokai::overlay::name), help("rename it"))]
    Name {
        /// The path, with what cannot be shown replaced.
        path: String,
    },
}
