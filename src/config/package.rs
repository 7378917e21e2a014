//! What the tool needs to know of a `package.json`.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use super::problem::Error;
use crate::files::{DiskFiles, FileTree};

/// The fields of a `package.json` that decide something here; all others are left alone.
///
/// Installed packages are as their writers left them (`"main": false` exists), so a field of
/// another type than ours counts as not there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageJson {
    /// The package's name.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Its scripts, by name.
    #[serde(deserialize_with = "lenient")]
    pub scripts: IndexMap<String, String>,
    /// What it needs to run.
    #[serde(deserialize_with = "lenient")]
    pub dependencies: IndexMap<String, String>,
    /// What it needs to be built.
    #[serde(deserialize_with = "lenient")]
    pub dev_dependencies: IndexMap<String, String>,
    /// What it uses where it can be installed.
    #[serde(deserialize_with = "lenient")]
    pub optional_dependencies: IndexMap<String, String>,
    /// What it expects its user to bring.
    #[serde(deserialize_with = "lenient")]
    pub peer_dependencies: IndexMap<String, String>,
    /// What is said of those, by name.
    #[serde(deserialize_with = "lenient")]
    pub peer_dependencies_meta: IndexMap<String, PeerMeta>,
    /// What Yarn is told to install instead, by pattern.
    #[serde(deserialize_with = "lenient")]
    pub resolutions: IndexMap<String, serde_json::Value>,
    /// The file that `require` of the package loads.
    #[serde(deserialize_with = "lenient")]
    pub main: Option<String>,
    /// What `npm pack` would take; `None` means everything.
    #[serde(deserialize_with = "lenient")]
    pub files: Option<Vec<String>>,
    /// Globs of the folders of the workspace: a list, or an object with `packages`.
    pub workspaces: serde_json::Value,
    /// `<name>@<version>` of the project's package manager.
    #[serde(deserialize_with = "lenient")]
    pub package_manager: Option<String>,
}

fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned + Default,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

/// What a package says of one of its peers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PeerMeta {
    /// Whether it can do without.
    pub optional: bool,
}

impl PackageJson {
    /// Reads the file from disk.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_from(&DiskFiles, path)
    }

    /// Reads the file.
    pub fn read_from(files: &dyn FileTree, path: &Path) -> Result<Self, Error> {
        let text = files.read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        // By way of a value: other tools put up with a key that is there twice, and with a BOM.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let value = serde_json::from_slice::<serde_json::Value>(text);
        value
            .and_then(Self::deserialize)
            .map_err(|source| Error::Package {
                path: path.to_owned(),
                source,
            })
    }

    /// Whether the peer is said to be optional.
    pub fn is_optional_peer(&self, name: &str) -> bool {
        self.peer_dependencies_meta
            .get(name)
            .is_some_and(|meta| meta.optional)
    }

    /// Names of what is installed for it. A peer is its user's to bring, and no edge of the
    /// build: packages that are each other's peers would be a circle.
    pub fn build_dependencies(&self) -> impl Iterator<Item = &str> {
        [
            &self.dependencies,
            &self.dev_dependencies,
            &self.optional_dependencies,
        ]
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str))
    }
}
