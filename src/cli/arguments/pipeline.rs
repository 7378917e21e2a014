//! The options of the commands that compose, build and deploy.

use clap::Args;

use super::flow::ReleaseOptions;
use super::{Output, Select, Shard};
use crate::event::Stage;
use crate::plan::BuilderChoice;

#[derive(Debug, Args)]
pub struct ComposeOptions {
    #[command(flatten)]
    pub select: Select,
    /// Lists the files that would change without writing them; exits with 1 if there are any
    #[arg(long)]
    pub check: bool,
    /// Keeps `.out` in step with changing sources until it is interrupted; starts no servers
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Prints NDJSON events; one JSON document with `--check`
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BuildOptions {
    #[command(flatten)]
    pub select: Select,
    /// Stops after composing, as `store compose`
    #[arg(long)]
    pub compose_only: bool,
    #[command(flatten)]
    pub work: WorkOptions,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "options of the command line")]
pub struct WorkOptions {
    /// Prints the plan without changing anything
    #[arg(long, alias = "dry")]
    pub dry_run: bool,
    /// Continues with the other stores when one fails; the exit code is still 1
    #[arg(long, alias = "continue")]
    pub keep_going: bool,
    /// Maximum number of scripts that run at once [default: number of cores, fewer if memory is low]
    #[arg(long, visible_alias = "jobs", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: Option<u16>,
    /// Only one shard of the selected stores, to divide them among machines: `3/8` is the third of eight shards
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Runs scripts even if their results are cached; a deploy replaces existing images
    #[arg(long)]
    pub force: bool,
    /// Lets scripts open only their declared inputs; needs Linux 5.13 or newer
    #[arg(long)]
    pub sandbox: bool,
    /// Lists every reason why a script has to run
    #[arg(long)]
    pub explain: bool,
    /// Which output of scripts is printed
    #[arg(long, value_name = "WHICH", default_value = "full")]
    pub output_logs: OutputLogs,
    /// Which environment variables are passed to scripts
    #[arg(long, value_name = "MODE", default_value = "strict")]
    pub env_mode: EnvMode,
    /// Allows passwords and tokens to be sent to other machines over plain HTTP, unencrypted
    #[arg(long)]
    pub allow_insecure: bool,
}

/// Which output of scripts is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputLogs {
    /// All output; for a cache hit, the output of the run that made the result.
    Full,
    /// Only the output of scripts that run.
    NewOnly,
}

/// Which environment variables are passed to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EnvMode {
    /// The variables declared in `build.env`, and those of the system.
    Strict,
    /// All variables; cached results can be wrong, since keys contain only declared variables.
    Loose,
}

#[derive(Debug, Args)]
pub struct RunOptions {
    /// The name of the script in `package.json`
    #[arg(value_name = "SCRIPT")]
    pub script: String,
    #[command(flatten)]
    pub select: Select,
    #[command(flatten)]
    pub work: WorkOptions,
    #[command(flatten)]
    pub output: Output,
    /// Arguments for the script
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

/// How images are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BuilderOption {
    /// Without Docker, unless a line of the Dockerfile needs it.
    Auto,
    /// Without Docker.
    Oci,
    /// By the Docker engine.
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
#[expect(clippy::struct_excessive_bools, reason = "options of the command line")]
pub struct DeployOptions {
    #[command(flatten)]
    pub select: Select,
    /// Stops after this stage
    #[arg(long, value_name = "STAGE", default_value = "deploy")]
    pub until: Stage,
    /// Continues an earlier run of the same plan: leaves out the stores that it has deployed
    #[arg(long, conflicts_with = "shard")]
    pub resume: bool,
    /// Deploys the stores whose last deploy has failed or was interrupted [default: of all stores]
    #[arg(long, conflicts_with_all = ["resume", "shard"])]
    pub retry_failed: bool,
    /// Makes the newest settings live with the build that is live; builds and pushes nothing
    #[arg(long, conflicts_with_all = ["resume", "retry_failed", "shard", "until", "allow_dirty", "no_release", "no_attest"])]
    pub settings: bool,
    /// Deploys uncommitted changes, with the tag `<sha>-dirty-<8 hex digits of the content>`
    #[arg(long)]
    pub allow_dirty: bool,
    /// Runs only on this machine: writes images to `.alokai/registry` and does not call the console
    #[arg(long, conflicts_with_all = ["docker_registry_url", "console_api_url", "builder"])]
    pub local: bool,
    /// How images are made
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub builder: BuilderOption,
    /// Does not attach an SBOM or provenance to images
    #[arg(long)]
    pub no_attest: bool,
    #[command(flatten)]
    pub release: ReleaseOptions,
    #[command(flatten)]
    pub work: WorkOptions,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub access: AccessOptions,
}

impl DeployOptions {
    /// The selection of stores. `--retry-failed` selects from all stores if none is named.
    pub fn selected(&self) -> Select {
        let mut select = self.select.clone();
        if self.retry_failed && select.stores.is_empty() && !select.changed {
            select.all = true;
        }
        select
    }
}

/// The heading of the options below, and of no option after them.
const ACCESS: &str = "Access (each also from the environment or `.env`)";

#[derive(Debug, Default, Clone, Args)]
pub struct AccessOptions {
    /// User name for the registry and the console [env: CLI_CLOUD_USERNAME]
    #[arg(long, help_heading = ACCESS, value_name = "USER")]
    pub cloud_username: Option<String>,
    /// Password for the registry and the console [env: CLI_CLOUD_PASSWORD]; other users of this
    /// machine can see it, so prefer the environment or standard input
    #[arg(long, help_heading = ACCESS, value_name = "PASSWORD", conflicts_with = "cloud_password_stdin")]
    pub cloud_password: Option<String>,
    /// Reads the password from standard input
    #[arg(long, help_heading = ACCESS)]
    pub cloud_password_stdin: bool,
    /// The registry, or `oci:<dir>` for a folder [env: CLI_DOCKER_REGISTRY_URL] [default: registry.vuestorefront.cloud]
    #[arg(long, help_heading = ACCESS, value_name = "URL")]
    pub docker_registry_url: Option<String>,
    /// The console [env: CLI_CONSOLE_API_URL] [default: https://api.platform.vuestorefront.io]
    #[arg(long, help_heading = ACCESS, value_name = "URL")]
    pub console_api_url: Option<String>,
    /// Set by commands with `--no-wait`.
    #[arg(skip)]
    pub no_wait: bool,
}
