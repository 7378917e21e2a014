//! The fields of `package.json` that the program uses.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use super::problem::Error;
use crate::files::{DiskFiles, FileTree};

/// The fields of a `package.json` that the program uses.
///
/// Installed packages can have fields of unexpected types, such as `"main": false`. Such a field
/// counts as missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PackageJson {
    /// The package's name.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Its scripts, by name.
    #[serde(deserialize_with = "lenient")]
    pub scripts: IndexMap<String, String>,
    /// Dependencies at run time.
    #[serde(deserialize_with = "lenient")]
    pub dependencies: IndexMap<String, String>,
    /// Dependencies at build time.
    #[serde(deserialize_with = "lenient")]
    pub dev_dependencies: IndexMap<String, String>,
    /// Dependencies that may fail to install.
    #[serde(deserialize_with = "lenient")]
    pub optional_dependencies: IndexMap<String, String>,
    /// Dependencies that its user must install.
    #[serde(deserialize_with = "lenient")]
    pub peer_dependencies: IndexMap<String, String>,
    /// Whether peers are optional, by name.
    #[serde(deserialize_with = "lenient")]
    pub peer_dependencies_meta: IndexMap<String, PeerMeta>,
    /// Versions that Yarn installs instead, by pattern.
    #[serde(deserialize_with = "lenient")]
    pub resolutions: IndexMap<String, serde_json::Value>,
    /// The file that `require` of the package loads.
    #[serde(deserialize_with = "lenient")]
    pub main: Option<String>,
    /// The files of the package. `None` means all files.
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

/// An entry of `peerDependenciesMeta`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PeerMeta {
    /// Whether the package works without the peer.
    pub optional: bool,
}

impl PackageJson {
    /// Reads the file from disk.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_from(&DiskFiles, path)
    }

    /// Reads the file from the working tree or from a commit.
    pub fn read_from(files: &dyn FileTree, path: &Path) -> Result<Self, Error> {
        let text = files.read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        // Other tools accept duplicate keys and a BOM. Parsing to a `Value` first accepts them too.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let value = serde_json::from_slice::<serde_json::Value>(text);
        value
            .and_then(Self::deserialize)
            .map_err(|source| Error::Package {
                path: path.to_owned(),
                source,
            })
    }

    /// Whether the peer is optional.
    pub fn is_optional_peer(&self, name: &str) -> bool {
        self.peer_dependencies_meta
            .get(name)
            .is_some_and(|meta| meta.optional)
    }

    /// The names of the dependencies that must be built first. Peers are left out: two packages
    /// can be peers of each other, which would be a cycle.
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
