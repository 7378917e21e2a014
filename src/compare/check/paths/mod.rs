//! Relative paths in config files that leave the app. Tools read them from `apps/<app>` and from
//! `.out/<store>/<app>`. Most lead to the same place: apps are siblings in both, and `.out` has links
//! to the top of the project. This module finds the paths that lead to different places.

mod javascript;
mod json;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use virtual_path::normalize;

use super::{Checker, FindingCode};
use crate::overlay::{Composition, is_linked};
use crate::store::AppName;

/// Characters after which a pattern names any number of paths.
const WILDCARDS: &str = "*?{}[]()!$";

/// Endings of files in JavaScript and TypeScript.
const SCRIPTS: [&str; 6] = ["js", "mjs", "cjs", "ts", "mts", "cts"];

/// A relative path in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReference {
    /// The path relative to the app, up to the first wildcard.
    path: String,
    /// The line, counted from 1.
    line: usize,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathTarget {
    /// To a path in an app of the same store.
    App(AppName, PathBuf),
    /// To the folder of the store's apps.
    Apps,
    /// To this path.
    Path(PathBuf),
    /// To no file, for this reason.
    Nothing(Reason),
}

/// Why a path from a composed app leads to no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The store does not compose the app.
    OtherApp,
    /// Another folder in `apps/`, such as `apps/stores`.
    NoApp,
    /// `../../apps/…`
    Apps,
    /// A name at the top of the project to which `.out` has no link.
    NotLinked,
}

/// How a config file is read.
#[derive(Debug, Clone, Copy)]
enum Format {
    Script,
    Json,
    Yaml,
    Package,
}

impl Format {
    /// The format of a config file. None for any other file.
    fn of(name: &str) -> Option<Self> {
        let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
        match name {
            "package.json" => Some(Self::Package),
            ".eslintrc" | ".eslintrc.json" => Some(Self::Json),
            ".eslintrc.yml" | ".eslintrc.yaml" => Some(Self::Yaml),
            _ if name.starts_with("tsconfig") && end == "json" => Some(Self::Json),
            _ if SCRIPTS.contains(&end) => {
                (stem == ".eslintrc" || stem.ends_with(".config")).then_some(Self::Script)
            }
            _ => None,
        }
    }

    /// The paths in a file, which is relative to the app. None if the file cannot be parsed.
    fn paths(self, file: &str, text: &str) -> Option<Vec<PathReference>> {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        match self {
            Self::Script => javascript::paths(file, text),
            Self::Json => json::paths(folder, text).or_else(|| json::paths_of_yaml(folder, text)),
            Self::Yaml => json::paths_of_yaml(folder, text),
            Self::Package => json::paths_of_scripts(folder, text),
        }
    }
}

/// The relative path in a text of a config file, without the marks of patterns and tools. None if the
/// text is not a relative path.
fn relative(text: &str) -> Option<&str> {
    let text = text.strip_prefix('!').unwrap_or(text);
    let starts = ["<rootDir>/", "${configDir}/", "file:", "link:"];
    let (text, is_marked) = match starts.iter().find_map(|start| text.strip_prefix(start)) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let is_path = is_marked || text == ".." || text.starts_with("../") || text.starts_with("./");
    is_path.then_some(text)
}

/// The path up to the first part with a wildcard.
fn without_wildcards(path: &str) -> String {
    let parts = path.split('/');
    let parts: Vec<&str> = parts
        .take_while(|part| !part.contains(|c| WILDCARDS.contains(c)))
        .collect();
    parts.join("/")
}

/// The line of an offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The paths in each config file that has been read. Stores share most of them.
pub type ConfigFiles = BTreeMap<PathBuf, Vec<PathReference>>;

impl Checker<'_> {
    /// Paths of config files that lead to different places from the composed app and from the base app.
    pub(super) fn config_paths(
        &mut self,
        composition: &Composition,
        of_store: &[&Composition],
        files: &mut ConfigFiles,
    ) {
        for (path, entry) in &composition.entries {
            let name = path.rsplit('/').next().unwrap_or(path);
            let Some(format) = Format::of(name) else {
                continue;
            };
            let owner = self.folder(composition, entry.winner());
            let file = format!("{owner}/{path}");
            let source = self.project.root.join(&file);
            let found = files.entry(source).or_insert_with_key(|source| {
                // The base app's text, since composing corrects the paths of `tsconfig.json`.
                let text = std::fs::read_to_string(source).unwrap_or_default();
                format.paths(path, &text).unwrap_or_else(|| {
                    let note = format!("`{file}` cannot be parsed, so its paths were not checked");
                    self.unchecked.push(note);
                    Vec::new()
                })
            });
            for reference in found.clone() {
                self.config_path(composition, of_store, (&owner, path), &reference);
            }
        }
    }

    fn config_path(
        &mut self,
        composition: &Composition,
        of_store: &[&Composition],
        (owner, path): (&str, &str),
        reference: &PathReference,
    ) {
        let root = self.project.root.clone();
        let (store, app) = (&composition.unit.store, &composition.unit.app);
        let inside = without_wildcards(&reference.path);
        let inside = inside.trim_start_matches('/');
        let base = root.join("apps").join(app.as_str());
        let target = normalize(&base.join(inside));
        // The config of a store may contain paths for the store's own folder.
        let own = normalize(&root.join(owner).join(inside));
        if target.starts_with(&base) {
            return;
        }
        let is_there = |destination: &PathTarget| match destination {
            PathTarget::Path(path) => path.exists(),
            _ => true,
        };
        let places = [target, own].map(|place| self.in_place(&place));
        let Some(place) = places.into_iter().find(is_there) else {
            return;
        };
        let out = root.join(".out").join(store.as_str());
        let deeper = if path == "tsconfig.json" && leaves_apps(inside) {
            ".."
        } else {
            ""
        };
        let composed = normalize(&out.join(app.as_str()).join(deeper).join(inside));
        let composed = self.composed(&composed, &out, of_store);
        if composed == place {
            return;
        }
        let written = normalize_relative(inside);
        let message = format!(
            "the path `{written}` leads to {} from `apps/{app}`, and to {} from `.out/{}/{app}`",
            self.described(&place),
            self.described(&composed),
            match composed {
                PathTarget::Nothing(Reason::OtherApp) => store.as_str(),
                _ => "<store>",
            },
        );
        let at = (format!("{owner}/{path}"), Some(reference.line));
        self.find(FindingCode::ConfigPath, at, message, help(&composed));
    }

    /// Where a path of the base app leads.
    fn in_place(&self, path: &Path) -> PathTarget {
        let Ok(inside) = path.strip_prefix(self.project.root.join("apps")) else {
            return PathTarget::Path(path.to_owned());
        };
        let mut apps = self.project.apps.iter();
        if inside.as_os_str().is_empty() {
            return PathTarget::Apps;
        }
        match apps.find(|app| inside.starts_with(app.name.as_str())) {
            Some(app) => {
                let rest = inside.strip_prefix(app.name.as_str()).unwrap_or(inside);
                PathTarget::App(app.name.clone(), rest.to_owned())
            }
            None => PathTarget::Path(path.to_owned()),
        }
    }

    /// Where a path of the composed app leads. `out` is the folder of its store.
    pub(super) fn composed(
        &self,
        path: &Path,
        out: &Path,
        of_store: &[&Composition],
    ) -> PathTarget {
        let root = &self.project.root;
        if let Ok(inside) = path.strip_prefix(out) {
            return match self.in_place(&root.join("apps").join(inside)) {
                PathTarget::App(app, _) if of_store.iter().all(|it| it.unit.app != app) => {
                    PathTarget::Nothing(Reason::OtherApp)
                }
                PathTarget::Path(_) => PathTarget::Nothing(Reason::NoApp),
                known => known,
            };
        }
        let Ok(top) = path.strip_prefix(root.join(".out")) else {
            return PathTarget::Path(path.to_owned());
        };
        let name = top.components().next().map(std::path::Component::as_os_str);
        match name.and_then(|name| name.to_str()) {
            None => PathTarget::Path(path.to_owned()),
            Some("apps") => PathTarget::Nothing(Reason::Apps),
            Some(name) if is_linked(name) => PathTarget::Path(root.join(top)),
            Some(_) => PathTarget::Nothing(Reason::NotLinked),
        }
    }

    fn described(&self, destination: &PathTarget) -> String {
        match destination {
            PathTarget::App(app, rest) => {
                let path = Path::new("apps").join(app.as_str()).join(rest);
                format!("`{}`", path.display())
            }
            PathTarget::Apps => "the folder of the apps".to_owned(),
            PathTarget::Path(path) if *path == self.project.root => {
                "the folder of the project".to_owned()
            }
            PathTarget::Path(path) => {
                let relative = virtual_path::relative(&self.project.root, path);
                format!("`{}`", relative.display())
            }
            PathTarget::Nothing(_) => "nothing".to_owned(),
        }
    }
}

/// Whether the path leads out of the folder of the apps.
fn leaves_apps(path: &str) -> bool {
    // Two folders represent `apps/<app>`.
    !normalize(&Path::new("/apps/app").join(path)).starts_with("/apps")
}

/// The path without `.`, and with `..` resolved where a folder is before it.
fn normalize_relative(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

fn help(composed: &PathTarget) -> &'static str {
    match composed {
        PathTarget::Nothing(Reason::OtherApp) => {
            "move the code that both apps need to a workspace package, or override the file in the store"
        }
        PathTarget::Nothing(Reason::NoApp) => {
            "override the file in the store: a composed app has the files of its own store"
        }
        PathTarget::Nothing(Reason::Apps) => {
            "write `../<app>`, which leads to the app of the same store from `apps/` and from `.out/`"
        }
        PathTarget::Nothing(Reason::NotLinked) => {
            "`.out` has no links to secrets, lock files and files that mark the root of a workspace: take the value from an environment variable, or search the parent folders for the file"
        }
        PathTarget::Path(path) if path.ends_with(".out") => {
            "use the path of the file or folder that is needed, such as `../../packages`, to which `.out` has a link; or search the parent folders for `alokai.config.json`"
        }
        _ => "move the file into the project, and use `../../<name>` from the app's folder",
    }
}
