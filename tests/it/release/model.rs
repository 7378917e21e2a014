//! Releases, rollbacks, pins, settings and promotion, compared with a plain model after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use alokai::config::Project as Config;
use alokai::event::Events;
use alokai::ledger::{
    Actor, BuildRecord, FolderError, Record, RecordId, RecordKind, RecordSet, ReleaseReason,
    StoredRecord, TargetState,
};
use alokai::pipeline::{Access, Interrupt, RegistryClients, Services};
use alokai::release::{
    Chosen, Flow, FlowOptions, Records, ReleaseAction, ReleaseOrder, SettingsChange, StoreRun,
    StoreSettings, candidates, chosen, copy_forward, earlier, new_release,
};
use alokai::store::{AppName, StoreId};
use alokai::target::{
    AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim, LogQuery,
    Observed, ReleaseSpec, Settings, Staged, StagedRelease, SwitchToken, Target, TargetStep,
};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};

use crate::support::Project;

const KEEP: usize = 2;

/// The app of the store. The target says whether it runs, and it has no address.
const APP: &str = "storefront-unified-nextjs";

/// How the release of a step behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// It cannot be staged.
    Refused,
    /// It fails after the switch.
    Dies,
}

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

/// A target in memory.
#[derive(Default)]
struct MemoryTarget(Mutex<MemoryState>);

#[derive(Default)]
struct MemoryState {
    mood: Option<Mood>,
    active: Option<RecordId>,
    running: BTreeMap<RecordId, Option<String>>,
    kept: Vec<RecordId>,
    token: u64,
    settings: BTreeSet<String>,
}

fn refused() -> TargetError {
    TargetError::Unsupported {
        target: "command",
        what: "do it",
        help: "nothing",
    }
}

impl MemoryTarget {
    fn step<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut MemoryState) -> Result<T, TargetError> + Send + 'a,
    ) -> TargetStep<'a, T> {
        Box::pin(async move { work(&mut self.0.lock().unwrap()) })
    }
}

impl Target for MemoryTarget {
    fn name(&self) -> &'static str {
        "command"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: true,
            seamless: true,
            drain: true,
            observes: true,
            locks: true,
            settings: true,
            logs: false,
            maintenance: false,
        }
    }

    fn preflight(&self) -> TargetStep<'_, ()> {
        self.step(|_| Ok(()))
    }

    fn observe<'a>(&'a self, _: &'a StoreId) -> TargetStep<'a, Observed> {
        self.step(|state| {
            let staged = state
                .running
                .keys()
                .filter(|id| state.active.as_ref() != Some(id));
            Ok(Observed {
                active: state.active.clone(),
                staged: staged
                    .map(|id| StagedRelease {
                        release: id.clone(),
                        address: None,
                    })
                    .collect(),
                kept: state.kept.clone(),
                token: SwitchToken(state.token.to_string()),
                ..Observed::default()
            })
        })
    }

    fn lock<'a>(&'a self, _: &'a StoreId, _: &'a LockClaim) -> TargetStep<'a, LockAnswer> {
        self.step(|_| Ok(LockAnswer::Taken { from: None }))
    }

    fn unlock<'a>(&'a self, _: &'a StoreId, _: &'a str, _: bool) -> TargetStep<'a, ()> {
        self.step(|_| Ok(()))
    }

    fn lock_holder<'a>(&'a self, _: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        self.step(|_| Ok(None))
    }

    fn stage<'a>(&'a self, spec: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        self.step(|state| {
            if state.mood == Some(Mood::Refused) {
                return Err(refused());
            }
            if let Some(version) = &spec.settings {
                assert!(state.settings.contains(version), "{version} is not stored");
            }
            state.running.insert(spec.id.clone(), spec.settings.clone());
            state.kept.retain(|id| *id != spec.id);
            Ok(Staged::default())
        })
    }

    fn switch<'a>(&'a self, spec: &'a ReleaseSpec, token: &'a SwitchToken) -> TargetStep<'a, ()> {
        self.step(|state| {
            assert!(state.running.contains_key(&spec.id), "it does not run");
            assert_eq!(token.0, state.token.to_string());
            state.active = Some(spec.id.clone());
            state.token += 1;
            Ok(())
        })
    }

    fn drained<'a>(&'a self, _: &'a StoreId, _: &'a RecordId) -> TargetStep<'a, Drained> {
        self.step(|_| Ok(Drained::Yes))
    }

    fn retire<'a>(
        &'a self,
        _: &'a StoreId,
        release: &'a RecordId,
        kept: bool,
    ) -> TargetStep<'a, ()> {
        self.step(move |state| {
            assert_ne!(state.active.as_ref(), Some(release), "it gets the traffic");
            state.running.remove(release);
            state.kept.retain(|id| id != release);
            if kept {
                state.kept.push(release.clone());
            }
            Ok(())
        })
    }

    fn health<'a>(
        &'a self,
        _: &'a StoreId,
        release: &'a RecordId,
    ) -> TargetStep<'a, Vec<AppState>> {
        self.step(move |state| {
            let dies = state.mood == Some(Mood::Dies) && state.active.as_ref() == Some(release);
            Ok(vec![AppState {
                app: AppName::new(APP).unwrap(),
                running: !dies,
                ended: None,
                restarts: 0,
                tail: Vec::new(),
            }])
        })
    }

    fn store_settings<'a>(
        &'a self,
        _: &'a StoreId,
        version: &'a str,
        _: &'a Settings,
    ) -> TargetStep<'a, ()> {
        self.step(move |state| {
            state.settings.insert(version.to_owned());
            Ok(())
        })
    }

    fn settings<'a>(
        &'a self,
        _: &'a StoreId,
        version: &'a str,
    ) -> TargetStep<'a, Option<Settings>> {
        self.step(move |state| Ok(state.settings.contains(version).then(Settings::new)))
    }

    fn logs<'a>(&'a self, _: &'a LogQuery) -> TargetStep<'a, ()> {
        self.step(|_| Err(refused()))
    }

    fn maintenance<'a>(&'a self, _: &'a StoreId, _: Option<&'a str>) -> TargetStep<'a, ()> {
        self.step(|_| Err(refused()))
    }
}

#[derive(Default)]
struct MemoryRecords(Mutex<RecordSet>);

impl Records for MemoryRecords {
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        self.0.lock().unwrap().insert(record.clone());
        Ok(())
    }

    fn read(&self) -> Result<Arc<RecordSet>, FolderError> {
        Ok(Arc::new(self.0.lock().unwrap().clone()))
    }
}

/// A release in the model.
#[derive(Debug, Clone, PartialEq)]
struct ModelRelease {
    id: RecordId,
    build: usize,
    /// A number for each version of the settings.
    settings: Option<usize>,
    copy_of: Option<usize>,
    failed: bool,
}

/// One store, without targets and records.
#[derive(Debug, Default)]
struct Model {
    /// The commit of each build.
    builds: Vec<usize>,
    releases: Vec<ModelRelease>,
    versions: usize,
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

/// The program under test.
struct World {
    runtime: tokio::runtime::Runtime,
    project: Config,
    services: Services,
    target: Arc<MemoryTarget>,
    records: MemoryRecords,
    store: StoreId,
    builds: Vec<BuildRecord>,
}

fn actor() -> Actor {
    Actor {
        user: "eva".into(),
        host: "laptop".into(),
        run: None,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature of an order of commits"
)]
fn before(earlier: &str, later: &str) -> Option<bool> {
    Some(earlier < later)
}

impl World {
    fn new(project: &Project) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (events, _) = Events::channel();
        let services = Services {
            started: std::time::Instant::now(),
            events,
            interrupt: Interrupt::default(),
            runtime: runtime.handle().clone(),
            access: Access::default(),
            cache: alokai::cache::Cache::new(project.path(".alokai/cache")),
            remote: None,
            clients: RegistryClients::default(),
            warned: false.into(),
        };
        Self {
            runtime,
            project: Config::load(project.root()).unwrap(),
            services,
            target: Arc::default(),
            records: MemoryRecords::default(),
            store: StoreId::new("us").unwrap(),
            builds: Vec::new(),
        }
    }

    fn flow(&self) -> Flow<'_> {
        Flow {
            project: &self.project,
            plan: None,
            services: &self.services,
            records: &self.records,
            ancestry: &before,
            options: FlowOptions {
                keep_going: false,
                allow_older: false,
                waves: Vec::new(),
                actor: actor(),
                operation: "test".into(),
                failed: std::collections::BTreeSet::new(),
                runs: std::collections::BTreeMap::new(),
                scripts: alokai::pipeline::ScriptEnvironment::default(),
            },
        }
    }

    fn snapshot(&self) -> (RecordSet, TargetState, Option<RecordId>) {
        let flow = self.flow();
        let run = StoreRun::new(&flow, &*self.target, &self.store);
        let now = self.runtime.block_on(run.observe()).unwrap();
        (now.records, now.state, now.active)
    }

    fn build(&mut self, commit: usize) -> BuildRecord {
        let at = Timestamp::from_millisecond(i64::try_from(self.builds.len()).unwrap()).unwrap();
        let build: BuildRecord = serde_json::from_value(serde_json::json!({
            "schemaVersion": 1, "id": RecordId::new(RecordKind::Build, at), "store": "us",
            "status": "complete", "started": at, "seconds": 1.0,
            "commit": { "sha": format!("{commit:04}") }, "composition": "",
            "apps": { APP: { "reference": "oci:.alokai/registry:us:1", "digest": "sha256:0" } },
            "tool": "", "actor": { "user": "", "host": "" }, "reached": "push",
        }))
        .unwrap();
        let record = StoredRecord::new(Record::Build(build.clone())).unwrap();
        self.records.append(&record).unwrap();
        self.builds.push(build.clone());
        build
    }

    /// Carries one order out. Returns whether it succeeded.
    fn carry_out(
        &self,
        release: alokai::ledger::ReleaseRecord,
        build: &BuildRecord,
        is_recorded: bool,
        action: ReleaseAction,
        mood: Mood,
    ) -> bool {
        self.target.0.lock().unwrap().mood = Some(mood);
        let order = ReleaseOrder {
            target: self.target.clone(),
            build: build.clone(),
            release,
            is_recorded,
            action,
        };
        let result = self.runtime.block_on(self.flow().run(vec![order]));
        self.target.0.lock().unwrap().mood = None;
        result.failed.is_empty()
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
            let records = world.records.read().unwrap();
            let latest = records.latest_release(&world.store, "command").cloned();
            let release = new_release(
                &build,
                "command",
                ReleaseReason::Deploy,
                latest.as_ref(),
                &actor(),
            );
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
                settings: model.releases.last().and_then(|it| it.settings),
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
            let latest = records.latest_release(&world.store, "command").cloned();
            let release = new_release(
                &build,
                "command",
                ReleaseReason::Promote,
                latest.as_ref(),
                &actor(),
            );
            let id = release.id.clone();
            let done = world.carry_out(release, &build, false, ReleaseAction::Release, mood);
            if model.is_older(model.builds[which]) {
                assert!(!done);
                return;
            }
            model.releases.push(ModelRelease {
                id,
                build: which,
                settings: model.releases.last().and_then(|it| it.settings),
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
            let change = [(
                format!("NAME_{}", model.versions),
                "value".to_owned().into(),
            )];
            let settings = StoreSettings {
                store: &world.store,
                target: &*world.target,
                records: &world.records,
                actor: &actor(),
            };
            let change = SettingsChange::Set(change.into());
            let made = world
                .runtime
                .block_on(settings.change(&change, (&world.services.events, None)))
                .unwrap()
                .unwrap();
            model.releases.push(ModelRelease {
                id: made.id,
                build: model.releases[active].build,
                settings: Some(model.versions),
                copy_of: None,
                failed: false,
            });
            model.versions += 1;
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
    assert!(versions.is_subset(&target.settings));
    for release in &model.releases {
        let Some(Record::Release(record)) = records.get(&release.id) else {
            panic!("{} is not recorded", release.id);
        };
        assert_eq!(record.build, world.builds[release.build].id);
        assert_eq!(record.settings.is_some(), release.settings.is_some());
    }
    assert_eq!(records.releases().count(), model.releases.len());
}

#[test]
fn every_sequence_of_commands_leaves_what_a_plain_model_says() {
    let project = Project::shop().setting(
        "deploy",
        &serde_json::json!({ "target": "command", "command": ["true"], "keep": KEEP, "watch": 0, "drain": 1 }),
    );
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
