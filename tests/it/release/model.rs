//! Releases, rollbacks, pins, settings and promotion, compared with a plain model after each step.

use std::collections::BTreeSet;

use alokai::ledger::{Record, RecordId, ReleaseReason};
use alokai::release::{
    Chosen, Records, ReleaseAction, StoreRun, candidates, chosen, copy_forward, earlier,
    new_release,
};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};

use super::memory::{KEEP, Mood, World, actor, project};

#[derive(Debug, Clone)]
enum Step {
    Deploy {
        commit: usize,
        no_release: bool,
        mood: Mood,
    },
    ReleaseLatest {
        mood: Mood,
    },
    /// One of the releases.
    Release {
        which: usize,
        mood: Mood,
    },
    /// One of the builds.
    Promote {
        which: usize,
        mood: Mood,
    },
    Rollback {
        which: Option<usize>,
        current_settings: bool,
        mood: Mood,
    },
    Settings,
    Unpin,
    Unstage,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![6 => Just(Mood::Well), 1 => Just(Mood::Refused), 1 => Just(Mood::Dies)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..8_usize, prop::bool::weighted(0.2), mood())
            .prop_map(|(commit, no_release, mood)| Step::Deploy { commit, no_release, mood }),
        2 => mood().prop_map(|mood| Step::ReleaseLatest { mood }),
        2 => (any::<prop::sample::Index>(), mood())
            .prop_map(|(which, mood)| Step::Release { which: which.index(64), mood }),
        1 => (any::<prop::sample::Index>(), mood())
            .prop_map(|(which, mood)| Step::Promote { which: which.index(64), mood }),
        4 => (prop::option::weighted(0.3, 0..6_usize), any::<bool>(), mood())
            .prop_map(|(which, current_settings, mood)| Step::Rollback { which, current_settings, mood }),
        1 => Just(Step::Settings),
        1 => Just(Step::Unpin),
        1 => Just(Step::Unstage),
    ]
}

/// A release in the model.
#[derive(Debug, Clone, PartialEq)]
struct ModelRelease {
    id: RecordId,
    build: usize,
    /// A number for each version of the settings.
    settings: Option<usize>,
    /// Whether it was made by a change of the settings.
    is_change: bool,
    copy_of: Option<usize>,
    failed: bool,
}

/// One store, without targets and records.
#[derive(Debug, Default)]
struct Model {
    /// The commit of each build.
    builds: Vec<usize>,
    releases: Vec<ModelRelease>,
    /// The id of each version of the settings, and how many names it has.
    versions: Vec<(RecordId, usize)>,
    active: Option<usize>,
    /// What was live and stayed healthy, the last one at the end.
    proven: Vec<usize>,
    /// The release that waits without traffic.
    waiting: Option<usize>,
    pinned: bool,
}

impl Model {
    fn commit(&self, release: usize) -> usize {
        self.builds[self.releases[release].build]
    }

    fn is_older(&self, commit: usize) -> bool {
        self.active
            .is_some_and(|active| commit < self.commit(active))
    }

    /// The settings of the next release: those that are live, or that were set later. Before anything was
    /// live, those of the last release.
    fn next_settings(&self) -> Option<usize> {
        let Some(live) = self.active.or(self.proven.last().copied()) else {
            let mut releases = self.releases.iter().rev();
            return releases.find(|it| it.copy_of.is_none())?.settings;
        };
        let mut settings = self.releases[live].settings;
        for later in &self.releases[live + 1..] {
            if later.is_change {
                settings = later.settings;
            }
        }
        settings
    }

    /// What becomes of a release that shall get the traffic. Returns whether it got it.
    fn switch(&mut self, release: usize, mood: Mood) -> bool {
        if self.active == Some(release) {
            return true;
        }
        if self.waiting == Some(release) {
            self.waiting = None;
        }
        match mood {
            // A release that was live can be returned to, even if it cannot be staged now.
            Mood::Refused if self.proven.contains(&release) => {}
            Mood::Refused => self.fail(release),
            Mood::Dies => {
                self.fail(release);
                // Without an earlier release there is nothing to go back to.
                self.active = self.active.or(Some(release));
            }
            Mood::Well => {
                self.releases[release].failed = false;
                self.proven.retain(|it| *it != release);
                self.proven.push(release);
                self.active = Some(release);
                return true;
            }
        }
        false
    }

    fn fail(&mut self, release: usize) {
        self.releases[release].failed = true;
        self.proven.retain(|it| *it != release);
    }

    fn origin(&self, release: usize) -> usize {
        self.releases[release]
            .copy_of
            .map_or(release, |it| self.origin(it))
    }

    /// Where a rollback without an id goes.
    fn earlier(&self) -> Option<usize> {
        let until = self.active.and_then(|active| {
            let position = |wanted: usize| self.proven.iter().position(|it| *it == wanted);
            position(self.origin(active)).or(position(active))
        });
        let before = &self.proven[..until.unwrap_or(self.proven.len())];
        let content = |it: usize| (self.releases[it].build, self.releases[it].settings);
        let live = self.active.map(content);
        before
            .iter()
            .rev()
            .copied()
            .find(|it| Some(content(*it)) != live)
    }
}

fn apply(world: &mut World, model: &mut Model, step: &Step) {
    match step.clone() {
        Step::Deploy {
            commit,
            no_release,
            mood,
        } => {
            let build = world.build(commit);
            model.builds.push(commit);
            let release = new_release(&build, "command", ReleaseReason::Deploy, None, &actor());
            let action = if no_release {
                ReleaseAction::Stage
            } else {
                ReleaseAction::Deploy
            };
            let id = release.id.clone();
            let done = world.carry_out(release, &build, false, action, mood);
            let stays = no_release || model.pinned;
            if !stays && model.is_older(commit) {
                assert!(!done, "an older commit was released");
                return;
            }
            model.releases.push(ModelRelease {
                id,
                build: model.builds.len() - 1,
                settings: model.next_settings(),
                is_change: false,
                copy_of: None,
                failed: false,
            });
            let new = model.releases.len() - 1;
            if !stays {
                assert_eq!(model.switch(new, mood), done);
            } else if mood == Mood::Refused {
                model.fail(new);
            } else {
                model.waiting = Some(new);
            }
        }
        Step::ReleaseLatest { mood } => {
            let is_usable = |it: &usize| {
                let release = &model.releases[*it];
                let is_well = !release.failed || model.active == Some(*it);
                is_well && release.copy_of.is_none()
            };
            let latest = (0..model.releases.len()).rev().find(is_usable);
            release(world, model, "latest", latest, mood);
        }
        Step::Release { which, mood } => {
            if model.releases.is_empty() {
                return;
            }
            let which = which % model.releases.len();
            let id = model.releases[which].id.to_string();
            release(world, model, &id, Some(which), mood);
        }
        Step::Promote { which, mood } => {
            if model.builds.is_empty() {
                return;
            }
            let which = which % model.builds.len();
            let build = world.builds[which].clone();
            let records = world.records.read().unwrap();
            let found = chosen(&records, &world.store, "command", build.id.as_str());
            assert!(matches!(found, Ok(Chosen::Build(found)) if found.id == build.id));
            let reason = ReleaseReason::Promote;
            let release = new_release(&build, "command", reason, None, &actor());
            let id = release.id.clone();
            let done = world.carry_out(release, &build, false, ReleaseAction::Release, mood);
            if model.is_older(model.builds[which]) {
                assert!(!done);
                return;
            }
            model.releases.push(ModelRelease {
                id,
                build: which,
                settings: model.next_settings(),
                is_change: false,
                copy_of: None,
                failed: false,
            });
            let is_live = model.switch(model.releases.len() - 1, mood);
            assert_eq!(is_live, done);
            model.pinned &= !is_live;
        }
        Step::Rollback {
            which,
            current_settings,
            mood,
        } => rollback(world, model, which, current_settings, mood),
        Step::Settings => {
            let Some(active) = model.active else { return };
            let base = model.next_settings();
            let names = base.map_or(0, |base| model.versions[base].1) + 1;
            let id = world.set(&format!("NAME_{}", model.versions.len()));
            model.releases.push(ModelRelease {
                id: id.clone(),
                build: model.releases[active].build,
                settings: Some(model.versions.len()),
                is_change: true,
                copy_of: None,
                failed: false,
            });
            model.versions.push((id, names));
        }
        Step::Unpin => {
            let flow = world.flow();
            let run = StoreRun::new(&flow, &*world.target, &world.store);
            let unpinned = world.runtime.block_on(run.unpin()).unwrap();
            assert_eq!(unpinned, model.pinned);
            model.pinned = false;
        }
        Step::Unstage => {
            let flow = world.flow();
            let run = StoreRun::new(&flow, &*world.target, &world.store);
            let stopped = world.runtime.block_on(run.unstage(None)).unwrap();
            assert_eq!(stopped.len(), usize::from(model.waiting.is_some()));
            model.waiting = None;
        }
    }
}

fn release(world: &World, model: &mut Model, wanted: &str, which: Option<usize>, mood: Mood) {
    let records = world.records.read().unwrap();
    let found = chosen(&records, &world.store, "command", wanted);
    let Some(which) = which else {
        assert!(found.is_err(), "there is no release");
        return;
    };
    let Ok(Chosen::Release(found)) = found else {
        panic!("{wanted} is a release");
    };
    assert_eq!(found.release.id, model.releases[which].id);
    let done = world.carry_out(
        found.release.clone(),
        found.build,
        true,
        ReleaseAction::Release,
        mood,
    );
    if model.active != Some(which) && model.is_older(model.commit(which)) {
        assert!(!done, "an older commit was released");
        return;
    }
    let is_live = model.switch(which, mood);
    assert_eq!(is_live, done);
    model.pinned &= !is_live;
}

fn rollback(
    world: &World,
    model: &mut Model,
    which: Option<usize>,
    current_settings: bool,
    mood: Mood,
) {
    let (records, state, active) = world.snapshot();
    let all = candidates(&records, &state, active.as_ref());
    let of_model: Vec<usize> = model
        .proven
        .iter()
        .rev()
        .copied()
        .filter(|it| model.active != Some(*it))
        .collect();
    let ids = of_model.iter().map(|it| &model.releases[*it].id);
    assert!(
        all.iter().map(|it| &it.release.id).eq(ids),
        "{all:?} {of_model:?}"
    );
    let (wanted, expected) = match which {
        Some(which) if !all.is_empty() => {
            let which = which % all.len();
            (Some(all[which]), Some(of_model[which]))
        }
        Some(_) => return,
        None => (earlier(&records, &state, active.as_ref()), model.earlier()),
    };
    assert_eq!(
        wanted.map(|it| &it.release.id),
        expected.map(|it| &model.releases[it].id)
    );
    let (Some(wanted), Some(expected)) = (wanted, expected) else {
        return;
    };
    let live = active.as_ref().and_then(|id| match records.get(id) {
        Some(Record::Release(live)) => Some(live),
        _ => None,
    });
    let settings = live.filter(|_| current_settings).unwrap_or(wanted.release);
    let copy = copy_forward(wanted, settings, &actor());
    let id = copy.id.clone();
    // With the settings that it had, it is not watched: what happens after the switch is not seen.
    let is_watched = settings.settings != wanted.release.settings;
    let done = world.carry_out(copy, wanted.build, false, ReleaseAction::Rollback, mood);
    let mood = match mood {
        Mood::Dies if !is_watched => Mood::Well,
        mood => mood,
    };
    let of = model
        .active
        .filter(|_| current_settings)
        .unwrap_or(expected);
    model.releases.push(ModelRelease {
        id,
        build: model.releases[expected].build,
        settings: model.releases[of].settings,
        is_change: false,
        copy_of: Some(expected),
        failed: false,
    });
    let is_live = model.switch(model.releases.len() - 1, mood);
    assert_eq!(is_live, done);
    model.pinned |= is_live;
}

/// What the target and the records say is what the model says.
fn compare(world: &World, model: &Model) {
    let (records, state, active) = world.snapshot();
    let id = |release: usize| model.releases[release].id.clone();
    assert_eq!(active, model.active.map(id));
    assert_eq!(state.pin.is_some(), model.pinned);
    assert_eq!(
        state.proven,
        model.proven.iter().map(|it| id(*it)).collect::<Vec<_>>()
    );
    let target = world.target.0.lock().unwrap();
    let running: BTreeSet<_> = model
        .active
        .into_iter()
        .chain(model.waiting)
        .map(id)
        .collect();
    assert_eq!(
        target.running.keys().cloned().collect::<BTreeSet<_>>(),
        running
    );
    assert!(target.kept.len() <= KEEP, "{:?}", target.kept);
    let versions: BTreeSet<_> = records
        .releases()
        .filter_map(|it| it.settings.clone())
        .collect();
    assert!(versions.is_subset(&target.settings.keys().cloned().collect()));
    for release in &model.releases {
        let Some(Record::Release(record)) = records.get(&release.id) else {
            panic!("{} is not recorded", release.id);
        };
        assert_eq!(record.build, world.builds[release.build].id);
        let version = release.settings.map(|version| &model.versions[version]);
        let id = version.map(|(id, _)| id.as_str());
        assert_eq!(record.settings.as_deref(), id);
        let names = version.map_or(0, |(_, names)| *names);
        assert_eq!(record.setting_names.len(), names, "{record:?}");
    }
    assert_eq!(records.releases().count(), model.releases.len());
}

#[test]
fn every_sequence_of_commands_leaves_what_a_plain_model_says() {
    let project = project(&[]);
    let cases = if std::env::var_os("ALOKAI_LONG").is_some() {
        250
    } else {
        25
    };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(
        Cases {
            cases,
            failure_persistence: None,
            max_shrink_iters: 300,
            ..Cases::default()
        },
        seed,
    );
    let sequences = prop::collection::vec(step(), 40);
    runner
        .run(&sequences, |steps| {
            let mut world = World::new(&project);
            let mut model = Model::default();
            for step in &steps {
                apply(&mut world, &mut model, step);
                compare(&world, &model);
            }
            Ok(())
        })
        .unwrap();
}
