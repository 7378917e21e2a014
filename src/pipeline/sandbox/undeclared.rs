//! What is said of paths that a sandbox has refused: which they are, and what declares each.

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::DeniedPath;
use crate::pipeline::failure::quote;

/// How many paths are named.
const SHOWN: usize = 5;

/// A script ended with an error and could not open something that its key does not have.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{command}` {ended} in its sandbox, in `{}`: {}\n{}", folder.display(), self.refused(), quote(tail))]
#[diagnostic(code(alokai::build::undeclared), help("{}; the whole log: `{}`", self.mends(), log.display()))]
pub struct Undeclared {
    /// As typed.
    pub command: String,
    /// The project.
    pub project: PathBuf,
    /// Where the script ran.
    pub folder: PathBuf,
    /// Such as `exited with code 1`.
    pub ended: String,
    /// What it could not open.
    pub denied: Vec<DeniedPath>,
    /// Its last lines.
    pub tail: Vec<String>,
    /// Everything that it printed.
    pub log: PathBuf,
}

impl Undeclared {
    fn refused(&self) -> String {
        let one = |denied: &DeniedPath| {
            let doing = if denied.is_write { "write" } else { "read" };
            format!(
                "it may not {doing} `{}`",
                display(&self.project, &denied.path)
            )
        };
        self.list(", ", one)
    }

    fn mends(&self) -> String {
        let one = |denied: &DeniedPath| {
            let path = display(&self.project, &denied.path);
            format!("`{path}`: {}", mend(&self.project, &self.folder, denied))
        };
        self.list("; ", one)
    }

    fn list(&self, between: &str, one: impl Fn(&DeniedPath) -> String) -> String {
        let mut shown: Vec<_> = self.denied.iter().take(SHOWN).map(one).collect();
        if self.denied.len() > SHOWN {
            shown.push(format!("and {} more", self.denied.len() - SHOWN));
        }
        shown.join(between)
    }
}

/// What is said of paths that a script was refused and went on without.
pub fn notices<'a>(
    project: &'a Path,
    folder: &'a Path,
    denied: &'a [DeniedPath],
) -> impl Iterator<Item = String> {
    denied.iter().take(SHOWN).map(move |denied| {
        format!(
            "its sandbox refused it `{}`, and it went on without; {}",
            display(project, &denied.path),
            mend(project, folder, denied)
        )
    })
}

/// What brings a path into the key of the script in `folder`, or why nothing does.
fn mend(project: &Path, folder: &Path, denied: &DeniedPath) -> String {
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
    if inside.as_os_str().is_empty() {
        return "no key has the names of everything in the project: read a folder that `build.globalDependencies` names".into();
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
        _ => {
            if let Some(name) = package(project, &denied.path) {
                return format!(
                    "the workspace package `{name}` is not a dependency of this package: add `\"{name}\": \"*\"` to the `dependencies` in its `package.json`"
                );
            }
            let path = serde_json::Value::from(shown.to_string());
            format!("declare it: `\"build\": {{ \"globalDependencies\": [{path}] }}`")
        }
    }
}

/// A path relative to the project, or as it is.
fn display(project: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(project).ok();
    let inside = inside.filter(|inside| !inside.as_os_str().is_empty());
    inside.unwrap_or(path).display().to_string()
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
