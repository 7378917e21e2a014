//! Records of builds: what a run has made of each store, or why it has not.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Events, Stage, seconds};
use crate::ledger::{
    Actor, BuildRecord, BuildStatus, BuiltApp, CommitSummary, EventRecord, LogFolder, LogText,
    Record, RecordFolder, RecordId, RecordKind, SCHEMA_VERSION, StoreEvent, StoredRecord,
    first_line, folder_id,
};
use crate::pipeline::{self, Failure, RunSummary, Services, UnitSummary};
use crate::plan::{Plan, StorePlan};
use crate::release::hook_record;
use crate::report::Transcripts;
use crate::store::{AppName, StoreId};

use super::events::READER_TIMEOUT;
use super::run::cache_state;
use super::shared_records::{SharedPlace, send};

/// Seconds after which a run without a recorded end counts as interrupted.
const LEASE: u64 = 6 * 60 * 60;

/// Records the builds of a run.
pub struct BuildRecorder {
    records: RecordFolder,
    logs: LogFolder,
    actor: Actor,
    started: Timestamp,
    /// The records of the start, by store.
    starts: BTreeMap<StoreId, RecordId>,
    /// The ids of the builds, by store.
    builds: BTreeMap<StoreId, RecordId>,
    transcripts: Transcripts,
}

/// How long the registry may take to receive the records of a run.
const SHARING_TIMEOUT: Duration = Duration::from_mins(1);

/// The end of a run, as far as the records need it.
pub struct EndedRun<'a> {
    /// The results.
    pub summary: &'a RunSummary,
    /// How it ended.
    pub result: &'a Result<(), pipeline::Error>,
}

/// The stores that have reached the end of a plan, each with its release if the plan makes one.
pub type FinishedStores = BTreeMap<StoreId, Option<RecordId>>;

impl BuildRecorder {
    /// Records that the stores of a run start. `None` for a run that makes no images.
    pub fn start(
        plan: &Plan,
        actor: Actor,
        transcripts: Transcripts,
        events: &Events,
    ) -> Option<Self> {
        if plan.until < Stage::Image || !plan.work.is_build() {
            return None;
        }
        let started = Timestamp::now();
        let stores = plan.stores.iter();
        let builds =
            stores.map(|store| (store.id.clone(), RecordId::new(RecordKind::Build, started)));
        let mut recorder = Self {
            records: RecordFolder::of_project(&plan.project),
            logs: LogFolder::of_project(&plan.project),
            actor,
            started,
            builds: builds.collect(),
            starts: BTreeMap::new(),
            transcripts,
        };
        for store in &plan.stores {
            let operation = match plan.until {
                Stage::Deploy => "deploy".to_owned(),
                until => format!("deploy --until {until}"),
            };
            let started = StoreEvent::Started {
                operation,
                lease: LEASE,
                folder: folder_id(&plan.project),
                plan: Some(plan.release_digest(&store.id).to_string()),
            };
            let started = EventRecord::new(store.id.clone(), started, recorder.actor.clone());
            let id = started.id.clone();
            // The log is first. If the run is killed, the next run finds the log and records the end. A
            // record without a log would stay without an end, and other machines would list the run as
            // running.
            match recorder.logs.begin(&id) {
                Ok(log) => recorder.transcripts.copy_to(&store.id, &log),
                Err(error) => not_recorded(events, &error),
            }
            recorder.append(Record::Event(started), events);
            recorder.starts.insert(store.id.clone(), id);
        }
        Some(recorder)
    }

    /// The records of the start, by store.
    pub fn starts(&self) -> BTreeMap<StoreId, RecordId> {
        self.starts.clone()
    }

    /// The ids of the builds, by store.
    pub fn ids(&self) -> BTreeMap<StoreId, String> {
        let ids = self.builds.iter();
        ids.map(|(store, id)| (store.clone(), id.to_string()))
            .collect()
    }

    /// Records what was built of each store, and the hooks that ran.
    pub fn builds(&self, plan: &Plan, run: &EndedRun, events: &Events) -> Vec<BuildRecord> {
        // The output is complete when the reporter has taken all of it.
        events.flush(READER_TIMEOUT);
        let builds = plan.stores.iter();
        let builds = builds.map(|store| self.build(plan, store, run, events));
        for hook in &run.summary.hooks {
            let start = self.starts.get(&hook.hook.store);
            match hook_record(hook, None, start, &self.actor, &self.logs) {
                Ok(record) => self.append(Record::Event(record), events),
                Err(error) => not_recorded(events, &error),
            }
        }
        builds
            .inspect(|build| self.append(Record::Build(build.clone()), events))
            .collect()
    }

    /// Records how the run has ended for each store, and sends the records to the registry. `finished` are
    /// the stores that have reached the end of the plan, with their releases.
    pub fn end(
        &self,
        plan: &Plan,
        result: &Result<(), pipeline::Error>,
        finished: &FinishedStores,
        services: &Services,
    ) {
        let events = &services.events;
        for store in &plan.stores {
            let Some(start) = self.starts.get(&store.id) else {
                continue;
            };
            let release = finished.get(&store.id);
            let ended = StoreEvent::Ended {
                start: start.clone(),
                succeeded: release.is_some(),
                interrupted: release.is_none()
                    && matches!(result, Err(pipeline::Error::Interrupted { .. })),
            };
            let mut event = EventRecord::new(store.id.clone(), ended, self.actor.clone());
            event.release = release.cloned().flatten();
            if release.is_none() {
                let failed = failures(result, &store.id);
                let failed = failed.first().map(|error| first_line(error));
                let skipped = || "another store has failed before".to_owned();
                event.detail = Some(failed.unwrap_or_else(skipped));
            }
            self.append(Record::Event(event), events);
            self.logs.end(start);
        }
        if plan.until >= Stage::Push && may_share(result) {
            let _waiting = events.waiting();
            let ended = services.wait(async {
                let sharing = tokio::time::timeout(SHARING_TIMEOUT, self.share(plan, services));
                tokio::select! {
                    ended = sharing => ended.is_ok(),
                    () = services.interrupt.stopping() => false,
                }
            });
            if !ended {
                events.notice(format!(
                    "the records of this run are only on this machine: they were not accepted within {} s",
                    SHARING_TIMEOUT.as_secs()
                ));
            }
        }
    }

    /// Records that the run has failed before its first step.
    pub fn end_early(&self, reason: &str, events: &Events) {
        for (store, start) in &self.starts {
            let ended = StoreEvent::Ended {
                start: start.clone(),
                succeeded: false,
                interrupted: false,
            };
            let mut event = EventRecord::new(store.clone(), ended, self.actor.clone());
            event.detail = Some(first_line(reason));
            self.append(Record::Event(event), events);
            self.logs.end(start);
        }
    }

    /// Sends the records of this machine to where the images are. A registry that refuses them is no
    /// reason for a deploy to fail: the next deploy from this machine sends them again.
    async fn share(&self, plan: &Plan, services: &Services) {
        let Some(destination) = &plan.destination else {
            return;
        };
        let stores = plan.stores.iter();
        let stores = stores.filter_map(|store| Some((store.id.clone(), store.repository.clone()?)));
        let stores: Vec<_> = stores.collect();
        let sent = match SharedPlace::open(destination, services).await {
            Ok(Some(place)) => send(&self.records, &place, &stores).await.map(drop),
            opened => opened.map(drop),
        };
        if let Err(reason) = sent {
            services.events.notice(format!(
                "the records of this run are only on this machine: {reason}"
            ));
        }
    }

    fn build(
        &self,
        plan: &Plan,
        store: &StorePlan,
        run: &EndedRun,
        events: &Events,
    ) -> BuildRecord {
        let failures = failures(run.result, &store.id);
        let units = run.summary.units.iter();
        let units = units.filter(|unit| unit.unit.store == store.id);
        let apps: BTreeMap<AppName, BuiltApp> = units
            .map(|unit| (unit.unit.app.clone(), built_app(plan, unit)))
            .collect();
        let images = plan.images_of(&store.id);
        let mut images = images.map(|image| apps.get(&image.unit.app));
        let has_all = images.all(|app| app.is_some_and(|app| is_made(app, plan.until)));
        let status = if has_all && failures.is_empty() {
            BuildStatus::Complete
        } else if matches!(run.result, Err(pipeline::Error::Interrupted { .. })) {
            BuildStatus::Interrupted
        } else {
            BuildStatus::Failed
        };
        let (text, truncated) = self.transcripts.of(&store.id);
        let log = self.logs.write(&LogText { text, truncated });
        let log = log.map_err(|error| not_recorded(events, &error)).ok();
        BuildRecord {
            schema_version: SCHEMA_VERSION,
            id: self
                .builds
                .get(&store.id)
                .cloned()
                .unwrap_or_else(|| RecordId::new(RecordKind::Build, self.started)),
            store: store.id.clone(),
            status,
            started: self.started,
            seconds: seconds(run.summary.elapsed),
            commit: plan.revision.as_ref().map(|revision| CommitSummary {
                sha: revision.sha.clone(),
                subject: revision.dirty.is_empty().then(|| revision.subject.clone()),
                dirty: !revision.dirty.is_empty(),
            }),
            tag: plan.tag.clone(),
            reached: reached(run, &store.id, plan.until),
            apps,
            composition: store.identity(),
            plan: Some(plan.store_digest(&store.id).to_string()),
            start: self.starts.get(&store.id).cloned(),
            imported_from: None,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            actor: self.actor.clone(),
            failures,
            log,
        }
    }

    /// A record that cannot be written is no reason for a deploy to fail.
    fn append(&self, record: Record, events: &Events) {
        match StoredRecord::new(record) {
            Ok(record) => {
                let appended = self.records.append(&record);
                let _ = appended.map_err(|error| not_recorded(events, &error));
            }
            Err(error) => not_recorded(events, &error),
        }
    }
}

fn not_recorded(events: &Events, error: &dyn std::error::Error) {
    let cause = error.source().map_or(String::new(), |it| format!(": {it}"));
    events.notice(format!("the build is not recorded: {error}{cause}"));
}

/// Whether the records are sent now. They are not if a push has failed, since the request would fail too,
/// and not if the run was interrupted. The next run sends them.
fn may_share(result: &Result<(), pipeline::Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(pipeline::Error::Failed { failures }) => {
            let mut units = failures.iter().map(|failure| &failure.unit);
            units.all(|unit| unit.stage != Stage::Push || unit.hook.is_some())
        }
        Err(_) => false,
    }
}

/// Why the store failed, one line for each failure.
fn failures(result: &Result<(), pipeline::Error>, store: &StoreId) -> Vec<String> {
    let of_store = |failures: &[Failure]| {
        let failures = failures.iter();
        // A workspace package, which has no store, is needed by all of them.
        let failures = failures.filter(|it| it.unit.store.as_ref().is_none_or(|id| id == store));
        failures.map(ToString::to_string).collect()
    };
    match result {
        Ok(()) => Vec::new(),
        Err(
            pipeline::Error::Failed { failures } | pipeline::Error::Interrupted { failures, .. },
        ) => of_store(failures),
        Err(pipeline::Error::Preflight { problems }) => {
            problems.iter().map(ToString::to_string).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

/// Whether the image of an app is where the plan puts it. Its name is known before it is pushed, and its
/// digest afterwards.
fn is_made(app: &BuiltApp, until: Stage) -> bool {
    app.reference.is_some() && (until < Stage::Push || app.digest.is_some())
}

/// The last stage that the store has started.
fn reached(run: &EndedRun, store: &StoreId, until: Stage) -> Stage {
    let failures = match run.result {
        Ok(()) => return until,
        Err(pipeline::Error::Interrupted { stage, .. }) => return *stage,
        Err(pipeline::Error::Failed { failures }) => failures,
        Err(_) => return Stage::Compose,
    };
    let own = |failure: &&Failure| failure.unit.store.as_ref().is_none_or(|id| id == store);
    let own = failures
        .iter()
        .filter(own)
        .map(|failure| failure.unit.stage);
    let first = failures.iter().map(|failure| failure.unit.stage).min();
    // A store without a failure of its own got as far as the run, which ended at the first failure.
    own.min().or(first).unwrap_or(until)
}

fn built_app(plan: &Plan, unit: &UnitSummary) -> BuiltApp {
    let mut images = plan.images_of(&unit.unit.store);
    let image = images.find(|image| image.unit.app == unit.unit.app);
    BuiltApp {
        reference: unit.reference.clone(),
        digest: unit.digest.clone(),
        inputs: image.map(|image| image.inputs.to_string()),
        seconds: unit.build.map(seconds),
        cache: if unit.was_there {
            Some("present".into())
        } else {
            unit.origin.clone().map(cache_state)
        },
        deploy_bytes: unit.deploy_size,
        image_bytes: unit.image_size,
    }
}

#[cfg(test)]
mod tests {
    use super::is_made;
    use crate::event::Stage;
    use crate::ledger::BuiltApp;

    #[test]
    fn an_image_that_was_not_pushed_is_not_made_by_a_plan_that_pushes() {
        let built = BuiltApp {
            reference: Some("r.example.com/shop/web:1".into()),
            ..BuiltApp::default()
        };
        assert!(is_made(&built, Stage::Image));
        assert!(!is_made(&built, Stage::Push) && !is_made(&built, Stage::Deploy));
        let pushed = BuiltApp {
            digest: Some("sha256:1".into()),
            ..built
        };
        assert!(is_made(&pushed, Stage::Push));
        assert!(!is_made(&BuiltApp::default(), Stage::Image));
    }
}
