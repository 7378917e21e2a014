//! Errors and notices of a config, each with its place and with help.

use std::path::PathBuf;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// Why a project cannot be read. All of these are wrong input: exit code 2.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// There is no config file in the folder or above it.
    #[error("no `alokai.config.json` in `{}` or any folder above it", start.display())]
    #[diagnostic(
        code(alokai::config::not_found),
        help(
            "write a config with `alokai init`, run the command in a project folder, or pass the folder: `alokai --cwd path/to/project …`"
        )
    )]
    NotFound {
        /// The folder where the search started.
        start: PathBuf,
    },
    /// A file or folder of the project cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(alokai::config::read),
        help("check that it exists and that you have permission to read it")
    )]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The config file has problems.
    #[error("`{}` has {}", path.display(), count(problems.len()))]
    #[diagnostic(code(alokai::config::invalid))]
    Invalid {
        /// The config file.
        path: PathBuf,
        /// The text, for excerpts in error messages.
        #[source_code]
        text: NamedSource<String>,
        /// All problems.
        #[related]
        problems: Vec<Problem>,
    },
    /// The folders under `apps/` have problems.
    #[error("the folders under `{}` have {}", path.display(), count(problems.len()))]
    #[diagnostic(code(alokai::config::folders))]
    Folders {
        /// The `apps` folder.
        path: PathBuf,
        /// All problems.
        #[related]
        problems: Vec<Problem>,
    },
    /// A `package.json` is not valid.
    #[error("`{}` is not a valid package.json", path.display())]
    #[diagnostic(
        code(alokai::config::package),
        help("correct the file; run `npm pkg get name` to check it")
    )]
    Package {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// The folders of the workspace cannot be read.
    #[error("cannot read the workspace of `{}`", path.display())]
    #[diagnostic(
        code(alokai::config::workspace),
        help("check `workspaces` in `package.json`, or `pnpm-workspace.yaml`")
    )]
    Workspace {
        /// The project.
        path: PathBuf,
        /// The error of the system or the parser.
        source: std::io::Error,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    }
}

/// One problem, with help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The message.
    pub message: String,
    /// The span in the config file, in bytes.
    pub span: Option<SourceSpan>,
    /// How to fix it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a span.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            help: Some(help.into()),
        }
    }

    /// Adds the span in the config file.
    #[must_use]
    pub fn at(mut self, span: Option<SourceSpan>) -> Self {
        self.span = span;
        self
    }
}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(
            miette::LabeledSpan::new_with_span(Some("here".into()), span),
        )))
    }
}

/// A problem that is not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its place.
    pub place: NoticePlace,
    /// The message.
    pub message: String,
}

/// The place of a [`Notice`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticePlace {
    /// A value in the config file, by its keys.
    Config(Vec<String>),
    /// A folder, relative to the project.
    Folder(String),
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
