//! One store at a target in memory: the program's own flow, without processes, images and a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alokai::config::Project as Config;
use alokai::event::Events;
use alokai::ledger::{
    Actor, BuildRecord, FolderError, Record, RecordId, RecordKind, RecordSet, ReleaseReason,
    ReleaseRecord, StoredRecord, TargetState,
};
use alokai::pipeline::{Access, Interrupt, RegistryClients, Services};
use alokai::release::{
    Flow, FlowOptions, FlowResult, Records, ReleaseAction, ReleaseOrder, SettingsChange, StoreRun,
    StoreSettings, copy_forward, earlier, new_release,
};
use alokai::store::{AppName, StoreId, TargetKind};
use alokai::target::{
    AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim, LogQuery,
    Observed, ReleaseSpec, Settings, Staged, StagedRelease, SwitchToken, Target,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::Project;

/// How many releases are kept.
pub const KEEP: usize = 2;

/// The app of the store. The target says whether it runs, and it has no address.
pub const APP: &str = "storefront-unified-nextjs";

/// A project whose target is in memory, with these further settings.
pub fn project(settings: &[(&str, Value)]) -> Project {
    let project = Project::shop().setting(
        "deploy",
        &json!({ "target": "command", "command": ["true"], "keep": KEEP, "watch": 0, "drain": 1 }),
    );
    let settings = settings.iter();
    settings.fold(project, |project, (key, value)| project.setting(key, value))
}

/// How the release of a step behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// It cannot be staged.
    Refused,
    /// It fails after the switch.
    Dies,
}

/// A target in memory.
#[derive(Default)]
pub struct MemoryTarget(pub Mutex<MemoryState>);

/// What a [`MemoryTarget`] has, and how it behaves.
#[derive(Default)]
pub struct MemoryState {
    pub mood: Option<Mood>,
    pub active: Option<RecordId>,
    pub running: BTreeMap<RecordId, Option<String>>,
    pub kept: Vec<RecordId>,
    pub settings: BTreeMap<String, Settings>,
    /// What was done, the first step first.
    pub done: Vec<(&'static str, RecordId)>,
    /// Whether it runs releases without knowing which one gets the traffic.
    pub is_unrouted: bool,
    /// Whether a switch never ends, before or after it has an effect.
    pub switch_hangs: Option<SwitchHangs>,
    /// Interrupts the run at the last of this number of requests for the state of apps; this request takes
    /// this long.
    pub interrupt: Option<(usize, Interrupt, Duration)>,
    token: u64,
}

/// Where a switch hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchHangs {
    Before,
    After,
}

fn refused() -> TargetError {
    TargetError::Unsupported {
        target: "command",
        what: "do it",
        help: "nothing",
    }
}

impl MemoryState {
    /// Counts a request for the state of apps. The last one interrupts the run; returns how long it takes.
    fn count(&mut self) -> Option<Duration> {
        let (left, interrupt, time) = self.interrupt.as_mut()?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        interrupt.raise();
        Some(*time).filter(|time| !time.is_zero())
    }
}

impl MemoryTarget {
    fn step<T>(
        &self,
        work: impl FnOnce(&mut MemoryState) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        work(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Command
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

    async fn preflight(&self) -> Result<(), TargetError> {
        self.step(|_| Ok(()))
    }

    async fn observe(&self, _: &StoreId) -> Result<Observed, TargetError> {
        self.step(|state| {
            let staged = state
                .running
                .keys()
                .filter(|id| state.is_unrouted || state.active.as_ref() != Some(id));
            Ok(Observed {
                active: state.active.clone().filter(|_| !state.is_unrouted),
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

    async fn lock(&self, _: &StoreId, _: &LockClaim) -> Result<LockAnswer, TargetError> {
        self.step(|_| Ok(LockAnswer::Taken { from: None }))
    }

    async fn unlock(&self, _: &StoreId, _: &str) -> Result<(), TargetError> {
        self.step(|_| Ok(()))
    }

    async fn lock_holder(&self, _: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        self.step(|_| Ok(None))
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
        self.step(|state| {
            if state.mood == Some(Mood::Refused) {
                return Err(refused());
            }
            if let Some(version) = &spec.settings {
                let is_stored = state.settings.contains_key(version);
                assert!(is_stored, "{version} is not stored");
            }
            state.done.push(("stage", spec.id.clone()));
            state.running.insert(spec.id.clone(), spec.settings.clone());
            state.kept.retain(|id| *id != spec.id);
            Ok(Staged::default())
        })
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        let hangs = self.0.lock().unwrap().switch_hangs;
        if hangs == Some(SwitchHangs::Before) {
            std::future::pending::<()>().await;
        }
        {
            let mut state = self.0.lock().unwrap();
            assert!(state.running.contains_key(&spec.id), "it does not run");
            assert_eq!(token.0, state.token.to_string());
            state.active = Some(spec.id.clone());
            state.is_unrouted = false;
            state.token += 1;
            state.done.push(("switch", spec.id.clone()));
        }
        if hangs == Some(SwitchHangs::After) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn drained(&self, _: &StoreId, _: &RecordId) -> Result<Drained, TargetError> {
        self.step(|_| Ok(Drained::Yes))
    }

    async fn retire(&self, _: &StoreId, release: &RecordId, kept: bool) -> Result<(), TargetError> {
        self.step(move |state| {
            let is_live = !state.is_unrouted && state.active.as_ref() == Some(release);
            assert!(!is_live, "it gets the traffic");
            state.done.push(("retire", release.clone()));
            state.running.remove(release);
            state.kept.retain(|id| id != release);
            if kept {
                state.kept.push(release.clone());
            }
            Ok(())
        })
    }

    async fn health(&self, _: &StoreId, release: &RecordId) -> Result<Vec<AppState>, TargetError> {
        let (running, time) = {
            let mut state = self.0.lock().unwrap();
            let dies = state.mood == Some(Mood::Dies) && state.active.as_ref() == Some(release);
            (!dies, state.count())
        };
        if let Some(time) = time {
            tokio::time::sleep(time).await;
        }
        Ok(vec![AppState {
            app: AppName::new(APP).unwrap(),
            running,
            ended: None,
            restarts: 0,
            tail: Vec::new(),
        }])
    }

    async fn store_settings(
        &self,
        _: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<(), TargetError> {
        self.step(move |state| {
            state.settings.insert(version.to_owned(), settings.clone());
            Ok(())
        })
    }

    async fn settings(&self, _: &StoreId, version: &str) -> Result<Option<Settings>, TargetError> {
        self.step(move |state| Ok(state.settings.get(version).cloned()))
    }

    async fn logs(&self, _: &LogQuery) -> Result<(), TargetError> {
        self.step(|_| Err(refused()))
    }

    async fn maintenance(&self, _: &StoreId, _: Option<&str>) -> Result<(), TargetError> {
        self.step(|_| Err(refused()))
    }
}

/// Records in memory.
#[derive(Default)]
pub struct MemoryRecords(Mutex<RecordSet>);

impl Records for MemoryRecords {
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        self.0.lock().unwrap().insert(record.clone());
        Ok(())
    }

    fn read(&self) -> Result<Arc<RecordSet>, FolderError> {
        Ok(Arc::new(self.0.lock().unwrap().clone()))
    }
}

/// The program under test.
pub struct World {
    pub runtime: tokio::runtime::Runtime,
    pub project: Config,
    pub services: Services,
    pub target: Arc<MemoryTarget>,
    pub records: MemoryRecords,
    pub store: StoreId,
    pub builds: Vec<BuildRecord>,
    /// The folder of the project, if no other world has it.
    folder: Option<Project>,
}

pub fn actor() -> Actor {
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
    pub fn new(project: &Project) -> Self {
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
            folder: None,
        }
    }

    /// With a project of its own.
    pub fn alone(project: Project) -> Self {
        let mut world = Self::new(&project);
        world.folder = Some(project);
        world
    }

    pub fn flow(&self) -> Flow<'_> {
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

    pub fn snapshot(&self) -> (RecordSet, TargetState, Option<RecordId>) {
        let flow = self.flow();
        let run = StoreRun::new(&flow, &*self.target, &self.store);
        let now = self.runtime.block_on(run.observe()).unwrap();
        (now.records, now.state, now.active)
    }

    pub fn build(&mut self, commit: usize) -> BuildRecord {
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
    pub fn carry_out(
        &self,
        release: ReleaseRecord,
        build: &BuildRecord,
        is_recorded: bool,
        action: ReleaseAction,
        mood: Mood,
    ) -> bool {
        self.target.0.lock().unwrap().mood = Some(mood);
        let order = self.order(release, build, is_recorded, action);
        let result = self.runtime.block_on(self.flow().run(vec![order]));
        self.target.0.lock().unwrap().mood = None;
        result.failed.is_empty()
    }

    pub fn order(
        &self,
        release: ReleaseRecord,
        build: &BuildRecord,
        is_recorded: bool,
        action: ReleaseAction,
    ) -> ReleaseOrder {
        ReleaseOrder {
            target: self.target.clone(),
            build: build.clone(),
            release,
            is_recorded,
            action,
        }
    }

    /// Deploys a new build of a commit.
    pub fn deploy(&mut self, commit: usize) -> (RecordId, FlowResult) {
        let build = self.build(commit);
        let release = new_release(&build, "command", ReleaseReason::Deploy, None, &actor());
        let id = release.id.clone();
        let order = self.order(release, &build, false, ReleaseAction::Deploy);
        (id, self.runtime.block_on(self.flow().run(vec![order])))
    }

    /// Makes a recorded release live.
    pub fn release(&self, id: &RecordId) {
        let records = self.records.read().unwrap();
        let release = records.release(id).unwrap().clone();
        let build = records.build(&release.build).unwrap();
        let done = self.carry_out(release, build, true, ReleaseAction::Release, Mood::Well);
        assert!(done, "{id} is not live");
    }

    /// The order of a rollback without an id.
    pub fn rollback(&self) -> ReleaseOrder {
        let (records, state, active) = self.snapshot();
        let wanted = earlier(&records, &state, active.as_ref()).unwrap();
        let copy = copy_forward(wanted, wanted.release, &actor());
        self.order(copy, wanted.build, false, ReleaseAction::Rollback)
    }

    /// Changes the settings.
    pub fn set(&self, name: &str) -> RecordId {
        let settings = StoreSettings {
            store: &self.store,
            target: &*self.target,
            records: &self.records,
            actor: &actor(),
        };
        let change = SettingsChange::Set([(name.to_owned(), "value".to_owned().into())].into());
        let made = settings.change(&change, (&self.services.events, None));
        self.runtime.block_on(made).unwrap().unwrap().id
    }

    /// The names of the settings of the live release.
    pub fn live_settings(&self) -> BTreeSet<String> {
        let (records, _, active) = self.snapshot();
        let release = records.release(&active.unwrap()).unwrap();
        release.setting_names.iter().cloned().collect()
    }

    /// What happened to a release, or to the store if none is given.
    pub fn happenings(&self, release: Option<&RecordId>) -> Vec<String> {
        let records = self.records.read().unwrap();
        let events = records.events();
        let own = events.filter(|it| it.release.as_ref() == release);
        let name = |event| serde_json::to_value(event).unwrap()["what"].clone();
        own.map(|event| name(event).as_str().unwrap().to_owned())
            .collect()
    }
}
