//! The options of the commands that make releases live.

use clap::Args;

use super::AccessOptions;

/// The heading of the options below. A heading of the whole struct would also be that of all options after it.
const RELEASE: &str = "Release";

/// How the stores of a deploy become live.
#[derive(Debug, Default, Clone, Args)]
pub struct ReleaseOptions {
    /// Builds and stages a release that gets no traffic; `store release` makes it live
    #[arg(long, help_heading = RELEASE)]
    pub no_release: bool,
    /// Releases a commit although a newer one is live
    #[arg(long, help_heading = RELEASE)]
    pub allow_older: bool,
    /// Ends after the request to the console, without waiting for the store [env: CLI_CONSOLE_NO_WAIT]
    #[arg(long, help_heading = RELEASE)]
    pub no_wait: bool,
    /// Makes the stores live in groups, and stops at a group with a failure: `10%,50%`, or names of
    /// `deploy.waves` and `rest`
    #[arg(long, value_name = "WAVES", value_delimiter = ',', help_heading = RELEASE)]
    pub wave: Vec<String>,
}

/// The store of a command.
#[derive(Debug, Args)]
pub struct OneStoreOptions {
    /// The store
    #[arg(short, long, visible_alias = "store-id", value_name = "ID", value_parser = one_store)]
    pub store: String,
    /// Uses this machine, to which `store deploy --local` deploys
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

#[derive(Debug, Args)]
pub struct UnpinOptions {
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: OneStoreOptions,
}

#[derive(Debug, Args)]
pub struct MakeLiveOptions {
    /// A release, a build, or `latest`; the first characters of an id are enough
    #[arg(value_name = "RELEASE")]
    pub id: String,
    /// Releases a commit although a newer one is live
    #[arg(long)]
    pub allow_older: bool,
    /// Ends after the request to the console, without waiting for the store [env: CLI_CONSOLE_NO_WAIT]
    #[arg(long)]
    pub no_wait: bool,
    /// Prints NDJSON events, the summary last
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: OneStoreOptions,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "options of the command line")]
pub struct RollbackOptions {
    /// The release to return to [default: the one that was live before; repeated rollbacks go further back]
    #[arg(value_name = "RELEASE")]
    pub id: Option<String>,
    /// Keeps the settings that are live now
    #[arg(long)]
    pub current_settings: bool,
    /// Ends after the request to the console, without waiting for the store [env: CLI_CONSOLE_NO_WAIT]
    #[arg(long)]
    pub no_wait: bool,
    /// Lists the releases to which a rollback can go, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Prints NDJSON events, the summary last; one JSON document with `--dry-run`
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: OneStoreOptions,
}

#[derive(Debug, Args)]
pub struct UnstageOptions {
    /// The release to stop [default: all that are staged]
    #[arg(value_name = "RELEASE")]
    pub id: Option<String>,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: OneStoreOptions,
}

/// Refuses a list of stores, which other commands take.
pub(super) fn one_store(id: &str) -> Result<String, String> {
    if id.contains(',') {
        return Err("this command takes one store at a time".into());
    }
    Ok(id.to_owned())
}
