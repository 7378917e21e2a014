//! Everything that a task can see, by name, and what of it has changed since another time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::identity::LockedIdentity;
use super::key::{Key, OutputDigest};

/// Everything that a task can see, to say what has changed since another time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// What is run.
    pub command: String,
    /// Files by path: relative to the unit, or to the project with `//` in front.
    pub files: BTreeMap<String, FileInput>,
    /// Digests of the values of variables, by name.
    pub variables: BTreeMap<String, Key>,
    /// What pins each installed package that can be reached, by `name@version`.
    pub dependencies: BTreeMap<String, String>,
    /// Versions of what runs scripts.
    pub tools: BTreeMap<String, String>,
    /// What the tasks before it made, by their name in the own store.
    pub upstream: BTreeMap<String, OutputDigest>,
}

/// A file that a task can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInput {
    /// Mode and git blob id, as git's trees have them.
    pub id: String,
    /// The layer that gives it; no part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
}

/// What is different from another time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum InputChange {
    /// The command itself.
    Command,
    /// A file.
    File {
        /// Its path.
        path: String,
        /// The layer that gives it now, or gave it before.
        #[serde(skip_serializing_if = "Option::is_none")]
        layer: Option<String>,
        /// How.
        how: InputChangeKind,
    },
    /// A variable; its values are never shown.
    Variable {
        /// Its name.
        name: String,
        /// How.
        how: InputChangeKind,
    },
    /// An installed package.
    Dependency {
        /// Its name.
        name: String,
        /// Versions before.
        from: Vec<String>,
        /// Versions now.
        to: Vec<String>,
    },
    /// The dependencies that a folder of the workspace declares.
    Dependencies {
        /// The folder, relative to the project. The root is empty.
        folder: String,
    },
    /// A lock file that is an input as a whole, because it could not be split into packages.
    LockFile {
        /// Its name.
        name: String,
    },
    /// What runs scripts.
    Tool {
        /// Such as `node`.
        name: String,
        /// Its version before.
        from: Option<String>,
        /// Its version now.
        to: Option<String>,
    },
    /// What has to be built before.
    Upstream {
        /// App or package.
        name: String,
        /// How.
        how: InputChangeKind,
    },
}

/// How something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputChangeKind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It is there, and other than before.
    Changed,
}

impl InputRecord {
    /// The inputs that differ from `before`. The layer of a file is ignored: the same content from
    /// another layer is the same input.
    pub fn changes(&self, before: &Self) -> Vec<InputChange> {
        let mut changes = Vec::new();
        if self.command != before.command {
            changes.push(InputChange::Command);
        }
        let same = |a: &FileInput, b: &FileInput| a.id == b.id;
        changes.extend(
            differing(&self.files, &before.files, same).map(|(path, how)| {
                let file = self.files.get(path).or_else(|| before.files.get(path));
                let (path, layer) = (path.clone(), file.and_then(|file| file.layer.clone()));
                InputChange::File { path, layer, how }
            }),
        );
        let variables = differing(&self.variables, &before.variables, Key::eq);
        changes.extend(variables.map(|(name, how)| InputChange::Variable {
            name: name.clone(),
            how,
        }));
        changes.extend(self.changed_dependencies(before));
        let tools = differing(&self.tools, &before.tools, String::eq);
        changes.extend(tools.map(|(name, _)| InputChange::Tool {
            name: name.clone(),
            from: before.tools.get(name).cloned(),
            to: self.tools.get(name).cloned(),
        }));
        let upstream = differing(&self.upstream, &before.upstream, OutputDigest::eq);
        changes.extend(upstream.map(|(name, how)| InputChange::Upstream {
            name: name.clone(),
            how,
        }));
        changes
    }

    /// By name: one version that went and another that came are one change.
    fn changed_dependencies(&self, before: &Self) -> Vec<InputChange> {
        let mut names = BTreeMap::<&str, (Vec<String>, Vec<String>)>::new();
        let mut apart = Vec::new();
        for (identity, how) in differing(&self.dependencies, &before.dependencies, String::eq) {
            let (name, version) = match LockedIdentity::of(identity) {
                LockedIdentity::Package { name, version } => (name, version),
                LockedIdentity::Folder(folder) => {
                    apart.push(InputChange::Dependencies {
                        folder: folder.to_owned(),
                    });
                    continue;
                }
                LockedIdentity::LockFile(name) => {
                    // The packages of the earlier lock file are not known.
                    let name = name.to_owned();
                    return vec![InputChange::LockFile { name }];
                }
            };
            let (from, to) = names.entry(name).or_default();
            if how != InputChangeKind::Added {
                from.push(version.clone());
            }
            if how != InputChangeKind::Removed {
                to.push(version);
            }
        }
        for (from, to) in names.values_mut() {
            // One version can have several identities, one for each set of peers.
            from.dedup();
            to.dedup();
        }
        // Packages and folders whose own version has not changed are left out: they differ only
        // because one of their dependencies has changed.
        if names.values().any(|(from, to)| from != to) {
            names.retain(|_, (from, to)| from != to);
            apart.clear();
        }
        let change = |(name, (from, to)): (&str, _)| InputChange::Dependency {
            name: name.to_owned(),
            from,
            to,
        };
        names.into_iter().map(change).chain(apart).collect()
    }
}

/// Names whose values are not the same in both, with how they differ.
fn differing<'a, V>(
    now: &'a BTreeMap<String, V>,
    before: &'a BTreeMap<String, V>,
    same: impl Fn(&V, &V) -> bool,
) -> impl Iterator<Item = (&'a String, InputChangeKind)> {
    let (changed, added): (Vec<_>, Vec<_>) = now
        .iter()
        .filter(|(name, value)| !before.get(*name).is_some_and(|old| same(value, old)))
        .map(|(name, _)| name)
        .partition(|name| before.contains_key(*name));
    let removed = before.keys().filter(|name| !now.contains_key(*name));
    let all = [
        (changed, InputChangeKind::Changed),
        (added, InputChangeKind::Added),
        (removed.collect(), InputChangeKind::Removed),
    ];
    all.into_iter()
        .flat_map(|(names, how)| names.into_iter().map(move |name| (name, how)))
}

impl fmt::Display for InputChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "new",
            Self::Removed => "gone",
            Self::Changed => "changed",
        })
    }
}

impl fmt::Display for InputChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = |versions: &[String]| match versions {
            [] => "none".to_owned(),
            versions => versions.join(", "),
        };
        match self {
            Self::Command => f.write_str("the command"),
            Self::File { path, layer, how } => {
                let (path, of) = match (path.strip_prefix("//"), layer) {
                    (Some(path), _) => (path, "the project"),
                    (None, Some(layer)) => (path.as_str(), layer.as_str()),
                    (None, None) => (path.trim_start_matches("../"), "the store"),
                };
                write!(f, "{} of {of}", path.escape_debug())?;
                match how {
                    InputChangeKind::Changed => Ok(()),
                    how => write!(f, " ({how})"),
                }
            }
            Self::Variable {
                name,
                how: InputChangeKind::Changed,
            } => write!(f, "variable {name}"),
            Self::Variable { name, how } => write!(f, "variable {name} ({how})"),
            // There is no lock file, and another version may be installed.
            Self::Dependency { name, from, to } if from == to && to == &["installed"] => {
                write!(f, "the installed {name}")
            }
            // The version is the same, but its content or source differs.
            Self::Dependency { name, from, to } if from == to => {
                write!(f, "{name} {} (changed in the lock file)", versions(to))
            }
            Self::Dependencies { folder } if folder.is_empty() => {
                f.write_str("the dependencies in the package.json of the project")
            }
            Self::Dependencies { folder } => write!(f, "the dependencies of {folder}"),
            Self::LockFile { name } => write!(f, "{name} (all of it is an input)"),
            Self::Dependency { name, from, to } => {
                write!(f, "{name} {} → {}", versions(from), versions(to))
            }
            Self::Tool { name, from, to } => {
                let none = || "none".to_owned();
                let (from, to) = (
                    from.clone().unwrap_or_else(none),
                    to.clone().unwrap_or_else(none),
                );
                write!(f, "{name} {from} → {to}")
            }
            Self::Upstream {
                name,
                how: InputChangeKind::Changed,
            } => write!(f, "upstream {name}"),
            Self::Upstream { name, how } => write!(f, "upstream {name} ({how})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FileInput, InputRecord, Key, OutputDigest};
    use crate::cache::key::OutputHasher;

    fn output(folder: &str) -> OutputDigest {
        let mut output = OutputHasher::default();
        output.folder(folder);
        output.end()
    }

    fn inputs() -> InputRecord {
        let file = |id: &str, layer: &str| FileInput {
            id: id.into(),
            layer: Some(layer.into()),
        };
        InputRecord {
            command: "npm run build".into(),
            files: [
                ("a.ts".into(), file("1", "base")),
                ("b.ts".into(), file("2", "us")),
            ]
            .into(),
            variables: [("A".into(), Key::of(b"1"))].into(),
            dependencies: [
                ("react@18.3.1".into(), "x".into()),
                ("@a/b@1.0.0".into(), "y".into()),
            ]
            .into(),
            tools: [("node".into(), "v20".into())].into(),
            upstream: [("theme".into(), output("t"))].into(),
        }
    }

    #[test]
    fn every_part_counts_but_layers() {
        let one = inputs();
        let changed = |change: fn(&mut InputRecord)| {
            let mut other = inputs();
            change(&mut other);
            let changes = other.changes(&one);
            assert_eq!(changes.len(), 1, "{changes:?}");
            changes[0].to_string()
        };
        let explained = [
            changed(|it| it.command.push('!')),
            changed(|it| it.files.get_mut("b.ts").unwrap().id.push('!')),
            changed(|it| drop(it.files.remove("b.ts"))),
            changed(|it| it.variables.extend([("B".into(), Key::of(b""))])),
            changed(|it| {
                it.dependencies.remove("react@18.3.1");
                it.dependencies.insert("react@18.3.2".into(), "x".into());
            }),
            changed(|it| drop(it.dependencies.insert("@a/b@1.0.0".into(), "z".into()))),
            changed(|it| {
                // A new dependency of the folder, which is already installed for other folders.
                it.dependencies
                    .insert("workspace:apps/web".into(), "z".into());
            }),
            changed(|it| drop(it.dependencies.insert("yarn.lock".into(), "z".into()))),
            changed(|it| drop(it.tools.insert("node".into(), "v22".into()))),
            changed(|it| it.upstream.extend([("theme".into(), output("u"))])),
        ];
        let expected = [
            "the command",
            "b.ts of us",
            "b.ts of us (gone)",
            "variable B (new)",
            "react 18.3.1 → 18.3.2",
            "@a/b 1.0.0 (changed in the lock file)",
            "the dependencies of apps/web",
            "yarn.lock (all of it is an input)",
            "node v20 → v22",
            "upstream theme",
        ];
        assert_eq!(explained, expected);
        let mut other = inputs();
        other.files.get_mut("b.ts").unwrap().layer = Some("fashion".into());
        assert!(other.changes(&one).is_empty());
    }
}
