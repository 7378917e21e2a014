//! Messages about paths that a sandbox has denied: the paths, and how to declare each.

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::DeniedPath;
use crate::pipeline::failure::quote;

/// The largest number of paths in a message.
const SHOWN: usize = 5;

/// A script failed after it was denied a path that its key does not include.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{command}` {ended} in `{}`; its sandbox denied {}\n{}", folder.display(), self.denials(), quote(tail))]
#[diagnostic(code(alokai::build::undeclared), help("{}; full log: `{}`", self.remedies(), log.display()))]
pub struct Undeclared {
    /// The command line.
    pub command: String,
    /// The project.
    pub project: PathBuf,
    /// The folder in which the script ran.
    pub folder: PathBuf,
    /// How the script ended, such as `exited with code 1`.
    pub ended: String,
    /// The paths that the sandbox has denied.
    pub denied: Vec<DeniedPath>,
    /// The last lines of its output.
    pub tail: Vec<String>,
    /// The file with its complete output.
    pub log: PathBuf,
}

impl Undeclared {
    fn denials(&self) -> String {
        let one = |denied: &DeniedPath| {
            let doing = if denied.is_write {
                "writing"
            } else {
                "reading"
            };
            format!("{doing} `{}`", display(&self.project, &denied.path))
        };
        self.list(", ", one)
    }

    fn remedies(&self) -> String {
        let one = |denied: &DeniedPath| {
            let path = display(&self.project, &denied.path);
            format!("`{path}`: {}", remedy(&self.project, &self.folder, denied))
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

/// Notices about paths that the sandbox has denied to a script that succeeded.
pub fn notices<'a>(
    project: &'a Path,
    folder: &'a Path,
    denied: &'a [DeniedPath],
) -> impl Iterator<Item = String> {
    denied.iter().take(SHOWN).map(move |denied| {
        format!(
            "the sandbox denied access to `{}`, and the script continued without it; {}",
            display(project, &denied.path),
            remedy(project, folder, denied)
        )
    })
}

/// How to bring a path into the key of the script in `folder`, or why that is not possible.
fn remedy(project: &Path, folder: &Path, denied: &DeniedPath) -> String {
    let own = display(project, folder);
    let Ok(inside) = denied.path.strip_prefix(project) else {
        return if denied.is_write {
            format!("a script can write only in its own folder, `{own}`, and in `TMPDIR`")
        } else {
            "this path is outside the project and cannot be part of a cache key; move it into the project and declare it in `build.globalDependencies`".into()
        };
    };
    let shown = inside.display();
    if denied.is_write {
        return format!("a script can write only in its own folder, `{own}`, and in `TMPDIR`");
    }
    if inside.as_os_str().is_empty() {
        return "a script cannot list the root folder of the project; list only folders that are declared in `build.globalDependencies`".into();
    }
    let mut parts = inside.iter().filter_map(|part| part.to_str());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(".git"), ..) => {
            "a script cannot read the `.git` folder; pass the value in an environment variable that is declared in `build.env`"
                .into()
        }
        (Some(".alokai"), ..) => "a script cannot read the internal folder `.alokai`; change the script so that it does not read this path".into(),
        (Some(".out"), Some(store), app) => {
            let is_own = folder.starts_with(project.join(".out").join(store));
            match app.filter(|_| is_own) {
                Some(app) => format!(
                    "this path is in the app `{app}`, which is not built before this app, so the cache key does not include it"
                ),
                None => {
                    format!(
                        "this path is in the store `{store}`, and a script can read only files of the same store"
                    )
                }
            }
        }
        (Some("apps"), Some("stores"), _) => {
            "it is a source file of a store: read the composed file in the script's own folder"
                .into()
        }
        (Some("apps"), Some(app), _) => format!(
            "it is a source file of the base app `{app}`: read the composed file in `../{app}`, which is possible if that app is built first"
        ),
        _ => {
            if let Some(name) = package(project, &denied.path) {
                return format!(
                    "the workspace package `{name}` is not a dependency of this package: add `\"{name}\": \"*\"` to the `dependencies` in its `package.json`"
                );
            }
            let path = serde_json::Value::from(shown.to_string());
            format!("declare it in `alokai.config.json`: `\"build\": {{ \"globalDependencies\": [{path}] }}`")
        }
    }
}

/// The path relative to the project, or the unchanged path if it is outside.
fn display(project: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(project).ok();
    let inside = inside.filter(|inside| !inside.as_os_str().is_empty());
    inside.unwrap_or(path).display().to_string()
}

/// The name of the workspace package that a file of the project belongs to.
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
    // The outermost manifest, since a package contains the packages that are installed for it.
    names.last()
}
