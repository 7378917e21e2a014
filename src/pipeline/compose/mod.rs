//! Writing compositions to `.out/<store>/<app>`: only what differs, each file under a
//! temporary name first, the manifest last.
//!
//! A manifest that says `complete: false` is written before anything is touched. It names
//! every path that may exist from then on, so a run that was killed is repaired by the next.

mod manifest;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use self::manifest::{Manifest, Written};
use super::context::Context;
use super::failure::{Error, Failure, Io};
use super::lock::own_folder;
use crate::event::{Stage, Unit};
use crate::overlay::{Body, Composition, Entry, Kind};
use crate::plan::{Plan, StorePlan};
use crate::store::{AppKind, UnitId};

/// A composed app on disk.
#[derive(Debug, Clone)]
pub struct Workdir {
    /// Store and app.
    pub unit: UnitId,
    /// What the app is.
    pub kind: AppKind,
    /// Its folder, absolute.
    pub path: PathBuf,
}

/// What a compose would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths under `.out` that would be written.
    pub write: Vec<String>,
    /// Paths under `.out` that would be removed.
    pub remove: Vec<String>,
}

/// What composing would change, for `--check`. Writes nothing.
pub fn changes(plan: &Plan) -> Result<Changes, Io> {
    let mut changes = Changes::default();
    for store in &plan.stores {
        let work = Work::decide(plan, store)?;
        let path = |path: &str| format!(".out/{}/{path}", store.id);
        changes.write.extend(work.write.keys().map(|key| path(key)));
        changes.write.extend(
            work.links
                .iter()
                .filter(|link| link.differs())
                .map(|link| path(&link.key)),
        );
        changes
            .remove
            .extend(work.remove.iter().map(|key| path(key)));
    }
    Ok(changes)
}

/// Composes everything in the plan.
pub fn run(plan: &Plan, context: &Context) -> Result<Vec<Workdir>, Error> {
    let failures = Mutex::new(Vec::new());
    plan.stores.par_iter().for_each(|store| {
        if context.interrupt.stopped() {
            return;
        }
        let unit = Unit::store(Stage::Compose, &store.id);
        let note = |(written, removed): &(usize, usize)| {
            let files: usize = store.compositions.iter().map(|one| one.entries.len()).sum();
            Some(match (written, removed) {
                (0, 0) => format!("{files} files, nothing changed"),
                (written, 0) => format!("{files} files, {written} written"),
                (written, removed) => {
                    format!("{files} files, {written} written, {removed} removed")
                }
            })
        };
        let result = context.events.observe(&unit, note, || {
            let work = Work::decide(plan, store)?;
            work.carry_out()
        });
        if let Err(error) = result {
            let mut failures = failures
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            failures.push(Failure {
                unit,
                error: error.into(),
            });
        }
    });
    if context.interrupt.stopped() {
        return Err(Error::Interrupted {
            stage: Stage::Compose,
        });
    }
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.sort_by_key(|failure| failure.unit.to_string());
    if !failures.is_empty() {
        return Err(Error::Failed { failures });
    }
    Ok(plan
        .compositions()
        .map(|composition| Workdir {
            unit: composition.unit.clone(),
            kind: composition.kind,
            path: plan.workdir(&composition.unit),
        })
        .collect())
}

/// A link from a composed app to its base app's own `node_modules`.
struct NodeModules {
    key: String,
    link: PathBuf,
    /// None takes a link away that is no longer wanted.
    target: Option<PathBuf>,
}

impl NodeModules {
    fn differs(&self) -> bool {
        std::fs::read_link(&self.link).ok() != self.target
    }

    fn make(&self) -> Result<(), Io> {
        if !self.differs() {
            return Ok(());
        }
        let is_link = self
            .link
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            std::fs::remove_file(&self.link).map_err(Io::at("remove", &self.link))?;
        }
        let Some(target) = &self.target else {
            return Ok(());
        };
        // Tools keep caches in `node_modules/.cache`; a folder with nothing else gives way.
        if let Ok(mut entries) = std::fs::read_dir(&self.link) {
            let only_caches = entries.all(|entry| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            });
            if !only_caches {
                let error = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
                return Err(Io::at("replace", &self.link)(error));
            }
            std::fs::remove_dir_all(&self.link).map_err(Io::at("remove", &self.link))?;
        }
        std::os::unix::fs::symlink(target, &self.link).map_err(Io::at("link", &self.link))
    }
}

/// What has to be done for one store.
struct Work<'a> {
    /// `.out/<store>`.
    folder: PathBuf,
    manifest_path: PathBuf,
    old: Manifest,
    /// By path relative to `folder`: everything that is to be there in the end.
    wanted: BTreeMap<String, &'a Entry>,
    write: BTreeMap<String, &'a Entry>,
    remove: Vec<String>,
    links: Vec<NodeModules>,
    /// Files of units that take no part now and stay as they are.
    untouched: BTreeMap<String, Written>,
}

impl<'a> Work<'a> {
    fn decide(plan: &Plan, store: &'a StorePlan) -> Result<Self, Io> {
        let folder = plan.project.join(".out").join(store.id.as_str());
        let manifest_path = plan
            .project
            .join(".alokai/manifests")
            .join(format!("{}.json", store.id));
        let old = Manifest::read(&manifest_path)?;
        let mut wanted = BTreeMap::new();
        let mut links = Vec::new();
        for composition in &store.compositions {
            let app = &composition.unit.app;
            for (path, entry) in &composition.entries {
                wanted.insert(format!("{app}/{path}"), entry);
            }
            links.push(node_modules(&folder, composition));
        }
        let write = wanted
            .iter()
            .filter(|(path, entry)| !old.holds(path, entry, &folder.join(path)))
            .map(|(path, entry)| (path.clone(), *entry))
            .collect();
        let (mut remove, mut untouched) = (Vec::new(), BTreeMap::new());
        for (path, written) in &old.files {
            let app = path.split('/').next().unwrap_or_default();
            let is_composed = store
                .compositions
                .iter()
                .any(|one| one.unit.app.as_str() == app);
            let is_of_store = store.apps.iter().any(|one| one.as_str() == app);
            if wanted.contains_key(path) {
                continue;
            }
            if is_composed || !is_of_store {
                remove.push(path.clone());
            } else {
                untouched.insert(path.clone(), written.clone());
            }
        }
        Ok(Self {
            folder,
            manifest_path,
            old,
            wanted,
            write,
            remove,
            links,
            untouched,
        })
    }

    /// Writes and removes; returns how many files each.
    fn carry_out(self) -> Result<(usize, usize), Io> {
        if self.write.is_empty() && self.remove.is_empty() && self.old.complete {
            for link in &self.links {
                link.make()?;
            }
            return Ok((0, 0));
        }
        // `.alokai` hides itself from git, so it is made by its own rule.
        if let Some(project) = self.folder.parent().and_then(Path::parent) {
            own_folder(project)?;
        }
        let mut pending = self.old.clone();
        pending.complete = false;
        for path in self.write.keys() {
            pending.files.insert(path.clone(), Written::pending());
        }
        pending.write(&self.manifest_path)?;

        for path in &self.remove {
            self.remove_file(path)?;
        }
        let folders = Folders::new(&self.folder);
        for path in self.write.keys() {
            folders.make(path)?;
        }
        for link in &self.links {
            if let Some(folder) = link.key.rfind('/').map(|end| &link.key[..=end]) {
                folders.make(folder)?;
            }
            link.make()?;
        }
        self.write
            .par_iter()
            .try_for_each(|(path, entry)| write(&self.folder.join(path), entry))?;

        let mut manifest = Manifest {
            complete: true,
            files: self.untouched,
        };
        for (path, entry) in &self.wanted {
            let known = self
                .old
                .files
                .get(path)
                .filter(|_| !self.write.contains_key(path));
            let written = match known {
                Some(written) => written.clone(),
                None => {
                    let file = self.folder.join(path);
                    let metadata = file.symlink_metadata().map_err(Io::at("read", &file))?;
                    Written::new(entry, &metadata)
                }
            };
            manifest.files.insert(path.clone(), written);
        }
        manifest.write(&self.manifest_path)?;
        Ok((self.write.len(), self.remove.len()))
    }

    /// Removes a file, and the folders that it leaves empty.
    fn remove_file(&self, path: &str) -> Result<(), Io> {
        let file = self.folder.join(path);
        // Behind a link that something else has put there lies nothing of ours.
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        let mut above = self.folder.clone();
        for part in parent {
            above.push(part);
            if !above
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
            {
                return Ok(());
            }
        }
        match std::fs::remove_file(&file) {
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory
                ) => {}
            other => other.map_err(Io::at("remove", &file))?,
        }
        while above != self.folder && std::fs::remove_dir(&above).is_ok() {
            above.pop();
        }
        Ok(())
    }
}

fn node_modules(folder: &Path, composition: &Composition) -> NodeModules {
    let app = &composition.unit.app;
    NodeModules {
        key: format!("{app}/node_modules"),
        link: folder.join(app.as_str()).join("node_modules"),
        target: composition
            .own_node_modules
            .then(|| PathBuf::from(format!("../../../apps/{app}/node_modules"))),
    }
}

/// Makes real folders below a root: a file or a link in the way was not composed, and a write
/// through a link could leave `.out`.
struct Folders<'a> {
    root: &'a Path,
    made: Mutex<HashSet<String>>,
}

impl<'a> Folders<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            made: Mutex::default(),
        }
    }

    /// Makes the folders above the file `path`.
    fn make(&self, path: &str) -> Result<(), Io> {
        let mut made = self
            .made
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if made.is_empty() {
            std::fs::create_dir_all(self.root).map_err(Io::at("make the folder", self.root))?;
            made.insert(String::new());
        }
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if !made.insert(folder.to_owned()) {
                continue;
            }
            let full = self.root.join(folder);
            match full.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(_) => std::fs::remove_file(&full).map_err(Io::at("remove", &full))?,
                Err(_) => {}
            }
            std::fs::create_dir(&full).map_err(Io::at("make the folder", &full))?;
        }
        Ok(())
    }
}

/// Writes one file or link under a temporary name, then renames it.
fn write(path: &Path, entry: &Entry) -> Result<(), Io> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".alokai-{}-{number}.tmp", std::process::id()));
    let written = fill(&temporary, entry)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(Io::at("write", path)));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    // A person knows the file, not its temporary name.
    written.map_err(|mut error| {
        if error.path == temporary {
            path.clone_into(&mut error.path);
        }
        error
    })
}

fn fill(temporary: &Path, entry: &Entry) -> Result<(), Io> {
    use std::os::unix::fs::PermissionsExt;
    let failed = || Io::at("write", temporary);
    match (&entry.body, &entry.kind) {
        (_, Kind::Link { target }) => {
            std::os::unix::fs::symlink(&**target, temporary).map_err(failed())
        }
        (Body::Text(text), Kind::File { .. }) => {
            std::fs::write(temporary, &**text).map_err(failed())
        }
        (Body::Copy(source), Kind::File { .. }) => {
            std::fs::copy(source, temporary).map_err(|error| {
                // `copy` does not say which side failed.
                match std::fs::File::open(source) {
                    Err(error) => Io::at("read", source)(error),
                    Ok(_) => failed()(error),
                }
            })?;
            let metadata = temporary.metadata().map_err(failed())?;
            let mode = metadata.permissions().mode();
            if mode & 0o200 == 0 {
                // A build may have to write over it, as Next.js does with `tsconfig.json`.
                let permissions = std::fs::Permissions::from_mode(mode | 0o200);
                std::fs::set_permissions(temporary, permissions).map_err(failed())?;
            }
            Ok(())
        }
        (Body::Link, Kind::File { .. }) => Ok(()),
    }
}
