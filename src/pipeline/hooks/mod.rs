//! Runs the hooks of a store: commands of the user before and after stages, on this machine or in a
//! container of a new image.
//!
//! A hook is a process group of its own, as a script is. It sees the variables of the system, its own
//! variables of the config, and ids and references in `ALOKAI_*`. The sandbox does not apply to it.

mod container;
mod error;
mod stages;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tempfile::TempDir;

pub use error::Error;
pub use stages::StageHooks;

use self::variables::{HookEnvironment, HookVariables};
use super::build::ProcessMemory;
use super::docker;
use super::failure::StageError;
use super::process::{self, ProcessError, ScriptCommand};
use super::services::{ScriptEnvironment, Services};
use super::start::how;
use crate::config::{HookFailure, HookStage, HookTime};
use crate::event::EventSubject;
use crate::plan::{DestinationPlan, HookPlan, Plan, run_stage};
use crate::store::AppName;
use oci::StoredImage;

/// What hooks of a store are told in `ALOKAI_*`, and the images in which they run.
#[derive(Debug, Clone, Default)]
pub struct HookContext {
    /// The id of the build, if it has one yet.
    pub build: Option<String>,
    /// The id of the release, if there is one yet.
    pub release: Option<String>,
    /// The images of the store, by app. Empty before they are pushed.
    pub images: BTreeMap<AppName, HookImage>,
    /// The settings of the release, which only hooks in an image get.
    pub settings: BTreeMap<String, SecretString>,
}

/// An image of a store.
#[derive(Debug, Clone)]
pub struct HookImage {
    /// `<registry>/<repository>:<tag>`, or `oci:<dir>:<repository>:<tag>`.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The image on this machine, if its target runs apps without an engine.
    pub unpacked: Option<UnpackedImage>,
}

/// The files of an image in a folder of this machine, which is removed with this value.
#[derive(Debug, Clone)]
pub struct UnpackedImage {
    /// The folder.
    pub folder: Arc<TempDir>,
    /// The working directory of the image, in the folder.
    pub workdir: PathBuf,
    /// The variables of the image.
    pub variables: BTreeMap<String, String>,
}

impl HookImage {
    /// The reference by digest. An image in a folder keeps its name, because names in a folder have no
    /// digest.
    pub fn pinned(&self) -> String {
        let image = StoredImage::parse(&self.reference);
        let by_digest = image.and_then(|image| image.by_digest(&self.digest));
        by_digest.unwrap_or_else(|| self.reference.clone())
    }
}

/// A hook that ran.
#[derive(Debug, Clone)]
pub struct HookRun {
    /// The hook.
    pub hook: HookPlan,
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Its exit code. None if a signal or the time limit ended it, or if it could not be started.
    pub code: Option<i32>,
    /// How it ended, such as `exited with code 3`.
    pub ended: String,
    /// How long it took.
    pub elapsed: Duration,
    /// The file with its output, in which secrets are replaced.
    pub log: PathBuf,
}

/// The hooks of a store at one place that ran.
#[derive(Debug, Default)]
pub struct HookRuns {
    /// Each hook that ran, in order.
    pub runs: Vec<HookRun>,
    /// Why the store fails. No hook runs after this one.
    pub failure: Option<Error>,
}

/// Runs the hooks of stores.
#[derive(Clone, Copy)]
pub struct HookRunner<'a> {
    /// The project, in whose folder hooks on this machine run.
    pub project: &'a Path,
    /// The services of the run.
    pub services: &'a Services,
    /// The environment of scripts, of which hooks see the variables of the system.
    pub scripts: &'a ScriptEnvironment,
}

impl HookRunner<'_> {
    /// Runs the hooks before a stage, one after another. `hooks` are all hooks of the store.
    pub async fn before(
        &self,
        stage: HookStage,
        hooks: &[HookPlan],
        context: &HookContext,
    ) -> HookRuns {
        self.run((HookTime::Before, stage), hooks, context).await
    }

    /// Runs the hooks after a stage that has succeeded, one after another. `hooks` are all hooks of the
    /// store.
    pub async fn after(
        &self,
        stage: HookStage,
        hooks: &[HookPlan],
        context: &HookContext,
    ) -> HookRuns {
        self.run((HookTime::After, stage), hooks, context).await
    }

    /// Runs the hooks at one place, one after another.
    pub async fn run(
        &self,
        place: (HookTime, HookStage),
        hooks: &[HookPlan],
        context: &HookContext,
    ) -> HookRuns {
        let mut all = HookRuns::default();
        for hook in hooks.iter().filter(|hook| (hook.when, hook.stage) == place) {
            if self.services.interrupt.stopped() {
                all.failure = Some(Error::Interrupted);
                break;
            }
            let (run, result) = self.one(hook, context).await;
            all.runs.push(run);
            match result {
                Ok(()) => {}
                Err(error) if may_continue(hook, &error) => {
                    self.services.events.notice(format!(
                        "{}: the hook `{}` {} failed, and the store continues",
                        hook.store,
                        all.runs
                            .last()
                            .map_or_else(String::new, |run| run.hook.command_line()),
                        hook.place()
                    ));
                }
                Err(error) => {
                    all.failure = Some(error);
                    break;
                }
            }
        }
        all
    }

    async fn one(&self, hook: &HookPlan, context: &HookContext) -> (HookRun, Result<(), Error>) {
        let subject = EventSubject::hook(run_stage(hook.stage), &hook.store, hook.place());
        let span = self.services.events.begin(&subject);
        let started = Instant::now();
        let log = self.log(hook);
        let shown = self.without_secrets(hook, context);
        let result = self.execute(hook, context, &subject, &log).await;
        let (code, result) = match result {
            Ok(status) if status.success() => (Some(0), Ok(())),
            Ok(HookStatus { code, how, tail }) => {
                let failed = Error::failed(&shown, how, tail, &log);
                (code, Err(failed))
            }
            Err(error) => (None, Err(error)),
        };
        let run = HookRun {
            hook: shown,
            succeeded: result.is_ok(),
            code,
            ended: match &result {
                Ok(()) => "exited with code 0".into(),
                Err(error) => error.short(),
            },
            elapsed: started.elapsed(),
            log,
        };
        let outcome = match &result {
            Ok(()) => Ok(Some(run.hook.command_line())),
            Err(error) => Err(error.to_string()),
        };
        span.end(outcome);
        (run, result)
    }

    /// The hook for messages and records: the secrets that its output must not show are replaced in its
    /// command too.
    fn without_secrets(&self, hook: &HookPlan, context: &HookContext) -> HookPlan {
        let mut shown = hook.clone();
        let variables = HookVariables::new(hook, context, self.scripts);
        let redactor = variables.ok().map(|variables| variables.redactor());
        for word in &mut shown.command {
            let text = self.services.redact(word);
            *word = match &redactor {
                Some(redactor) => redactor.redact(&text),
                None => text,
            };
        }
        shown
    }

    async fn execute(
        &self,
        hook: &HookPlan,
        context: &HookContext,
        subject: &EventSubject,
        log: &Path,
    ) -> Result<HookStatus, Error> {
        let variables = HookVariables::new(hook, context, self.scripts)?;
        let Some(app) = &hook.image_of else {
            let environment = variables.on_host(self.scripts);
            let folder = self.project;
            return self
                .on_host((hook, folder), environment, subject, log)
                .await;
        };
        let image = context.images.get(app).ok_or_else(|| Error::NoImage {
            hook: Error::name(hook),
            app: app.clone(),
        })?;
        if let Some(UnpackedImage {
            workdir,
            variables: of_image,
            ..
        }) = &image.unpacked
        {
            let environment = variables.in_unpacked(of_image, self.scripts);
            return self
                .on_host((hook, workdir), environment, subject, log)
                .await;
        }
        let hook = container::ImageHook {
            hook,
            image: &image.pinned(),
            variables,
            subject,
            project: self.project,
            log,
        };
        container::run(hook, self.services).await
    }

    async fn on_host(
        &self,
        (hook, folder): (&HookPlan, &Path),
        environment: HookEnvironment,
        subject: &EventSubject,
        log: &Path,
    ) -> Result<HookStatus, Error> {
        let script = ScriptCommand {
            unit: subject,
            command: &hook.command,
            folder,
            log: log.to_owned(),
            continues_log: false,
            variables: &[],
            settings: &[],
            environment: &environment.all,
            memory: &ProcessMemory::default(),
            sandbox: None,
            timeout: Some(hook.timeout),
            redactor: Some(&environment.redactor),
        };
        match process::run(script, self.services).await {
            Ok(ended) => Ok(HookStatus {
                code: ended.status.code(),
                how: how(Ok(ended.status)),
                tail: ended.tail,
            }),
            Err(ProcessError::TimedOut(tail)) => Ok(HookStatus::timed_out(hook, tail)),
            Err(ProcessError::Start(source)) => Err(Error::start(hook, source)),
            Err(ProcessError::Log(error)) => Err(error.into()),
            // A hook has no sandbox.
            Err(ProcessError::Sandbox(reason)) => {
                Err(Error::start(hook, std::io::Error::other(reason)))
            }
            Err(ProcessError::Interrupted) => Err(Error::Interrupted),
        }
    }

    fn log(&self, hook: &HookPlan) -> PathBuf {
        let HookPlan {
            store,
            number,
            when,
            stage,
            ..
        } = hook;
        let name = format!(".alokai/logs/hooks/{store}/{number}-{when}-{stage}.log");
        self.project.join(name)
    }
}

/// How a hook ended.
struct HookStatus {
    /// None if it was ended by a signal or its time limit.
    code: Option<i32>,
    /// In words.
    how: String,
    /// Its last lines.
    tail: Vec<String>,
}

impl HookStatus {
    fn success(&self) -> bool {
        self.code == Some(0)
    }

    fn timed_out(hook: &HookPlan, tail: Vec<String>) -> Self {
        Self {
            code: None,
            how: format!("did not end within {} s", hook.timeout.as_secs()),
            tail,
        }
    }
}

/// Whether the store continues after this failure.
fn may_continue(hook: &HookPlan, error: &Error) -> bool {
    hook.on_failure == HookFailure::Continue && !matches!(error, Error::Interrupted)
}

/// Checks before the first build that the hooks of a run can start: their variables are set, and the
/// engine can run their images.
pub async fn check(
    plan: &Plan,
    services: &Services,
    scripts: &ScriptEnvironment,
) -> Vec<StageError> {
    let mut problems: Vec<StageError> = Vec::new();
    let mut known = BTreeSet::new();
    // Several stores have the same hook, and it is reported once.
    let hooks = plan.hooks.iter();
    let hooks: Vec<_> = hooks.filter(|hook| known.insert(hook.number)).collect();
    for hook in &hooks {
        let missing = variables::missing(hook, scripts);
        problems.extend(missing.map(StageError::from));
    }
    let in_images = plan.hooks.iter().filter(|hook| hook.image_of.is_some());
    if let Some(DestinationPlan::Layout { name, .. }) = &plan.destination {
        // The target of `--local` unpacks the images of its releases.
        let early = hooks.iter().filter(|hook| {
            let is_in_image = hook.image_of.is_some();
            is_in_image && hook.stage == HookStage::Push
        });
        problems.extend(early.map(|hook| StageError::from(Error::needs_registry(hook, name))));
        return problems;
    }
    // Stores may have targets with different engines.
    let mut engines = BTreeSet::new();
    for hook in in_images.filter(|hook| engines.insert(&hook.engine)) {
        let engine = services.access.engine(hook.engine.as_deref());
        if let Err(error) = docker::connect(engine).await {
            problems.push(Error::engine(hook, error).into());
        }
    }
    problems
}
