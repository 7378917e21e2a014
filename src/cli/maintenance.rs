//! `store maintenance`: a page instead of a store.

use std::path::Path;

use super::arguments::Global;
use super::arguments::live::{MaintainedStores, MaintenanceCommand};
use super::listing::stored_records;
use super::operation::RecordedOperation;
use super::store_targets::StoreTargets;
use super::{Error, answer, environment};
use crate::error::Error as AnyError;
use crate::ledger::StoreEvent;
use crate::release::{self, ReleaseJournal, locked};
use crate::store::Store;
use crate::target::Target;

/// The page that is shown without `--page`.
const PAGE: &str = include_str!("maintenance.html");

pub fn maintenance(global: &Global, command: &MaintenanceCommand) -> Result<(), AnyError> {
    match command {
        MaintenanceCommand::On(options) => {
            let page = match &options.page {
                Some(path) => read(path)?,
                None => PAGE.to_owned(),
            };
            change_all(global, &options.target, Some(&page))
        }
        MaintenanceCommand::Off(options) => change_all(global, options, None),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let page = std::fs::read_to_string(path).map_err(|source| Error::Page {
        path: path.to_owned(),
        source,
    })?;
    if page.trim().is_empty() {
        return Err(Error::EmptyPage {
            path: path.to_owned(),
        });
    }
    Ok(page)
}

fn change_all(
    global: &Global,
    options: &MaintainedStores,
    page: Option<&str>,
) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.chosen())?;
    for store in targets.named()? {
        change(&targets, store, page)?;
    }
    Ok(())
}

fn change(targets: &StoreTargets, store: &Store, page: Option<&str>) -> Result<(), AnyError> {
    let (target, id) = (targets.of(store)?, &store.id);
    if !target.capabilities().maintenance {
        return Err(Error::NoMaintenance {
            target: target.name(),
            store: id.clone(),
        }
        .into());
    }
    let was_shown = is_shown(targets, store, &*target, page.is_some())?;
    if page.is_none() && !was_shown {
        return answer(&format!("{id}: maintenance is already off\n"));
    }
    let name = match page {
        Some(_) => "maintenance on",
        None => "maintenance off",
    };
    let operation = RecordedOperation::start(&targets.project, id, target.name(), name);
    let (records, actor, services) = (
        targets.registry.live_records(&targets.project),
        environment::actor(),
        targets.registry.services(),
    );
    let journal = ReleaseJournal {
        records: &records,
        store: id,
        target: target.name(),
        actor: &actor,
        run: Some(operation.id()),
        events: &services.events,
    };
    let changing = async {
        target.maintenance(id, page).await?;
        let on = page.is_some();
        journal.event(StoreEvent::Maintenance { on }, None, None, None);
        Ok(())
    };
    let changed = locked(&*target, name, &journal, changing);
    let changed = targets.registry.wait(changed);
    let failure = changed.as_ref().err().map(ToString::to_string);
    operation.end(failure.as_deref(), None);
    targets.registry.share(&targets.project, id);
    changed?;
    answer(&match (page, was_shown) {
        (None, _) => format!("{id}: maintenance is off\n"),
        (Some(_), false) => {
            format!("{id}: maintenance is on, and visitors see a page with status 503\n")
        }
        (Some(_), true) => format!("{id}: maintenance was already on; the page was replaced\n"),
    })
}

/// Whether a page is shown instead of the store, as the target reports or the records say. Fails if a release
/// is needed and none is live: without it, the store has no address for a page.
fn is_shown(
    targets: &StoreTargets,
    store: &Store,
    target: &dyn Target,
    needs_release: bool,
) -> Result<bool, AnyError> {
    let records = stored_records(&targets.project)?;
    let recorded = records.targets();
    let recorded = recorded.get(&store.id, target.name());
    let is_recorded = recorded.is_some_and(|it| it.state.maintenance.is_some());
    if !target.capabilities().observes {
        return Ok(is_recorded);
    }
    let observed = targets.registry.wait(target.observe(&store.id));
    let observed = observed.map_err(release::Error::from)?;
    if needs_release && observed.active.is_none() {
        return Err(Error::NothingLive {
            store: store.id.clone(),
            target: target.name(),
        }
        .into());
    }
    // If another program has removed the page, the records still say that it is shown, and `off` corrects
    // them.
    Ok(observed.maintenance || (!needs_release && is_recorded))
}
