//! The candidates that depend on the project: stores, apps, units and files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use clap::builder::StyledStr;
use clap::{Arg, Command, ValueHint};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};

use super::super::environment;
use crate::config::Project;
use crate::edit::ROOT;
use crate::store::{AppName, Store};

/// Folders of apps whose files are not composed.
const NOT_COMPOSED: [&str; 6] = [
    ".git",
    ".next",
    ".nuxt",
    ".output",
    ".turbo",
    "node_modules",
];

/// Adds candidates to the arguments of a command. The value name of an argument selects its candidates.
/// `words` is the command line, which may name a project and a store.
pub fn with_values(command: Command, words: &[String]) -> Command {
    // The project is read at most once, and only if an argument needs it.
    let line: Arc<Line> = Arc::new(Line {
        words: words.to_vec(),
        project: OnceLock::new(),
    });
    arguments_of(command, &line)
}

fn arguments_of(command: Command, line: &Arc<Line>) -> Command {
    // These commands also accept templates.
    let templates_too = ["drift", "overlays"].contains(&command.get_name());
    let own = line.clone();
    let command = command.mut_args(move |argument| of_argument(argument, &own, templates_too));
    let line = line.clone();
    command.mut_subcommands(move |below| arguments_of(below, &line))
}

fn of_argument(argument: Arg, line: &Arc<Line>, templates_too: bool) -> Arg {
    let names = argument.get_value_names().unwrap_or_default();
    let name = names.first().map(ToString::to_string).unwrap_or_default();
    let line = line.clone();
    match name.as_str() {
        "ID" if templates_too => argument.add(candidates(move || line.stores(|_| true))),
        "ANY_STORE" => argument.add(candidates(move || line.stores(|_| true))),
        "PARENT" => argument.add(candidates(move || line.parents())),
        "ID" | "STORE" | "OTHER" => argument.add(candidates(move || {
            line.stores(|store| store.deployment.is_some())
        })),
        "LAYER" => argument.add(candidates(move || line.layer_names())),
        "APP" => argument.add(candidates(move || line.apps())),
        "PATTERN" => argument.add(candidates(move || line.units())),
        "APP/PATH" => argument.add(ArgValueCompleter::new(move |typed: &OsStr| {
            line.files(&typed.to_string_lossy())
        })),
        "DIR" => argument.value_hint(ValueHint::DirPath),
        "PATH" => argument.value_hint(ValueHint::FilePath),
        _ => argument,
    }
}

fn candidates(
    list: impl Fn() -> Vec<CompletionCandidate> + Send + Sync + 'static,
) -> ArgValueCandidates {
    ArgValueCandidates::new(list)
}

/// A command line and its project.
struct Line {
    words: Vec<String>,
    project: OnceLock<Option<Project>>,
}

impl Line {
    /// The project of `--cwd` or of the current folder. A project with errors has no candidates.
    fn project(&self) -> Option<&Project> {
        let read = || {
            let start = environment::start(self.folder().map(Path::new)).ok()?;
            Project::find(&start).ok()
        };
        self.project.get_or_init(read).as_ref()
    }

    /// The folder of `--cwd`.
    fn folder(&self) -> Option<&str> {
        let joined = self
            .words
            .iter()
            .find_map(|word| word.strip_prefix("--cwd="));
        let flag = self.words.iter().position(|word| word == "--cwd");
        joined.or_else(|| Some(self.words.get(flag? + 1)?.as_str()))
    }

    fn stores(&self, is_wanted: impl Fn(&Store) -> bool) -> Vec<CompletionCandidate> {
        let stores = self
            .project()
            .into_iter()
            .flat_map(|project| project.stores.iter());
        let wanted = stores.filter(|store| is_wanted(store));
        wanted
            .map(|store| CompletionCandidate::new(store.id.as_str()).help(Some(about(store))))
            .collect()
    }

    /// The base apps and all stores, as `--from` accepts them.
    fn layer_names(&self) -> Vec<CompletionCandidate> {
        let base = CompletionCandidate::new("base").help(Some("the base app".into()));
        std::iter::once(base).chain(self.stores(|_| true)).collect()
    }

    /// Every store, and the name for the base apps.
    fn parents(&self) -> Vec<CompletionCandidate> {
        let root = CompletionCandidate::new(ROOT).help(Some("the base apps".into()));
        std::iter::once(root).chain(self.stores(|_| true)).collect()
    }

    fn apps(&self) -> Vec<CompletionCandidate> {
        let apps = self
            .project()
            .map(|project| project.apps.as_slice())
            .unwrap_or_default();
        apps.iter()
            .map(|app| CompletionCandidate::new(app.name.as_str()))
            .collect()
    }

    fn units(&self) -> Vec<CompletionCandidate> {
        let Some(project) = self.project() else {
            return Vec::new();
        };
        let of_store = |store| {
            let apps = project.apps_of(store);
            apps.map(|app| CompletionCandidate::new(format!("{}-{}", app.name, store.id)))
        };
        project.stores.deployables().flat_map(of_store).collect()
    }

    /// Files and folders `<app>/<path>` of all layers of the store on the line, one folder deep.
    /// Without a store on the line, those of all stores.
    fn files(&self, typed: &str) -> Vec<CompletionCandidate> {
        let Some(project) = self.project() else {
            return Vec::new();
        };
        let Some((folder, begun)) = typed.rsplit_once('/') else {
            let apps = project.apps.iter().map(|app| format!("{}/", app.name));
            return apps
                .filter(|app| app.starts_with(typed))
                .map(CompletionCandidate::new)
                .collect();
        };
        let (app, below) = folder.split_once('/').unwrap_or((folder, ""));
        let is_inside = below.split('/').all(|part| part != ".." && part != ".");
        let app = project.apps.iter().find(|known| known.name.as_str() == app);
        let Some(app) = app.filter(|_| is_inside && !below.starts_with('/')) else {
            return Vec::new();
        };
        let mut names = BTreeSet::new();
        for layer in self.layers(project, &app.name) {
            names.extend(entries(&project.root.join(layer).join(below), begun));
        }
        names
            .into_iter()
            .map(|name| CompletionCandidate::new(format!("{folder}/{name}")))
            .collect()
    }

    /// The folders of an app's layers, relative to the project.
    fn layers(&self, project: &Project, app: &AppName) -> Vec<String> {
        let named = self.words.iter().find_map(|word| project.stores.get(word));
        let stores: Vec<&Store> = match named {
            Some(store) => project.stores.lineage(store),
            None => project.stores.iter().collect(),
        };
        let own = stores.iter().filter_map(|store| store.folder_of(app));
        std::iter::once(format!("apps/{app}")).chain(own).collect()
    }
}

/// The help text of a store id.
fn about(store: &Store) -> StyledStr {
    let deployment = store.deployment.as_ref();
    let text = deployment.map_or_else(
        || "template".to_owned(),
        |to| format!("{} in {}", to.project_name, to.cloud_region),
    );
    text.into()
}

/// The entries of a folder that start with a text; folders end with `/`.
fn entries(folder: &Path, begun: &str) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let is_offered = name.starts_with(begun) && !NOT_COMPOSED.contains(&name.as_str());
        let end = if entry.path().is_dir() { "/" } else { "" };
        is_offered.then(|| name + end)
    };
    listing.filter_map(name).collect()
}
