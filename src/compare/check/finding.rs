//! What the lint can find.

use serde::Serialize;

/// A rule of this lint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// The config or the folders contradict themselves.
    Config,
    /// Something cannot be composed: a clash, a link to nowhere.
    Composition,
    /// A store has a `package.json` or `tsconfig.json`, which is not used.
    OwnPackageJson,
    /// An override is the same as what it overrides.
    NeedlessOverride,
    /// What an override was made to override is not there any more.
    Orphan,
    /// Two paths differ only by case.
    CaseClash,
    /// A store id that is no DNS label.
    StoreId,
    /// A file in a store's folder that belongs to no app.
    OutsideApp,
    /// A config entry for a store that is not there.
    UnknownStore,
    /// An `ignorePaths` rule that changes nothing.
    IgnoreRule,
    /// Two stores with one port or one domain.
    LocalClash,
    /// An import that is found from `apps/` and not from `.out/`.
    Import,
    /// Too many stores above one another.
    DeepChain,
}

/// Every code with what it means, for people and for code scanning.
pub const CODES: [(FindingCode, &str); 13] = [
    (
        FindingCode::Config,
        "config and folders contradict themselves",
    ),
    (FindingCode::Composition, "a path cannot be composed"),
    (
        FindingCode::OwnPackageJson,
        "a store's own package.json or tsconfig.json is not used",
    ),
    (
        FindingCode::NeedlessOverride,
        "an override is the same as what it overrides",
    ),
    (
        FindingCode::Orphan,
        "what a file was made to override is not there any more",
    ),
    (
        FindingCode::CaseClash,
        "two composed paths differ only by case",
    ),
    (FindingCode::StoreId, "a store id is no DNS label"),
    (
        FindingCode::OutsideApp,
        "a file of a store belongs to no app",
    ),
    (
        FindingCode::UnknownStore,
        "the config speaks of a store that is not there",
    ),
    (
        FindingCode::IgnoreRule,
        "an ignorePaths rule changes nothing",
    ),
    (
        FindingCode::LocalClash,
        "two stores have the same port or domain",
    ),
    (
        FindingCode::Import,
        "an import is found from apps/ and not from .out/",
    ),
    (
        FindingCode::DeepChain,
        "more than three stores lie above one another",
    ),
];

impl std::fmt::Display for FindingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = serde_json::to_value(self).unwrap_or_default();
        f.write_str(name.as_str().unwrap_or_default())
    }
}

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Relative to the project.
    pub file: String,
    /// From 1.
    pub line: Option<usize>,
    /// Which rule found it.
    pub code: FindingCode,
    /// What, and why it matters.
    pub message: String,
    /// What to do.
    pub help: String,
}
