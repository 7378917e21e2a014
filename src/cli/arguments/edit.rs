//! The options of commands that edit the tree of stores.

use clap::Args;

use crate::store::Framework;

/// How an edit is shown and confirmed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "options of the command line")]
pub struct EditOptions {
    /// Makes the changes without asking; required without a terminal
    #[arg(short, long, conflicts_with = "dry_run")]
    pub yes: bool,
    /// Only shows the changes
    #[arg(long)]
    pub dry_run: bool,
    /// Prints one JSON document
    #[arg(long)]
    pub json: bool,
    /// Lists all files, not only the first ones
    #[arg(long)]
    pub verbose: bool,
}

#[derive(Debug, Args)]
pub struct AddOptions {
    /// The id of the new store, such as `us`
    #[arg(value_name = "NEW_ID")]
    pub id: Option<String>,
    /// The store that it inherits from, or `root` for the base apps
    #[arg(long, value_name = "PARENT")]
    pub parent: Option<String>,
    /// Adds a template, which gives files to its descendants and is not deployed
    #[arg(long, conflicts_with_all = ["framework", "console_project_name", "cloud_region"])]
    pub template: bool,
    /// The framework of the frontend; not needed if the project has one
    #[arg(long, value_name = "FRAMEWORK")]
    pub framework: Option<FrameworkOption>,
    /// The name of the project in the console [default: named as the other stores]
    #[arg(long, value_name = "NAME")]
    pub console_project_name: Option<String>,
    /// The cloud region [default: that of most stores]
    #[arg(long, value_name = "REGION")]
    pub cloud_region: Option<String>,
    #[command(flatten)]
    pub edit: EditOptions,
}

/// A framework on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FrameworkOption {
    /// Next.js
    Nextjs,
    /// Nuxt
    Nuxt,
}

impl FrameworkOption {
    pub fn framework(self) -> Framework {
        match self {
            Self::Nextjs => Framework::Nextjs,
            Self::Nuxt => Framework::Nuxt,
        }
    }
}

#[derive(Debug, Args)]
pub struct MoveOptions {
    /// The stores to move, deployable stores or templates
    #[arg(value_name = "ANY_STORE")]
    pub ids: Vec<String>,
    /// The store that they inherit from afterwards, or `root` for the base apps
    #[arg(long, value_name = "PARENT")]
    pub parent: Option<String>,
    #[command(flatten)]
    pub edit: EditOptions,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// The store to remove, a deployable store or a template
    #[arg(value_name = "ANY_STORE")]
    pub id: String,
    /// The new parent of its children: a store, or `root` for the base apps
    #[arg(long, value_name = "PARENT")]
    pub reparent: Option<String>,
    #[command(flatten)]
    pub edit: EditOptions,
}

#[derive(Debug, Args)]
pub struct RenameOptions {
    /// The store to rename, a deployable store or a template
    #[arg(value_name = "ANY_STORE")]
    pub old: String,
    /// The new id
    #[arg(value_name = "NEW_ID")]
    pub new: String,
    #[command(flatten)]
    pub edit: EditOptions,
}
