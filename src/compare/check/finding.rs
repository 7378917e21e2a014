//! The findings of `check`, and their codes.

use serde::Serialize;

/// A rule of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// The config or the folders are invalid.
    Config,
    /// A path cannot be composed: a clash, or a link to a missing file.
    Composition,
    /// A store has its own `package.json` or `tsconfig.json`, which is not used.
    OwnPackageJson,
    /// An override has the same content as the file it overrides.
    NeedlessOverride,
    /// The file that an override was made to override was removed.
    Orphan,
    /// Two composed paths differ only by case.
    CaseClash,
    /// A store id is not a DNS label.
    StoreId,
    /// A file in a store's folder is not in an app.
    OutsideApp,
    /// A config entry is for a store that does not exist.
    UnknownStore,
    /// An `ignorePaths` rule has no effect.
    IgnoreRule,
    /// Two stores have the same port or domain.
    LocalClash,
    /// An import resolves from `apps/` and not from `.out/`.
    Import,
    /// A relative path in a config file leads to different places from `apps/` and from `.out/`.
    ConfigPath,
    /// A chain of more than three stores inherit from one another.
    DeepChain,
}

/// Every code with its meaning, for people and for code scanning.
pub const CODES: [(FindingCode, &str); 14] = [
    (FindingCode::Config, "the config or the folders are invalid"),
    (FindingCode::Composition, "a path cannot be composed"),
    (
        FindingCode::OwnPackageJson,
        "a store's own package.json or tsconfig.json is not used",
    ),
    (
        FindingCode::NeedlessOverride,
        "an override has the same content as the file it overrides",
    ),
    (
        FindingCode::Orphan,
        "the file that an override was made for was removed",
    ),
    (
        FindingCode::CaseClash,
        "two composed paths differ only by case",
    ),
    (FindingCode::StoreId, "a store id is not a DNS label"),
    (
        FindingCode::OutsideApp,
        "a file in a store's folder is not in an app",
    ),
    (
        FindingCode::UnknownStore,
        "the config has an entry for a store that does not exist",
    ),
    (FindingCode::IgnoreRule, "an ignorePaths rule has no effect"),
    (
        FindingCode::LocalClash,
        "two stores have the same port or domain",
    ),
    (
        FindingCode::Import,
        "an import resolves from apps/ and not from .out/",
    ),
    (
        FindingCode::ConfigPath,
        "a path in a config file leads to different places from apps/ and from .out/",
    ),
    (
        FindingCode::DeepChain,
        "more than three stores inherit from one another",
    ),
];

impl std::fmt::Display for FindingCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = serde_json::to_value(self).unwrap_or_default();
        f.write_str(name.as_str().unwrap_or_default())
    }
}

/// One problem that `check` found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file, relative to the project.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The rule that found it.
    pub code: FindingCode,
    /// The problem.
    pub message: String,
    /// How to solve it.
    pub help: String,
}
