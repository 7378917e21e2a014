//! The options of `store dev`.

use clap::Args;

use super::{Output, Select};

#[derive(Debug, Args)]
pub(in crate::cli) struct DevOptions {
    #[command(flatten)]
    pub select: Select,
    /// Leaves `.out` as it is until the first change
    #[arg(long)]
    pub skip_compose: bool,
    /// Also serves each store under a domain of its own: `us.localhost`, and `localDomain` of the config
    #[arg(long)]
    pub with_local_domains: bool,
    /// Lists every changed file, and not only the first ten of a change
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: Output,
}
