//! What the tool needs to know of a `package.json`.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use super::problem::Error;

/// The fields of a `package.json` that decide something here; all others are left alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageJson {
    /// The package's name.
    pub name: Option<String>,
    /// Its scripts, by name.
    pub scripts: IndexMap<String, String>,
    /// What it needs to run.
    pub dependencies: IndexMap<String, String>,
    /// What it needs to be built.
    pub dev_dependencies: IndexMap<String, String>,
    /// What it uses where it can be installed.
    pub optional_dependencies: IndexMap<String, String>,
    /// What it expects its user to bring.
    pub peer_dependencies: IndexMap<String, String>,
    /// What is said of those, by name.
    pub peer_dependencies_meta: IndexMap<String, PeerMeta>,
    /// The file that `require` of the package loads.
    pub main: Option<String>,
    /// What `npm pack` would take; `None` means everything.
    pub files: Option<Vec<String>>,
    /// `<name>@<version>` of the project's package manager.
    pub package_manager: Option<String>,
}

/// What a package says of one of its peers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PeerMeta {
    /// Whether it can do without.
    pub optional: bool,
}

impl PackageJson {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| Error::Package {
            path: path.to_owned(),
            source,
        })
    }

    /// Whether the peer is said to be optional.
    pub fn is_optional_peer(&self, name: &str) -> bool {
        self.peer_dependencies_meta.get(name).is_some_and(|meta| meta.optional)
    }

    /// Names of everything it may use while it is built, each once or more.
    pub fn all_dependencies(&self) -> impl Iterator<Item = &str> {
        [
            &self.dependencies,
            &self.dev_dependencies,
            &self.optional_dependencies,
            &self.peer_dependencies,
        ]
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str))
    }
}
