//! The command line, as clap reads it.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are the help, read in a terminal"
)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::compare::Standing;
use crate::event::Stage;
use crate::pipeline::SANDBOX_COMMAND;
use crate::plan::{BuilderChoice, Selection};

/// Composes, builds, images and deploys the many storefronts of one JavaScript monorepo.
///
/// Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 3 the surroundings are missing
/// (no git, no Docker, registry or console out of reach, no credentials), 130 interrupted.
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
    /// Runs in another project
    #[arg(long, global = true, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything about stores
    Store(StoreArguments),
    /// Everything about results that are kept
    Cache(CacheArguments),
    /// Restricts itself and becomes a script; what `--sandbox` starts scripts with
    #[command(name = SANDBOX_COMMAND, hide = true)]
    Sandbox(SandboxOptions),
}

#[derive(Debug, Args)]
pub(super) struct SandboxOptions {
    /// What the script may open, as JSON
    pub rules: PathBuf,
    /// The script
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Shows how many results are kept, and what they take
    Stats(StatsOptions),
    /// Removes what is older or larger than `cache` in the config allows
    Gc,
    /// Removes every kept result; what lies built in `.out` stays
    Clear,
}

#[derive(Debug, Args)]
pub(super) struct StatsOptions {
    /// One JSON document
    #[arg(long)]
    pub json: bool,
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
    /// Writes stores to `.out/<store>` by file inheritance
    Compose(ComposeOptions),
    /// Composes stores and runs each app's `build` script
    Build(BuildOptions),
    /// Composes stores and runs a script of each app that has it: lint, typecheck, test
    Run(RunOptions),
    /// Composes, builds, prunes, images, pushes and deploys stores
    Deploy(DeployOptions),
    /// Lists deployable stores whose composition differs between two revisions
    Changed(ChangedOptions),
    /// Compares composed output: store with store, or one store across revisions
    Diff(DiffOptions),
    /// Finds overrides whose original has changed since they were made
    Drift(DriftOptions),
    /// Finds what is odd in the hierarchy: needless copies, orphans, rules without effect
    Check(CheckOptions),
    /// Removes `.out`, the cache, logs and what is remembered
    Clean,
    /// Tells who gives a composed file, whom it hides, and which rule dropped it
    Why(WhyOptions),
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    /// One JSON document instead of the tree
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhyOptions {
    /// A deployable store
    #[arg(value_name = "STORE")]
    pub store: String,
    /// The file: `<app>/<path in the app>`, or the path of one in `apps` or `.out`
    #[arg(value_name = "APP/PATH")]
    pub path: String,
    /// One JSON document instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Select {
    /// Stores by id: `--store us,eu`, `-s us -s eu`
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1.., conflicts_with = "all")]
    pub stores: Vec<String>,
    /// Every deployable store
    #[arg(short, long)]
    pub all: bool,
    /// Stores that a change touches, as `store changed` lists them
    #[arg(long, conflicts_with_all = ["all", "stores"])]
    pub changed: bool,
    /// With `--changed`: the revision that the working tree is compared with [default: HEAD~1]
    #[arg(long, value_name = "REV", requires = "changed")]
    pub since: Option<String>,
    /// Units by name, `<app>-<store>`: `storefront-middleware-*`, `!playwright-*`
    #[arg(long, value_name = "PATTERN")]
    pub filter: Vec<String>,
}

impl Select {
    /// The stores that are named, or all. (`--changed` needs the project.)
    pub fn named(&self) -> Selection {
        if self.all {
            return Selection::All;
        }
        // `--store us, eu` leaves an empty piece.
        let ids = self
            .stores
            .iter()
            .map(|id| id.trim())
            .filter(|id| !id.is_empty());
        Selection::Stores(ids.map(str::to_owned).collect())
    }
}

/// The revision that changes are looked for since, where none is given.
pub(super) const SINCE: &str = "HEAD~1";

#[derive(Debug, Args)]
pub(super) struct ChangedOptions {
    /// The revision to compare with
    #[arg(long, value_name = "REV", default_value = SINCE)]
    pub since: String,
    /// The later revision [default: the working tree, with its untracked files]
    #[arg(long, value_name = "REV")]
    pub to: Option<String>,
    /// Files that count for every store, relative to the project: `tsconfig.*.json`, `config/**`
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub global_dependencies: Vec<String>,
    /// Only the ids
    #[arg(long, conflicts_with_all = ["json", "matrix"])]
    pub condensed: bool,
    /// Also the files, with who gave them before and who gives them now
    #[arg(long, conflicts_with = "matrix")]
    pub json: bool,
    /// What a CI matrix takes, in place of the list
    #[arg(long, value_name = "CI")]
    pub matrix: Option<Matrix>,
    /// A stable share of the stores, such as 2/5
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// Whose matrix.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Matrix {
    /// For `strategy.matrix: ${{ fromJSON(…) }}`
    Github,
    /// A child pipeline's hidden job `.alokai-stores`, with `parallel: matrix`
    Gitlab,
}

/// One of several equal shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a share is `i/n` with 1 ≤ i ≤ n, such as 2/5".to_owned();
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
#[expect(clippy::struct_excessive_bools, reason = "git's own switches")]
pub(super) struct DiffOptions {
    /// A deployable store
    #[arg(value_name = "STORE")]
    pub store: String,
    /// Another one, which it is compared with
    #[arg(value_name = "OTHER")]
    pub other: Option<String>,
    /// Without another store: the revision to compare with [default: HEAD]
    #[arg(long, value_name = "REV", conflicts_with = "other")]
    pub since: Option<String>,
    /// The later revision [default: the working tree]
    #[arg(long, value_name = "REV", conflicts_with = "other")]
    pub to: Option<String>,
    /// Only this app
    #[arg(long, value_name = "APP")]
    pub app: Option<String>,
    /// Statistics, as `git diff --stat` has them
    #[arg(long)]
    pub stat: bool,
    /// One line a file, as `git diff --name-status` has them
    #[arg(long, conflicts_with_all = ["stat", "patch"])]
    pub name_status: bool,
    /// A patch, for `git apply --directory=<project>/.out/<store>` at the repository's root
    #[arg(short, long)]
    pub patch: bool,
    /// One JSON document
    #[arg(long, conflicts_with_all = ["stat", "patch", "name_status"])]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckOptions {
    /// One JSON document
    #[arg(long, conflicts_with = "sarif")]
    pub json: bool,
    /// SARIF 2.1.0, for code scanning
    #[arg(long)]
    pub sarif: bool,
}

#[derive(Debug, Args)]
pub(super) struct DriftOptions {
    /// Only overrides of these stores, templates included [default: all]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// What was missed, as patches of the overrides
    #[arg(short, long, conflicts_with = "json")]
    pub patch: bool,
    /// Merges what an override misses into it, with conflict markers where it must
    #[arg(long, value_name = "PATH", conflicts_with_all = ["patch", "json", "stores", "fail_on"])]
    pub merge: Option<PathBuf>,
    /// Exits with 1 when there is such an override
    #[arg(long, value_name = "STANDING", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,
    /// One JSON document, with the overrides that are current
    #[arg(long)]
    pub json: bool,
}

/// What makes `drift` fail.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum FailOn {
    /// The inherited file has changed since.
    Behind,
    /// What it overrode is not there any more.
    Orphan,
    /// It is the same as what it overrides.
    Identical,
}

impl FailOn {
    pub fn standing(self) -> Standing {
        match self {
            Self::Behind => Standing::Behind,
            Self::Orphan => Standing::Orphan,
            Self::Identical => Standing::Identical,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// NDJSON events on standard output; one JSON document where nothing is carried out
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ComposeOptions {
    #[command(flatten)]
    pub select: Select,
    /// Writes nothing, and exits with 1 when it would
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub(super) struct BuildOptions {
    #[command(flatten)]
    pub select: Select,
    /// Only composes, as `store compose` does
    #[arg(long)]
    pub compose_only: bool,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of the command line"
)]
pub(super) struct Work {
    /// Prints the plan and changes nothing
    #[arg(long, alias = "dry")]
    pub dry_run: bool,
    /// Lets failed stores drop out while the rest goes on; the exit code still says 1
    #[arg(long, alias = "continue")]
    pub keep_going: bool,
    /// Scripts that run at once, at most [default: cores, as far as memory goes]
    #[arg(long, visible_alias = "jobs", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: Option<u16>,
    /// Runs scripts although their results are kept; a deploy replaces images that are there
    #[arg(long)]
    pub force: bool,
    /// Lets scripts open nothing but what their keys know; Linux 5.13 or newer
    #[arg(long)]
    pub sandbox: bool,
    /// Tells in full why a script has to run
    #[arg(long)]
    pub explain: bool,
    /// What is printed of what scripts print
    #[arg(long, value_name = "WHICH", default_value = "full")]
    pub output_logs: OutputLogs,
    /// What scripts see of the environment
    #[arg(long, value_name = "MODE", default_value = "strict")]
    pub env_mode: EnvMode,
    /// Sends passwords and tokens over plain HTTP to other machines too, where others can read them
    #[arg(long)]
    pub allow_insecure: bool,
}

/// What is printed of what scripts print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputLogs {
    /// Everything; of a kept result what its script printed when it ran.
    Full,
    /// Only of scripts that run.
    NewOnly,
}

/// What scripts see of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EnvMode {
    /// What is declared in `build.env`, and the system's own.
    Strict,
    /// All of it; results may then be stale, since keys know only what is declared.
    Loose,
}

#[derive(Debug, Args)]
pub(super) struct RunOptions {
    /// The script's name in `package.json`
    #[arg(value_name = "SCRIPT")]
    pub script: String,
    #[command(flatten)]
    pub select: Select,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub output: Output,
    /// What the script is given
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// Who makes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BuilderOption {
    /// This program, unless a line of the Dockerfile needs Docker.
    Auto,
    /// This program, without Docker.
    Oci,
    /// The Docker engine.
    Docker,
}

impl BuilderOption {
    pub fn builder(self) -> BuilderChoice {
        match self {
            Self::Auto => BuilderChoice::Auto,
            Self::Oci => BuilderChoice::Oci,
            Self::Docker => BuilderChoice::Docker,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct DeployOptions {
    #[command(flatten)]
    pub select: Select,
    /// Stops after this stage
    #[arg(long, value_name = "STAGE", default_value = "deploy")]
    pub until: Stage,
    /// Tags `<sha>-dirty-<8 hex of the content>` instead of refusing a dirty tree
    #[arg(long)]
    pub allow_dirty: bool,
    /// Keeps everything on this machine: images go to `.alokai/registry`, no console is called
    #[arg(long, conflicts_with_all = ["docker_registry_url", "console_api_url", "builder"])]
    pub local: bool,
    /// Who makes images
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub builder: BuilderOption,
    /// Attaches neither a list of dependencies nor provenance to images
    #[arg(long)]
    pub no_attest: bool,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access (each also from the environment or `.env`)")]
pub(super) struct AccessOptions {
    /// User of registry and console [env: CLI_CLOUD_USERNAME]
    #[arg(long, value_name = "USER")]
    pub cloud_username: Option<String>,
    /// Password of registry and console [env: CLI_CLOUD_PASSWORD]; other users of this machine
    /// can see it, so better use the environment or standard input
    #[arg(long, value_name = "PASSWORD", conflicts_with = "cloud_password_stdin")]
    pub cloud_password: Option<String>,
    /// Reads the password from standard input
    #[arg(long)]
    pub cloud_password_stdin: bool,
    /// Registry, or `oci:<dir>` for a folder [env: CLI_DOCKER_REGISTRY_URL] [default: registry.vuestorefront.cloud]
    #[arg(long, value_name = "URL")]
    pub docker_registry_url: Option<String>,
    /// Console [env: CLI_CONSOLE_API_URL] [default: https://api.platform.vuestorefront.io]
    #[arg(long, value_name = "URL")]
    pub console_api_url: Option<String>,
}
