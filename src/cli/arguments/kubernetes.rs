//! The options of the commands for Kubernetes.

use clap::Args;

use super::AccessOptions;
use super::flow::one_store;

#[derive(Debug, Args)]
pub struct ManifestsOptions {
    /// A release or a build: its id, or the first characters of it [default: the newest complete build]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// The store
    #[arg(short, long, visible_alias = "store-id", value_name = "ID", value_parser = one_store)]
    pub store: String,
    /// Prints one JSON document, a list of Kubernetes
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}
