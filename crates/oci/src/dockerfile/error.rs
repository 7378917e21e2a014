//! Why a Dockerfile cannot be applied.

use std::path::PathBuf;

/// An instruction that only Docker can carry out, or that Docker has to report as wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the Dockerfile needs Docker: {why}: `{instruction}`")]
pub struct Refusal {
    /// Number of the line, counted from 1.
    pub line: usize,
    /// The line as written, shortened.
    pub instruction: String,
    /// The reason, such as "`RUN` instructions are not supported without Docker".
    pub why: String,
}

/// Why a Dockerfile cannot be applied to a base image and a build context. Docker fails as well,
/// except for [`Error::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An instruction needs Docker on this base image or with this build context.
    #[error(transparent)]
    Refused(#[from] Refusal),

    /// The build context does not have a source of `COPY`.
    #[error(
        "cannot copy `{source_path}` at line {line} of the Dockerfile: the build context \
         `{}` has no such file or folder", context.display()
    )]
    MissingSource {
        /// The source with its variables expanded.
        source_path: String,
        /// Folder of the build context.
        context: PathBuf,
        /// Line of the Dockerfile.
        line: usize,
        /// Whether the folder has the source, and `.dockerignore` excludes it.
        is_ignored: bool,
    },

    /// The base image's config is not valid.
    #[error("the config of the base image is not a valid image config: {problem}")]
    BaseConfig {
        /// What is not valid.
        problem: String,
    },

    /// A file of the build context cannot be read.
    #[error("cannot read `{}` of the build context", path.display())]
    Read {
        /// Path on this machine.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },

    /// A path or link target of the build context is not text.
    #[error("the path or link target of `{}` in the build context is not UTF-8", path.display())]
    NotUtf8 {
        /// Path on this machine.
        path: PathBuf,
    },
}

impl Error {
    /// What a user can do about the error.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Refused(_) => "build the image with the Docker engine, or change this line",
            Self::MissingSource {
                is_ignored: true, ..
            } => {
                "`.dockerignore` excludes this path; add a line with `!` and the path to `.dockerignore`"
            }
            Self::MissingSource { .. } => {
                "sources are relative to the build context; empty folders are not part of it"
            }
            Self::BaseConfig { .. } => "pull the base image again, or choose another base image",
            Self::Read { .. } => "check that the file exists and that you may read it",
            Self::NotUtf8 { .. } => "rename it, or exclude it in `.dockerignore`",
        }
    }
}
