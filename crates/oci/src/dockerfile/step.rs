//! Steps of a Dockerfile, as read: words are not expanded yet.

use super::health::HealthCheck;

/// One instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstructionLine {
    /// Its number, from 1.
    pub number: usize,
    /// As written, shortened.
    pub text: String,
    /// What it asks for.
    pub step: Instruction,
}

/// What an instruction asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    /// `ARG`, names with their defaults.
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
    /// Whether it is `ADD`, which unpacks archives and downloads.
    pub adds: bool,
    /// `--chown`.
    pub owner: Option<String>,
    /// At least one.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
}

/// A command for the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContainerCommand {
    /// Its words.
    Exec(Vec<String>),
    /// A line for the image's shell.
    Shell(String),
}
