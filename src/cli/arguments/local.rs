//! The options of the target `local`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct StopOptions {
    /// Ids of stores [default: all stores that run on this machine]
    #[arg(short, long = "store", visible_alias = "store-id", value_name = "ID", value_delimiter = ',', num_args = 1..)]
    pub stores: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BackgroundOptions {
    /// The folder of the project
    pub project: PathBuf,
}
