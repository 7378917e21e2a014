//! What can be wrong with a Dockerfile, or with what it is applied to.

use std::path::PathBuf;

/// A line that only Docker can carry out, or complain of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("line {line} of the Dockerfile needs Docker: {why}: `{instruction}`")]
pub struct Refusal {
    /// Its number, from 1.
    pub line: usize,
    /// The line as written, shortened.
    pub instruction: String,
    /// Such as "`RUN` runs a command".
    pub why: String,
}

/// Why a Dockerfile cannot be carried out on this base with these files. Docker fails at the
/// same, but for [`Error::Refused`].
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// Only what is being built on shows that Docker is needed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Refused(#[from] Refusal),

    /// A source that the context does not have.
    #[error(
        "cannot copy `{source_path}` at line {line} of the Dockerfile: nothing in `{context}` is called so"
    )]
    #[diagnostic(help("{help}"))]
    Missing {
        /// As written, variables expanded.
        source_path: String,
        /// The context's folder.
        context: String,
        /// Of the Dockerfile.
        line: usize,
        /// Whether `.dockerignore` is to blame.
        help: String,
    },

    /// A name that the base image does not know.
    #[error("`{name}` at line {line} of the Dockerfile is no {kind} of the base image")]
    #[diagnostic(help("the base image has {known}; a number needs no name"))]
    Unknown {
        /// User or group.
        kind: &'static str,
        /// As written.
        name: String,
        /// Of the Dockerfile.
        line: usize,
        /// Names that there are.
        known: String,
    },

    /// Anything else that a line asks for in vain.
    #[error("line {line} of the Dockerfile: {problem}: `{instruction}`")]
    #[diagnostic(help("{help}"))]
    InstructionLine {
        /// Its number, from 1.
        line: usize,
        /// The line as written, shortened.
        instruction: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        help: String,
    },

    /// The base image's config is not what the specification says.
    #[error("the base image's config is no image config: {problem}")]
    #[diagnostic(help("pull the base image again, or choose another one"))]
    Base {
        /// What is wrong.
        problem: String,
    },

    /// A file of the context cannot be read.
    #[error("cannot read `{}` of the build context", path.display())]
    #[diagnostic(help("check that it is there and that its permissions let you read it"))]
    Read {
        /// On this machine.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },

    /// A path that cannot be written into an image.
    #[error("the path `{}` in the build context is not UTF-8", path.display())]
    #[diagnostic(help("rename it, or name it in `.dockerignore`"))]
    NotText {
        /// On this machine.
        path: PathBuf,
    },
}
