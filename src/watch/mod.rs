//! Keeps `.out` in step with changing sources, for `store dev` and `store compose --watch`.
//!
//! An event of the file system only tells where to look. The changed folders are read again and composed
//! by the code of `compose`, and the difference is renamed into place. One second after the last change
//! everything is planned anew and compared with the manifests and the disk, so a lost event delays a change
//! and does not lose it.
//!
//! A folder is watched before it is read: after new folders were found and are watched, they are read
//! again, so that no file is missed that was made in between.

mod batch;
mod changes;
mod error;
mod folders;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

pub use error::Error;

use crate::config::Project;
use crate::event::{Event, EventSubject, Events, Stage, SyncEvent};
use crate::overlay::{KnownContents, Owner};
use crate::pipeline::{
    ChangedFiles, Interrupt, NAMED_FILES, ProjectLock, SyncScope, keep_server_edits, put_in_step,
};
use crate::plan::{LayerChange, ListedLayers, Plan, Request, WatchedPlan};
use crate::store::{AppName, StoreId};
use batch::{Batch, Message, Next};
use changes::Changes;
use folders::{FolderWatch, WatchLimit};
use places::{Concern, Places};

/// How long nothing may change before everything is compared.
const QUIET: Duration = Duration::from_secs(1);

/// The pause after an attempt that failed, or that found the lock taken.
const RETRY: Duration = Duration::from_millis(100);

/// How often an attempt fails before the error is shown: a file can change while it is copied, and a
/// checkout writes one file after the other.
const HIDDEN_FAILURES: usize = 2;

/// How often new folders are looked for at once. Each round finds what was made during the one before.
const ROUNDS: usize = 8;

/// What is kept in step.
#[derive(Debug)]
pub struct SyncOptions {
    /// The folder of the project.
    pub root: PathBuf,
    /// The stores and apps.
    pub request: Request,
    /// Whether `.out` is left as it is until the first change.
    pub skips_first: bool,
}

/// `.out` of a project, kept in step with its sources.
pub struct OutSync {
    options: SyncOptions,
    events: Events,
    known: Arc<KnownContents>,
    messages: Receiver<Message>,
    sender: Sender<Message>,
    /// None if the system does not watch folders. Then everything is compared once a second.
    watch: Option<FolderWatch>,
    places: Places,
    current: WatchedPlan,
    /// What has changed and is not in `.out` yet.
    waiting: Batch,
    /// When everything is compared the next time.
    due: Option<Instant>,
    failures: usize,
    /// The message of the error that was shown last, until it is resolved.
    shown: Option<String>,
    /// The run that holds the lock, if that was told.
    holder: Option<String>,
}

/// Ends [`OutSync::run`] from another thread.
#[derive(Debug, Clone)]
pub struct SyncStop(Sender<Message>);

impl SyncStop {
    /// Lets the thread end after its current step.
    pub fn stop(&self) {
        // Without a receiver, the thread has ended.
        let _ = self.0.send(Message::Stop);
    }
}

/// What a step has to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Files have changed.
    Change,
    /// Nothing has changed for a second.
    Check,
}

impl OutSync {
    /// Composes the stores, and watches their sources.
    pub fn start(
        options: SyncOptions,
        events: &Events,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        let lock = ProjectLock::take(&options.root, events, interrupt)?;
        let (sender, messages) = std::sync::mpsc::channel();
        let known = Arc::default();
        let mut watch = match FolderWatch::new(batch::forward(sender.clone())) {
            Ok(watch) => Some(watch),
            Err(WatchLimit { message }) => {
                events.notice(message);
                None
            }
        };
        let project = Project::load(&options.root)?;
        let listed = listed(project, &options.request, &known, &mut watch, events)?;
        let places = Places::new(&listed);
        let current = listed.plan()?;
        for notice in &current.plan.notices {
            events.notice(notice);
        }
        let mut sync = Self {
            events: events.clone(),
            known,
            messages,
            sender,
            due: watch.is_none().then(|| Instant::now() + QUIET),
            watch,
            places,
            current,
            waiting: Batch::default(),
            failures: 0,
            shown: None,
            holder: None,
            options,
        };
        if !sync.options.skips_first {
            sync.compose(&lock)?;
        }
        sync.send(SyncEvent::Watching {
            folders: sync.watch.as_ref().map_or(0, FolderWatch::count),
            stores: sync.stores(),
        });
        Ok(sync)
    }

    /// The project and its plan as they are now.
    pub fn plan(&self) -> (&Project, &Plan) {
        (&self.current.project, &self.current.plan)
    }

    /// The handle that ends [`Self::run`].
    pub fn stop(&self) -> SyncStop {
        SyncStop(self.sender.clone())
    }

    /// Keeps `.out` in step until it is stopped. Calls `on_plan` after each change that may concern more
    /// than single files: of the config, of the stores, of rules.
    pub fn run(mut self, mut on_plan: impl FnMut(&Project, &Plan)) {
        loop {
            let now = Instant::now();
            let timeout = self.due.map(|due| due.saturating_duration_since(now));
            let cause = match batch::next(&self.messages, timeout) {
                Next::Stop => return,
                Next::Quiet => Cause::Check,
                Next::Batch(batch) => {
                    self.waiting.merge(batch);
                    Cause::Change
                }
            };
            self.step(cause, &mut on_plan);
        }
    }

    fn stores(&self) -> Vec<StoreId> {
        let stores = self.current.plan.stores.iter();
        stores.map(|store| store.id.clone()).collect()
    }

    fn send(&self, sync: SyncEvent) {
        self.events.send(Event::Sync { sync });
    }

    /// The first compose.
    fn compose(&mut self, lock: &ProjectLock) -> Result<(), Error> {
        let plan = &self.current.plan;
        let begin = |store| {
            let unit = EventSubject::store(Stage::Compose, store);
            (store, self.events.begin(&unit))
        };
        let spans: Vec<_> = plan.stores.iter().map(|store| begin(&store.id)).collect();
        let changed = put_in_step(plan, SyncScope::Everything, lock)?;
        for (store, span) in spans {
            let note = plan
                .stores
                .iter()
                .find(|one| one.id == *store)
                .zip(changed.get(store))
                .map(|(store, changed)| changed.note(store));
            span.end(Ok(note));
        }
        Ok(())
    }

    /// One step: what has changed is brought to `.out`, unless another run holds the lock.
    fn step(&mut self, cause: Cause, on_plan: &mut impl FnMut(&Project, &Plan)) {
        let changed = std::mem::take(&mut self.waiting);
        // An attempt that is repeated follows a change.
        let cause = if changed.is_incomplete {
            Cause::Change
        } else {
            cause
        };
        let concern = match cause {
            Cause::Change => self.concern(&changed),
            Cause::Check => Concern::Everything,
        };
        if concern == Concern::Nothing {
            return;
        }
        let lock = match ProjectLock::try_take(&self.options.root) {
            Ok(Ok(lock)) => lock,
            Ok(Err(holder)) => return self.postpone(holder),
            Err(error) => return self.failed(&error.into()),
        };
        if let Some(recovery) = lock.recovery() {
            self.events.notice(recovery.to_string());
        }
        self.holder = None;
        let result = match concern {
            Concern::Folders(folders) if self.failures == 0 => {
                let folders = folders.into_iter().collect();
                let result = self.update(folders, &changed.entries, &lock);
                // The servers get their variables from these files.
                if changed.paths().any(|(path, _)| is_env(path)) {
                    on_plan(&self.current.project, &self.current.plan);
                }
                result
            }
            _ => {
                // A folder can have been replaced by another one of the same name.
                for path in &changed.entries {
                    self.watch.iter_mut().for_each(|watch| watch.forget(path));
                }
                if changed.is_incomplete
                    && let Some(watch) = &mut self.watch
                {
                    watch.forget(Path::new("/"));
                }
                self.renew(cause, &lock, on_plan)
            }
        };
        match result {
            Ok(()) => self.succeeded(cause),
            Err(error) => self.failed(&error),
        }
    }

    /// Waits for another run: it may be composing or building.
    fn postpone(&mut self, holder: String) {
        self.waiting.is_incomplete = true;
        self.due = Some(Instant::now() + RETRY);
        if self.holder.as_ref() != Some(&holder) {
            self.events.notice(format!(
                "`.out` follows changes again when another run has ended ({holder})"
            ));
            self.holder = Some(holder);
        }
    }

    fn succeeded(&mut self, cause: Cause) {
        self.failures = 0;
        if self.shown.take().is_some() {
            self.send(SyncEvent::Mended);
        }
        let is_polling = self.watch.is_none();
        let again = cause == Cause::Change || is_polling;
        self.due = again.then(|| Instant::now() + QUIET);
    }

    fn failed(&mut self, error: &Error) {
        self.failures += 1;
        // The plan may be older than `.out`.
        self.waiting.is_incomplete = true;
        let is_new = self.failures > HIDDEN_FAILURES;
        self.due = Some(Instant::now() + if is_new { QUIET } else { RETRY });
        let message = error::text(error);
        if is_new && self.shown.as_ref() != Some(&message) {
            self.shown = Some(message.clone());
            self.send(SyncEvent::Failed { message });
        }
    }

    /// What a batch concerns.
    fn concern(&self, batch: &Batch) -> Concern {
        if batch.is_incomplete {
            return Concern::Everything;
        }
        let mut all = Vec::new();
        for (path, is_entry) in batch.paths() {
            match self.places.concern(path, is_entry, &self.current) {
                Concern::Everything => return Concern::Everything,
                Concern::Folders(folders) => all.extend(folders),
                Concern::Nothing => {}
            }
        }
        if all.is_empty() {
            Concern::Nothing
        } else {
            Concern::Folders(all)
        }
    }

    /// Reads changed folders again and brings their differences to `.out`. `entries` are paths that were
    /// created, removed or renamed.
    fn update(
        &mut self,
        folders: BTreeSet<PathBuf>,
        entries: &BTreeSet<PathBuf>,
        lock: &ProjectLock,
    ) -> Result<(), Error> {
        for path in entries {
            self.watch.iter_mut().for_each(|watch| watch.forget(path));
        }
        let mut layers = Vec::<LayerChange>::new();
        let (mut folders, mut replaced) = (folders, entries.clone());
        for _ in 0..ROUNDS {
            let read = self.current.read_again(&folders, &replaced)?;
            let keys: BTreeSet<(Owner, AppName)> = read.iter().map(key).collect();
            layers.extend(read);
            let wanted = self.current.folders_of(&keys);
            folders = watched(&mut self.watch, &self.events, |watch| watch.add(wanted));
            if folders.is_empty() {
                break;
            }
            replaced = BTreeSet::new();
        }
        layers.retain(|layer| !layer.paths.is_empty());
        if layers.is_empty() {
            return Ok(());
        }
        let keys = layers.iter().map(key).collect();
        let units = self.current.compose_again(&keys)?;
        let changes = Changes::new(&units, &layers, &self.current.plan);
        let written = if changes.paths.is_empty() {
            Ok(())
        } else {
            let scope = SyncScope::Paths(&changes.paths);
            put_in_step(&self.current.plan, scope, lock).map(drop)
        };
        // Told although the next attempt may have to write them: the plan has the change already.
        self.tell(changes);
        Ok(written?)
    }

    /// Plans everything anew and compares it with the disk.
    fn renew(
        &mut self,
        cause: Cause,
        lock: &ProjectLock,
        on_plan: &mut impl FnMut(&Project, &Plan),
    ) -> Result<(), Error> {
        let project = Project::load(&self.options.root)?;
        let request = &self.options.request;
        let listed = listed(project, request, &self.known, &mut self.watch, &self.events)?;
        self.places = Places::new(&listed);
        let new = listed.plan()?;
        keep_server_edits(&new.plan, lock)?;
        let written = put_in_step(&new.plan, SyncScope::Everything, lock)?;
        let count: usize = written.values().map(|it| it.written + it.removed).sum();
        let units = new.changes_since(&self.current.plan);
        let changes = Changes::new(&units, &[], &new.plan);
        let is_other = !changes.added.is_empty() || !changes.gone.is_empty();
        let known = self.current.plan.notices.clone();
        self.current = new;
        for notice in &self.current.plan.notices {
            if !known.contains(notice) {
                self.events.notice(notice);
            }
        }
        if cause == Cause::Check {
            // A new store explains differences.
            let is_explained = is_other || changes.count() > 0;
            let late = changes.count();
            self.send(if is_explained {
                SyncEvent::Checked {
                    repaired: 0,
                    repaired_files: Vec::new(),
                    late,
                }
            } else {
                SyncEvent::Checked {
                    repaired: count,
                    repaired_files: first_paths(&written),
                    late,
                }
            });
        }
        self.tell(changes);
        on_plan(&self.current.project, &self.current.plan);
        Ok(())
    }

    fn tell(&self, changes: Changes) {
        for store in &changes.added {
            self.events.notice(format!("`{store}` is composed too"));
        }
        for store in &changes.gone {
            self.events.notice(format!(
                "apps of `{store}` are not composed any more; their files in `.out` are kept"
            ));
        }
        if !changes.files.is_empty() {
            let files = changes.files;
            self.send(SyncEvent::Files { files });
        }
    }
}

/// The first changed files, relative to the project.
fn first_paths(changed: &BTreeMap<StoreId, ChangedFiles>) -> Vec<String> {
    let paths = changed.iter().flat_map(|(store, files)| {
        let paths = files.first.iter();
        paths.map(move |path| format!(".out/{store}/{path}"))
    });
    paths.take(NAMED_FILES).collect()
}

fn is_env(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == ".env" || name.starts_with(".env."))
}

fn key(layer: &LayerChange) -> (Owner, AppName) {
    (layer.owner.clone(), layer.app.clone())
}

/// Lists the layers, with all their folders watched.
fn listed(
    project: Project,
    request: &Request,
    known: &Arc<KnownContents>,
    watch: &mut Option<FolderWatch>,
    events: &Events,
) -> Result<ListedLayers, Error> {
    let mut project = project;
    for _ in 0..ROUNDS {
        let listed = ListedLayers::read(project.clone(), request.clone(), known)?;
        let mut folders: BTreeSet<PathBuf> = Places::new(&listed).folders().collect();
        folders.extend(listed.layer_folders().map(Path::to_owned));
        let added = watched(watch, events, |watch| watch.set(&folders));
        if added.is_empty() {
            return Ok(listed);
        }
        // Stores, too, can have been made before their folders were watched.
        project = Project::load(&project.root)?;
    }
    Ok(ListedLayers::read(project, request.clone(), known)?)
}

/// Watches more folders. If the system refuses, no folder is watched any more.
fn watched(
    watch: &mut Option<FolderWatch>,
    events: &Events,
    act: impl FnOnce(&mut FolderWatch) -> Result<BTreeSet<PathBuf>, WatchLimit>,
) -> BTreeSet<PathBuf> {
    match watch.as_mut().map(act) {
        Some(Ok(added)) => added,
        None => BTreeSet::new(),
        Some(Err(WatchLimit { message })) => {
            events.notice(message);
            *watch = None;
            BTreeSet::new()
        }
    }
}
