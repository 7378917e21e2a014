//! Lint of the hierarchy: what is odd in config, folders and layers, and what to do about it.

mod finding;
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use miette::Diagnostic;

pub use self::finding::{CODES, Finding, FindingCode};
use self::imports::{Import, imports, is_source, targets};
use super::drift::{Standing, drift};
use super::{Error, owner_folder};
use crate::config::{self, FILE, NoticePlace, Project};
use crate::git::Repository;
use crate::overlay::{
    self, Composer, Composition, IgnoreRules, LayerReader, Layers, Owner, RuleOrigin,
};
use crate::store::Store;

/// Stores above one another, root not counted; more are hard to oversee.
const DEEPEST: usize = 3;

/// What was found, and what could not be looked for.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Everything odd, by file and line, each once.
    pub findings: Vec<Finding>,
    /// What was left out, and why.
    pub unchecked: Vec<String>,
}

/// Looks at everything that can be looked at.
pub fn check(root: &Path) -> Result<CheckReport, Error> {
    let project = match Project::load(root) {
        Ok(project) => project,
        Err(error) => {
            return Ok(CheckReport {
                findings: of_config(root, error)?,
                unchecked: vec!["the project cannot be read, so nothing else was looked at".into()],
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
    let lister = LayerReader::new(&project.root, repository.as_ref())?;
    let composer = Composer::new(&project, &lister);
    let stores: Vec<&Store> = project.stores.deployables().collect();
    let (layers, problems) = composer.layers(&stores, |_, _| None)?;
    check.rules(&stores, &layers);
    let complete = overlay::fail_on(problems);
    match complete.and_then(|()| composer.compose_listed(&stores, &layers)) {
        Ok(compositions) => check.compositions(&compositions),
        Err(overlay::Error::Files { problems }) => {
            check.problems(&problems);
            check.unchecked.push(
                "stores cannot be composed, so imports, case and own package files were not \
                 looked at"
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

/// A project that cannot be read is found to be so; anything else is an error.
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

    /// The place of a value of the config.
    fn config(&self, pointer: &[&str]) -> (String, Option<usize>) {
        (FILE.to_owned(), self.project.config_line(pointer))
    }

    /// A store's entry in the config, else its folder.
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
                    let help = "make the store's folder, mend the id, or remove the entry";
                    self.find(FindingCode::UnknownStore, self.config(&keys), message, help);
                }
                NoticePlace::Folder(folder) => {
                    let help = "mend the folder's name, or move it out of `apps/`";
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
                let message = format!("the store id `{}` is no DNS label", store.id);
                let help = "ids become parts of host names: lower-case letters, digits and `-`, at most 63";
                self.find(FindingCode::StoreId, self.store(store), message, help);
            }
            let lineage = self.project.stores.lineage(store);
            if lineage.len() > DEEPEST {
                let chain: Vec<_> = lineage.iter().map(|link| link.id.to_string()).collect();
                let message = format!(
                    "`{}` has {} stores above it: {}",
                    store.id,
                    lineage.len() - 1,
                    chain.join(" → ")
                );
                let help = "lift what its ancestors share into one template";
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
                        "give each store ports of its own",
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
                        "give each store a domain of its own",
                    );
                } else {
                    domains.insert(domain, id);
                }
            }
        }
    }

    /// Files beside a store's apps. Notes for people and for git belong there.
    fn outside_apps(&mut self) -> Result<(), Error> {
        for store in self.project.stores.iter() {
            let Some(folder) = &store.folder else {
                continue;
            };
            self.untaken(store);
            let path = self.project.root.join(folder);
            let reading = |source| Error::Read {
                path: folder.clone(),
                source,
            };
            for entry in std::fs::read_dir(&path).map_err(reading)? {
                let entry = entry.map_err(reading)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_note =
                    name.starts_with(".git") || Path::new(&name).extension() == Some("md".as_ref());
                if entry.file_type().map_err(reading)?.is_dir() || is_note {
                    continue;
                }
                let message = format!(
                    "`{folder}/{}` belongs to no app and is in no composition",
                    name.escape_debug()
                );
                let help = "move it into the folder of an app, or remove it";
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

    /// Folders for a frontend of a framework that neither the store nor one below it names.
    fn untaken(&mut self, store: &Store) {
        let project = self.project;
        let below = project.stores.deployables().filter(|other| {
            let lineage = project.stores.lineage(other);
            lineage.iter().any(|link| link.id == store.id)
        });
        let takers: Vec<_> = below.collect();
        for app in &store.apps {
            let has_it = |store: &&Store| project.apps_of(store).any(|one| one.name == *app);
            if takers.is_empty() || takers.iter().any(has_it) {
                continue;
            }
            let at = (store.folder_of(app).unwrap_or_default(), None);
            let message = format!(
                "`{}` is in no composition: the framework of `{}` is another one",
                at.0, takers[0].id
            );
            let help = "remove it, or mend `framework` in the config";
            self.find(FindingCode::OutsideApp, at, message, help);
        }
    }

    /// Rules without which every composition would be the same.
    fn rules(&mut self, stores: &[&Store], layers: &Layers) {
        // By store and position: whether it changes something, and whether it matches anything.
        let mut seen = BTreeMap::<(String, usize), (RuleOrigin, bool, bool)>::new();
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
            for (number, origin) in all.origins().iter().enumerate() {
                let key = (origin.store.to_string(), origin.position);
                let known = seen.entry(key).or_insert((origin.clone(), false, false));
                if known.1 {
                    continue;
                }
                let mut others = all.origins().to_vec();
                others.remove(number);
                let others = IgnoreRules::of(others);
                let mut differs = |path: &&str| {
                    known.2 |= all.matches(number, path);
                    all.drops(path).is_some() != others.drops(path).is_some()
                };
                known.1 = paths.iter().any(&mut differs);
            }
        }
        for (origin, changes, matches) in seen.into_values() {
            if changes {
                continue;
            }
            let position = origin.position.to_string();
            let at = self.config(&["stores", origin.store.as_str(), "ignorePaths", &position]);
            let (why, help) = if matches {
                (
                    "changes nothing: other rules decide about all that it matches",
                    "remove it, or move it behind the rule that undoes it: the last match wins, and nothing comes back below a dropped folder",
                )
            } else {
                (
                    "matches no file",
                    "mend or remove it; paths are relative to the app, and brackets are literal",
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

    /// Where the layer called `owner` has `<store>/<app>/<path>`.
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
        for of_store in by_store.values() {
            for composition in of_store {
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
                "`{folder}/{}` is not used: it always comes from the base app",
                unused.path
            );
            let help =
                "remove it; what it adds belongs into the base app, or into an app of its own";
            let at = (format!("{folder}/{}", unused.path), None);
            self.find(FindingCode::OwnPackageJson, at, message, help);
        }
    }

    /// Paths and folders that are one and the same where case does not count (macOS, Windows).
    fn case(&mut self, composition: &Composition) {
        let mut known = BTreeMap::<String, &str>::new();
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
                let file = format!("{}/{path}", self.folder(composition, entry.winner()));
                let message = format!(
                    "`{}` and `{}` of {} differ only by case",
                    other.escape_debug(),
                    part.escape_debug(),
                    composition.unit.app
                );
                let help = "rename one of the two: on macOS and Windows they are one file";
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
                // A sibling that is composed may have it once it is built.
                let is_sibling = of_store
                    .iter()
                    .any(|other| from_out[0].starts_with(out.join(other.unit.app.as_str())));
                let is_there = |targets: &[PathBuf]| {
                    let in_project = |path: &&PathBuf| {
                        path.starts_with(root) && !path.starts_with(root.join(".out"))
                    };
                    targets.iter().filter(in_project).any(|path| path.is_file())
                };
                if is_sibling || is_there(&from_out) {
                    continue;
                }
                let base = root.join("apps").join(app.as_str()).join(folder);
                let own = root.join(&file);
                let own = own.parent().unwrap_or(root);
                let from_apps = [base.as_path(), own]
                    .iter()
                    .any(|folder| is_there(&targets(folder, &import.specifier)));
                if from_apps {
                    let message = format!(
                        "`{}` is found from `apps/` and not from `.out/`, where the app lies one folder deeper",
                        import.specifier.escape_debug()
                    );
                    let help = "import a workspace package by its name, or a sibling app that the store has";
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

    /// Overrides that are the same as what they override, and those that override nothing any
    /// more, which only history tells.
    fn overrides(&mut self, repository: Option<&Repository>) -> Result<(), Error> {
        match repository {
            None => {
                let note =
                    "there is no repository, so orphans and needless copies were not looked for";
                self.unchecked.push(note.into());
                return Ok(());
            }
            Some(repository) if repository.is_shallow() => {
                let note =
                    "this clone is shallow, so orphans may be missed (`git fetch --unshallow`)";
                self.unchecked.push(note.into());
            }
            Some(_) => {}
        }
        let stores: Vec<&Store> = self.project.stores.iter().collect();
        for one in drift(self.project, &stores, false)?.overrides {
            let from = one.inherited_file.clone().unwrap_or_default();
            match one.standing {
                Standing::Identical => {
                    let message =
                        format!("`{}` is the same as `{from}`, which it overrides", one.file);
                    let help = "remove it; the store inherits the same";
                    self.find(
                        FindingCode::NeedlessOverride,
                        (one.file, None),
                        message,
                        help,
                    );
                }
                Standing::Orphan => {
                    let commit = one.commits.first();
                    let commit = commit
                        .and_then(|commit| commit.sha.get(..12))
                        .unwrap_or("the working tree");
                    let message = format!(
                        "`{}` was made to override `{from}`, which {commit} removed",
                        one.file
                    );
                    let help = "remove it too, or move it to where the file has gone";
                    self.find(FindingCode::Orphan, (one.file, None), message, help);
                }
                Standing::Behind | Standing::Current => {}
            }
        }
        Ok(())
    }
}

/// As in RFC 1123: lower-case letters, digits and `-`, at most 63, no `-` at either end.
fn is_dns_label(id: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    id.len() <= 63
        && id.starts_with(is_word)
        && id.ends_with(is_word)
        && id.chars().all(|c| is_word(c) || c == '-')
}
