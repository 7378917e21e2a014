//! What a script was not allowed to open, as far as it says so.
//!
//! Linux tells nobody without rights which file a sandboxed process was refused: its audit log
//! needs `CAP_AUDIT_READ`. But tools name the file that they could not open, so their lines are
//! looked through for paths that are there and that the rules do not grant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Sandbox;
use super::rules::Rules;
use crate::path::normalize;

/// Paths that are remembered of one script.
const MOST: usize = 50;

/// Words by which a program says that the system refused it something.
const REFUSED: [&str; 5] = [
    "eacces",
    "permission denied",
    "os error 13",
    "exdev",
    "eperm",
];

/// Words by which a program says that it could not use a file, whatever the system said.
const MISSED: [&str; 13] = [
    "not permitted",
    "cross-device",
    "cannot open",
    "can't open",
    "cannot read",
    "could not read",
    "failed to read",
    "failed to load",
    "not found",
    "cannot find",
    "can't resolve",
    "could not resolve",
    "no such file",
];

/// Ends of names that imports leave out.
const ENDS: [&str; 8] = ["ts", "tsx", "js", "jsx", "mjs", "cjs", "json", "vue"];

/// A path that the sandbox does not grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// With links resolved.
    pub path: PathBuf,
    /// Whether it was to be written.
    pub is_write: bool,
}

/// Looks through what a script prints.
pub struct Watch<'a> {
    rules: &'a Rules,
    folder: PathBuf,
    /// The last source of its own that the script named: imports are relative to it.
    last: Option<PathBuf>,
    found: BTreeMap<Denied, Certainty>,
}

/// How sure it is that the script was refused a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// The system's own words stand in the line.
    Refused,
    /// The script says that it could not use it.
    Missed,
}

impl<'a> Watch<'a> {
    /// Of a script that runs in `folder`.
    pub fn new(sandbox: &'a Sandbox, folder: &Path) -> Self {
        Self::of(&sandbox.rules, folder)
    }

    fn of(rules: &'a Rules, folder: &Path) -> Self {
        Self {
            rules,
            folder: folder.to_owned(),
            last: None,
            found: BTreeMap::new(),
        }
    }

    /// Looks at one line.
    pub fn line(&mut self, line: &str) {
        let lower = line.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let certainty = if says(&REFUSED) {
            Some(Certainty::Refused)
        } else if says(&MISSED) {
            Some(Certainty::Missed)
        } else {
            None
        };
        if certainty.is_none() && !line.contains('/') {
            return;
        }
        for text in candidates(line) {
            let Some(path) = self.resolve(text, certainty) else {
                continue;
            };
            if path.starts_with(&self.folder) && path.is_file() {
                self.last = Some(path);
                continue;
            }
            let Some(certainty) = certainty else { continue };
            // What is not there was to be made, and what may be read was to be written.
            let is_write = !path.exists() || self.rules.reads(&path);
            if is_write && certainty != Certainty::Refused {
                continue;
            }
            if self.rules.writes(&path) || is_write && is_of_system(&path) {
                continue;
            }
            // A folder that may be listed was not refused for being read.
            if !is_write && path.is_dir() && self.rules.lists(&path) {
                continue;
            }
            let denied = Denied { path, is_write };
            if self.found.len() < MOST || self.found.contains_key(&denied) {
                let known = self.found.entry(denied).or_insert(certainty);
                *known = certainty.min(*known);
            }
        }
    }

    /// The path that a text names, with links resolved, if there is one. Of a file that could not
    /// be made the folder is there.
    fn resolve(&self, text: &str, certainty: Option<Certainty>) -> Option<PathBuf> {
        let given = Path::new(text);
        if given.is_absolute() {
            return real(given);
        }
        let parent = self.last.as_deref().and_then(Path::parent);
        let bases = [Some(self.folder.as_path()), parent];
        bases.into_iter().flatten().find_map(|base| {
            let whole = normalize(&base.join(given));
            let with_end = || {
                let ends = ENDS
                    .iter()
                    .map(|end| PathBuf::from(format!("{}.{end}", whole.display())));
                ends.into_iter().find_map(|path| path.canonicalize().ok())
            };
            let made = || real(&whole).filter(|_| certainty == Some(Certainty::Refused));
            whole.canonicalize().ok().or_else(with_end).or_else(made)
        })
    }

    /// What was refused for certain, where the script ended well all the same.
    pub fn refused(&self) -> Vec<Denied> {
        self.with(|certainty| certainty == Certainty::Refused)
    }

    /// What was refused, as far as the script says; the certain before the others.
    pub fn denied(&self) -> Vec<Denied> {
        let refused = self.refused();
        if refused.is_empty() {
            return self.with(|_| true);
        }
        refused
    }

    fn with(&self, is_wanted: impl Fn(Certainty) -> bool) -> Vec<Denied> {
        let found = self.found.iter();
        let found = found.filter(|(_, certainty)| is_wanted(**certainty));
        found.map(|(denied, _)| denied.clone()).collect()
    }
}

/// The path with links resolved; of one that is not there, its folder's, if that is there.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let folder = path.parent()?.canonicalize().ok()?;
        (folder != Path::new("/")).then_some(folder.join(path.file_name()?))
    })
}

/// Nobody means to write there; a shell that says `/bin/x: Permission denied` speaks of itself.
fn is_of_system(path: &Path) -> bool {
    [
        "/usr", "/bin", "/sbin", "/lib", "/etc", "/opt", "/proc", "/sys", "/dev",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

/// Texts of a line that may be paths: what is in quotes, and words with a slash.
fn candidates(line: &str) -> impl Iterator<Item = &str> {
    let quoted = ['\'', '"', '`']
        .into_iter()
        .flat_map(|quote| line.split(quote).skip(1).step_by(2));
    let is_end = |char: char| char.is_whitespace() || "'\"`()<>,;=".contains(char);
    let words = line.split(is_end).filter(|word| word.contains('/'));
    quoted.chain(words).filter_map(|text| {
        let text = text.strip_prefix("file://").unwrap_or(text);
        // `path:12:5`, `path: Permission denied`.
        let text = text.split(':').next().unwrap_or_default();
        let text = text.trim_end_matches(['.', ']', '}']);
        let is_path = !text.is_empty() && text.len() < 4096 && text.trim_matches('/') != "";
        is_path.then_some(text)
    })
}

/// What brings a path into the key of `who`, or why nothing does.
pub fn mend(project: &Path, folder: &Path, denied: &Denied) -> String {
    let own = display(project, folder);
    let Ok(inside) = denied.path.strip_prefix(project) else {
        return if denied.is_write {
            format!("scripts write in their own folder, `{own}`, and below `TMPDIR`")
        } else {
            "it lies outside of the project, so no key can hold it: bring it into the project and declare it there".into()
        };
    };
    let shown = inside.display();
    if denied.is_write {
        return format!("scripts write in their own folder, `{own}`, and below `TMPDIR`");
    }
    let mut parts = inside.iter().filter_map(|part| part.to_str());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(".git"), ..) => {
            "it is git's own; give the script what it needs as a variable that `build.env` names"
                .into()
        }
        (Some(".alokai"), ..) => "it is alokai's own; no script may depend on it".into(),
        (Some(".out"), Some(store), app) => {
            let is_own = folder.starts_with(project.join(".out").join(store));
            match app.filter(|_| is_own) {
                Some(app) => format!(
                    "`{app}` is an app beside this one that is not built before it, so nothing of it is in the key"
                ),
                None => {
                    format!("it belongs to the store `{store}`; a build sees its own store alone")
                }
            }
        }
        (Some("apps"), Some("stores"), _) => {
            "it is a source of a store; scripts read what is composed of it, in their own folder"
                .into()
        }
        (Some("apps"), Some(app), _) => format!(
            "it is a source of the base app `{app}`; scripts read what is composed of it, in `../{app}` where that app is built before"
        ),
        _ => match package(project, &denied.path) {
            Some(name) => format!(
                "the workspace package `{name}` is no dependency of this one: add `\"{name}\": \"*\"` to the `dependencies` in its `package.json`"
            ),
            None => format!("declare it: `\"build\": {{ \"globalDependencies\": [\"{shown}\"] }}`"),
        },
    }
}

/// A path relative to the project, or as it is.
pub fn display(project: &Path, path: &Path) -> String {
    path.strip_prefix(project)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The workspace package that a file of the project lies in.
fn package(project: &Path, path: &Path) -> Option<String> {
    let above = path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != project);
    let manifests = above.filter_map(|folder| std::fs::read(folder.join("package.json")).ok());
    let names = manifests.filter_map(|text| {
        let package: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(package.get("name")?.as_str()?.to_owned())
    });
    // The outermost: what is installed for a package lies in it.
    names.last()
}
