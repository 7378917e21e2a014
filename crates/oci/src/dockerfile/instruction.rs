//! Instructions of a Dockerfile as they are written: variables are not expanded yet.

use std::fmt;

use serde_json::Value;

use super::error::Refusal;
use super::health::HealthCheck;

/// A line of the Dockerfile, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceLine {
    /// Counted from 1.
    pub number: usize,
    /// The line as written, shortened.
    pub text: String,
}

impl SourceLine {
    /// Leaves this line to Docker.
    pub fn refuse(&self, why: impl Into<String>) -> Refusal {
        Refusal {
            line: self.number,
            instruction: self.text.clone(),
            why: why.into(),
        }
    }
}

/// An instruction and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstructionLine {
    /// The line on which the instruction begins.
    pub line: SourceLine,
    /// The parsed instruction.
    pub instruction: Instruction,
}

/// A parsed instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    /// `ARG`: names with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `ENV`.
    Env(Vec<(String, String)>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `EXPOSE`.
    Expose(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
    /// `USER`.
    User(String),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `COPY` or `ADD`.
    Copy(CopyInstruction),
    /// `ENTRYPOINT`.
    Entrypoint(ContainerCommand),
    /// `CMD`.
    Cmd(ContainerCommand),
    /// `HEALTHCHECK`.
    Health(HealthCheck),
    /// `MAINTAINER`.
    Maintainer(String),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyInstruction {
    /// Whether it is `ADD`, which unpacks archives and downloads addresses.
    pub is_add: bool,
    /// `--chown`.
    pub owner: Option<String>,
    /// At least one source.
    pub sources: Vec<String>,
    /// The destination in the image.
    pub destination: String,
}

impl fmt::Display for CopyInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_add { "ADD" } else { "COPY" })?;
        if let Some(owner) = &self.owner {
            write!(f, " --chown={owner}")?;
        }
        for word in self.sources.iter().chain([&self.destination]) {
            write!(f, " {word}")?;
        }
        Ok(())
    }
}

/// A command that a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContainerCommand {
    /// The exec form: a list of words.
    Exec(Vec<String>),
    /// The shell form: a line for the image's shell.
    Shell(String),
}

impl fmt::Display for ContainerCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(words) => Value::from(words.clone()).fmt(f),
            Self::Shell(line) => f.write_str(line),
        }
    }
}
