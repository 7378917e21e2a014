//! The options of commands that run servers on this machine.

use clap::Args;

use super::{DomainOptions, EventOutput, Select};
use crate::plan::Selection;

#[derive(Debug, Args)]
pub struct StartOptions {
    #[command(flatten)]
    pub select: Select,
    /// Runs the image of each app by the Docker engine, instead of `.deploy` by Node
    #[arg(long)]
    pub image: bool,
    #[command(flatten)]
    pub domains: DomainOptions,
    /// Has no effect: all output is shown
    #[arg(long, hide = true)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: EventOutput,
}

#[derive(Debug, Args)]
pub struct TestOptions {
    /// Ids of stores: `--store us,eu` or `-s us -s eu`
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1.., conflicts_with = "all")]
    pub stores: Vec<String>,
    /// All deployable stores
    #[arg(short, long)]
    pub all: bool,
    /// The stores that a change since this revision affects, as listed by `store changed`
    #[arg(long, value_name = "REV", conflicts_with_all = ["all", "stores"])]
    pub since: Option<String>,
    /// With `--since`: the later revision [default: the working tree with untracked files]
    #[arg(long, value_name = "REV", requires = "since")]
    pub to: Option<String>,
    /// Opens Playwright's user interface; for one store only
    #[arg(long)]
    pub ui: bool,
    /// Maximum number of stores that are tested at once [default: half of the cores, at least 2]
    #[arg(long, visible_alias = "jobs", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: Option<u16>,
    /// Has no effect: all output is shown
    #[arg(long, hide = true)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: EventOutput,
    /// Arguments for Playwright: `--grep cart`, `--shard=1/3`
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

impl TestOptions {
    /// The named stores, or all.
    pub fn named(&self) -> Selection {
        super::named(&self.stores, self.all)
    }
}
