//! Why `.out` cannot be kept in step.

use std::path::Path;

use miette::{Diagnostic, SourceCode};

use crate::{config, pipeline, plan};

/// Why `.out` cannot be kept in step.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The config or the folders are not valid.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// The stores cannot be planned.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] plan::Error),
    /// `.out` cannot be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pipeline(#[from] pipeline::Error),
}

impl From<pipeline::Io> for Error {
    fn from(error: pipeline::Io) -> Self {
        Self::Pipeline(error.into())
    }
}

/// An error as plain text: where, what, why, each problem, and what to do.
pub fn text(error: &dyn Diagnostic) -> String {
    text_in(error, None)
}

/// The text of an error. Its place is in its own file, or in `file`, which is that of the error above it.
fn text_in(error: &dyn Diagnostic, file: Option<&dyn SourceCode>) -> String {
    let file = error.source_code().or(file);
    let place = file.and_then(|file| place(error, file));
    let mut text = place.map_or_else(String::new, |place| format!("{place}: "));
    text.push_str(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error has the text of its cause.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    for problem in error.related().into_iter().flatten() {
        let problem = text_in(problem, file);
        text.push_str("\n  - ");
        text.push_str(&problem.replace('\n', "\n    "));
    }
    if let Some(help) = error.help() {
        text.push_str("\n  help: ");
        text.push_str(&help.to_string());
    }
    text
}

/// `alokai.config.json:3:5`, the place of the first label. The file is the one in the project's folder, so
/// its name is enough.
fn place(error: &dyn Diagnostic, file: &dyn SourceCode) -> Option<String> {
    let label = error.labels()?.next()?;
    let found = file.read_span(label.inner(), 0, 0).ok()?;
    let path = Path::new(found.name()?);
    let name = path.file_name()?.to_string_lossy();
    Some(format!(
        "{name}:{}:{}",
        found.line() + 1,
        found.column() + 1
    ))
}
