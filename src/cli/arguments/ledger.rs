//! The options of the commands that read records.

use clap::{Args, Subcommand};

use super::AccessOptions;
use super::transfer::{BuildExportOptions, BuildImportOptions, BuildPruneOptions};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BuildsOptions {
    #[command(subcommand)]
    pub command: Option<BuildsCommand>,
    #[command(flatten)]
    pub list: BuildListOptions,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Subcommand)]
pub enum BuildsCommand {
    /// Shows everything that is recorded about a build
    Info(BuildInfoOptions),
    /// Prints the output of a build
    Logs(BuildLogsOptions),
    /// Writes a build with its images to standard output, as one tar
    Export(BuildExportOptions),
    /// Reads a build from standard input, and copies its images to the registry
    Import(BuildImportOptions),
    /// Removes the images of old builds
    Prune(BuildPruneOptions),
}

/// The options of every list of records.
#[derive(Debug, Args)]
pub struct RecordListOptions {
    /// Only records of these stores
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Maximum number of lines
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BuildListOptions {
    #[command(flatten)]
    pub list: RecordListOptions,
    /// Only builds with this status
    #[arg(long, value_name = "STATUS")]
    pub status: Option<StatusOption>,
}

/// How a build or an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusOption {
    /// It succeeded
    Complete,
    /// It failed
    Failed,
    /// The run was stopped, or was killed before its end
    Interrupted,
    /// The run has not ended
    Running,
    /// It succeeded, and its images were removed since
    Gone,
}

#[derive(Debug, Args)]
pub struct BuildInfoOptions {
    /// The id, or the first characters of it
    #[arg(value_name = "BUILD")]
    pub build: String,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct BuildLogsOptions {
    /// The id, or the first characters of it
    #[arg(value_name = "BUILD")]
    pub build: String,
    /// Prints further lines until the build ends
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}
