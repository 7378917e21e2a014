//! `store builds prune`: removes the images of old builds.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::arguments::transfer::BuildPruneOptions;
use super::ask_targets::{Answer, TargetsByKind, ask_each, observe};
use super::builds_transfer::{failed, place_of};
use super::environment::{self, tell};
use super::listing::{check_stores, records};
use super::run::document;
use super::shared_records::RegistryAccess;
use super::{Error, answer};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::ledger::{
    self, BuildRecord, EventRecord, ImagePlace, LogFolder, NeededImages, PruneChoice, Record,
    RecordFolder, RecordId, RecordSet, RetentionRules, StoreEvent, StoredRecord, build_size,
    choose_builds, images_of, log_of,
};
use crate::pipeline::ProjectLock;
use crate::plan::LOCAL_REGISTRY;
use crate::store::{StoreId, TargetKind};
use crate::target::TargetContext;

/// Blobs of a layout that other projects may write to stay for this time after their last use.
const UNUSED_FOR: Duration = Duration::from_hours(24);

/// The same for the layout of this project. Commands without a build write records to it, and do not hold
/// the lock of the project: the blobs first, and then the index.
const UNUSED_HERE_FOR: Duration = Duration::from_hours(1);

pub fn prune(
    project: &Arc<Project>,
    registry: &RegistryAccess,
    console: String,
    options: &BuildPruneOptions,
) -> Result<(), AnyError> {
    if (options.keep, options.older_than, options.max_size) == (None, None, None) {
        return Err(Error::NoPruneRule.into());
    }
    let services = registry.services();
    // No run of this project uses an image while it is removed.
    let take = || ProjectLock::take(&project.root, &services.events, &services.interrupt);
    let _lock = (!options.dry_run).then(take).transpose()?;
    let all = records(project, registry)?;
    check_stores(project, &all, &options.stores)?;
    let rules = RetentionRules {
        keep: options.keep.unwrap_or_default(),
        older_than: options.older_than.unwrap_or_default(),
        max_bytes: options.max_size,
        window: project.settings.deploy.keep.into(),
    };
    let is_wanted = |store: &StoreId| {
        let stores = &options.stores;
        stores.is_empty() || stores.iter().any(|id| id == store.as_str())
    };
    let live = what_is_live(project, registry, console, &all, &is_wanted);
    let mut choice = choose_builds(&all, &rules, &live.releases, Timestamp::now());
    choice.removed.retain(|build| is_wanted(&build.store));
    choice.keep_stores(&live.unknown);
    let not_removed = if options.dry_run {
        BTreeSet::new()
    } else {
        remove(project, registry, &all, &choice)?
    };
    choice
        .removed
        .retain(|build| !not_removed.contains(&build.id));
    if options.json {
        return document(&report(&choice, options.dry_run));
    }
    show(&choice, options.dry_run)
}

/// What the targets have, whatever the records of this machine say.
#[derive(Default)]
struct LiveReleases {
    /// The releases.
    releases: BTreeSet<RecordId>,
    /// The stores of which it is not known which builds are live.
    unknown: BTreeSet<StoreId>,
}

/// Asks the targets of the stores. A target that does not answer, and a release that the records do not
/// have, protect all builds of the store.
fn what_is_live(
    project: &Arc<Project>,
    registry: &RegistryAccess,
    console: String,
    records: &RecordSet,
    is_wanted: &dyn Fn(&StoreId) -> bool,
) -> LiveReleases {
    let context = TargetContext {
        project: Arc::clone(project),
        services: registry.services(),
        console,
        plan: None,
        local: environment::local_client(&project.root),
        examines: false,
    };
    let recorded = records.targets();
    let mut targets = TargetsByKind::new(&context);
    let mut known = Vec::new();
    let stores = project.stores.deployables();
    for store in stores.filter(|store| is_wanted(&store.id)) {
        let Some(deployment) = &store.deployment else {
            continue;
        };
        let own = project.target_of(deployment);
        known.push((store.id.clone(), targets.of(own)));
        let has_other = own != TargetKind::Local;
        if has_other && recorded.get(&store.id, TargetKind::Local.name()).is_some() {
            known.push((store.id.clone(), targets.of(TargetKind::Local)));
        }
    }
    let mut live = LiveReleases::default();
    for (store, answer) in registry.wait(ask_each(known, observe)) {
        let reason = match answer {
            Answer::Given(observed) => {
                let observed = observed.unwrap_or_default();
                let active = observed.active.into_iter();
                let staged = observed.staged.into_iter().map(|it| it.release);
                let running: Vec<_> = active.chain(staged).collect();
                let missing = running.iter().find(|it| records.release(it).is_none());
                let reason = missing.map(|release| {
                    format!("no record has the release {release}, which the target has")
                });
                live.releases.extend(running);
                live.releases.extend(observed.kept);
                reason
            }
            Answer::Missing(reason) => {
                Some(format!("its target does not say what is live: {reason}"))
            }
        };
        if let Some(reason) = reason {
            tell(&format!("note: no image of `{store}` is removed: {reason}"));
            live.unknown.insert(store);
        }
    }
    live
}

fn report(choice: &PruneChoice, is_dry: bool) -> serde_json::Value {
    let removed = choice.removed.iter();
    let removed = removed
        .map(|build| json!({ "id": build.id, "storeId": build.store, "bytes": build_size(build) }));
    let kept = choice.kept.iter();
    let kept = kept.map(|(build, because)| {
        json!({ "id": build.id, "storeId": build.store, "because": because.text() })
    });
    json!({
        "schemaVersion": 1,
        "dryRun": is_dry,
        "removed": removed.collect::<Vec<_>>(),
        "kept": kept.collect::<Vec<_>>(),
    })
}

fn show(choice: &PruneChoice, is_dry: bool) -> Result<(), AnyError> {
    if choice.removed.is_empty() {
        tell("no build is removed");
        return Ok(());
    }
    let mut text = String::new();
    for build in &choice.removed {
        let size = bytes(build_size(build));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}  {}  {size}", build.id, build.store);
    }
    answer(&text)?;
    let count = choice.removed.len();
    let builds = if count == 1 { "build" } else { "builds" };
    tell(&if is_dry {
        format!("the images of {count} {builds} would be removed")
    } else {
        format!("the images of {count} {builds} are removed")
    });
    Ok(())
}

/// Removes images and logs, and records it. Returns the builds whose images could not be removed.
fn remove(
    project: &Project,
    registry: &RegistryAccess,
    records: &RecordSet,
    choice: &PruneChoice,
) -> Result<BTreeSet<RecordId>, AnyError> {
    let needed = NeededImages::new(records, choice);
    let mut not_removed = BTreeSet::new();
    let mut told = BTreeSet::new();
    for build in &choice.removed {
        let mut is_removed = true;
        for (name, digest) in images_of(build) {
            if needed.has(&name, digest) {
                continue;
            }
            if !registry.may_remove_from(&name) {
                is_removed = false;
                if told.insert(name.place.clone()) {
                    tell(&format!(
                        "note: `{}` is not an image layout of this project, so nothing is removed from it",
                        name.place
                    ));
                }
                continue;
            }
            let Some(place) = place_of(project, registry, &name)? else {
                continue;
            };
            let removing = place.remove(&name, digest);
            if !registry.wait(removing).map_err(failed)? {
                is_removed = false;
                if told.insert(name.place.clone()) {
                    tell(&format!(
                        "note: `{}` does not remove images for this account; use the retention of the registry",
                        name.place
                    ));
                }
            }
        }
        if is_removed {
            record(project, build)?;
        } else {
            not_removed.insert(build.id.clone());
        }
    }
    sweep_layouts(project, registry, choice)?;
    remove_logs(project, records, choice, &not_removed)?;
    let removed = choice.removed.iter();
    let stores: BTreeSet<_> = removed.map(|build| &build.store).collect();
    for store in stores {
        registry.share(project, store);
    }
    Ok(not_removed)
}

/// Removes the blobs that no image of a layout needs any more.
fn sweep_layouts(
    project: &Project,
    registry: &RegistryAccess,
    choice: &PruneChoice,
) -> Result<(), AnyError> {
    let images = choice.removed.iter().flat_map(|build| images_of(build));
    let layouts =
        images.filter(|(name, _)| name.folder().is_some() && registry.may_remove_from(name));
    let mut swept = BTreeSet::new();
    for (name, _) in layouts {
        if !swept.insert(name.place.clone()) {
            continue;
        }
        if let Some(ImagePlace::Layout(layout)) = place_of(project, registry, &name)? {
            let is_own = name.place == LOCAL_REGISTRY;
            let unused_for = if is_own { UNUSED_HERE_FOR } else { UNUSED_FOR };
            let swept = layout.sweep(unused_for);
            swept.map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

fn remove_logs(
    project: &Project,
    records: &RecordSet,
    choice: &PruneChoice,
    not_removed: &BTreeSet<RecordId>,
) -> Result<(), AnyError> {
    let removed = choice.removed.iter();
    let removed: BTreeSet<_> = removed
        .map(|build| &build.id)
        .filter(|id| !not_removed.contains(id))
        .collect();
    let others = records
        .iter()
        .filter(|it| !removed.contains(it.record.id()));
    let needed: BTreeSet<_> = others
        .filter_map(|it| Some(&log_of(&it.record)?.digest))
        .collect();
    let logs = LogFolder::of_project(&project.root);
    for build in &choice.removed {
        if let Some(log) = &build.log
            && removed.contains(&build.id)
            && !needed.contains(&log.digest)
        {
            logs.remove(log).map_err(ledger::Error::from)?;
        }
    }
    Ok(())
}

/// Records that the images of a build were removed.
fn record(project: &Project, build: &BuildRecord) -> Result<(), AnyError> {
    let removed = StoreEvent::ImagesRemoved {
        build: build.id.clone(),
    };
    let event = EventRecord::new(build.store.clone(), removed, environment::actor());
    let folder = RecordFolder::of_project(&project.root);
    if let Ok(event) = StoredRecord::new(Record::Event(event)) {
        folder.append(&event).map_err(ledger::Error::from)?;
    }
    Ok(())
}
