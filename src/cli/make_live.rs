//! `store release`, `store rollback`, `store unpin` and `store unstage`: releases without a build.

use std::sync::Arc;

use serde_json::json;

use super::arguments::Global;
use super::arguments::flow::{MakeLiveOptions, OneStoreOptions, RollbackOptions, UnstageOptions};
use super::arguments::questions::ChosenTargets;
use super::environment;
use super::listing::{CellFormat, cut, records, short_commit};
use super::live_records::LiveRecords;
use super::operation::RecordedOperation;
use super::run::{document, live};
use super::store_targets::StoreTargets;
use super::{Error, answer};
use crate::error::Error as AnyError;
use crate::ledger::{Happening, Record, RecordSet, ReleaseReason};
use crate::pipeline;
use crate::release::{
    self, Candidate, Chosen, Flow, FlowOptions, FlowResult, ReleaseOrder, Situation, StoreRun,
    Wish, ancestry_of, candidates, chosen, copy_forward, earlier, missing_images, new_release,
};
use crate::report::Detail;
use crate::store::{Store, StoreId};
use crate::target::Target;

/// One store at its target.
struct Workplace<'a> {
    targets: &'a StoreTargets,
    store: &'a Store,
    target: Arc<dyn Target>,
    records: LiveRecords,
    known: RecordSet,
    operation: &'static str,
    allow_older: bool,
}

/// Works on the store of the command line, with events on the screen.
fn at_store(
    global: &Global,
    options: &OneStoreOptions,
    operation: &'static str,
    allow_older: bool,
    work: impl FnOnce(&Workplace) -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    live(options.output.json, Detail::Short, |live| {
        let stores = [options.store.clone()];
        let chosen = ChosenTargets {
            stores: &stores,
            local: options.local,
            access: &options.access,
        };
        let targets = StoreTargets::with_events(global, chosen, Some(&live))?;
        let stores = targets.named()?;
        let store = *stores.first().ok_or_else(|| Error::NoStore {
            id: options.store.clone(),
            nearest: None,
        })?;
        let target = targets.of(store)?;
        let known = records(&targets.project, &targets.registry)?;
        work(&Workplace {
            targets: &targets,
            store,
            target,
            records: targets.registry.live_records(&targets.project),
            known,
            operation,
            allow_older,
        })
    })
}

impl Workplace<'_> {
    fn id(&self) -> &StoreId {
        &self.store.id
    }

    fn options(&self) -> FlowOptions {
        FlowOptions {
            keep_going: false,
            allow_older: self.allow_older,
            waves: Vec::new(),
            actor: environment::actor(),
            operation: self.operation.to_owned(),
            scripts: self.targets.scripts.clone(),
        }
    }

    /// Does something with the flow of this store, between the records of its start and its end.
    fn recorded<T>(&self, work: impl FnOnce(&Flow) -> Result<T, AnyError>) -> Result<T, AnyError> {
        let project = &self.targets.project;
        let ancestry = ancestry_of(&project.root);
        let services = self.targets.registry.services();
        let flow = Flow {
            project,
            plan: None,
            services: &services,
            records: &self.records,
            ancestry: &ancestry,
            options: self.options(),
        };
        let target = self.target.name();
        let operation = RecordedOperation::start(project, self.id(), target, self.operation);
        let result = work(&flow);
        operation.end(result.as_ref().err().map(ToString::to_string), None);
        self.targets.registry.share(project, self.id());
        result
    }

    /// What the store has now.
    fn situation(&self) -> Result<Situation, AnyError> {
        let project = &self.targets.project;
        let ancestry = ancestry_of(&project.root);
        let services = self.targets.registry.services();
        let flow = Flow {
            project,
            plan: None,
            services: &services,
            records: &self.records,
            ancestry: &ancestry,
            options: self.options(),
        };
        let run = StoreRun::new(&flow, &*self.target, self.id());
        Ok(self.targets.registry.wait(run.observe())?)
    }

    /// Refuses a release whose images are gone.
    fn check_images(&self, candidate: &Candidate) -> Result<(), AnyError> {
        let apps = self.missing(candidate)?;
        if apps.is_empty() {
            return Ok(());
        }
        Err(release::Error::ImagesGone {
            store: self.id().clone(),
            release: candidate.release.id.clone(),
            apps,
        }
        .into())
    }

    fn missing(&self, candidate: &Candidate) -> Result<Vec<crate::store::AppName>, AnyError> {
        let services = self.targets.registry.services();
        let asked = missing_images(&self.targets.project.root, &services, candidate.build);
        Ok(self.targets.registry.wait(asked)?)
    }

    /// Carries out one order.
    fn carry_out(&self, order: ReleaseOrder) -> Result<(), AnyError> {
        let result = self.recorded(|flow| {
            let result = self.targets.registry.wait(flow.run(vec![order]));
            ended(result, flow)
        })?;
        for done in &result.done {
            let address = done.address.as_deref().unwrap_or_default();
            let state = if done.is_active { "live" } else { "staged" };
            let line = format!("{}: {} is {state}  {address}", done.store, done.release.id);
            answer(&format!("{}\n", line.trim_end()))?;
        }
        Ok(())
    }
}

/// The error of a flow, if one of its stores failed.
pub fn ended(result: FlowResult, flow: &Flow) -> Result<FlowResult, AnyError> {
    let mut failures = result.failed;
    if flow.services.interrupt.stopped() {
        failures.retain(|failure| !failure.error.is_interruption());
        return Err(pipeline::Error::Interrupted {
            stage: crate::event::Stage::Deploy,
            failures,
        }
        .into());
    }
    if failures.is_empty() {
        return Ok(FlowResult {
            failed: failures,
            ..result
        });
    }
    Err(pipeline::Error::Failed { failures }.into())
}

pub fn release(global: &Global, options: &MakeLiveOptions) -> Result<(), AnyError> {
    let allow_older = options.allow_older;
    at_store(global, &options.place, "release", allow_older, |place| {
        let target = Arc::clone(&place.target);
        let wanted = chosen(&place.known, place.id(), target.name(), &options.id)?;
        let actor = environment::actor();
        let (build, release, is_recorded) = match wanted {
            Chosen::Release(candidate) => {
                place.check_images(&candidate)?;
                (candidate.build.clone(), candidate.release.clone(), true)
            }
            Chosen::Build(build) => {
                let settings = place.known.latest_release(place.id(), target.name());
                let reason = ReleaseReason::Promote;
                let release = new_release(build, target.name(), reason, settings, &actor);
                let candidate = Candidate {
                    release: &release,
                    build,
                };
                place.check_images(&candidate)?;
                (build.clone(), release, false)
            }
        };
        place.carry_out(ReleaseOrder {
            target,
            build,
            release,
            is_recorded,
            wish: Wish::Release,
        })
    })
}

pub fn rollback(global: &Global, options: &RollbackOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "rollback", true, |place| {
        let now = place.situation()?;
        let active = now.active.as_ref();
        let all = candidates(&now.records, &now.state, active);
        let default = earlier(&now.records, &now.state, active);
        if options.dry_run {
            return list(place, &all, default.as_ref(), options.place.output.json);
        }
        let wanted = match &options.id {
            Some(id) => {
                let found = now.records.find(id).map_err(crate::ledger::Error::from);
                let found = found.map_err(release::Error::from)?.id().clone();
                all.iter().find(|it| it.release.id == found).copied()
            }
            None => default,
        };
        let wanted = wanted.ok_or_else(|| release::Error::NoEarlier {
            store: place.id().clone(),
            candidates: lines(place, &all, None),
        })?;
        place.check_images(&wanted)?;
        let live = active.and_then(|active| match now.records.get(active) {
            Some(Record::Release(live)) => Some(live),
            _ => None,
        });
        let settings = match live {
            Some(live) if options.current_settings => live,
            _ => wanted.release,
        };
        place.carry_out(ReleaseOrder {
            target: Arc::clone(&place.target),
            build: wanted.build.clone(),
            release: copy_forward(wanted, settings, &environment::actor()),
            is_recorded: false,
            wish: Wish::Rollback,
        })
    })
}

/// Lists the releases to which a rollback can go.
fn list(
    place: &Workplace,
    all: &[Candidate],
    default: Option<&Candidate>,
    json: bool,
) -> Result<(), AnyError> {
    if json {
        let releases: Result<Vec<_>, AnyError> = all
            .iter()
            .map(|it| {
                Ok(json!({
                    "id": it.release.id,
                    "build": it.build.id,
                    "commit": it.build.commit,
                    "settings": it.release.settings,
                    "missingImages": place.missing(it)?,
                    "isDefault": default.is_some_and(|default| default.release.id == it.release.id),
                }))
            })
            .collect();
        return document(&json!({
            "schemaVersion": 1, "storeId": place.id(), "releases": releases?,
        }));
    }
    if all.is_empty() {
        return answer(&format!(
            "{}: no earlier release was live and stayed healthy\n",
            place.id()
        ));
    }
    let text = lines(place, all, default);
    answer(&format!("{}\n", text.trim_start_matches('\n')))?;
    answer("Dry run: nothing was changed.\n")
}

/// One line for each release: its id, age, commit, and whether its images exist.
fn lines(place: &Workplace, all: &[Candidate], default: Option<&Candidate>) -> String {
    let format = CellFormat::new(all.iter().map(|it| &it.release.id));
    let each = all.iter().map(|it| {
        let commit = it.build.commit.as_ref();
        let commit = commit.map_or_else(String::new, |commit| {
            let subject = commit.subject.as_deref().unwrap_or_default();
            format!("{} {}", short_commit(&commit.sha), subject.escape_debug())
        });
        let images = match place.missing(it) {
            Ok(missing) if missing.is_empty() => "",
            Ok(_) => "  (images are gone)",
            Err(_) => "  (images not checked: the registry does not answer)",
        };
        let is_default = default.is_some_and(|default| default.release.id == it.release.id);
        let mark = if is_default { "->" } else { "  " };
        let (id, age) = (
            format.id(&it.release.id),
            format.age(it.release.id.made_at()),
        );
        cut(&format!("\n{mark} {id}  {age:<11}  {commit}{images}"))
    });
    each.collect()
}

pub fn unpin(global: &Global, options: &OneStoreOptions) -> Result<(), AnyError> {
    at_store(global, options, "unpin", false, |place| {
        if place.situation()?.state.pin.is_none() {
            return answer(&format!("{}: the store is not pinned\n", place.id()));
        }
        place.recorded(|flow| {
            let run = StoreRun::new(flow, &*place.target, place.id());
            run.journal.event(Happening::Unpinned, None, None, None);
            Ok(())
        })?;
        answer(&format!(
            "{}: the pin is removed; the next deploy makes its release live\n",
            place.id()
        ))
    })
}

pub fn unstage(global: &Global, options: &UnstageOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "unstage", false, |place| {
        let wanted = match &options.id {
            None => None,
            Some(id) => {
                let found = place.known.find(id).map_err(crate::ledger::Error::from);
                Some(found.map_err(release::Error::from)?.id().clone())
            }
        };
        let stopped = place.recorded(|flow| {
            let run = StoreRun::new(flow, &*place.target, place.id());
            let stopped = run.unstage(wanted.as_ref());
            Ok(place.targets.registry.wait(stopped)?)
        })?;
        if stopped.is_empty() {
            return answer(&format!("{}: no such release is staged\n", place.id()));
        }
        for release in stopped {
            answer(&format!("{}: {release} is stopped\n", place.id()))?;
        }
        Ok(())
    })
}
