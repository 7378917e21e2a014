//! `store status`: what is live, asked of the targets, and where that differs from the records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::questions::StatusOptions;
use super::ask_targets::{self, Answer, ask};
use super::listing::{CellFormat, RunningRuns, cut, plain, stored_records, table};
use super::run::document;
use super::store_targets::StoreTargets;
use super::{answer, builds, history};
use crate::error::Error as AnyError;
use crate::ledger::{
    BuildRecord, EventRecord, LedgerTargets, RecordId, RecordSet, ReleaseReason, ReleaseStatus,
    TargetHistory, TargetState, open_runs,
};
use crate::store::{Store, StoreId, TargetKind};
use crate::target::{self, LockClaim, Observed, Target, place_options};

/// What a target says about a store.
#[derive(Debug, Default)]
struct AskedTarget {
    /// None if the target cannot tell.
    observed: Option<Observed>,
    lock: Option<LockClaim>,
    /// Why there is no answer.
    missing: Option<String>,
    /// Whether releases run without traffic at this target.
    stages: bool,
}

async fn observe(target: Arc<dyn Target>, store: StoreId) -> Result<AskedTarget, target::Error> {
    let can = target.capabilities();
    let observed = ask_targets::observe(Arc::clone(&target), store.clone()).await?;
    let lock = if can.locks {
        target.lock_holder(&store).await?
    } else {
        None
    };
    Ok(AskedTarget {
        observed,
        lock,
        missing: None,
        stages: can.staging,
    })
}

/// What is known about a store at its target.
struct StoreStatus<'a> {
    store: &'a Store,
    target: &'static str,
    asked: AskedTarget,
    records: &'a RecordSet,
    /// What the records say.
    history: TargetHistory<'a>,
    /// Whether another target is asked and the store has releases on this machine.
    has_local_releases: bool,
    /// Runs that are under way, and an interrupted one if it is the last.
    runs: Vec<(&'a EventRecord, bool)>,
}

pub fn status(global: &Global, options: &StatusOptions) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.target.chosen())?;
    let stores = targets.stores()?;
    targets.registry.pull(&targets.project);
    let records = stored_records(&targets.project)?;
    let recorded = records.targets();
    let runs = runs(&targets, &records);
    let answers = ask(&targets, &stores, observe);
    let statuses = answers.into_iter().map(|(store, answer)| {
        let asked = match answer {
            Answer::Given(asked) => asked,
            Answer::Missing(reason) => AskedTarget {
                missing: Some(reason),
                ..AskedTarget::default()
            },
        };
        let target = targets.kind(store).name();
        let local = recorded.get(&store.id, TargetKind::Local.name());
        StoreStatus {
            has_local_releases: target != TargetKind::Local.name()
                && local.is_some_and(|it| it.latest.is_some()),
            store,
            target,
            asked,
            records: &records,
            history: history_of(&recorded, store, target),
            runs: runs.get(&store.id).cloned().unwrap_or_default(),
        }
    });
    let statuses: Vec<_> = statuses.collect();
    let is_local = options.target.stores.is_empty()
        && statuses
            .iter()
            .any(|it| it.target == TargetKind::Local.name());
    let removed = if is_local {
        targets.running_without_config()?
    } else {
        Vec::new()
    };
    if options.json {
        let stores: Vec<_> = statuses.iter().map(StoreStatus::json).collect();
        return document(&json!({
            "schemaVersion": 1, "stores": stores, "notInProject": removed,
        }));
    }
    let mut text = text(&statuses);
    for store in removed {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{store} runs on this machine and is not in the project; `alokai store stop --store {store}` stops it"
        );
    }
    answer(&text)
}

fn history_of<'a>(recorded: &LedgerTargets<'a>, store: &Store, target: &str) -> TargetHistory<'a> {
    let history = recorded.get(&store.id, target);
    history.cloned().unwrap_or_default()
}

/// The runs of each store that have not recorded their end: those under way, and the interrupted one if
/// no other run came after it.
fn runs<'a>(
    targets: &StoreTargets,
    records: &'a RecordSet,
) -> BTreeMap<&'a StoreId, Vec<(&'a EventRecord, bool)>> {
    let mut runs = BTreeMap::<_, Vec<_>>::new();
    let open = open_runs(records.events());
    if open.is_empty() {
        return runs;
    }
    let running = RunningRuns::of_project(&targets.project);
    let mut last = BTreeMap::new();
    for event in records.events().filter(|event| event.starts_run()) {
        last.insert(&event.store, &event.id);
    }
    for run in open {
        let is_running = running.has(run);
        if is_running || last.get(&run.store) == Some(&&run.id) {
            runs.entry(&run.store).or_default().push((run, is_running));
        }
    }
    runs
}

/// Where a target differs from the records. Staged releases are only compared where the target has them.
fn drift(observed: &Observed, recorded: &TargetState, compares_staged: bool) -> Vec<String> {
    let mut drift = Vec::new();
    match (&observed.active, &recorded.active) {
        (Some(active), Some(said)) if active != said => drift.push(format!(
            "the target runs {active}, and the records say {said}"
        )),
        (Some(active), None) => drift.push(format!(
            "the target runs {active}, and the records have no active release"
        )),
        (None, Some(said)) => drift.push(format!(
            "the target runs no release, and the records say {said}"
        )),
        _ => {}
    }
    if compares_staged {
        let runs = |id: &RecordId| observed.staged.iter().any(|it| it.release == *id);
        for staged in &observed.staged {
            let id = &staged.release;
            if !recorded.staged.contains(id) && observed.active.as_ref() != Some(id) {
                drift.push(format!("{id} is staged, and the records do not say so"));
            }
        }
        for id in recorded.staged.iter().filter(|id| !runs(id)) {
            drift.push(format!(
                "the records say that {id} is staged, and it does not run"
            ));
        }
    }
    match (observed.maintenance, recorded.maintenance.is_some()) {
        (true, false) => drift.push("maintenance is on, and the records say off".into()),
        (false, true) => drift.push("maintenance is off, and the records say on".into()),
        _ => {}
    }
    drift
}

impl<'a> StoreStatus<'a> {
    /// The release that is live: by the target, or by the records if the target cannot tell.
    fn active(&self) -> Option<&RecordId> {
        match &self.asked.observed {
            Some(observed) => observed.active.as_ref(),
            None => self.history.state.active.as_ref(),
        }
    }

    fn source(&self) -> &'static str {
        if self.asked.observed.is_some() {
            "target"
        } else {
            "records"
        }
    }

    fn since(&self) -> Option<Timestamp> {
        let by_target = self.asked.observed.as_ref().and_then(|it| it.since);
        let recorded = || {
            let is_same = self.active() == self.history.state.active.as_ref();
            let released = self.history.released.filter(|_| is_same)?;
            Some(released.id.made_at())
        };
        self.active()?;
        by_target.or_else(recorded)
    }

    fn build(&self) -> Option<&'a BuildRecord> {
        let release = self.records.release(self.active()?)?;
        self.records.build(&release.build)
    }

    /// The staged releases with their addresses.
    fn staged(&self) -> Vec<(&RecordId, Option<&str>)> {
        if let Some(observed) = &self.asked.observed {
            let staged = observed.staged.iter();
            staged
                .map(|it| (&it.release, it.address.as_deref()))
                .collect()
        } else {
            let staged = self.history.state.staged.iter();
            staged.map(|id| (id, None)).collect()
        }
    }

    fn maintenance(&self) -> bool {
        match &self.asked.observed {
            Some(observed) => observed.maintenance,
            None => self.history.state.maintenance.is_some(),
        }
    }

    fn pin(&self) -> Option<&'a EventRecord> {
        self.records.event(self.history.state.pin.as_ref()?)
    }

    /// Whether a release became live after the pin that no rollback has made.
    fn is_live_since(&self, pin: &EventRecord) -> bool {
        let is_later = |released: &EventRecord| released.id > pin.id;
        let live = self.history.state.active.as_ref();
        let made = live.and_then(|id| self.records.release(id));
        self.history.released.is_some_and(is_later)
            && made.is_some_and(|made| made.reason != ReleaseReason::Rollback)
    }

    /// The newest release, if it was made after the live one and nothing runs yet.
    fn waiting(&self) -> Option<&'a RecordId> {
        let latest = self.history.latest?;
        let is_new = self.active().is_none_or(|active| latest.id > *active);
        let is_created = self.history.status(&latest.id) == ReleaseStatus::Created;
        let is_staged = self.staged().iter().any(|(id, _)| **id == latest.id);
        let is_waiting = is_new && is_created && !is_staged && self.runs.is_empty();
        (is_waiting && self.active() != Some(&latest.id)).then_some(&latest.id)
    }

    /// The newest release, if it was made after the live one and has failed.
    fn failed(&self) -> Option<&'a RecordId> {
        let latest = self.history.latest?;
        let is_new = self.active().is_none_or(|active| latest.id > *active);
        let has_failed = self.history.status(&latest.id) == ReleaseStatus::Failed;
        (is_new && has_failed).then_some(&latest.id)
    }

    /// The release that was live before the store was stopped.
    fn stopped(&self) -> Option<&'a RecordId> {
        self.history.stopped.filter(|_| self.active().is_none())
    }

    fn drift(&self) -> Vec<String> {
        // A run stages and stops releases before it records that.
        let is_busy =
            self.asked.lock.is_some() || self.runs.iter().any(|(_, is_running)| *is_running);
        let compares_staged = self.asked.stages && !is_busy;
        let observed = self.asked.observed.as_ref();
        observed.map_or_else(Vec::new, |observed| {
            drift(observed, &self.history.state, compares_staged)
        })
    }

    fn json(&self) -> Value {
        let active = self.active().map(|id| {
            json!({
                "release": id,
                "since": self.since(),
                "build": self.build().map(|build| &build.id),
                "commit": self.build().and_then(|build| build.commit.as_ref()),
            })
        });
        let staged = self.staged().into_iter();
        let staged = staged.map(|(id, address)| json!({ "release": id, "address": address }));
        let runs = self.runs.iter().map(|(run, is_running)| {
            json!({
                "id": run.id,
                "operation": history::words(run),
                "status": if *is_running { "running" } else { "interrupted" },
                "started": run.id.made_at(),
                "actor": run.actor,
            })
        });
        let observed = self.asked.observed.as_ref();
        json!({
            "storeId": self.store.id,
            "target": self.target,
            "source": self.source(),
            "active": active,
            "addresses": observed.map(|it| it.addresses.clone()).unwrap_or_default(),
            "staged": staged.collect::<Vec<_>>(),
            "kept": observed.map(|it| it.kept.clone()).unwrap_or_default(),
            "waiting": self.waiting(),
            "failed": self.failed(),
            "stopped": self.stopped(),
            "pin": self.pin(),
            "maintenance": self.maintenance(),
            "lock": self.asked.lock,
            "runs": runs.collect::<Vec<_>>(),
            "drift": self.drift(),
            "error": self.asked.missing,
        })
    }

    /// The row of the table.
    fn row(&self, format: &CellFormat) -> Vec<String> {
        let active = self.active().map(|id| format.id(id));
        let since = self.since().map(|since| format.age(since));
        let commit = self.build().map(builds::description);
        vec![
            self.store.id.to_string(),
            self.target.to_owned(),
            active.unwrap_or_else(|| "none".into()),
            since.unwrap_or_else(|| "-".into()),
            self.source().to_owned(),
            commit.unwrap_or_default(),
        ]
    }

    /// Releases that are not live, each with the command that concerns it.
    fn next_steps(&self, format: &CellFormat) -> Vec<(&'static str, String)> {
        let mut steps = Vec::new();
        let place = place_options(&self.store.id, self.target);
        if let Some(id) = self.waiting() {
            steps.push((
                "not live",
                format!(
                    "{}  `alokai store release {id} {place}` makes it live",
                    format.id(id)
                ),
            ));
        }
        if let Some(id) = self.failed() {
            steps.push((
                "failed",
                format!(
                    "{}  `alokai store releases info {id}` shows why",
                    format.id(id)
                ),
            ));
        }
        if let Some(id) = self.stopped() {
            steps.push((
                "stopped",
                format!(
                    "{}  `alokai store release {id} {place}` starts it again",
                    format.id(id)
                ),
            ));
        }
        if self.has_local_releases {
            steps.push((
                "local",
                format!(
                    "releases on this machine: `alokai store status {}`",
                    place_options(&self.store.id, TargetKind::Local.name())
                ),
            ));
        }
        steps
    }

    /// The lines below the row: a word, and what it is about.
    fn details(&self, format: &CellFormat) -> Vec<(&'static str, String)> {
        let mut details = Vec::new();
        if let Some(reason) = &self.asked.missing {
            // A program at the target may print many lines.
            let first = reason.lines().next().unwrap_or_default();
            details.push(("no answer", first.to_owned()));
        }
        let addresses = self.asked.observed.iter().flat_map(|it| &it.addresses);
        details.extend(addresses.map(|address| ("address", address.clone())));
        for (id, address) in self.staged() {
            let address = address.unwrap_or_default();
            details.push(("staged", format!("{}  {address}", format.id(id))));
        }
        details.extend(self.next_steps(format));
        let by = |event: &EventRecord| {
            let (user, host) = (&event.actor.user, &event.actor.host);
            format!("{} by {user} on {host}", format.age(event.id.made_at()))
        };
        if let Some(pin) = self.pin() {
            let later = if self.is_live_since(pin) {
                "; a release became live after it"
            } else {
                ""
            };
            details.push(("pinned", format!("{}{later}", by(pin))));
        }
        if self.maintenance() {
            let recorded = self.history.state.maintenance.as_ref();
            let recorded = recorded.and_then(|id| self.records.event(id));
            let since = recorded.map_or_else(String::new, |event| format!(", {}", by(event)));
            details.push(("maintenance", format!("on{since}")));
        }
        if let Some(claim) = &self.asked.lock {
            let since = format.age(claim.since);
            let text = format!("{since} by {} for {}", claim.who, claim.operation);
            details.push(("locked", text));
        }
        for (run, is_running) in &self.runs {
            let word = if *is_running {
                "running"
            } else {
                "interrupted"
            };
            details.push((word, format!("{}, {}", history::words(run), by(run))));
        }
        details.extend(self.drift().into_iter().map(|text| ("drift", text)));
        details
    }
}

fn text(statuses: &[StoreStatus]) -> String {
    let ids = statuses.iter().flat_map(|status| {
        let staged = status.staged().into_iter().map(|(id, _)| id);
        let others = [
            status.active(),
            status.waiting(),
            status.failed(),
            status.stopped(),
        ];
        staged.chain(others.into_iter().flatten())
    });
    let format = CellFormat::new(ids);
    let titles = ["STORE", "TARGET", "RELEASE", "SINCE", "SOURCE", "COMMIT"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(statuses.iter().map(|status| status.row(&format)));
    let table = table(&rows);
    let mut lines = table.split_inclusive('\n');
    let mut text: String = lines.next().unwrap_or_default().to_owned();
    for (line, status) in lines.zip(statuses) {
        text.push_str(line);
        for (word, about) in status.details(&format) {
            let line = format!("  {word:<11} {}", plain(&about));
            // A command is copied, so it is not cut.
            let is_command = about.contains('`');
            let line = line.trim_end();
            text.push_str(&if is_command {
                line.to_owned()
            } else {
                cut(line)
            });
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::drift;
    use crate::ledger::{RecordId, RecordKind, TargetState};
    use crate::target::{Observed, StagedRelease};

    fn release(number: u64) -> RecordId {
        RecordId::from_parts(RecordKind::Release, Timestamp::UNIX_EPOCH, number)
    }

    #[test]
    fn a_target_that_does_what_the_records_say_has_no_drift() {
        let staged = StagedRelease {
            release: release(2),
            address: None,
        };
        let observed = Observed {
            active: Some(release(1)),
            staged: vec![staged],
            ..Observed::default()
        };
        let mut recorded = TargetState {
            active: Some(release(1)),
            staged: vec![release(2)],
            ..TargetState::default()
        };
        assert_eq!(drift(&observed, &recorded, true), [""; 0]);
        recorded.active = Some(release(3));
        recorded.staged = vec![release(4)];
        let found = drift(&observed, &recorded, true);
        assert_eq!(found.len(), 3, "{found:#?}");
        // A target without staging says nothing about staged releases.
        assert_eq!(drift(&observed, &recorded, false).len(), 1);
    }
}
