//! npm's `package-lock.json`, versions 2 and 3: the tree of `node_modules` as it is installed,
//! by path. What a package gets is found the way Node finds it, from the package's own folder
//! upwards; that holds for peers as well.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{LockedPackage, Lockfile, folder_identity};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NpmLock {
    lockfile_version: u32,
    packages: BTreeMap<String, NpmPackage>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NpmPackage {
    /// Only where it is not the one in the path.
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    link: bool,
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    peer_dependencies: BTreeMap<String, Value>,
    /// May name peers that `peer_dependencies` does not.
    peer_dependencies_meta: BTreeMap<String, Value>,
}

pub(super) fn parse(text: &str) -> Option<Lockfile> {
    let file = serde_json::from_str::<NpmLock>(text).ok()?;
    if !matches!(file.lockfile_version, 2 | 3) {
        return None;
    }
    let places = file.packages.keys().enumerate();
    let mut places: BTreeMap<&str, usize> = places.map(|(at, path)| (path.as_str(), at)).collect();
    for (path, package) in file.packages.iter().filter(|(_, package)| package.link) {
        // A link to a folder that the file does not have stays a dead end.
        if let Some(folder) = places.get(package.resolved.as_deref()?) {
            places.insert(path, *folder);
        }
    }
    let mut lockfile = Lockfile::default();
    for (path, package) in &file.packages {
        if !in_node_modules(path) {
            lockfile.folders.insert(path.clone(), lockfile.nodes.len());
        }
        lockfile.nodes.push(node(path, package, &places));
    }
    Some(lockfile)
}

fn node(path: &str, package: &NpmPackage, places: &BTreeMap<&str, usize>) -> LockedPackage {
    let mut node = LockedPackage::default();
    if package.link {
        node.broken = true;
        return node;
    }
    let mut needs = BTreeMap::new();
    let peers = &package.peer_dependencies;
    for name in peers.keys().chain(package.peer_dependencies_meta.keys()) {
        needs.insert(name, false);
    }
    for name in package.dependencies.keys() {
        needs.insert(name, true);
    }
    if in_node_modules(path) {
        let name = path.rsplit_once("node_modules/").map_or(path, |at| at.1);
        let name = package.name.as_deref().unwrap_or(name);
        let version = package.version.as_deref().unwrap_or_default();
        node.identity = format!("{name}@{version}");
        let pin = package.integrity.as_ref().or(package.resolved.as_ref());
        node.pin = pin.cloned().unwrap_or_default();
    } else {
        node.identity = folder_identity(path);
        for name in package.dev_dependencies.keys() {
            needs.insert(name, true);
        }
    }
    for name in package.optional_dependencies.keys() {
        needs.insert(name, false);
    }
    for (name, required) in needs {
        match find(path, name, places) {
            Some(place) => node.needs.push(place),
            None => node.broken |= required,
        }
    }
    node
}

fn in_node_modules(path: &str) -> bool {
    path.split('/').any(|part| part == "node_modules")
}

/// The package that `require(name)` finds from within `path`.
fn find(path: &str, name: &str, places: &BTreeMap<&str, usize>) -> Option<usize> {
    let mut folder = path;
    loop {
        let place = if folder.is_empty() {
            format!("node_modules/{name}")
        } else {
            format!("{folder}/node_modules/{name}")
        };
        if let Some(place) = places.get(place.as_str()) {
            return Some(*place);
        }
        if folder.is_empty() {
            return None;
        }
        folder = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}
