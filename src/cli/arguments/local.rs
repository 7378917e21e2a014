//! The options of the target `local`, and of `store stop` at other targets.

use std::path::PathBuf;

use clap::Args;

use super::AccessOptions;

#[derive(Debug, Args)]
pub struct StopOptions {
    /// Ids of stores [default: all stores that run on this machine]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
    /// Stops the stores at this target, and removes their releases; data and settings stay. A store that is not in
    /// the config any more is written `<project>/<store>`
    #[arg(long, value_name = "TARGET", value_enum, requires = "stores")]
    pub target: Option<StoppedTarget>,
    #[command(flatten)]
    pub access: AccessOptions,
}

/// A target at which a whole store can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoppedTarget {
    /// The Docker engine of `deploy.docker`
    Docker,
    /// The Docker Swarm of `deploy.swarm`
    Swarm,
}

#[derive(Debug, Args)]
pub struct BackgroundOptions {
    /// The folder of the project
    pub project: PathBuf,
}
