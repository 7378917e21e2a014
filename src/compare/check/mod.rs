//! The linter for a project: problems in config, folders and layers, and how to solve them.

mod finding;
pub(super) mod imports;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use miette::Diagnostic;

pub use self::finding::{CODES, Finding, FindingCode};
use self::imports::{Import, imports, is_source, targets};
use self::paths::{ConfigFiles, PathTarget};
use super::drift::{OverrideState, drift};
use super::{Error, owner_folder};
use crate::config::{self, FILE, NoticePlace, Project};
use crate::git::Repository;
use crate::overlay::{
    self, Composer, Composition, IgnoreRules, LayerReader, Layers, Owner, RuleOrigin,
};
use crate::store::Store;

/// The longest chain of stores that inherit from one another without a finding.
const LONGEST_CHAIN: usize = 3;

/// The result of [`check`].
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// The problems, by file and line, each once.
    pub findings: Vec<Finding>,
    /// Which checks were left out, and why.
    pub unchecked: Vec<String>,
}

/// Runs every check that is possible.
pub fn check(root: &Path) -> Result<CheckReport, Error> {
    let project = match Project::load(root) {
        Ok(project) => project,
        Err(error) => {
            return Ok(CheckReport {
                findings: of_config(root, error)?,
                unchecked: vec!["the project cannot be read, so nothing else was checked".into()],
            });
        }
    };
    let mut check = Checker {
        project: &project,
        findings: BTreeSet::new(),
        unchecked: Vec::new(),
    };
    check.notices();
    check.ids_and_chains();
    check.local();
    check.outside_apps()?;
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?;
    let composer = Composer::new(&project, &reader);
    let stores: Vec<&Store> = project.stores.deployables().collect();
    let (layers, problems) = composer.layers(&stores, |_, _| None)?;
    check.rules(&stores, &layers);
    let complete = overlay::fail_on(problems);
    match complete.and_then(|()| composer.compose_from(&stores, &layers)) {
        Ok(compositions) => check.compositions(&compositions),
        Err(overlay::Error::Files { problems }) => {
            check.problems(&problems);
            check.unchecked.push(
                "stores cannot be composed, so imports, case and own package files were not \
                 checked"
                    .into(),
            );
        }
        Err(error) => return Err(error.into()),
    }
    check.overrides(repository.as_ref())?;
    Ok(CheckReport {
        findings: check.findings.into_iter().collect(),
        unchecked: check.unchecked,
    })
}

/// The findings for an invalid config or invalid folders. Any other error stays an error.
fn of_config(root: &Path, error: config::Error) -> Result<Vec<Finding>, Error> {
    let (file, text, problems) = match error {
        config::Error::Invalid { text, problems, .. } => (FILE, text.inner().clone(), problems),
        config::Error::Folders { problems, .. } => ("apps", String::new(), problems),
        error => {
            return Err(Error::Project {
                revision: root.display().to_string(),
                source: Box::new(error),
            });
        }
    };
    let line = |offset: usize| {
        text.get(..offset)
            .map(|text| text.matches('\n').count() + 1)
    };
    let found = problems.into_iter().map(|problem| Finding {
        file: file.to_owned(),
        line: problem.span.and_then(|span| line(span.offset())),
        code: FindingCode::Config,
        message: problem.message,
        help: problem.help.unwrap_or_default(),
    });
    Ok(found.collect())
}

/// What a rule does in the compositions of all stores.
struct RuleEffect {
    origin: RuleOrigin,
    /// Whether it matches a file.
    matches: bool,
    /// Whether a file is dropped or kept because of it.
    decides: bool,
}

struct Checker<'a> {
    project: &'a Project,
    findings: BTreeSet<Finding>,
    unchecked: Vec<String>,
}

impl Checker<'_> {
    fn find(
        &mut self,
        code: FindingCode,
        at: (String, Option<usize>),
        message: String,
        help: &str,
    ) {
        self.findings.insert(Finding {
            file: at.0,
            line: at.1,
            code,
            message,
            help: help.to_owned(),
        });
    }

    /// File and line of a value in the config.
    fn config(&self, pointer: &[&str]) -> (String, Option<usize>) {
        (FILE.to_owned(), self.project.config_line(pointer))
    }

    /// File and line of a store's entry in the config, or its folder.
    fn store(&self, store: &Store) -> (String, Option<usize>) {
        let id = store.id.as_str();
        let is_configured = self.project.local.iter().any(|(known, _)| known == id);
        match &store.folder {
            Some(folder) if !is_configured => (folder.clone(), None),
            _ => self.config(&["stores", id]),
        }
    }

    fn notices(&mut self) {
        for notice in &self.project.notices {
            let message = notice.message.clone();
            match &notice.place {
                NoticePlace::Config(keys) => {
                    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
                    let help = "create the store's folder, correct the id, or remove the entry";
                    self.find(FindingCode::UnknownStore, self.config(&keys), message, help);
                }
                NoticePlace::Folder(folder) => {
                    let help = "correct the folder's name, or move the folder out of `apps/`";
                    self.find(
                        FindingCode::OutsideApp,
                        (folder.clone(), None),
                        message,
                        help,
                    );
                }
            }
        }
    }

    fn ids_and_chains(&mut self) {
        for store in self.project.stores.iter() {
            if !is_dns_label(store.id.as_str()) {
                let message = format!("the store id `{}` is not a DNS label", store.id);
                let help = "ids are parts of host names: use lower-case letters, digits and `-`, at most 63 characters";
                self.find(FindingCode::StoreId, self.store(store), message, help);
            }
            let lineage = self.project.stores.lineage(store);
            if lineage.len() > LONGEST_CHAIN {
                let chain: Vec<_> = lineage.iter().map(|link| link.id.to_string()).collect();
                let message = format!(
                    "`{}` inherits from {} stores: {}",
                    store.id,
                    lineage.len() - 1,
                    chain.join(" → ")
                );
                let help = "move what its ancestors share into one template";
                self.find(FindingCode::DeepChain, self.store(store), message, help);
            }
        }
    }

    fn local(&mut self) {
        let mut ports = BTreeMap::<u16, (&str, &str)>::new();
        let mut domains = BTreeMap::<&str, &str>::new();
        for (id, local) in &self.project.local {
            for (app, port) in &local.ports {
                if let Some((other, key)) = ports.get(port).filter(|(other, _)| other != id) {
                    let message = format!(
                        "`{id}` and `{other}` have the same port {port} (`localPorts.{app}`, `localPorts.{key}`)"
                    );
                    let at = self.config(&["stores", id, "localPorts", app]);
                    self.find(
                        FindingCode::LocalClash,
                        at,
                        message,
                        "use different ports for each store",
                    );
                } else {
                    ports.insert(*port, (id, app));
                }
            }
            if let Some(domain) = local.domain.as_deref() {
                if let Some(other) = domains.get(domain) {
                    let message =
                        format!("`{id}` and `{other}` have the same `localDomain` {domain}");
                    let at = self.config(&["stores", id, "localDomain"]);
                    self.find(
                        FindingCode::LocalClash,
                        at,
                        message,
                        "use a different domain for each store",
                    );
                } else {
                    domains.insert(domain, id);
                }
            }
        }
    }

    /// Files in a store's folder that are not in an app. Markdown files and files for git may be there.
    fn outside_apps(&mut self) -> Result<(), Error> {
        for store in self.project.stores.iter() {
            let Some(folder) = &store.folder else {
                continue;
            };
            self.unused_frontends(store);
            let path = self.project.root.join(folder);
            let reading = |source| Error::Read {
                path: folder.clone(),
                source,
            };
            for entry in std::fs::read_dir(&path).map_err(reading)? {
                let entry = entry.map_err(reading)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_allowed =
                    name.starts_with(".git") || Path::new(&name).extension() == Some("md".as_ref());
                if entry.file_type().map_err(reading)?.is_dir() || is_allowed {
                    continue;
                }
                let message = format!(
                    "`{folder}/{}` is not in an app, so it is not composed",
                    name.escape_debug()
                );
                let help = "move it into an app's folder, or remove it";
                self.find(
                    FindingCode::OutsideApp,
                    (format!("{folder}/{name}"), None),
                    message,
                    help,
                );
            }
        }
        Ok(())
    }

    /// Folders of a frontend that is not composed: neither the store nor a descendant uses its framework.
    fn unused_frontends(&mut self, store: &Store) {
        let project = self.project;
        let below = project.stores.deployables().filter(|other| {
            let lineage = project.stores.lineage(other);
            lineage.iter().any(|link| link.id == store.id)
        });
        let users: Vec<_> = below.collect();
        for app in &store.apps {
            let has_it = |store: &&Store| project.apps_of(store).any(|one| one.name == *app);
            if users.is_empty() || users.iter().any(has_it) {
                continue;
            }
            let at = (store.folder_of(app).unwrap_or_default(), None);
            let message = format!(
                "`{}` is not composed: `{}` uses another framework",
                at.0, users[0].id
            );
            let help = "remove it, or correct `framework` in the config";
            self.find(FindingCode::OutsideApp, at, message, help);
        }
    }

    /// `ignorePaths` rules without an effect.
    fn rules(&mut self, stores: &[&Store], layers: &Layers) {
        let mut effects = BTreeMap::<(String, usize), RuleEffect>::new();
        for store in stores {
            let lineage = self.project.stores.lineage(store);
            let all = IgnoreRules::new(&lineage);
            if all.origins().is_empty() {
                continue;
            }
            let owners: Vec<_> = [Owner::Base]
                .into_iter()
                .chain(lineage.iter().map(|link| Owner::Store(link.id.clone())))
                .collect();
            let apps = self.project.apps_of(store);
            let of_store = apps.flat_map(|app| {
                owners
                    .iter()
                    .filter_map(|owner| layers.get(owner, &app.name))
            });
            let paths: BTreeSet<&str> = of_store
                .flat_map(|layer| layer.files.keys().map(|path| &**path))
                .collect();
            for (index, origin) in all.origins().iter().enumerate() {
                let key = (origin.store.to_string(), origin.position);
                let effect = effects.entry(key).or_insert_with(|| RuleEffect {
                    origin: origin.clone(),
                    matches: false,
                    decides: false,
                });
                if effect.decides {
                    continue;
                }
                let mut others = all.origins().to_vec();
                others.remove(index);
                let others = IgnoreRules::of(others);
                effect.decides = paths.iter().any(|path| {
                    effect.matches |= all.matches(index, path);
                    all.drops(path).is_some() != others.drops(path).is_some()
                });
            }
        }
        for effect in effects.into_values().filter(|effect| !effect.decides) {
            let origin = &effect.origin;
            let position = origin.position.to_string();
            let at = self.config(&["stores", origin.store.as_str(), "ignorePaths", &position]);
            let (why, help) = if effect.matches {
                (
                    "has no effect: other rules decide for every file that it matches",
                    "remove it, or move it behind the rule that overrides it: the last match wins, and files below a dropped folder cannot be re-included",
                )
            } else {
                (
                    "matches no file",
                    "correct or remove it; paths are relative to the app, and brackets are literal",
                )
            };
            let message = format!(
                "the rule `{}` of `{}` {why}",
                origin.rule.escape_debug(),
                origin.store
            );
            self.find(FindingCode::IgnoreRule, at, message, help);
        }
    }

    fn problems(&mut self, problems: &[overlay::LayerProblem]) {
        for problem in problems {
            let help = problem.help().map(|help| help.to_string());
            let at = match problem {
                overlay::LayerProblem::LinkOutside { path, .. }
                | overlay::LayerProblem::LinkDangling { path, .. }
                | overlay::LayerProblem::LinkIgnored { path, .. }
                | overlay::LayerProblem::LinkCycle { path, .. }
                | overlay::LayerProblem::Special { path }
                | overlay::LayerProblem::Sparse { path, .. }
                | overlay::LayerProblem::Name { path } => path.clone(),
                overlay::LayerProblem::Clash { path, file, .. } => self.source(path, file),
            };
            let help = help.unwrap_or_default();
            self.find(
                FindingCode::Composition,
                (at, None),
                problem.to_string(),
                &help,
            );
        }
    }

    /// The file of `<store>/<app>/<path>` in the layer of `owner`.
    fn source(&self, path: &str, owner: &str) -> String {
        let mut parts = path.splitn(3, '/').skip(1);
        let (app, inside) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let folder = self
            .project
            .stores
            .get(owner)
            .and_then(|store| store.folder.as_deref());
        let folder = folder.unwrap_or("apps");
        format!("{folder}/{app}/{inside}")
    }

    fn compositions(&mut self, compositions: &[Composition]) {
        let mut by_store = BTreeMap::<&str, Vec<&Composition>>::new();
        for composition in compositions {
            by_store
                .entry(composition.unit.store.as_str())
                .or_default()
                .push(composition);
            self.own_files(composition);
            self.case(composition);
        }
        let mut texts = BTreeMap::<PathBuf, Vec<Import>>::new();
        let mut configs = ConfigFiles::new();
        for of_store in by_store.values() {
            for composition in of_store {
                self.config_paths(composition, of_store, &mut configs);
                self.imports(composition, of_store, &mut texts);
            }
        }
    }

    fn folder(&self, composition: &Composition, layer: usize) -> String {
        owner_folder(
            self.project,
            &composition.layers[layer],
            &composition.unit.app,
        )
    }

    fn own_files(&mut self, composition: &Composition) {
        for unused in &composition.unused {
            let folder = owner_folder(self.project, &unused.owner, &composition.unit.app);
            let message = format!(
                "`{folder}/{}` is not used: this file always comes from the base app",
                unused.path
            );
            let help = "remove it; move its additions to the base app or to a new app";
            let at = (format!("{folder}/{}", unused.path), None);
            self.find(FindingCode::OwnPackageJson, at, message, help);
        }
    }

    /// Paths that are the same on file systems without case (macOS, Windows).
    fn case(&mut self, composition: &Composition) {
        let mut known = BTreeMap::<String, &str>::new();
        let mut clashes = BTreeSet::new();
        for (path, entry) in &composition.entries {
            let ends = path
                .match_indices('/')
                .map(|(end, _)| end)
                .chain([path.len()]);
            for end in ends {
                let part = &path[..end];
                let other = *known.entry(part.to_lowercase()).or_insert(part);
                if other == part {
                    continue;
                }
                // A folder is one finding, and not one for each file below it.
                if !clashes.insert(part) {
                    break;
                }
                let file = format!("{}/{part}", self.folder(composition, entry.winner()));
                let message = format!(
                    "`{}` and `{}` of {} differ only by case",
                    other.escape_debug(),
                    part.escape_debug(),
                    composition.unit.app
                );
                let help = "rename one of the two: on macOS and Windows they are the same file";
                self.find(FindingCode::CaseClash, (file, None), message, help);
                break;
            }
        }
    }

    fn imports(
        &mut self,
        composition: &Composition,
        of_store: &[&Composition],
        texts: &mut BTreeMap<PathBuf, Vec<Import>>,
    ) {
        let app = &composition.unit.app;
        let root = &self.project.root;
        let out = root.join(".out").join(composition.unit.store.as_str());
        for (path, entry) in &composition.entries {
            if !is_source(path) {
                continue;
            }
            let file = format!("{}/{path}", self.folder(composition, entry.winner()));
            let source = root.join(&file);
            let found = texts.entry(source).or_insert_with(|| {
                let content = entry.read().unwrap_or_default();
                imports(&String::from_utf8_lossy(&content))
            });
            for import in found.clone() {
                let folder = Path::new(&**path).parent().unwrap_or(Path::new(""));
                let composed = out.join(app.as_str());
                let from_out = targets(&composed.join(folder), &import.specifier);
                if from_out[0].starts_with(&composed) {
                    continue;
                }
                let resolves = |path: &PathBuf| match self.composed(path, &out, of_store) {
                    // The build may write the file into the composed app.
                    PathTarget::App(..) => true,
                    PathTarget::Path(path) => path.starts_with(root) && path.is_file(),
                    PathTarget::Apps | PathTarget::Nothing(_) => false,
                };
                if from_out.iter().any(resolves) {
                    continue;
                }
                let is_there = |targets: &[PathBuf]| {
                    let mut in_project = targets.iter().filter(|path| path.starts_with(root));
                    in_project.any(|path| path.is_file())
                };
                let base = root.join("apps").join(app.as_str()).join(folder);
                let own = root.join(&file);
                let own = own.parent().unwrap_or(root);
                let from_apps = [base.as_path(), own]
                    .iter()
                    .any(|folder| is_there(&targets(folder, &import.specifier)));
                if from_apps {
                    let message = format!(
                        "the import `{}` resolves from `apps/{app}` and not from `.out/<store>/{app}`",
                        import.specifier.escape_debug()
                    );
                    let help = "import a workspace package by its name, or a file of another app of the store";
                    self.find(
                        FindingCode::Import,
                        (file.clone(), Some(import.line)),
                        message,
                        help,
                    );
                }
            }
        }
    }

    /// Overrides with the same content as the file they override, and overrides of removed files, which
    /// only the history shows.
    fn overrides(&mut self, repository: Option<&Repository>) -> Result<(), Error> {
        match repository {
            None => {
                let note = "the project is not in a git repository, so orphans and needless overrides were not checked";
                self.unchecked.push(note.into());
                return Ok(());
            }
            Some(repository) if repository.is_shallow() => {
                let note = "this clone is shallow, so orphans may be missed; fetch its history with `git fetch --unshallow`";
                self.unchecked.push(note.into());
            }
            Some(_) => {}
        }
        let stores: Vec<&Store> = self.project.stores.iter().collect();
        for one in drift(self.project, &stores, false)?.overrides {
            let from = one.inherited_file.clone().unwrap_or_default();
            match one.standing {
                OverrideState::Identical => {
                    let message = format!(
                        "`{}` has the same content as `{from}`, which it overrides",
                        one.file
                    );
                    let help = "remove it; the store inherits the same content";
                    self.find(
                        FindingCode::NeedlessOverride,
                        (one.file, None),
                        message,
                        help,
                    );
                }
                OverrideState::Orphan => {
                    let commit = one.commits.first();
                    let commit = commit
                        .and_then(|commit| commit.sha.get(..12))
                        .unwrap_or("the working tree");
                    let message = format!(
                        "`{}` overrides `{from}`, which was removed in {commit}",
                        one.file
                    );
                    let help = "remove it too, or move it if the overridden file was moved";
                    self.find(FindingCode::Orphan, (one.file, None), message, help);
                }
                OverrideState::Behind | OverrideState::Current => {}
            }
        }
        Ok(())
    }
}

/// Whether an id can be a part of a host name. As in RFC 1123: lower-case letters, digits and `-`, at most 63, no `-` at either end.
pub fn is_dns_label(id: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    id.len() <= 63
        && id.starts_with(is_word)
        && id.ends_with(is_word)
        && id.chars().all(|c| is_word(c) || c == '-')
}
