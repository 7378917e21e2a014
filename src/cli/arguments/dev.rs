//! The options of `store dev`.

use clap::Args;

use super::{DomainOptions, EventOutput, Select};

#[derive(Debug, Args)]
pub(in crate::cli) struct DevOptions {
    #[command(flatten)]
    pub select: Select,
    /// Leaves `.out` as it is until the first change
    #[arg(long)]
    pub skip_compose: bool,
    /// Lists every changed file, and not only the first ten of a change
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    pub domains: DomainOptions,
    #[command(flatten)]
    pub output: EventOutput,
}
