//! The command line. clap reads it with these types.
#![expect(clippy::doc_markdown, reason = "clap prints these comments as help")]

mod dev;
mod domains;
mod edit;
pub mod flow;
pub mod kubernetes;
pub(super) mod ledger;
pub(super) mod live;
pub(super) mod local;
mod overriding;
mod pipeline;
pub(super) mod questions;
mod serve;
pub(super) mod transfer;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(super) use dev::DevOptions;
pub(super) use domains::DomainOptions;
pub use edit::{
    AddOptions, EditOptions, FrameworkOption, MoveOptions, RemoveOptions, RenameOptions,
};
use ledger::BuildsOptions;
use live::{LogsOptions, MaintenanceOptions};
use local::{BackgroundOptions, StopOptions};
use questions::{HistoryOptions, LockOptions, ReleasesOptions, SettingsOptions, StatusOptions};
pub(super) use serve::{StartOptions, TestOptions};

use crate::compare::OverrideState;
use crate::pipeline::SANDBOX_COMMAND;
use crate::plan::Selection;
use crate::target::local::COMMAND as LOCAL_COMMAND;

pub(super) use overriding::{FlattenOptions, OverrideOptions};
pub(super) use pipeline::{
    AccessOptions, BuildOptions, ComposeOptions, DeployOptions, EnvMode, OutputLogs, RunOptions,
    WorkOptions,
};

/// Composes, builds, packages and deploys multiple storefronts from one JavaScript monorepo.
///
/// Exit codes: 0 success, 1 failure, 2 invalid input, 3 external dependency not available (git, Docker,
/// the registry, the console, credentials), 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "alokai", version, propagate_version = true)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Uses the project in this folder
    #[arg(long, global = true, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one value for each run of the program"
)]
pub(super) enum Command {
    /// Composes, builds, deploys and compares stores
    Store(StoreArguments),
    /// Shows and cleans the cache of results
    Cache(CacheArguments),
    /// Prints a script that completes commands, stores, apps and files in a shell
    Completions(CompletionsOptions),
    /// Prints the candidates for a word; the scripts of `completions` call this command
    #[command(name = "__complete", hide = true)]
    Complete(CompleteOptions),
    /// Writes one man page for each command into a folder; `scripts/release` calls this command
    #[command(name = "__man", hide = true)]
    Man(ManOptions),
    /// Writes the first config of a project, after showing it
    Init(InitOptions),
    /// Checks what a deploy needs: versions, git, config, registry, targets, disk
    Doctor(DoctorOptions),
    /// Runs a script in a sandbox; `--sandbox` calls this command
    #[command(name = SANDBOX_COMMAND, hide = true)]
    Sandbox(SandboxOptions),
    /// Runs released stores in the background; `store deploy --local` calls this command
    #[command(name = LOCAL_COMMAND, hide = true)]
    Local(BackgroundOptions),
}

#[derive(Debug, Args)]
pub(super) struct SandboxOptions {
    /// The file with the rules, as JSON
    pub rules: PathBuf,
    /// The command of the script
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsOptions {
    /// The shell
    pub shell: Shell,
}

/// A shell whose words can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shell {
    /// `source <(alokai completions bash)`
    Bash,
    /// `source <(alokai completions zsh)`, after `compinit`
    Zsh,
    /// `alokai completions fish | source`
    Fish,
    /// `alokai completions powershell | Out-String | Invoke-Expression`
    Powershell,
}

#[derive(Debug, Args)]
pub(super) struct CompleteOptions {
    /// The shell that requests candidates
    pub shell: Shell,
    /// The words up to the cursor; for bash, the line up to the cursor and the part that bash replaces
    #[arg(last = true)]
    pub words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct ManOptions {
    /// An existing folder
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Shows the number and size of the results
    Stats(StatsOptions),
    /// Removes results that exceed the limits in the config (`cache`)
    Gc,
    /// Removes all results; `.out` is not changed
    Clear,
}

#[derive(Debug, Args)]
pub(super) struct StatsOptions {
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InitOptions {
    /// Writes the files without asking; required without a terminal
    #[arg(short, long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only shows the files
    #[arg(long)]
    pub dry_run: bool,
    /// Also writes a pipeline that deploys the changed stores. A project with a config gets only the pipeline
    #[arg(long, value_name = "CI")]
    pub ci: Option<PipelineOption>,
}

/// The CI system of a new pipeline.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum PipelineOption {
    /// `.github/workflows/alokai.yml`
    Github,
    /// `.gitlab-ci.yml`, or `.gitlab/alokai.yml` if that file exists
    Gitlab,
}

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    #[command(subcommand)]
    pub command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Shows the store tree: kind, apps, overrides
    List(ListOptions),
    /// Writes the composed files of stores to `.out/<store>`
    Compose(ComposeOptions),
    /// Runs the `dev` script of each app, and keeps `.out` in step with changing sources
    Dev(DevOptions),
    /// Composes stores and runs the `build` script of each app
    Build(BuildOptions),
    /// Lists builds: status, time, commit; shows and prints one of them
    Builds(BuildsOptions),
    /// Lists releases: status, target, build; shows one of them, compares two of them
    Releases(ReleasesOptions),
    /// Shows what is live: release, commit, since when; what is staged, locked, or differs from the records
    Status(StatusOptions),
    /// Lists what was done to stores: deploys, rollbacks, hooks; when, by whom, with which result
    History(HistoryOptions),
    /// Prints the output of the apps of the live release
    Logs(LogsOptions),
    /// Shows and removes the locks of stores
    Lock(LockOptions),
    /// Shows or removes the maintenance page of stores
    Maintenance(MaintenanceOptions),
    /// Sets, removes, lists and compares the settings of stores, whose values only the target has
    Settings(SettingsOptions),
    /// Makes a release live: by its id, or the newest one
    Release(flow::MakeLiveOptions),
    /// Makes an earlier release live again, and pins the store
    Rollback(flow::RollbackOptions),
    /// Removes the pin of a store, so that deploys make their releases live again
    Unpin(flow::UnpinOptions),
    /// Stops releases that run without traffic
    Unstage(flow::UnstageOptions),
    /// Prints the objects of a store in a Kubernetes cluster, for GitOps
    Manifests(kubernetes::ManifestsOptions),
    /// Composes stores and runs another script of each app, such as lint or test
    Run(RunOptions),
    /// Composes and builds stores, pushes one image per app, and deploys the stores
    Deploy(DeployOptions),
    /// Runs built stores on this machine, until one of the apps ends
    Start(StartOptions),
    /// Stops the stores that `store deploy --local` has started on this machine, or stores at another target
    Stop(StopOptions),
    /// Runs the Playwright tests of built stores, side by side
    Test(TestOptions),
    /// Lists the deployable stores that a change affects
    Changed(ChangedOptions),
    /// Compares two stores, or one store at two revisions
    Diff(DiffOptions),
    /// Finds overrides of files that have changed since the override was made
    Drift(DriftOptions),
    /// Lists the overridden paths: by which stores, how often, how many lines differ
    Overlays(OverlaysOptions),
    /// Finds problems in the store tree: needless copies, orphans, unused rules
    Check(CheckOptions),
    /// Removes `.out`, the cache and the logs
    Clean,
    /// Shows where a composed file comes from, and what it overrides
    Why(WhyOptions),
    /// Overrides files: copies what a store inherits; also removes or moves overrides
    Override(OverrideOptions),
    /// Writes a store's composed apps as ordinary apps into a folder
    Flatten(FlattenOptions),
    /// Adds a store: its folder and its entry in the config
    Add(AddOptions),
    /// Gives stores another parent, after showing what changes for them and their descendants
    Move(MoveOptions),
    /// Removes a store, after showing which files only it has
    Remove(RemoveOptions),
    /// Gives a store another id
    Rename(RenameOptions),
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// Prints one JSON document instead of the tree
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhyOptions {
    /// A deployable store
    #[arg(value_name = "STORE")]
    pub store: String,
    /// The file: `<app>/<path in the app>`, or its path in `apps` or `.out`
    #[arg(value_name = "APP/PATH")]
    pub path: String,
    /// Prints one JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Select {
    /// Ids of stores: `--store us,eu` or `-s us -s eu`
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1.., conflicts_with = "all")]
    pub stores: Vec<String>,
    /// All deployable stores
    #[arg(short, long)]
    pub all: bool,
    /// The stores that a change affects, as listed by `store changed`
    #[arg(long, conflicts_with_all = ["all", "stores"])]
    pub changed: bool,
    /// With `--changed`: the revision to compare the working tree with [default: HEAD~1]
    #[arg(long, value_name = "REV", requires = "changed")]
    pub since: Option<String>,
    /// Only units whose `<app>-<store>` matches: `storefront-middleware-*`, `!playwright-*`
    #[arg(long, value_name = "PATTERN")]
    pub filter: Vec<String>,
}

impl Select {
    /// The named stores, or all. Not for `--changed`, which needs the project.
    pub fn named(&self) -> Selection {
        named(&self.stores, self.all)
    }
}

/// The named stores, or all.
fn named(stores: &[String], all: bool) -> Selection {
    if all {
        return Selection::All;
    }
    // `--store us, eu` gives an empty id.
    let ids = stores.iter().map(|id| id.trim());
    let ids = ids.filter(|id| !id.is_empty());
    Selection::Stores(ids.map(str::to_owned).collect())
}

/// The default of `--since`.
pub(super) const SINCE: &str = "HEAD~1";

#[derive(Debug, Args)]
pub(super) struct ChangedOptions {
    /// The revision to compare with
    #[arg(long, value_name = "REV", default_value = SINCE)]
    pub since: String,
    /// The later revision [default: the working tree with untracked files]
    #[arg(long, value_name = "REV")]
    pub to: Option<String>,
    /// Files that affect every store, relative to the project: `tsconfig.*.json`, `config/**`
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub global_dependencies: Vec<String>,
    /// Prints only the ids
    #[arg(long, conflicts_with_all = ["json", "matrix"])]
    pub condensed: bool,
    /// Prints JSON, with the changed files and their layers before and after
    #[arg(long, conflicts_with = "matrix")]
    pub json: bool,
    /// Prints a job matrix for a CI system
    #[arg(long, value_name = "CI")]
    pub matrix: Option<Matrix>,
    /// Only one shard of the changed stores: `2/5` is the second of five shards
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// The CI system of a matrix.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Matrix {
    /// For `strategy.matrix: ${{ fromJSON(…) }}`
    Github,
    /// A child pipeline with the hidden job `.alokai-stores` and `parallel: matrix`
    Gitlab,
}

/// One of several equal parts of the selected stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard {
    /// The number of this shard, counted from 0.
    pub index: usize,
    /// How many shards there are.
    pub count: usize,
}

impl Shard {
    /// The ids of this shard of the selected stores. They are sorted first, so that all machines and commands
    /// divide the stores in the same way.
    pub fn of(self, mut ids: Vec<String>) -> Vec<String> {
        ids.sort();
        let ids = ids.into_iter().skip(self.index).step_by(self.count);
        ids.collect()
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected `i/n` with 1 ≤ i ≤ n, such as 2/5".to_owned();
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let (index, count): (usize, usize) = (
            index.parse().map_err(|_| wrong())?,
            count.parse().map_err(|_| wrong())?,
        );
        if index == 0 || index > count {
            return Err(wrong());
        }
        Ok(Self {
            index: index - 1,
            count,
        })
    }
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "the same options as git")]
pub(super) struct DiffOptions {
    /// A deployable store
    #[arg(value_name = "STORE")]
    pub store: String,
    /// The store to compare with
    #[arg(value_name = "OTHER")]
    pub other: Option<String>,
    /// Without a second store: the revision to compare with [default: HEAD]
    #[arg(long, value_name = "REV", conflicts_with = "other")]
    pub since: Option<String>,
    /// The later revision [default: the working tree]
    #[arg(long, value_name = "REV", conflicts_with = "other")]
    pub to: Option<String>,
    /// Only this app
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Prints statistics in the format of `git diff --stat`
    #[arg(long)]
    pub stat: bool,
    /// Prints one line per file in the format of `git diff --name-status`
    #[arg(long, conflicts_with_all = ["stat", "patch"])]
    pub name_status: bool,
    /// Prints a patch for `git apply --directory=<project>/.out/<store>` at the root of the repository
    #[arg(short, long)]
    pub patch: bool,
    /// Prints one JSON document
    #[arg(long, conflicts_with_all = ["stat", "patch", "name_status"])]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// Prints one JSON document
    #[arg(long, conflicts_with = "sarif")]
    pub json: bool,
    /// Prints SARIF 2.1.0, for code scanning
    #[arg(long)]
    pub sarif: bool,
}

#[derive(Debug, Args)]
pub(super) struct DriftOptions {
    /// Only overrides of these stores; templates can be named too [default: all]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Prints the missed changes as patches of the overrides
    #[arg(short, long, conflicts_with = "json")]
    pub patch: bool,
    /// Merges the missed changes into this override, with conflict markers if needed
    #[arg(long, value_name = "PATH", conflicts_with_all = ["patch", "json", "stores", "fail_on"])]
    pub merge: Option<PathBuf>,
    /// Exits with 1 if there is an override of this kind
    #[arg(long, value_name = "STANDING", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,
    /// Prints one JSON document, which also has the current overrides
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct OverlaysOptions {
    /// Only overrides of these stores; templates can be named too [default: all]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Only this app
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Shows at most this many paths; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with_all = ["json", "csv"])]
    pub limit: usize,
    /// Prints one JSON document with all paths
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Prints one line per override as CSV (RFC 4180)
    #[arg(long)]
    pub csv: bool,
}

/// The overrides that make `drift` fail.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum FailOn {
    /// The inherited file has changed since the override was made.
    Behind,
    /// The overridden file no longer exists.
    Orphan,
    /// The override is the same as the file that it overrides.
    Identical,
}

impl FailOn {
    pub fn standing(self) -> OverrideState {
        match self {
            Self::Behind => OverrideState::Behind,
            Self::Orphan => OverrideState::Orphan,
            Self::Identical => OverrideState::Identical,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// Prints NDJSON events, the summary last; one JSON document with `--dry-run`
    #[arg(long)]
    pub json: bool,
}

/// The output of a command that runs servers.
#[derive(Debug, Args)]
pub(super) struct EventOutput {
    /// Prints NDJSON events: states and output of servers, messages
    #[arg(long)]
    pub json: bool,
}
