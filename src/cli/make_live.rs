//! `store release`, `store rollback`, `store unpin` and `store unstage`: releases without a build.

use std::sync::Arc;

use serde_json::json;

use super::answer;
use super::arguments::Global;
use super::arguments::flow::{MakeLiveOptions, RollbackOptions, UnpinOptions, UnstageOptions};
use super::environment;
use super::listing::{CellFormat, cut, plain, short_commit};
use super::one_store::{Answers, StoreAtTarget, at_store, live_released, with_store};
use super::run::document;
use crate::error::Error as AnyError;
use crate::ledger::{Record, ReleaseReason};
use crate::release::{
    self, Candidate, Chosen, ReleaseAction, ReleaseOrder, StoreRun, candidates, chosen,
    copy_forward, earlier, new_release, no_candidate,
};
use crate::report::Deployed;
use crate::store::TargetKind;
use crate::target::place_options;

/// The characters of a version of settings in a list.
const SETTINGS: usize = 11;

pub fn release(global: &Global, options: &MakeLiveOptions) -> Result<(), AnyError> {
    let how = ("release", (options.allow_older, options.no_wait));
    live_released(options.json, |live, answers| {
        with_store(global, &options.place, how, live, |place| {
            release_at(place, &options.id, answers)
        })
    })
}

fn release_at(place: &StoreAtTarget, id: &str, answers: &mut Answers) -> Result<(), AnyError> {
    let target = Arc::clone(&place.target);
    let wanted = chosen(&place.known, place.id(), target.name(), id)?;
    let actor = environment::actor();
    let (build, release, is_recorded) = match wanted {
        Chosen::Release(candidate) => {
            place.check_images(&candidate)?;
            (candidate.build.clone(), candidate.release.clone(), true)
        }
        Chosen::Build(build) => {
            let recorded = place.known.targets();
            let live = recorded.last_live(place.id(), target.name());
            let known = &place.known;
            let settings = known.next_settings(place.id(), target.name(), live);
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
    place.targets.preflight()?;
    let now = place.snapshot()?;
    // What a killed run has left is removed by a run that changes nothing else.
    let keep = usize::from(place.targets.project.settings.deploy.keep);
    let is_clean = now.observed.staged.is_empty() && now.observed.kept.len() <= keep;
    if now.active.as_ref() == Some(&release.id) && now.state.pin.is_none() && is_clean {
        let (store, id) = (place.id(), &release.id);
        place.tell_what_is_down(id);
        answers
            .lines
            .push(format!("{store}: {id} gets the traffic already"));
        answers.released.live.push(Deployed {
            store_id: store.to_string(),
            release: id.to_string(),
            target: release.target.clone(),
            address: now
                .observed
                .addresses
                .into_iter()
                .next()
                .unwrap_or_default(),
            is_local: release.target == TargetKind::Local.name(),
        });
        return Ok(());
    }
    let order = ReleaseOrder {
        target,
        build,
        release,
        is_recorded,
        action: ReleaseAction::Release,
    };
    place.carry_out(order, answers)
}

pub fn rollback(global: &Global, options: &RollbackOptions) -> Result<(), AnyError> {
    let how = (true, options.no_wait);
    if options.dry_run {
        return at_store(global, &options.place, "rollback", how, |place| {
            let now = place.snapshot()?;
            let active = now.active.as_ref();
            let all = candidates(&now.records, &now.state, active);
            let default = earlier(&now.records, &now.state, active);
            list(place, &all, default.as_ref(), options.json)
        });
    }
    live_released(options.json, |live, answers| {
        with_store(global, &options.place, ("rollback", how), live, |place| {
            roll_back_at(place, options, answers)
        })
    })
}

fn roll_back_at(
    place: &StoreAtTarget,
    options: &RollbackOptions,
    answers: &mut Answers,
) -> Result<(), AnyError> {
    place.targets.preflight()?;
    let now = place.snapshot()?;
    let active = now.active.as_ref();
    let all = candidates(&now.records, &now.state, active);
    let wanted = if let Some(id) = &options.id {
        let found = place.known.find(id).map_err(crate::ledger::Error::from);
        let found = found.map_err(release::Error::from)?;
        let wanted = all.iter().find(|it| it.release.id == *found.id()).copied();
        let at = (place.id(), place.target.name());
        wanted.ok_or_else(|| no_candidate(found, &now.records, at, active))?
    } else {
        let default = earlier(&now.records, &now.state, active);
        default.ok_or_else(|| release::Error::NoEarlier {
            store: place.id().clone(),
            is_listed: !all.is_empty(),
            candidates: lines(place, &all, None) + &place.releases_elsewhere(),
            place: place_options(place.id(), place.target.name()),
        })?
    };
    place.check_images(&wanted)?;
    let live = active.and_then(|active| match now.records.get(active) {
        Some(Record::Release(live)) => Some(live),
        _ => None,
    });
    let settings = match live {
        Some(live) if options.current_settings => live,
        _ => wanted.release,
    };
    let order = ReleaseOrder {
        target: Arc::clone(&place.target),
        build: wanted.build.clone(),
        release: copy_forward(wanted, settings, &environment::actor()),
        is_recorded: false,
        action: ReleaseAction::Rollback,
    };
    place.carry_out(order, answers)?;
    let (store, original) = (place.id(), &wanted.release.id);
    let options = place_options(store, place.target.name());
    let commit = super::builds::description(wanted.build);
    let copy = format!("{store}: this is a copy of {original}  {}", plain(&commit));
    answers.notes.push(copy.trim_end().to_owned());
    answers.notes.push(format!(
        "{store} is pinned: a deploy stages its release and does not make it live, until `alokai store unpin {options}` or `alokai store release latest {options}`"
    ));
    Ok(())
}

/// Lists the releases to which a rollback can go.
fn list(
    place: &StoreAtTarget,
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
    let id = CellFormat::new(all.iter().map(|it| &it.release.id)).id(&all[0].release.id);
    let id = format!("{:<width$}", "RELEASE", width = id.len());
    let titles = format!(
        "   {id}  {:<11}  {:<SETTINGS$}  COMMIT",
        "CREATED", "SETTINGS"
    );
    answer(&format!("{}{text}\n", cut(&titles)))?;
    if default.is_some() {
        answer("-> a rollback without an id returns to this release\n")?;
    }
    answer("Dry run: nothing was changed.\n")
}

/// One line for each release: its id, age, commit, and whether its images exist.
fn lines(place: &StoreAtTarget, all: &[Candidate], default: Option<&Candidate>) -> String {
    let format = CellFormat::new(all.iter().map(|it| &it.release.id));
    let each = all.iter().map(|it| {
        let commit = it.build.commit.as_ref();
        let commit = commit.map_or_else(String::new, |commit| {
            let subject = commit.subject.as_deref().unwrap_or_default();
            format!("{} {}", short_commit(&commit.sha), plain(subject))
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
        let version = it.release.settings.as_deref().unwrap_or("none");
        let version: String = version.chars().take(SETTINGS).collect();
        cut(&format!(
            "\n{mark} {id}  {age:<11}  {version:<SETTINGS$}  {commit}{images}"
        ))
    });
    each.collect()
}

pub fn unpin(global: &Global, options: &UnpinOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "unpin", (false, false), |place| {
        let is_pinned = place.snapshot()?.state.pin.is_some();
        let was_pinned = is_pinned
            && place.recorded(None, |flow| {
                let run = StoreRun::new(flow, &*place.target, place.id());
                Ok(place.targets.registry.wait(run.unpin())?)
            })?;
        if options.json {
            return place.document(&json!({ "wasPinned": was_pinned }));
        }
        if !was_pinned {
            return answer(&place.not_pinned());
        }
        answer(&format!(
            "{}: the pin is removed; the next deploy makes its release live\n",
            place.id()
        ))
    })
}

pub fn unstage(global: &Global, options: &UnstageOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "unstage", (false, false), |place| {
        let wanted = match &options.id {
            None => None,
            Some(id) => {
                let found = place.known.find(id).map_err(crate::ledger::Error::from);
                Some(found.map_err(release::Error::from)?.id().clone())
            }
        };
        let stopped = place.recorded(None, |flow| {
            let run = StoreRun::new(flow, &*place.target, place.id());
            let stopped = run.unstage(wanted.as_ref());
            Ok(place.targets.registry.wait(stopped)?)
        })?;
        if options.json {
            return place.document(&json!({ "stopped": stopped }));
        }
        if stopped.is_empty() {
            return answer(&format!("{}: no matching release is staged\n", place.id()));
        }
        for release in stopped {
            answer(&format!("{}: {release} is stopped\n", place.id()))?;
        }
        Ok(())
    })
}
