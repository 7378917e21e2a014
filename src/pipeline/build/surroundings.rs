//! The surroundings of a task's folder while its script runs: results of upstream tasks, and the other
//! apps of its store. A shared app has them in its neutral folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::super::compose::FolderLinks;
use super::super::failure::Io;
use super::restore::RestoreError;
use super::result::{FolderSnapshot, TaskFolder};
use super::watch::OpenWatcher;
use crate::cache::Cache;
use crate::disk::Stamp;
use crate::pipeline::failure::StageError;
use crate::plan::{OptionalFile, Plan, TaskId};
use crate::store::AppName;

/// Puts the results of other apps that a shared app reads into its neutral folder.
pub fn prepare(
    plan: &Plan,
    id: TaskId,
    place: &TaskFolder,
    cache: &Cache,
) -> Result<(), StageError> {
    let store = place.folder.parent().unwrap_or(&place.folder).to_owned();
    FolderLinks::neutral(plan, &apps_beside(plan, id)).put_in_place(&store)?;
    for (sibling, is_read) in plan.siblings(id) {
        let beside = TaskFolder::beside(plan, id, sibling)?;
        let (Some(beside), true) = (beside, is_read) else {
            continue;
        };
        beside.clear()?;
        let mut needs = plan.task(id).needs.iter();
        let need = needs.find(|need| plan.task(**need).subject.unit() == Some(&sibling.unit));
        let Some(need) = need else { continue };
        // The result in the store's folder is in place already.
        let made = TaskFolder::new(plan, *need);
        let record = made.read();
        let entry = record.and_then(|record| cache.find(record.key?));
        match entry {
            Some(entry) => beside.restore(cache, &entry).or_else(|error| match error {
                RestoreError::Io(error) => Err(StageError::from(error)),
                _ => beside.copy_from(&made).map_err(StageError::from),
            })?,
            None => beside.copy_from(&made)?,
        }
    }
    Ok(())
}

/// The apps in the folder in which a task's script runs: those of its store, or in a neutral folder
/// its own and those that it reads.
pub fn apps_beside(plan: &Plan, id: TaskId) -> Vec<AppName> {
    let task = plan.task(id);
    let unit = task.subject.unit();
    let mut stores = plan.stores.iter();
    let store = stores.find(|store| unit.is_some_and(|unit| unit.store == store.id));
    if let Some(store) = store.filter(|_| !task.shared) {
        return store.apps.clone();
    }
    let read = plan.siblings(id).filter(|(_, is_read)| *is_read);
    let read = read.map(|(sibling, _)| sibling);
    let apps = read.chain(plan.composition_of(id));
    apps.map(|it| it.unit.app.clone()).collect()
}

/// The state of a task's surroundings before its script runs.
pub struct SurroundingsBefore {
    /// The results of all upstream tasks.
    results: Vec<(TaskId, FolderSnapshot)>,
    /// Folders in which no file may be added or removed.
    folders: Vec<(PathBuf, Option<Stamp>)>,
    /// The files directly in the store's folder.
    beside: BTreeMap<PathBuf, Option<Stamp>>,
    /// Files of the store's other apps that are not inputs of the task.
    others: OpenWatcher,
}

impl SurroundingsBefore {
    /// Records the state.
    pub fn new(plan: &Plan, id: TaskId) -> Result<Self, Io> {
        let snapshot = |need: TaskId| Ok((need, read_by(plan, id, need)?.snapshot()?));
        let folders = plan.watched_folders(id).into_iter();
        Ok(Self {
            results: plan
                .task(id)
                .upstream
                .iter()
                .copied()
                .map(snapshot)
                .collect::<Result<_, Io>>()?,
            folders: folders
                .map(|folder| (folder.clone(), Stamp::of(&folder)))
                .collect(),
            beside: files_in(&store_folder(plan, id)),
            others: OpenWatcher::begin(others(plan, id)),
        })
    }

    /// A path in the surroundings that has changed.
    pub fn changed(&self, plan: &Plan, id: TaskId) -> Result<Option<String>, Io> {
        for (need, before) in &self.results {
            let place = read_by(plan, id, *need)?;
            let now = place.snapshot()?;
            if let Some(path) = before.differs(&now) {
                let path = place.folder.join(path);
                let inside = path.strip_prefix(&plan.project).unwrap_or(&path);
                return Ok(Some(inside.display().to_string()));
            }
        }
        let inside = |path: &Path| {
            let inside = path.strip_prefix(&plan.project).unwrap_or(path);
            inside.display().to_string()
        };
        let now = files_in(&store_folder(plan, id));
        let is_other = |path: &&PathBuf| now.get(*path) != self.beside.get(*path);
        if let Some(path) = now.keys().chain(self.beside.keys()).find(is_other) {
            return Ok(Some(inside(path)));
        }
        let mut folders = self.folders.iter();
        let changed = folders.find(|(folder, stamp)| Stamp::of(folder) != *stamp);
        // A file was added and removed again; its name is not known.
        Ok(changed.map(|(folder, _)| format!("{}/", inside(folder))))
    }

    /// A file that the script has read although it is not an input.
    pub fn undeclared(self) -> Option<String> {
        let opened = self.others.end();
        let first = opened.names.first()?;
        Some(format!(
            "the script read `{first}`, which is not part of the cache key"
        ))
    }
}

/// The folder in which a task reads the result of another one.
pub fn read_by(plan: &Plan, id: TaskId, need: TaskId) -> Result<TaskFolder<'_>, Io> {
    let beside = match plan.composition_of(need) {
        Some(composition) => TaskFolder::beside(plan, id, composition)?,
        None => None,
    };
    Ok(beside.unwrap_or_else(|| TaskFolder::new(plan, need)))
}

/// Build results of the store's other apps, which are not inputs of the task. Apps whose script may run
/// at the same time are left out, because that script opens its own files.
fn others(plan: &Plan, id: TaskId) -> Vec<OptionalFile> {
    let mut files = Vec::new();
    for (sibling, _) in plan.siblings(id) {
        let upstream = &plan.task(id).upstream;
        let is_of_sibling = |task: &TaskId| plan.task(*task).subject.unit() == Some(&sibling.unit);
        if upstream.iter().any(is_of_sibling) || !plan.is_idle(&sibling.unit, id) {
            continue;
        }
        let folder = plan.workdir(&sibling.unit);
        let walk = WalkDir::new(&folder).into_iter().filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            !["node_modules", ".deploy", ".turbo", ".cache"].contains(&&*name)
        });
        for entry in walk.flatten().filter(|entry| !entry.file_type().is_dir()) {
            let inside = entry.path().strip_prefix(&folder).ok();
            let Some(path) = inside.and_then(Path::to_str) else {
                continue;
            };
            if sibling.entries.contains_key(path) {
                continue;
            }
            files.push(OptionalFile {
                name: format!("../{}/{path}", sibling.unit.app),
                place: entry.path().to_owned(),
            });
        }
    }
    files.extend(left_over(plan, id));
    files
}

/// Files in `.out` that belong to no app of the store.
fn left_over(plan: &Plan, id: TaskId) -> Vec<OptionalFile> {
    let store = store_folder(plan, id);
    let own = plan.task(id).subject.name();
    let apps: BTreeSet<&str> = plan
        .siblings(id)
        .map(|(sibling, _)| sibling.unit.app.as_str())
        .chain([own])
        .collect();
    let mut files = Vec::new();
    let Some(out) = store.parent().filter(|_| plan.composition_of(id).is_some()) else {
        return files;
    };
    let entries = std::fs::read_dir(&store).into_iter().flatten().flatten();
    let others = entries.filter(|entry| {
        let name = entry.file_name();
        !apps.contains(&*name.to_string_lossy())
    });
    let walks = others.flat_map(|entry| WalkDir::new(entry.path()).into_iter().flatten());
    let places = walks
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.is_file());
    let beside = files_in(out).into_keys();
    // Files behind links to the top of the project have other names in keys.
    let beside = beside.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_none_or(|name| !plan.links.top.contains(name))
    });
    for place in places.chain(beside) {
        let inside = place.strip_prefix(out).unwrap_or(&place);
        files.push(OptionalFile {
            name: format!(".out/{}", inside.display()),
            place,
        });
    }
    files
}

/// The folder of the store in which the task's script runs.
fn store_folder(plan: &Plan, id: TaskId) -> PathBuf {
    let folder = plan.project.join(plan.task(id).run_folder());
    folder.parent().map_or(folder.clone(), Path::to_owned)
}

/// The files and links directly in a folder.
fn files_in(folder: &Path) -> BTreeMap<PathBuf, Option<Stamp>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    files
        .map(|entry| (entry.path(), Stamp::of(&entry.path())))
        .collect()
}

/// Restores upstream results that the task's script has changed, and returns their tasks.
pub fn mend(plan: &Plan, id: TaskId, cache: &Cache) -> Result<Vec<TaskId>, StageError> {
    let mut mended = Vec::new();
    for need in &plan.task(id).upstream {
        let place = TaskFolder::new(plan, *need);
        let Some(key) = place.read().and_then(|record| record.key) else {
            continue;
        };
        // The folder of a package belongs to its developers.
        if place.composition.is_none() || place.holds(key, None).is_some() {
            continue;
        }
        let restored = cache.find(key).map(|entry| place.restore(cache, &entry));
        if !matches!(restored, Some(Ok(()))) {
            let reason = format!(
                "{} changed the files, and the result is not in the cache",
                plan.task(id).name()
            );
            let error = std::io::Error::other(reason);
            return Err(Io::at("restore the result in", &place.folder)(error).into());
        }
        mended.push(*need);
    }
    Ok(mended)
}
