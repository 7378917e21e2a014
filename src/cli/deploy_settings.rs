//! `store deploy --settings`: the newest settings with the build that is live. Nothing is composed, built
//! or pushed.

use std::collections::BTreeSet;

use serde_json::json;

use super::answer;
use super::arguments::questions::ChosenTargets;
use super::arguments::{DeployOptions, Global};
use super::builds::DEPLOY_SETTINGS;
use super::changed::selection;
use super::environment::{self, tell};
use super::events::{Live, live};
use super::listing::records;
use super::one_store::{Answers, ended, live_released, waiting};
use super::operation::RecordedOperation;
use super::releasing::Released;
use super::run::document;
use super::store_targets::StoreTargets;
use crate::error::Error as AnyError;
use crate::ledger::{RecordFolder, RecordSet, ReleaseReason, ReleaseRecord, ReleaseStatus};
use crate::release::{
    Flow, FlowOptions, FlowResult, ReleaseAction, ReleaseOrder, SettingsError, StoreSettings,
    ancestry_of, new_release, waves,
};
use crate::report::Detail;
use crate::store::Store;

pub fn deploy_settings(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    let (json, is_dry) = (options.output.json, options.work.dry_run);
    if is_dry {
        return live(false, Detail::Short, |live| {
            let (_, orders) = orders(global, options, &live)?;
            show(&orders, json)
        });
    }
    live_released(json, |live, answers| {
        let (targets, orders) = orders(global, options, live)?;
        match targets {
            Some(targets) => carry_out(&targets, orders, options, answers),
            None => Ok(()),
        }
    })
}

/// What is to be made live, at which targets. No targets if no store is selected.
fn orders(
    global: &Global,
    options: &DeployOptions,
    live: &Live,
) -> Result<(Option<StoreTargets>, Vec<ReleaseOrder>), AnyError> {
    let (project, _) = super::project(global)?;
    let stores = selection(&project, &options.select)?.stores(&project)?;
    let stores: Vec<String> = stores.iter().map(|store| store.id.to_string()).collect();
    if stores.is_empty() {
        return Ok((None, Vec::new()));
    }
    let access = waiting(&options.access, options.release.no_wait);
    let chosen = ChosenTargets {
        stores: &stores,
        local: options.local,
        access: &access,
    };
    let targets = StoreTargets::with_events(global, chosen, Some(live))?;
    let known = records(&targets.project, &targets.registry)?;
    let mut orders = Vec::new();
    if !options.work.dry_run {
        targets.preflight()?;
    }
    for store in targets.named()? {
        match order(&targets, store, &known)? {
            Some(order) => orders.push(order),
            None => tell(&format!(
                "note: {}: the settings are live already",
                store.id
            )),
        }
    }
    Ok((Some(targets), orders))
}

/// The release with the newest settings and the live build. None if these settings are live.
fn order(
    targets: &StoreTargets,
    store: &Store,
    known: &RecordSet,
) -> Result<Option<ReleaseOrder>, AnyError> {
    let target = targets.of(store)?;
    let (records, actor) = (
        RecordFolder::of_project(&targets.project.root),
        environment::actor(),
    );
    let settings = StoreSettings {
        store: &store.id,
        target: target.as_ref(),
        records: &records,
        actor: &actor,
    };
    settings.check()?;
    let active = targets.registry.wait(settings.active(known))?;
    let Some(latest) = settings.latest(known, active.as_ref()) else {
        return Ok(None);
    };
    let active = active.and_then(|id| known.release(&id));
    if active.is_some_and(|active| active.settings == latest.settings) {
        return Ok(None);
    }
    let no_build = || {
        crate::release::Error::from(SettingsError::NoBuild {
            target: target.name(),
            store: store.id.clone(),
        })
    };
    let build = known.build(&active.unwrap_or(latest).build);
    let build = build.ok_or_else(no_build)?;
    let recorded = known.targets();
    let is_wanted = |release: &&ReleaseRecord| {
        release.store == store.id
            && release.target == target.name()
            && release.build == build.id
            && release.settings == latest.settings
            // A release that has failed is not tried again under its id.
            && recorded.status(release) == ReleaseStatus::Created
    };
    let existing = known.releases().rev().find(is_wanted);
    let release = existing.cloned().unwrap_or_else(|| {
        let reason = ReleaseReason::Settings;
        new_release(build, target.name(), reason, Some(latest), &actor)
    });
    Ok(Some(ReleaseOrder {
        target,
        build: build.clone(),
        release,
        is_recorded: existing.is_some(),
        action: ReleaseAction::Deploy,
    }))
}

/// What a dry run prints.
fn show(orders: &[ReleaseOrder], json: bool) -> Result<(), AnyError> {
    if json {
        let releases: Vec<_> = orders.iter().map(|order| &order.release).collect();
        return document(&json!({ "schemaVersion": 1, "releases": releases }));
    }
    for order in orders {
        let release = &order.release;
        let version = release.settings.as_deref().unwrap_or("no");
        answer(&format!(
            "{}: the build {} becomes live with the settings {version}: {}\n",
            release.store,
            release.build,
            release.setting_names.join(", ")
        ))?;
    }
    answer("Dry run: nothing was changed.\n")
}

fn carry_out(
    targets: &StoreTargets,
    orders: Vec<ReleaseOrder>,
    options: &DeployOptions,
    answers: &mut Answers,
) -> Result<(), AnyError> {
    let project = &targets.project;
    let stores: Vec<_> = orders.iter().map(|it| it.release.store.clone()).collect();
    let wave = &options.release.wave;
    let groups = if wave.is_empty() {
        Vec::new()
    } else {
        waves(wave, &stores, &project.settings.deploy.waves)?
    };
    let (records, ancestry) = (
        targets.registry.live_records(project),
        ancestry_of(&project.root),
    );
    let services = targets.registry.services();
    let started: Vec<_> = orders
        .iter()
        .zip(&stores)
        .map(|(order, store)| {
            RecordedOperation::start(project, store, order.target.name(), DEPLOY_SETTINGS)
        })
        .collect();
    let runs = stores.iter().zip(&started);
    let runs = runs.map(|(store, run)| (store.clone(), run.id().clone()));
    let flow = Flow {
        project,
        plan: None,
        services: &services,
        records: &records,
        ancestry: &ancestry,
        options: FlowOptions {
            keep_going: options.work.keep_going,
            allow_older: options.release.allow_older,
            waves: groups,
            actor: environment::actor(),
            operation: DEPLOY_SETTINGS.to_owned(),
            failed: BTreeSet::new(),
            runs: runs.collect(),
            scripts: targets.scripts.clone(),
        },
    };
    let result = targets.registry.wait(flow.run(orders));
    for (operation, store) in started.iter().zip(&stores) {
        let done = result.done.iter().find(|it| it.store == *store);
        let mut failures = result.failed.iter();
        let failure = failures.find(|it| it.unit.store.as_ref() == Some(store));
        let failure = failure.map(|failure| failure.error.to_string());
        let skipped = || "another store has failed before".to_owned();
        let failure = if done.is_some() {
            None
        } else {
            Some(failure.unwrap_or_else(skipped))
        };
        operation.end(failure.as_deref(), done.map(|done| &done.release.id));
        targets.registry.share(project, store);
    }
    report(&result, answers);
    ended(result, &flow).map(drop)
}

fn report(result: &FlowResult, answers: &mut Answers) {
    for done in &result.done {
        let address = done.address.as_deref().unwrap_or_default();
        let (store, id) = (&done.store, &done.release.id);
        let line = if done.is_active {
            format!("{store}: {id} is live  {address}")
        } else {
            let reason = done.reason.as_deref().unwrap_or_default();
            format!("{store}: {id} gets no traffic: {reason}  {address}")
        };
        answers.lines.push(line.trim_end().to_owned());
    }
    let untouched = result.untouched.iter();
    answers
        .notes
        .extend(untouched.map(|store| format!("note: {store} is unchanged")));
    answers.released = Released::of(&result.done);
}
