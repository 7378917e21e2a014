//! Bun's `bun.lock`: JSON with commas to spare. Packages are keyed by where they are installed,
//! `docs/debug/ms` for the copy of `ms` that the `debug` of `docs` gets; so a need is looked for
//! there first, then one name further up.

use std::collections::BTreeMap;

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde::Deserialize;
use serde_json::Value;

use super::{LockedPackage, Lockfile, folder_identity, join};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BunLock {
    lockfile_version: u32,
    workspaces: BTreeMap<String, BunDependencies>,
    #[serde(default)]
    packages: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    patched_dependencies: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct BunDependencies {
    /// Only of a folder.
    name: Option<String>,
    dependencies: BTreeMap<String, Value>,
    dev_dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    peer_dependencies: BTreeMap<String, Value>,
    optional_peers: Vec<String>,
}

pub(super) fn parse(text: &str) -> Option<Lockfile> {
    let file = parse_to_serde_value::<BunLock>(text, &ParseOptions::default()).ok()?;
    // Version 2 is written like version 1.
    if file.lockfile_version > 2 {
        return None;
    }
    let mut lockfile = Lockfile::default();
    for path in file.workspaces.keys() {
        lockfile
            .folders
            .insert(path.clone(), lockfile.folders.len());
    }
    let mut places = BTreeMap::new();
    let mut count = lockfile.folders.len();
    for (key, entry) in &file.packages {
        let identity = entry.first()?.as_str()?;
        let place = if let Some(path) = workspace_path(identity) {
            *lockfile.folders.get(&join("", path)?)?
        } else {
            count += 1;
            count - 1
        };
        places.insert(key.as_str(), place);
    }
    for (path, needs) in &file.workspaces {
        // What the root asks for is installed at the top.
        let key = match &needs.name {
            Some(name) if !path.is_empty() => name.as_str(),
            _ => "",
        };
        let mut node = node(key, needs, &places);
        node.identity = folder_identity(path);
        lockfile.nodes.push(node);
    }
    for (key, entry) in &file.packages {
        let identity = entry.first()?.as_str()?;
        if workspace_path(identity).is_some() {
            continue;
        }
        let needs = match entry.iter().find(|part| part.is_object()) {
            Some(needs) => BunDependencies::deserialize(needs).ok()?,
            None => BunDependencies::default(),
        };
        let mut node = node(key, &needs, &places);
        identity.clone_into(&mut node.identity);
        node.pin = match entry.last() {
            Some(Value::String(integrity)) if integrity.starts_with("sha") => integrity.clone(),
            _ => serde_json::to_string(entry).ok()?,
        };
        if let Some(patch) = file.patched_dependencies.get(identity) {
            node.pin.push(' ');
            node.pin.push_str(patch);
        }
        lockfile.nodes.push(node);
    }
    Some(lockfile)
}

/// The folder of `@acme/ui@workspace:packages/ui`.
fn workspace_path(identity: &str) -> Option<&str> {
    identity.split_once("@workspace:").map(|at| at.1)
}

fn node(key: &str, asked: &BunDependencies, places: &BTreeMap<&str, usize>) -> LockedPackage {
    let mut needs = BTreeMap::new();
    for name in asked.peer_dependencies.keys().chain(&asked.optional_peers) {
        needs.insert(name, false);
    }
    let required = asked.dependencies.keys();
    for name in required.chain(asked.dev_dependencies.keys()) {
        needs.insert(name, !asked.optional_peers.contains(name));
    }
    for name in asked.optional_dependencies.keys() {
        needs.insert(name, false);
    }
    let mut node = LockedPackage::default();
    for (name, required) in needs {
        match find(key, name, places) {
            Some(place) => node.needs.push(place),
            None => node.broken |= required,
        }
    }
    node
}

/// The copy of `name` that what is installed at `key` gets. A key cut within a name with a
/// scope finds nothing, because nothing is installed there.
fn find(key: &str, name: &str, places: &BTreeMap<&str, usize>) -> Option<usize> {
    let mut above = key;
    while !above.is_empty() {
        if let Some(place) = places.get(format!("{above}/{name}").as_str()) {
            return Some(*place);
        }
        above = above.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    places.get(name).copied()
}
