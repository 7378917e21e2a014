//! The words of the domain, without I/O: ids, apps, stores and their tree.
//!
//! Everything here is valid by construction. A [`StoreId`] is a safe path component, a
//! [`StoreTree`] has neither cycles nor orphans, so no later room has to ask again.

mod id;
mod tree;

pub use id::{AppName, InvalidName, StoreId, UnitId};
pub use tree::{Deployment, Store, StoreTree, StoreTreeError};

use serde::Serialize;

/// What runs a store's frontend; the config says `nextjs` or `nuxt`.
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

/// What a base app is, which decides whether and how it is built, pruned and imaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AppKind {
    /// A shop window of one framework; a store takes the one it names.
    Frontend(Framework),
    /// The Node server between a frontend and the backends.
    Middleware,
    /// Browser tests: composed, neither built nor imaged.
    Playwright,
    /// Anything else: imaged when it has a `build` script.
    Other,
}

impl AppKind {
    /// Tells the kind by the four names every Alokai project knows, else by the dependencies.
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

    /// The framework, for a frontend.
    pub fn framework(self) -> Option<Framework> {
        match self {
            Self::Frontend(framework) => Some(framework),
            _ => None,
        }
    }
}
