//! The options of `store override` and `store flatten`.

use clap::Args;

use super::edit::EditOptions;

#[derive(Debug, Args)]
pub struct OverrideOptions {
    /// A store or template
    #[arg(value_name = "ANY_STORE")]
    pub store: String,
    /// The files: `<app>/<path in the app>`, or their paths in `apps` or `.out`
    #[arg(value_name = "APP/PATH", required_unless_present = "revert")]
    pub paths: Vec<String>,
    /// Copies the file of this layer: `base` or a store [default: the layer that the store inherits from]
    #[arg(long, value_name = "LAYER", conflicts_with_all = ["revert", "up"])]
    pub from: Option<String>,
    /// Opens the new files in the editor [env: VISUAL, EDITOR]
    #[arg(long, conflicts_with_all = ["revert", "up", "dry_run"])]
    pub open: bool,
    /// Removes overrides that are the same as what they hide; without paths, all of the store
    #[arg(long)]
    pub revert: bool,
    /// Moves overrides to the parent (from a store of root: to the base app) if no store gets another file
    #[arg(long, conflicts_with = "revert")]
    pub up: bool,
    #[command(flatten)]
    pub edit: EditOptions,
}

#[derive(Debug, Args)]
pub struct FlattenOptions {
    /// A deployable store
    #[arg(value_name = "STORE")]
    pub store: String,
    /// A new folder directly in the project, beside `apps`
    #[arg(long, value_name = "FOLDER")]
    pub to: String,
    #[command(flatten)]
    pub edit: EditOptions,
}
