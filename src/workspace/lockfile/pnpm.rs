//! pnpm's `pnpm-lock.yaml`, versions 6 and 9. All edges are written out in it, and its keys say
//! with which peers and which patch a package is installed: `swr@2.2.0(react@18.3.1)`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{LockedPackage, Lockfile, folder_identity, join};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PnpmLock {
    lockfile_version: String,
    #[serde(default)]
    settings: PnpmSettings,
    #[serde(default)]
    importers: BTreeMap<String, Importer>,
    /// Version 6 has the root's dependencies here where there is no workspace.
    #[serde(default)]
    dependencies: BTreeMap<String, ResolvedVersion>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, ResolvedVersion>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, ResolvedVersion>,
    #[serde(default)]
    packages: BTreeMap<String, PnpmPackage>,
    /// Version 9 has the edges here and what does not depend on peers in `packages`.
    #[serde(default)]
    snapshots: BTreeMap<String, PnpmSnapshot>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PnpmSettings {
    exclude_links_from_lockfile: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Importer {
    dependencies: BTreeMap<String, ResolvedVersion>,
    dev_dependencies: BTreeMap<String, ResolvedVersion>,
    optional_dependencies: BTreeMap<String, ResolvedVersion>,
}

#[derive(Deserialize)]
struct ResolvedVersion {
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PnpmPackage {
    resolution: BTreeMap<String, Value>,
    /// Version 6 has the edges here.
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PnpmSnapshot {
    dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
}

pub(super) fn parse(text: &str) -> Option<Lockfile> {
    // pnpm may keep what concerns itself in a document of its own, before the project's.
    let text = text.rsplit_once("\n---\n").map_or(text, |at| at.1);
    // The default limits are for small files; what a lock file holds is bounded by its length.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 20_000_000, max_nodes: 10_000_000 },
    };
    let mut file = serde_saphyr::from_str_with_options::<PnpmLock>(text, options).ok()?;
    let version = file.lockfile_version.split('.').next();
    if !matches!(version, Some("6" | "9")) || file.settings.exclude_links_from_lockfile {
        return None;
    }
    if file.importers.is_empty() {
        let root = Importer {
            dependencies: file.dependencies,
            dev_dependencies: file.dev_dependencies,
            optional_dependencies: file.optional_dependencies,
        };
        file.importers.insert(".".to_owned(), root);
    }
    if version == Some("6") {
        for (key, package) in &mut file.packages {
            let edges = PnpmSnapshot {
                dependencies: std::mem::take(&mut package.dependencies),
                optional_dependencies: std::mem::take(&mut package.optional_dependencies),
            };
            file.snapshots.insert(key.clone(), edges);
        }
    }
    let mut graph = PnpmGraph::default();
    for (place, path) in file.importers.keys().enumerate() {
        graph.folders.insert(join("", path)?, place);
    }
    for (offset, key) in file.snapshots.keys().enumerate() {
        graph.packages.insert(key, file.importers.len() + offset);
    }
    let mut nodes = Vec::new();
    for (path, importer) in &file.importers {
        nodes.push(graph.folder(&join("", path)?, importer));
    }
    for (key, edges) in &file.snapshots {
        let without_peers = key.split_once('(').map_or(key.as_str(), |at| at.0);
        let package = file.packages.get(key);
        let package = package.or_else(|| file.packages.get(without_peers));
        nodes.push(graph.package(key, package, edges));
    }
    Some(Lockfile {
        nodes,
        folders: graph.folders,
    })
}

/// Where folders and packages will be among the nodes.
#[derive(Default)]
struct PnpmGraph<'a> {
    folders: BTreeMap<String, usize>,
    packages: BTreeMap<&'a str, usize>,
}

impl PnpmGraph<'_> {
    fn folder(&self, path: &str, importer: &Importer) -> LockedPackage {
        let all = importer.dependencies.iter();
        let all = all.chain(&importer.dev_dependencies);
        let all = all.chain(&importer.optional_dependencies);
        let all = all.map(|(name, resolved)| (name.as_str(), resolved.version.as_str()));
        let mut node = self.node(path, all.collect());
        node.identity = folder_identity(path);
        node
    }

    fn package(
        &self,
        key: &str,
        package: Option<&PnpmPackage>,
        edges: &PnpmSnapshot,
    ) -> LockedPackage {
        let all = edges
            .dependencies
            .iter()
            .chain(&edges.optional_dependencies);
        let all = all.map(|(name, version)| (name.as_str(), version.as_str()));
        let mut node = self.node("", all.collect());
        key.strip_prefix('/')
            .unwrap_or(key)
            .clone_into(&mut node.identity);
        match package {
            Some(package) => {
                node.pin = match package.resolution.get("integrity") {
                    Some(Value::String(integrity)) => integrity.clone(),
                    _ => format!("{:?}", package.resolution),
                };
            }
            None => node.broken = true,
        }
        node
    }

    /// A node with these needs; links are relative to `folder`.
    fn node(&self, folder: &str, needs: BTreeMap<&str, &str>) -> LockedPackage {
        let mut node = LockedPackage::default();
        for (name, version) in needs {
            let place = match version.strip_prefix("link:") {
                Some(link) => self.linked(folder, link),
                None => self.locked(name, version),
            };
            match place {
                Some(place) => node.needs.push(place),
                None => node.broken = true,
            }
        }
        node
    }

    /// The folder that a link leads to; or into, for packages that are linked as built.
    fn linked(&self, folder: &str, link: &str) -> Option<usize> {
        let path = join(folder, link)?;
        let mut path = path.as_str();
        loop {
            if let Some(place) = self.folders.get(path) {
                return Some(*place);
            }
            path = path.rsplit_once('/')?.0;
        }
    }

    /// A version is short where the package has the name it is asked for by, else the whole key.
    fn locked(&self, name: &str, version: &str) -> Option<usize> {
        let keys = [
            format!("{name}@{version}"),
            format!("/{name}@{version}"),
            version.to_owned(),
        ];
        let mut places = keys.iter().map(|key| self.packages.get(key.as_str()));
        places.find_map(Option::<&usize>::copied)
    }
}
