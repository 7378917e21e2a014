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
    /// Stops and removes releases without traffic at the target of a store
    Prune(super::live::ReleasesPruneOptions),
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
    pub status: Option<OperationStatusOption>,
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

/// How an operation ended.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum OperationStatusOption {
    /// It succeeded
    Complete,
    /// It failed or was refused
    Failed,
    /// The run was stopped, or was killed before its end
    Interrupted,
    /// The run has not ended
    Running,
}

impl From<OperationStatusOption> for StatusOption {
    fn from(status: OperationStatusOption) -> Self {
        match status {
            OperationStatusOption::Complete => Self::Complete,
            OperationStatusOption::Failed => Self::Failed,
            OperationStatusOption::Interrupted => Self::Interrupted,
            OperationStatusOption::Running => Self::Running,
        }
    }
}

/// The stores whose targets are asked.
#[derive(Debug, Args)]
pub struct TargetOptions {
    /// Only these stores [default: all deployable stores]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Asks this machine, to which `store deploy --local` deploys
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

/// The same beside other arguments: a store needs `--store` or a comma before it.
#[derive(Debug, Args)]
pub struct SettingsTargetOptions {
    /// The stores: `--store us,eu`
    #[arg(
        short,
        long = "store",
        visible_alias = "store-id",
        value_name = "ID",
        value_delimiter = ',',
        required = true
    )]
    pub stores: Vec<String>,
    /// The settings for `store deploy --local`
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

/// Which targets are asked.
#[derive(Debug, Clone, Copy)]
pub struct ChosenTargets<'a> {
    pub stores: &'a [String],
    pub local: bool,
    pub access: &'a AccessOptions,
}

impl TargetOptions {
    pub fn chosen(&self) -> ChosenTargets<'_> {
        ChosenTargets {
            stores: &self.stores,
            local: self.local,
            access: &self.access,
        }
    }
}

impl SettingsTargetOptions {
    pub fn chosen(&self) -> ChosenTargets<'_> {
        ChosenTargets {
            stores: &self.stores,
            local: self.local,
            access: &self.access,
        }
    }
}

#[derive(Debug, Args)]
pub struct StatusOptions {
    #[command(flatten)]
    pub target: TargetOptions,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LockOptions {
    #[command(subcommand)]
    pub command: LockCommand,
}

#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Shows who holds the lock of each store, for what, and since when
    Status(StatusOptions),
    /// Removes the lock of a run that does not exist any more
    Release(TargetOptions),
}

#[derive(Debug, Args)]
pub struct SettingsOptions {
    #[command(subcommand)]
    pub command: SettingsCommand,
}

#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Makes a release with the given settings; `store deploy --settings` makes it live
    Set(SetOptions),
    /// Makes a release without the named settings; `store deploy --settings` makes it live
    Unset(UnsetOptions),
    /// Lists the names of settings, and which version is live
    List(StatusOptions),
    /// Lists the names whose values differ between two releases, without the values
    Diff(SettingsDiffOptions),
}

#[derive(Debug, Args)]
pub struct SetOptions {
    /// Names with values; other users of this machine can see them, so prefer `--secret`
    #[arg(value_name = "KEY=VALUE", required_unless_present = "secret")]
    pub values: Vec<String>,
    /// Reads the value of this name from standard input
    #[arg(long, value_name = "KEY", conflicts_with = "cloud_password_stdin")]
    pub secret: Option<String>,
    #[command(flatten)]
    pub target: SettingsTargetOptions,
}

#[derive(Debug, Args)]
pub struct UnsetOptions {
    /// Names
    #[arg(value_name = "KEY", required_unless_present = "all")]
    pub names: Vec<String>,
    /// Removes all settings
    #[arg(short, long, conflicts_with = "names")]
    pub all: bool,
    #[command(flatten)]
    pub target: SettingsTargetOptions,
}

#[derive(Debug, Args)]
pub struct SettingsDiffOptions {
    /// The earlier release [default: the one that is live]
    #[arg(value_name = "A", requires = "new")]
    pub old: Option<String>,
    /// The later release [default: the newest one]
    #[arg(value_name = "B")]
    pub new: Option<String>,
    #[command(flatten)]
    pub target: SettingsTargetOptions,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
}
