//! Yarn's `yarn.lock`, of Yarn 1 and of later ones. Its keys are what was asked for,
//! `ms@^2.1.1`; Yarn 1 says nothing of the folders of the workspace, so their `package.json`
//! files must.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LockedFolder, LockedPackage, Lockfile, Workspace, folder_identity, join};

/// What stands under a key, of either kind of file.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct YarnEntry {
    version: String,
    /// Yarn 1.
    resolved: Option<String>,
    /// Yarn 1.
    integrity: Option<String>,
    /// Later ones.
    resolution: Option<String>,
    /// Later ones.
    checksum: Option<String>,
    dependencies: BTreeMap<String, String>,
    /// Later ones have all in `dependencies`.
    optional_dependencies: BTreeMap<String, String>,
}

pub(super) fn parse(text: &str, workspace: &Workspace<'_>) -> Option<Lockfile> {
    if !workspace
        .resolutions
        .iter()
        .all(|key| holds_everywhere(key))
    {
        return None;
    }
    let modern = text.lines().any(|line| line == "__metadata:");
    if !modern && !text.lines().any(|line| line == "# yarn lockfile v1") {
        return None;
    }
    let entries = if modern {
        modern_entries(text)?
    } else {
        classic_entries(text)?
    };
    let mut graph = YarnGraph {
        modern,
        ..YarnGraph::default()
    };
    for (place, (keys, entry)) in entries.iter().enumerate() {
        let path = entry.resolution.as_deref().and_then(workspace_path);
        if let Some(path) = path {
            graph.folders.insert(join("", path)?, place);
        }
        for key in keys {
            graph.keys.entry(key).or_default().push(place);
            if let Some(patched) = patched(key) {
                graph.patches.entry(patched).or_default().push(place);
            }
        }
    }
    let mut nodes = Vec::new();
    if !modern {
        for (offset, folder) in workspace.folders.iter().enumerate() {
            let place = entries.len() + offset;
            graph.folders.insert(join("", folder.path)?, place);
            if let Some(name) = folder.name {
                graph.names.insert(name, place);
            }
        }
    }
    for (keys, entry) in &entries {
        nodes.push(graph.entry(keys, entry));
    }
    if !modern {
        nodes.extend(workspace.folders.iter().map(|folder| graph.folder(folder)));
    }
    Some(Lockfile {
        nodes,
        folders: graph.folders,
    })
}

/// Whether this key of `resolutions` is not limited to what lies below some package: such a one
/// leaves no trace at the edge that it bends.
fn holds_everywhere(key: &str) -> bool {
    let key = key.strip_prefix("**/").unwrap_or(key);
    let name = match key.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').map_or("", |at| at.1),
        None => key,
    };
    !name.is_empty() && !name.contains(['/', '*'])
}

/// Where keys and folders are among the nodes.
#[derive(Default)]
struct YarnGraph<'a> {
    /// Whether the file is not of Yarn 1.
    modern: bool,
    keys: BTreeMap<&'a str, Vec<usize>>,
    /// Patches of Yarn and of the project, by the key of what they patch.
    patches: BTreeMap<String, Vec<usize>>,
    folders: BTreeMap<String, usize>,
    /// Packages of a Yarn 1 workspace.
    names: BTreeMap<&'a str, usize>,
}

impl YarnGraph<'_> {
    fn entry(&self, keys: &[String], entry: &YarnEntry) -> LockedPackage {
        let all = entry.dependencies.iter();
        let all = all.chain(&entry.optional_dependencies);
        let all = all.map(|(name, range)| (name.as_str(), range.as_str()));
        let mut node = self.node(all.collect());
        for key in keys {
            // A patch is made from the package that it patches, and that may be a patch itself.
            let inner = patched(key).and_then(|inner| self.keys.get(inner.as_str()));
            node.needs.extend(inner.into_iter().flatten());
            let outer = self.patches.get(key);
            node.needs.extend(outer.into_iter().flatten());
        }
        let path = entry.resolution.as_deref().and_then(workspace_path);
        node.identity = match (path, &entry.resolution) {
            (Some(path), _) => folder_identity(if path == "." { "" } else { path }),
            (None, Some(resolution)) => resolution.clone(),
            (None, None) => {
                let key = keys.first().map_or("", String::as_str);
                format!("{}@{}", classic_name(key), entry.version)
            }
        };
        let pins = [&entry.integrity, &entry.checksum, &entry.resolved];
        let pin = pins.into_iter().flatten().next();
        node.pin = pin.cloned().unwrap_or_default();
        node
    }

    fn folder(&self, folder: &LockedFolder<'_>) -> LockedPackage {
        let mut node = self.node(folder.needs.clone());
        node.identity = folder_identity(folder.path);
        node
    }

    fn node(&self, mut needs: Vec<(&str, &str)>) -> LockedPackage {
        needs.sort_unstable();
        let mut node = LockedPackage::default();
        for (name, range) in needs {
            let places = self.find(name, range);
            node.broken |= places.is_empty();
            node.needs.extend(places);
        }
        node
    }

    /// What may be installed for `name@range`: one place, and patches of it. Empty where that
    /// is not known.
    fn find(&self, name: &str, range: &str) -> Vec<usize> {
        let mut found = Vec::new();
        // Yarn 2 and 3 leave out `npm:` here, and have it in the key.
        for key in [format!("{name}@{range}"), format!("{name}@npm:{range}")] {
            for places in [self.keys.get(key.as_str()), self.patches.get(&key)] {
                found.extend(places.into_iter().flatten());
            }
        }
        if !found.is_empty() {
            return found;
        }
        if let Some(place) = self.names.get(name) {
            return vec![*place];
        }
        if !self.modern {
            return found;
        }
        // `resolutions` put another range under the key, and `file:` and the like add to it from
        // where it was asked; only the name stays. One too many does no harm.
        let prefix = format!("{name}@");
        let from = self.keys.range(prefix.as_str()..);
        from.take_while(|(key, _)| key.starts_with(&prefix))
            .flat_map(|(_, places)| places.iter().copied())
            .collect()
    }
}

/// The folder of `@acme/ui@workspace:packages/ui`.
fn workspace_path(resolution: &str) -> Option<&str> {
    resolution.split_once("@workspace:").map(|at| at.1)
}

/// `fsevents@npm:~2.3.2` of `fsevents@patch:fsevents@npm%3A~2.3.2#optional!builtin<…>`.
fn patched(key: &str) -> Option<String> {
    let (_, patch) = key.split_once("@patch:")?;
    let (inner, _) = patch.split_once('#')?;
    let mut plain = Vec::new();
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('%') {
        plain.extend_from_slice(before.as_bytes());
        plain.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = after.get(2..)?;
    }
    plain.extend_from_slice(rest.as_bytes());
    let plain = String::from_utf8(plain).ok()?;
    // Yarn 3 leaves out `npm:` here as well.
    match plain.get(1..)?.split_once('@') {
        Some((_, range)) if !range.contains(':') => {
            let name = plain.strip_suffix(range)?;
            Some(format!("{name}npm:{range}"))
        }
        _ => Some(plain),
    }
}

/// The name in `ms@^2.1.1`; of an alias, `str@npm:string-width@4.2.3`, that of the package.
fn classic_name(key: &str) -> &str {
    let split = |text: &str| {
        let at = text.get(1..).and_then(|rest| rest.find('@'));
        at.map_or(text.len(), |at| at + 1)
    };
    let (name, range) = key.split_at(split(key));
    match range.strip_prefix("@npm:") {
        Some(alias) => &alias[..split(alias)],
        None => name,
    }
}

fn modern_entries(text: &str) -> Option<Vec<(Vec<String>, YarnEntry)>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_events: 20_000_000, max_nodes: 10_000_000 },
    };
    let file = serde_saphyr::from_str_with_options::<BTreeMap<String, YarnEntry>>(text, options);
    let entries = file.ok()?.into_iter();
    let entries = entries.filter(|(key, _)| key != "__metadata");
    let split = |keys: String| keys.split(", ").map(str::to_owned).collect();
    Some(entries.map(|(keys, entry)| (split(keys), entry)).collect())
}

/// The format of Yarn 1 is YAML to the eye only: a key and its value have no `:` between them.
fn classic_entries(text: &str) -> Option<Vec<(Vec<String>, YarnEntry)>> {
    let mut entries = Vec::<(Vec<String>, YarnEntry)>::new();
    let mut section = String::new();
    for line in text.lines() {
        let indented = line.trim_start_matches(' ');
        if indented.is_empty() || indented.starts_with('#') {
            continue;
        }
        let words = words(indented.trim_end())?;
        match (line.len() - indented.len(), words.as_slice()) {
            (0, _) if line.ends_with(':') => entries.push((words, YarnEntry::default())),
            (2, [name]) if line.ends_with(':') => section.clone_from(name),
            (2, [name, value]) => {
                let entry = &mut entries.last_mut()?.1;
                match name.as_str() {
                    "version" => entry.version.clone_from(value),
                    "resolved" => entry.resolved = Some(value.clone()),
                    "integrity" => entry.integrity = Some(value.clone()),
                    _ => {}
                }
            }
            (4, [name, range]) => {
                let entry = &mut entries.last_mut()?.1;
                let needs = match section.as_str() {
                    "dependencies" => &mut entry.dependencies,
                    "optionalDependencies" => &mut entry.optional_dependencies,
                    _ => continue,
                };
                needs.insert(name.clone(), range.clone());
            }
            // Merge conflicts end up here.
            _ => return None,
        }
    }
    Some(entries)
}

/// The words of a line, bare or as JSON strings, between them `,` and blanks; a `:` ends it.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line;
    while !matches!(rest, "" | ":") {
        if rest.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            words.push(strings.next()?.ok()?);
            rest = rest.get(strings.byte_offset()..)?;
        } else {
            let end = rest.find([' ', ',', '"']).unwrap_or(rest.len());
            let end = if end == rest.len() {
                rest.strip_suffix(':').unwrap_or(rest).len()
            } else {
                end
            };
            words.push(rest.get(..end)?.to_owned());
            rest = rest.get(end..)?;
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    Some(words)
}
