//! What can be wrong with a config, each with its place and its mend.

use std::path::PathBuf;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// Why a project could not be read. All of it is bad input: exit code 2.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// No config file here or above.
    #[error("no `alokai.config.json` in `{}` or any folder above it", start.display())]
    #[diagnostic(
        code(alokai::config::not_found),
        help("run inside a project, or name one: `alokai --cwd path/to/project …`")
    )]
    NotFound {
        /// Where the search began.
        start: PathBuf,
    },
    /// A file or folder of the project cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(alokai::config::read),
        help("check that it exists and that you may read it")
    )]
    Read {
        /// What was read.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The config file is wrong in these places.
    #[error("`{}` has {}", path.display(), count(problems.len()))]
    #[diagnostic(code(alokai::config::invalid))]
    Invalid {
        /// The config file.
        path: PathBuf,
        /// Its text, for the excerpts.
        #[source_code]
        text: NamedSource<String>,
        /// Every problem found.
        #[related]
        problems: Vec<Problem>,
    },
    /// The folders under `apps/` are wrong.
    #[error("the folders under `{}` have {}", path.display(), count(problems.len()))]
    #[diagnostic(code(alokai::config::folders))]
    Folders {
        /// The `apps` folder.
        path: PathBuf,
        /// Every problem found.
        #[related]
        problems: Vec<Problem>,
    },
    /// A `package.json` that is no JSON of the expected shape.
    #[error("`{}` is not a valid package.json", path.display())]
    #[diagnostic(
        code(alokai::config::package),
        help("mend the file; `npm pkg get name` checks it")
    )]
    Package {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The folders of the workspace cannot be found.
    #[error("cannot read the workspace of `{}`", path.display())]
    #[diagnostic(
        code(alokai::config::workspace),
        help("check `workspaces` in `package.json`, or `pnpm-workspace.yaml`")
    )]
    Workspace {
        /// The project.
        path: PathBuf,
        /// The system's or the parser's message.
        source: std::io::Error,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    }
}

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What.
    pub message: String,
    /// Where in the config file, in bytes.
    pub span: Option<SourceSpan>,
    /// What to do next.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a place in the config file.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: None,
            help: Some(help.into()),
        }
    }

    /// Says where in the config file it is.
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

/// Something odd that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Where it is.
    pub place: NoticePlace,
    /// What it is.
    pub message: String,
}

/// Where a [`Notice`] belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticePlace {
    /// A value of the config file, by its keys.
    Config(Vec<String>),
    /// A folder, relative to the project.
    Folder(String),
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
