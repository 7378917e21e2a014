//! What lies around a task's folder while its script runs: results of the tasks before it, and
//! the other apps of its store. A shared app has them in its neutral folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::compose::NodeModules;
use super::super::failure::Io;
use super::opened::Watch;
use super::result::{Place, RestoreError, Snapshot};
use crate::cache::Cache;
use crate::files::Stamp;
use crate::overlay::Composition;
use crate::pipeline::failure::StageError;
use crate::plan::{OptionalFile, Plan, TaskId};

/// Puts everything into the neutral folder that a shared app sees beside its own files.
pub fn prepare(plan: &Plan, id: TaskId, place: &Place, cache: &Cache) -> Result<(), StageError> {
    let store = place.folder.parent().unwrap_or(&place.folder).to_owned();
    link_modules(&store, plan.composition_of(id))?;
    for (sibling, is_read) in plan.siblings(id) {
        let beside = Place::beside(plan, id, sibling)?;
        let (Some(beside), true) = (beside, is_read) else {
            continue;
        };
        beside.clear()?;
        link_modules(&store, Some(sibling))?;
        let mut needs = plan.task(id).needs.iter();
        let need = needs.find(|need| plan.task(**need).subject.unit() == Some(&sibling.unit));
        let Some(need) = need else { continue };
        // The store's own has just been made or taken.
        let made = Place::new(plan, *need);
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

fn link_modules(store: &Path, composition: Option<&Arc<Composition>>) -> Result<(), Io> {
    let Some(composition) = composition else {
        return Ok(());
    };
    let links = NodeModules::of(store, composition);
    if links.differs() {
        links.make_in(store)?;
    }
    Ok(())
}

/// How everything around a task was before its script ran.
pub struct Before {
    /// Results of the tasks before it, and of those before them.
    results: Vec<(TaskId, Snapshot)>,
    /// The top of the project and the folders of packages.
    folders: Vec<(PathBuf, Option<Stamp>)>,
    /// Composed apps of the store that are in no key of the task.
    others: Watch,
}

impl Before {
    /// Looks at everything.
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
            others: Watch::begin(others(plan, id)),
        })
    }

    /// A path around the task that is not as it was.
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
        let mut folders = self.folders.iter();
        let changed = folders.find(|(folder, stamp)| Stamp::of(folder) != *stamp);
        Ok(changed.map(|(folder, _)| folder.display().to_string()))
    }

    /// What the script has read of apps that are not in its key, if it has.
    pub fn undeclared(self) -> Option<String> {
        let opened = self.others.end();
        let first = opened.names.first()?;
        Some(format!(
            "the script has read `{first}`, a file of an app that is not part of its key"
        ))
    }
}

/// Where a task reads the result of another.
pub fn read_by(plan: &Plan, id: TaskId, need: TaskId) -> Result<Place<'_>, Io> {
    let beside = match plan.composition_of(need) {
        Some(composition) => Place::beside(plan, id, composition)?,
        None => None,
    };
    Ok(beside.unwrap_or_else(|| Place::new(plan, need)))
}

/// Composed files of the store's apps that the task is not expected to read. Apps with a script
/// of their own in this run are left out: it may open them at the same time.
fn others(plan: &Plan, id: TaskId) -> Vec<OptionalFile> {
    let has_task = |unit| {
        plan.tasks
            .iter()
            .any(|task| task.subject.unit() == Some(unit))
    };
    let others = plan
        .siblings(id)
        .filter(|(sibling, is_read)| !is_read && !has_task(&sibling.unit));
    let files = others.flat_map(|(composition, _)| {
        let folder = plan.workdir(&composition.unit);
        let app = composition.unit.app.clone();
        composition.entries.keys().map(move |path| OptionalFile {
            name: format!("../{app}/{path}"),
            place: folder.join(&**path),
        })
    });
    files.collect()
}
