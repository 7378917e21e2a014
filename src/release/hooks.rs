//! The hooks around the steps of a release, and the records of hooks with their output.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::Error;
use super::steps::StoreRun;
use crate::config::{HookStage, HookTime};
use crate::event::seconds;
use crate::ledger::{
    Actor, EventRecord, FolderError, LogFolder, LogText, Record, RecordId, StoreEvent,
};
use crate::pipeline::{HookContext, HookError, HookImage, HookRun, HookRunner};
use crate::plan::{hooks_of, no_staging};
use crate::store::{AppName, TargetKind};
use crate::target::ReleaseSpec;

/// The most bytes of a hook's output that are recorded: its end.
const MOST_OUTPUT: u64 = 4 << 20;

/// The record of a hook that ran. `released` are the release and the target of a hook around a release,
/// and `start` is the start of the run that it belongs to.
pub fn hook_record(
    run: &HookRun,
    released: Option<(&RecordId, &str)>,
    start: Option<&RecordId>,
    actor: &Actor,
    logs: &LogFolder,
) -> Result<EventRecord, FolderError> {
    // A hook that could not be started has no output.
    let output = output_of(&run.log).unwrap_or_default();
    let log = (!output.text.is_empty()).then(|| logs.write(&output));
    let what = StoreEvent::Hook {
        command: run.hook.command_line(),
        code: run.code,
    };
    Ok(EventRecord {
        target: released.map(|(_, target)| target.to_owned()),
        release: released.map(|(release, _)| release.clone()),
        run: start.cloned(),
        seconds: Some(seconds(run.elapsed)),
        detail: Some(format!("{}: {}", run.hook.place(), run.ended)),
        log: log.transpose()?,
        ..EventRecord::new(run.hook.store.clone(), what, actor.clone())
    })
}

/// The end of a log.
fn output_of(path: &Path) -> std::io::Result<LogText> {
    let mut log = File::open(path)?;
    let size = log.metadata()?.len();
    let start = size.saturating_sub(MOST_OUTPUT);
    log.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    log.take(MOST_OUTPUT).read_to_end(&mut text)?;
    let truncated = start > 0;
    if truncated {
        // The first line is not whole.
        let end = text.iter().position(|byte| *byte == b'\n');
        text.drain(..end.map_or(0, |end| end + 1));
    }
    Ok(LogText { text, truncated })
}

impl StoreRun<'_> {
    /// Runs the hooks of the store at one place of a release, and records them. The build is that of the
    /// release.
    pub(super) async fn hooks(
        &self,
        place: (HookTime, HookStage),
        (spec, build): (&ReleaseSpec, &RecordId),
    ) -> Result<(), Error> {
        let Some(store) = self.flow.project.stores.get(self.store.as_str()) else {
            return Ok(());
        };
        let hooks = hooks_of(self.flow.project, store);
        let own = hooks.iter();
        let own: Vec<_> = own
            .filter(|hook| (hook.when, hook.stage) == place)
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        let in_images: BTreeSet<_> = own.iter().filter_map(|it| it.image_of.as_ref()).collect();
        let context = self.hook_context((spec, build), &in_images).await?;
        let runner = HookRunner {
            project: &self.flow.project.root,
            services: self.flow.services,
            scripts: &self.flow.options.scripts,
        };
        // Each hook is recorded when it ends: a kill during the next one does not lose it.
        for hook in own {
            let hook = std::slice::from_ref(hook);
            // The future of a hook is large, and a release awaits it at several places.
            let ended = Box::pin(runner.run(place, hook, &context)).await;
            self.record_hooks(&ended.runs, spec);
            match ended.failure {
                None => {}
                Some(HookError::Interrupted) => {
                    let store = self.store.clone();
                    return Err(Error::Interrupted { store });
                }
                Some(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the store has hooks at one place of a release.
    pub(super) fn has_hooks(&self, place: (HookTime, HookStage)) -> bool {
        let store = self.flow.project.stores.get(self.store.as_str());
        let hooks = store.map(|store| hooks_of(self.flow.project, store));
        let mut hooks = hooks.into_iter().flatten();
        hooks.any(|hook| (hook.when, hook.stage) == place)
    }

    /// Records hooks that have ended. A record that cannot be written does not fail a release.
    fn record_hooks(&self, runs: &[HookRun], spec: &ReleaseSpec) {
        let logs = LogFolder::of_project(&self.flow.project.root);
        let released = Some((&spec.id, self.target.name()));
        for run in runs {
            let (start, actor) = (self.journal.run, &self.flow.options.actor);
            match hook_record(run, released, start, actor, &logs) {
                Ok(record) => self.journal.append(Record::Event(record)),
                Err(error) => self.flow.services.events.notice(format!(
                    "{}: the run of the hook `{}` is not recorded: {error}",
                    self.store,
                    run.hook.command_line()
                )),
            }
        }
    }

    /// Says that hooks of the stage `stage` do not run, because the target has no such stage. The plan says
    /// it for the console already.
    pub(super) fn tell_idle_hooks(&self) {
        let store = self.flow.project.stores.get(self.store.as_str());
        let hooks = store.map(|store| hooks_of(self.flow.project, store));
        let mut hooks = hooks.into_iter().flatten();
        let is_console = self.target.kind() == TargetKind::Console;
        if !is_console && hooks.any(|hook| hook.stage == HookStage::Stage) {
            self.flow
                .services
                .events
                .notice(no_staging(self.store, self.target.name()));
        }
    }

    /// What hooks are told. `in_images` are the apps in whose images hooks run.
    async fn hook_context(
        &self,
        (spec, build): (&ReleaseSpec, &RecordId),
        in_images: &BTreeSet<&AppName>,
    ) -> Result<HookContext, Error> {
        let mut settings = None;
        if let Some(version) = &spec.settings {
            settings = self.target.settings(self.store, version).await?;
        }
        let mut images = BTreeMap::new();
        for app in &spec.apps {
            let mut unpacked = None;
            if in_images.contains(&app.app) {
                unpacked = self.target.unpacked(app).await?;
            }
            let image = HookImage {
                reference: app.reference.clone(),
                digest: app.digest.clone(),
                unpacked,
            };
            images.insert(app.app.clone(), image);
        }
        Ok(HookContext {
            build: Some(build.to_string()),
            release: Some(spec.id.to_string()),
            images,
            settings: settings.unwrap_or_default(),
        })
    }
}
