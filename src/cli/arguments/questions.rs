//! The options of the commands that answer what is live, what was done, and what is configured.

use clap::{Args, Subcommand};

use super::AccessOptions;
use super::ledger::{RecordListOptions, StatusOption};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReleasesOptions {
    #[command(subcommand)]
    pub command: Option<ReleasesCommand>,
    #[command(flatten)]
    pub list: RecordListOptions,
    /// Only releases with this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<ReleaseStatusOption>,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Subcommand)]
pub enum ReleasesCommand {
    /// Shows everything that is recorded about a release
    Info(RecordOptions),
    /// Compares two releases: commits, composed files, images, names of settings
    Diff(ReleaseDiffOptions),
}

/// What has become of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReleaseStatusOption {
    /// It gets the traffic
    Active,
    /// Its apps run and get no traffic
    Staged,
    /// It was made, and nothing runs yet
    Created,
    /// It was active, and another release is active now
    Replaced,
    /// Its apps were stopped
    Retired,
    /// It failed
    Failed,
}

/// A record, and how to show it.
#[derive(Debug, Args)]
pub struct RecordOptions {
    /// The id, or the first characters of it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct ReleaseDiffOptions {
    /// The earlier release: its id, or the first characters of it
    #[arg(value_name = "A")]
    pub old: String,
    /// The later release
    #[arg(value_name = "B")]
    pub new: String,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HistoryOptions {
    #[command(subcommand)]
    pub command: Option<HistoryCommand>,
    #[command(flatten)]
    pub list: RecordListOptions,
    /// Only operations with this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<StatusOption>,
    /// Sends the records that the registry does not have, instead of listing operations
    #[arg(long, conflicts_with_all = ["status", "limit", "json"])]
    pub push: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Subcommand)]
pub enum HistoryCommand {
    /// Shows everything that is recorded about an operation, with its steps
    Info(OperationOptions),
}

#[derive(Debug, Args)]
pub struct OperationOptions {
    #[command(flatten)]
    pub record: RecordOptions,
    /// Prints only the output of the operation
    #[arg(long, conflicts_with = "json")]
    pub output: bool,
}
