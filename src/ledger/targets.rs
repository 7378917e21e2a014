//! The state of every store at every target, from one pass over the records.

use std::collections::BTreeMap;

use super::id::RecordId;
use super::record::{EventRecord, ReleaseRecord, StoreEvent};
use super::set::RecordSet;
use super::state::TargetState;
use crate::store::StoreId;

/// What has become of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseStatus {
    /// It gets the traffic.
    Active,
    /// Its apps run and get no traffic.
    Staged,
    /// It was made, and nothing runs yet.
    Created,
    /// It was active, and another release is active now.
    Replaced,
    /// Its apps were stopped.
    Retired,
    /// It failed.
    Failed,
}

impl ReleaseStatus {
    /// The word for lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Staged => "staged",
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Retired => "retired",
            Self::Failed => "failed",
        }
    }
}

/// What the records say about all stores at all targets.
#[derive(Debug, Clone, Default)]
pub struct LedgerTargets<'a> {
    stores: BTreeMap<&'a StoreId, BTreeMap<&'a str, TargetHistory<'a>>>,
}

/// What the records say about one store at one target.
#[derive(Debug, Clone, Default)]
pub struct TargetHistory<'a> {
    /// The state after all events.
    pub state: TargetState,
    /// The event with which the active release got the traffic.
    pub released: Option<&'a EventRecord>,
    /// The release that was active when the store was stopped, if none was released since.
    pub stopped: Option<&'a RecordId>,
    /// The newest release.
    pub latest: Option<&'a ReleaseRecord>,
    /// What has become of releases that are neither active nor staged.
    ended: BTreeMap<&'a RecordId, ReleaseStatus>,
}

impl RecordSet {
    /// What the records say about all stores at all targets.
    pub fn targets(&self) -> LedgerTargets<'_> {
        let mut targets = LedgerTargets::default();
        for release in self.releases() {
            targets.of(&release.store, &release.target).latest = Some(release);
        }
        for event in self.events() {
            if let Some(target) = &event.target {
                targets.of(&event.store, target).apply(event);
            }
        }
        targets
    }
}

impl<'a> LedgerTargets<'a> {
    fn of(&mut self, store: &'a StoreId, target: &'a str) -> &mut TargetHistory<'a> {
        let targets = self.stores.entry(store).or_default();
        targets.entry(target).or_default()
    }

    /// One store at one target. None if nothing is recorded about it.
    pub fn get(&self, store: &StoreId, target: &str) -> Option<&TargetHistory<'a>> {
        self.stores.get(store)?.get(target)
    }

    /// The release of a store at a target that is live, or that was live last.
    pub fn last_live(&self, store: &StoreId, target: &str) -> Option<&RecordId> {
        self.get(store, target)?.state.last_live()
    }

    /// The targets of a store about which something is recorded, by name.
    pub fn of_store(&self, store: &StoreId) -> impl Iterator<Item = (&'a str, &TargetHistory<'a>)> {
        let targets = self.stores.get(store).into_iter().flatten();
        targets.map(|(name, history)| (*name, history))
    }

    /// All stores at all targets.
    pub fn all(&self) -> impl Iterator<Item = &TargetHistory<'a>> {
        self.stores.values().flat_map(BTreeMap::values)
    }

    /// What has become of a release.
    pub fn status(&self, release: &ReleaseRecord) -> ReleaseStatus {
        let history = self.get(&release.store, &release.target);
        history.map_or(ReleaseStatus::Created, |it| it.status(&release.id))
    }
}

impl<'a> TargetHistory<'a> {
    fn apply(&mut self, event: &'a EventRecord) {
        match &event.what {
            StoreEvent::Released { .. } | StoreEvent::SwitchedBack { .. } => {
                self.released = Some(event);
                self.stopped = None;
            }
            StoreEvent::Retired
                if event.release.is_some() && event.release == self.state.active =>
            {
                self.stopped = event.release.as_ref();
            }
            _ => {}
        }
        self.state.apply(event);
        if let StoreEvent::SwitchedBack { to: Some(to) } = &event.what {
            self.ended.insert(to, ReleaseStatus::Replaced);
        }
        let Some(release) = &event.release else {
            return;
        };
        let status = match &event.what {
            StoreEvent::Released { .. } => ReleaseStatus::Replaced,
            StoreEvent::Failed | StoreEvent::SwitchedBack { .. } => ReleaseStatus::Failed,
            // A failed release is stopped as well.
            StoreEvent::Retired if self.ended.get(release) != Some(&ReleaseStatus::Failed) => {
                ReleaseStatus::Retired
            }
            _ => return,
        };
        self.ended.insert(release, status);
    }

    /// What has become of a release.
    pub fn status(&self, release: &RecordId) -> ReleaseStatus {
        if self.state.active.as_ref() == Some(release) {
            ReleaseStatus::Active
        } else if self.state.staged.contains(release) {
            ReleaseStatus::Staged
        } else {
            let ended = self.ended.get(release);
            ended.copied().unwrap_or(ReleaseStatus::Created)
        }
    }
}
