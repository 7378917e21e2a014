//! Finds the folder of the project, and describes a folder that has no base apps.

use std::path::{Path, PathBuf};

use super::Error;
use crate::config::PackageJson;
use crate::store::{AppKind, Framework};

/// The depth to which apps are searched in other places, for the error.
const DEPTH: usize = 3;

/// The most folders that the error names.
const SHOWN: usize = 3;

/// The kind of an app, as text.
pub fn title(kind: AppKind) -> &'static str {
    match kind {
        AppKind::Frontend(Framework::Nextjs) => "Next.js",
        AppKind::Frontend(Framework::Nuxt) => "Nuxt",
        AppKind::Middleware => "middleware",
        AppKind::Playwright => "Playwright",
        AppKind::Other => "other",
    }
}

/// The nearest folder with base apps, from `start` up to the root of the repository.
pub fn find_root(start: &Path, top: Option<&Path>) -> Result<PathBuf, Error> {
    let top = top.unwrap_or(start);
    let mut folders = start
        .ancestors()
        .take_while(|folder| folder.starts_with(top));
    match folders.find(|folder| has_apps(folder)) {
        Some(root) => Ok(root.to_owned()),
        None => Err(no_apps(start)),
    }
}

fn has_apps(folder: &Path) -> bool {
    subfolders(&folder.join("apps"))
        .iter()
        .any(|app| !app.ends_with("stores") && app.join("package.json").is_file())
}

/// The folders in a folder, sorted, without hidden ones and `node_modules`.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && name != "node_modules" && path.is_dir()
        })
        .collect();
    found.sort();
    found
}

/// A framework's name, and the folder that its app has in the starters.
fn framework(folder: &Path) -> Option<(&'static str, &'static str)> {
    let package = PackageJson::read(&folder.join("package.json")).ok()?;
    let depends_on = |wanted| package.build_dependencies().any(|name| name == wanted);
    if depends_on("next") {
        Some(("a Next.js app", "storefront-unified-nextjs"))
    } else if depends_on("nuxt") {
        Some(("a Nuxt app", "storefront-unified-nuxt"))
    } else if depends_on("@vue-storefront/middleware") {
        Some(("a middleware", "storefront-middleware"))
    } else {
        None
    }
}

fn no_apps(start: &Path) -> Error {
    let relative = |path: &Path| {
        let inside = path.strip_prefix(start).unwrap_or(path);
        inside.to_string_lossy().escape_debug().to_string()
    };
    let (projects, apps) = below(start);
    let (found, help) = if let Some(project) = projects.first() {
        let folders: Vec<_> = projects.iter().take(SHOWN).map(|it| relative(it)).collect();
        (
            format!("base apps in {}", quoted(&folders, "/apps")),
            format!("run it there: `alokai init --cwd {}`", relative(project)),
        )
    } else if let Some((what, name)) = framework(start) {
        (
            format!("{what} in the folder itself"),
            format!(
                "move the app: `mkdir -p apps/{name}`, then `git mv` its files (`package.json`, `src`, `public`, configs) to `apps/{name}`; the new `package.json` at the top needs `\"private\": true` and `\"workspaces\": [\"apps/*\"]` (pnpm: `packages: [\"apps/*\"]` in `pnpm-workspace.yaml`), and the lock file stays there"
            ),
        )
    } else if !apps.is_empty() {
        let names: Vec<_> = apps.iter().take(SHOWN).map(|it| relative(it)).collect();
        let first = names.first().cloned().unwrap_or_default();
        let name = first.rsplit('/').next().unwrap_or(&first).to_owned();
        (
            format!("apps in {}", quoted(&names, "")),
            format!(
                "move each app to `apps`: `mkdir -p apps && git mv {first} apps/{name}`; then correct `workspaces` in `package.json` (or `pnpm-workspace.yaml`) and install again"
            ),
        )
    } else if start.join("apps").is_dir() {
        (
            "`apps` has no folder with a `package.json`".to_owned(),
            "give each app in `apps` its own `package.json`".to_owned(),
        )
    } else if start.join("package.json").is_file() {
        (
            "a `package.json` without a known framework".to_owned(),
            "move the app to `apps/<app>`, with its `package.json`".to_owned(),
        )
    } else {
        (
            "neither `apps` nor `package.json`".to_owned(),
            "run the command in the folder of a project, or pass the folder: `alokai init --cwd path/to/project`".to_owned(),
        )
    };
    Error::Layout {
        folder: start.to_owned(),
        found,
        help,
    }
}

fn quoted(names: &[String], end: &str) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}{end}`")).collect();
    names.join(", ")
}

/// Folders below that have base apps, and folders that are apps themselves.
fn below(start: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut projects, mut apps) = (Vec::new(), Vec::new());
    let mut level = vec![start.to_owned()];
    for _ in 0..DEPTH {
        level = level.iter().flat_map(|folder| subfolders(folder)).collect();
        projects.extend(level.iter().filter(|folder| has_apps(folder)).cloned());
        apps.extend(
            level
                .iter()
                .filter(|folder| framework(folder).is_some())
                .cloned(),
        );
    }
    (projects, apps)
}
