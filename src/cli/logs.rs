//! `store logs`: what the apps of a release print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_client::Redactor;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::arguments::Global;
use super::arguments::live::LogsOptions;
use super::arguments::questions::ChosenTargets;
use super::environment::tell;
use super::events::{Live, live_with};
use super::listing::{plain, stored_records};
use super::store_targets::StoreTargets;
use super::{Error, answer};
use crate::config::nearest;
use crate::error::Error as AnyError;
use crate::ledger::{self, RecordId, RecordSet};
use crate::pipeline::readable;
use crate::redaction::redactor;
use crate::release::{self, build_of, spec_of_running};
use crate::report::{Detail, Lines};
use crate::store::{AppName, Store};
use crate::target::{self, AppLine, LogQuery, Target, place_options};

/// The capacity of the queue of lines to print.
const WAITING: usize = 1000;

/// How long lines are collected before they are sorted by time and printed, while output is followed.
const COLLECT: Duration = Duration::from_millis(300);

/// The pause between two checks whether another release is live.
const LOOK: Duration = Duration::from_secs(2);

/// A line with the release of its app.
type ReleaseLine = (RecordId, AppLine);

pub fn logs(global: &Global, options: &LogsOptions) -> Result<(), AnyError> {
    // Standard output has only the lines of apps, so notices go to standard error.
    let reporter = Lines::new(std::io::stderr(), Detail::Short);
    live_with(Box::new(reporter), |live| {
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
        if !target.capabilities().logs {
            return Err(Error::NoLogs {
                target: target.name(),
                store: store.id.clone(),
            }
            .into());
        }
        let app = app_of(&targets, options)?;
        let follower = Follower {
            targets: &targets,
            store,
            target,
            options,
            app,
        };
        follower.run(&live)
    })
}

/// The app of the command line.
fn app_of(targets: &StoreTargets, options: &LogsOptions) -> Result<Option<AppName>, Error> {
    let Some(wanted) = &options.app else {
        return Ok(None);
    };
    let mut apps = targets.project.apps.iter().map(|app| &app.name);
    if let Some(app) = apps.find(|app| app.as_str() == wanted) {
        return Ok(Some(app.clone()));
    }
    let apps = targets.project.apps.iter().map(|app| app.name.as_str());
    Err(Error::NoApp {
        app: wanted.clone(),
        nearest: nearest(wanted, apps).map(str::to_owned),
    })
}

/// Reads the output of a store.
struct Follower<'a> {
    targets: &'a StoreTargets,
    store: &'a Store,
    target: Arc<dyn Target>,
    options: &'a LogsOptions,
    app: Option<AppName>,
}

/// The releases whose output is being read.
struct Readers {
    tasks: JoinSet<(RecordId, Result<(), target::Error>)>,
    running: BTreeSet<RecordId>,
    /// When the last line of a release was printed.
    last: BTreeMap<RecordId, Timestamp>,
    lines: mpsc::Sender<ReleaseLine>,
}

impl Follower<'_> {
    fn run(&self, live: &Live) -> Result<(), AnyError> {
        let first = if let Some(id) = &self.options.release {
            self.recorded(id)?
        } else {
            let active = self.targets.registry.wait(self.active());
            let active = active.map_err(release::Error::from)?;
            active.ok_or_else(|| Error::NothingLive {
                store: self.store.id.clone(),
                target: self.target.name(),
            })?
        };
        let (sender, mut lines) = mpsc::channel(WAITING);
        let mut readers = Readers {
            tasks: JoinSet::new(),
            running: BTreeSet::new(),
            last: BTreeMap::new(),
            lines: sender,
        };
        let masks = Masks::of(self, &first)?;
        self.targets.registry.wait(async {
            self.start(&mut readers, first, masks);
            tokio::select! {
                biased;
                () = live.interrupt.stopping() => Err(Error::Stopped.into()),
                printed = self.print(&mut readers, &mut lines) => printed,
            }
        })
    }

    /// The release that is live, if the target can tell.
    async fn active(&self) -> Result<Option<RecordId>, target::Error> {
        Ok(self.target.observe(&self.store.id).await?.active)
    }

    /// The release with this id in the records.
    fn recorded(&self, id: &str) -> Result<RecordId, AnyError> {
        let records = stored_records(&self.targets.project)?;
        let found = records.find(id).map_err(ledger::Error::from)?;
        let release = records.release(found.id()).filter(|release| {
            release.store == self.store.id && release.target == self.target.name()
        });
        let release = release.ok_or_else(|| release::Error::WrongRelease {
            id: found.id().clone(),
            why: format!(
                "is not a release of `{}` at the target `{}`",
                self.store.id,
                self.target.name()
            ),
            place: place_options(&self.store.id, self.target.name()),
        })?;
        Ok(release.id.clone())
    }

    /// Starts to read the output of a release.
    fn start(&self, readers: &mut Readers, release: RecordId, masks: Masks) {
        let last = readers.last.get(&release).copied();
        // The engine may send the last line again.
        let next = last.and_then(|at| at.checked_add(Duration::from_nanos(1)).ok());
        let is_first = readers.last.is_empty() && readers.running.is_empty();
        let since = next.or(self.options.since.filter(|_| is_first));
        let (sender, mut received) = mpsc::channel::<AppLine>(WAITING);
        let query = LogQuery {
            store: self.store.id.clone(),
            release: Some(release.clone()),
            app: self.app.clone(),
            follow: self.options.follow,
            since,
            lines: sender,
        };
        readers.running.insert(release.clone());
        let (target, lines) = (Arc::clone(&self.target), readers.lines.clone());
        readers.tasks.spawn(async move {
            let reading = async {
                let read = target.logs(&query).await;
                // The receiver ends with the last sender.
                drop(query);
                read
            };
            let masking = async {
                while let Some(line) = received.recv().await {
                    let line = (release.clone(), masks.apply(line));
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
            };
            let (read, ()) = tokio::join!(reading, masking);
            (release, read)
        });
    }

    /// Prints lines until the output of all releases has ended.
    async fn print(
        &self,
        readers: &mut Readers,
        lines: &mut mpsc::Receiver<ReleaseLine>,
    ) -> Result<(), AnyError> {
        let mut screen = Screen::new(self);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.reset();
        let follows_store = self.options.follow && self.options.release.is_none();
        loop {
            let due = screen.due.filter(|_| self.options.follow);
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    screen.flush(&mut readers.last)?;
                }
                Some(line) = lines.recv() => screen.add(line),
                Some(ended) = readers.tasks.join_next() => {
                    if let Ok((release, read)) = ended {
                        readers.running.remove(&release);
                        if let Err(error) = read {
                            screen.drain(lines, &mut readers.last)?;
                            return Err(release::Error::from(error).into());
                        }
                    }
                    if readers.running.is_empty() && !follows_store {
                        return screen.drain(lines, &mut readers.last);
                    }
                }
                _ = looks.tick(), if follows_store => {
                    screen.drain(lines, &mut readers.last)?;
                    if !self.look(readers).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts to read the release that is live now. Returns false if none is live any more.
    async fn look(&self, readers: &mut Readers) -> Result<bool, AnyError> {
        let active = match self.active().await {
            Ok(active) => active,
            // A target that cannot be reached for a moment does not end the command.
            Err(_) if !readers.running.is_empty() => return Ok(true),
            Err(error) => return Err(release::Error::from(error).into()),
        };
        let Some(active) = active else {
            tell(&format!(
                "note: no release of `{}` is live any more",
                self.store.id
            ));
            return Ok(false);
        };
        if readers.running.contains(&active) {
            return Ok(true);
        }
        if !readers.last.contains_key(&active) {
            tell(&format!("note: {active} is live now"));
        }
        let masks = Masks::read(self, &active).await?;
        self.start(readers, active, masks);
        Ok(true)
    }
}

/// Collects lines, and prints them sorted by time.
struct Screen<'a> {
    follower: &'a Follower<'a>,
    collected: Vec<ReleaseLine>,
    due: Option<Instant>,
    /// The width of the names of apps.
    width: usize,
}

impl<'a> Screen<'a> {
    fn new(follower: &'a Follower<'a>) -> Self {
        Self {
            follower,
            collected: Vec::new(),
            due: None,
            width: 0,
        }
    }

    fn add(&mut self, line: ReleaseLine) {
        self.due.get_or_insert_with(|| Instant::now() + COLLECT);
        self.collected.push(line);
    }

    /// Prints everything that was received.
    fn drain(
        &mut self,
        lines: &mut mpsc::Receiver<ReleaseLine>,
        last: &mut BTreeMap<RecordId, Timestamp>,
    ) -> Result<(), AnyError> {
        while let Ok(line) = lines.try_recv() {
            self.add(line);
        }
        self.flush(last)
    }

    fn flush(&mut self, last: &mut BTreeMap<RecordId, Timestamp>) -> Result<(), AnyError> {
        self.due = None;
        let mut lines = std::mem::take(&mut self.collected);
        lines.sort_by_key(|(_, line)| line.at);
        for (_, line) in &lines {
            self.width = self.width.max(name(line).chars().count());
        }
        let mut text = String::new();
        for (release, line) in &lines {
            if let Some(at) = line.at {
                last.insert(release.clone(), at);
            }
            self.write(release, line, &mut text);
        }
        if text.is_empty() {
            Ok(())
        } else {
            answer(&text)
        }
    }

    fn write(&self, release: &RecordId, line: &AppLine, text: &mut String) {
        if self.follower.options.json {
            let line = json!({
                "storeId": self.follower.store.id,
                "release": release,
                "app": line.app,
                "replica": line.replica,
                "at": line.at,
                "line": line.line,
            });
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
            return;
        }
        let at = line.at.map_or_else(String::new, |at| {
            at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ ").to_string()
        });
        let (name, width) = (name(line), self.width);
        let line = format!("{name:<width$}  | {at}{}", plain(&line.line));
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// The app with the number of its replica.
fn name(line: &AppLine) -> String {
    format!("{}-{}", line.app, line.replica)
}

/// Replaces the values of settings and `.env` files that are known here. Targets that keep the values of
/// a release replace them too.
struct Masks {
    apps: BTreeMap<AppName, Redactor>,
    settings: Redactor,
}

impl Masks {
    fn of(follower: &Follower, release: &RecordId) -> Result<Self, AnyError> {
        let registry = &follower.targets.registry;
        let mut records = stored_records(&follower.targets.project)?;
        if !records.contains(release) {
            registry.pull(&follower.targets.project);
            records = stored_records(&follower.targets.project)?;
        }
        registry.wait(Self::from_records(follower, release, &records))
    }

    async fn read(follower: &Follower<'_>, release: &RecordId) -> Result<Self, AnyError> {
        let records = follower
            .targets
            .registry
            .live_records(&follower.targets.project);
        release::Records::fetch(&records, &follower.store.id).await;
        let records = release::Records::read(&records).map_err(ledger::Error::from)?;
        Self::from_records(follower, release, &records).await
    }

    async fn from_records(
        follower: &Follower<'_>,
        release: &RecordId,
        records: &RecordSet,
    ) -> Result<Self, AnyError> {
        let recorded = records.release(release);
        let version = recorded.and_then(|it| it.settings.as_deref());
        let settings = match version {
            Some(version) => {
                let asked = follower.target.settings(&follower.store.id, version);
                // Lines whose secrets are not known are not shown.
                asked.await.map_err(release::Error::from)?
            }
            None => None,
        };
        let settings = settings.unwrap_or_default();
        let spec = recorded
            .zip(build_of(records, release))
            .and_then(|(it, build)| {
                spec_of_running(&follower.targets.project, None, build, it).ok()
            });
        let apps = spec.into_iter().flat_map(|spec| spec.apps).map(|app| {
            let secrets = app.hidden().map(|(_, secret)| secret.expose_secret());
            (app.app.clone(), redactor(secrets))
        });
        Ok(Self {
            apps: apps.collect(),
            settings: redactor(settings.values().map(ExposeSecret::expose_secret)),
        })
    }

    fn apply(&self, line: AppLine) -> AppLine {
        let mut text = self.settings.redact(&line.line);
        if let Some(own) = self.apps.get(&line.app) {
            text = own.redact(&text);
        }
        AppLine {
            line: readable(&text),
            ..line
        }
    }
}
