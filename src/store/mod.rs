//! The basic types, without I/O: ids, apps, stores and their tree.
//!
//! Every value is valid by construction: a [`StoreId`] is a safe path component, and a [`StoreTree`]
//! has no cycles and no orphans. Other rooms do not check this again.

mod id;
mod tree;

pub use id::{AppName, InvalidName, StoreId, UnitId};
pub use tree::{Deployment, Store, StoreTree, StoreTreeError};

use serde::Serialize;

/// The framework of a store's frontend: `nextjs` or `nuxt` in the config.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// Next.js, built with `output: "standalone"`.
    Nextjs,
    /// Nuxt, built by nitro.
    Nuxt,
}

impl std::fmt::Display for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nextjs => "nextjs",
            Self::Nuxt => "nuxt",
        })
    }
}

/// The kind of place where a store runs.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// The console, which runs the images in the cloud.
    Console,
    /// This machine, without containers.
    Local,
    /// A Docker engine.
    Docker,
    /// A Docker Swarm.
    Swarm,
    /// A namespace of a Kubernetes cluster.
    Kubernetes,
    /// A program of the user.
    Command,
}

impl TargetKind {
    /// The name, as the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Swarm => "swarm",
            Self::Kubernetes => "kubernetes",
            Self::Command => "command",
        }
    }
}

/// The kind of a base app. It decides how the app is built, pruned and packed into an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AppKind {
    /// A storefront. A store has the frontend of its framework.
    Frontend(Framework),
    /// The Node.js server between the frontend and the backends.
    Middleware,
    /// Browser tests. They are composed, not built, and get no image.
    Playwright,
    /// Any other app. It gets an image if it has a `build` script.
    Other,
}

impl AppKind {
    /// Detects the kind by the four app names of Alokai projects, or by the dependencies.
    pub fn detect(name: &AppName, depends_on: impl Fn(&str) -> bool) -> Self {
        match name.as_str() {
            "storefront-unified-nextjs" => Self::Frontend(Framework::Nextjs),
            "storefront-unified-nuxt" => Self::Frontend(Framework::Nuxt),
            "storefront-middleware" => Self::Middleware,
            "playwright" => Self::Playwright,
            _ if depends_on("next") => Self::Frontend(Framework::Nextjs),
            _ if depends_on("nuxt") => Self::Frontend(Framework::Nuxt),
            _ if depends_on("@vue-storefront/middleware") => Self::Middleware,
            _ if depends_on("@playwright/test") => Self::Playwright,
            _ => Self::Other,
        }
    }

    /// The framework of a frontend; `None` for another app.
    pub fn framework(self) -> Option<Framework> {
        match self {
            Self::Frontend(framework) => Some(framework),
            _ => None,
        }
    }
}
