//! Why `.out` cannot be kept in step.

use miette::Diagnostic;

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

/// An error as plain text: what, why, each problem, and what to do.
pub fn text(error: &dyn Diagnostic) -> String {
    let mut text = error.to_string();
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
        let problem = self::text(problem);
        text.push_str("\n  - ");
        text.push_str(&problem.replace('\n', "\n    "));
    }
    if let Some(help) = error.help() {
        text.push_str("\n  help: ");
        text.push_str(&help.to_string());
    }
    text
}
