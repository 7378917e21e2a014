//! Writes compositions to `.out/<store>/<app>`. Only files that differ are written, each file
//! appears complete, and the store's manifest is written last.
//!
//! New files of all stores are first written to `.out/.tmp`, and are renamed into place only when
//! all of them are complete. So a full disk or an unreadable source leaves `.out` unchanged.
//! Before the renames, the affected paths are recorded beside the manifest, so that the next run
//! can repair what a killed run has left.

mod folders;
mod links;
mod manifest;
mod sources;
mod staging;
mod sync;
mod update;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use self::links::FolderLinks;
use self::manifest::ManifestFiles;
use self::sources::SourceFiles;
pub use self::staging::StagingFolder;
use self::staging::write_entry;
pub use self::sync::{SyncScope, keep_server_edits, put_in_step};
use self::update::{StagedStore, StoreUpdate};
use super::build::Built;
use super::failure::{Error, Io, StageError, StageResult};
use super::services::{PipelineOptions, Services};
use crate::disk;
use crate::event::{EventSubject, Stage};
use crate::overlay::Entry;
use crate::plan::{Plan, StorePlan};
use crate::store::{AppKind, StoreId, UnitId};

/// A composed app on disk.
#[derive(Debug, Clone)]
pub struct Workdir {
    /// Store and app.
    pub unit: UnitId,
    /// The kind of app.
    pub kind: AppKind,
    /// Its folder, absolute.
    pub path: PathBuf,
}

impl Workdir {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}

/// The changes that a compose would make under `.out`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComposeChanges {
    /// Paths under `.out` that would be written.
    pub write: Vec<String>,
    /// Paths under `.out` that would be removed.
    pub remove: Vec<String>,
}

/// Lists what composing would change, for `--check`. Writes nothing.
pub fn changes(plan: &Plan) -> Result<ComposeChanges, Io> {
    let mut changes = ComposeChanges::default();
    let top = links::top_changes(plan)?;
    let beside = |name: String| format!(".out/{name}");
    changes.write.extend(top.write.into_iter().map(beside));
    changes.remove.extend(top.remove.into_iter().map(beside));
    for store in &plan.stores {
        let (write, remove) = StoreUpdate::decide(plan, store)?.changes();
        let path = |path: String| format!(".out/{}/{path}", store.id);
        changes.write.extend(write.into_iter().map(path));
        changes.remove.extend(remove.into_iter().map(path));
    }
    Ok(changes)
}

/// Composes these stores.
pub fn run(
    plan: &Plan,
    stores: &[StorePlan],
    services: &Services,
    options: &PipelineOptions,
) -> Result<StageResult<Workdir>, Error> {
    let staging = StagingFolder::new(&plan.project)?;
    let decided: Vec<_> = stores
        .par_iter()
        .map(|store| {
            let unit = EventSubject::store(Stage::Compose, &store.id);
            let span = services.events.begin(&unit);
            (store, unit, span, StoreUpdate::decide(plan, store))
        })
        .collect();
    let works = decided.iter().filter_map(|(.., work)| work.as_ref().ok());
    let sources = SourceFiles::new(works.flat_map(StoreUpdate::entries));
    let staged: Vec<_> = decided
        .into_par_iter()
        .map(|(store, unit, span, work)| {
            let staged = work.and_then(|work| work.stage(&staging, &sources));
            (store, unit, span, staged)
        })
        .collect();
    if services.interrupt.stopped() {
        return Err(Error::Interrupted {
            stage: Stage::Compose,
            failures: Vec::new(),
        });
    }
    if !stores.is_empty() {
        links::put_top_in_place(plan)?;
    }
    // Without `--keep-going`, a failure in one store leaves all stores unchanged.
    let failed = staged
        .iter()
        .find_map(|(store, .., staged)| staged.is_err().then_some(&store.id));
    let failed = failed
        .filter(|_| !options.keep_going)
        .map(ToString::to_string);
    let results: Vec<_> = staged
        .into_par_iter()
        .map(|(store, unit, span, staged)| {
            if let (Ok(_), Some(because)) = (&staged, &failed) {
                span.skip(because);
                return (store, unit, Ok(()));
            }
            let result = staged.and_then(StagedStore::put_in_place);
            let note = |changed: &ChangedFiles| Some(changed.note(store));
            span.end(result.as_ref().map(note).map_err(ToString::to_string));
            (store, unit, result.map(|_| ()))
        })
        .collect();
    let mut settled = StageResult::default();
    for (store, unit, result) in results {
        let of_store = store.compositions.iter().map(|composition| Workdir {
            unit: composition.unit.clone(),
            kind: composition.kind,
            path: plan.workdir(&composition.unit),
        });
        match result {
            Ok(()) => settled.done.extend(of_store),
            Err(error) => settled.add(unit, Err(StageError::from(error))),
        }
    }
    Ok(settled)
}

/// Records composed files that a build has changed (Next.js edits `tsconfig.json`) as they are
/// now. The next compose keeps such a file until its composed content changes.
pub fn keep(plan: &Plan, built: &[Built]) -> Result<(), Io> {
    let mut of_stores: BTreeMap<&StoreId, Vec<&UnitId>> = BTreeMap::new();
    for unit in built.iter().map(Built::unit) {
        of_stores.entry(&unit.store).or_default().push(unit);
    }
    for store in &plan.stores {
        let Some(units) = of_stores.remove(&store.id) else {
            continue;
        };
        let manifest_files = ManifestFiles::new(&plan.project, store.id.as_str());
        let Some(mut manifest) = manifest_files.read()? else {
            continue;
        };
        let folder = plan.project.join(".out").join(store.id.as_str());
        let mut changed = false;
        for unit in units {
            changed |= manifest.record_current(&folder, unit.app.as_str());
        }
        if changed {
            manifest_files.write(&manifest)?;
        }
    }
    Ok(())
}

/// Writes one composed file or link again. Whatever is at `place` is removed first, so that
/// nothing is written through a symbolic link or into a file that has another hard link.
pub fn rewrite(entry: &Entry, place: &Path) -> Result<(), Io> {
    remove(place)?;
    if let Some(folder) = place.parent() {
        std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
    }
    write_entry(place, entry, &SourceFiles::new([entry].into_iter()), place).map(drop)
}

/// Removes a file, a link, or a folder with its content.
pub fn remove(path: &Path) -> Result<(), Io> {
    disk::remove(path).map_err(Io::at("remove", path))
}

/// How many paths of changed files [`ChangedFiles`] has.
pub const NAMED_FILES: usize = 3;

/// The numbers of files that a compose has changed in one store.
#[derive(Debug, Clone, Default)]
pub struct ChangedFiles {
    /// Files that were written.
    pub written: usize,
    /// Files that were removed.
    pub removed: usize,
    /// The first [`NAMED_FILES`] of these files, relative to the folder of the store. Empty if the whole
    /// folder was written.
    pub first: Vec<String>,
}

impl ChangedFiles {
    /// The numbers as text, with the number of all files of the store.
    pub fn note(&self, store: &StorePlan) -> String {
        let files: usize = store.compositions.iter().map(|one| one.entries.len()).sum();
        let noun = if files == 1 { "file" } else { "files" };
        match (self.written, self.removed) {
            (0, 0) => format!("{files} {noun}, nothing changed"),
            (written, 0) => format!("{files} {noun}, {written} written"),
            (written, removed) => format!("{files} {noun}, {written} written, {removed} removed"),
        }
    }
}
