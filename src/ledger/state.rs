//! What the records of one store and one target say: which release is active, which are staged, and
//! to which one a rollback may go.

use std::collections::{BTreeMap, BTreeSet};

use super::id::RecordId;
use super::record::{EventRecord, StoreEvent};

/// The state of one store at one target, after all of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetState {
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
    /// Releases that run and get no traffic, the oldest first.
    pub staged: Vec<RecordId>,
    /// Releases that were active and did not fail, the last active one at the end. The active release
    /// is one of them.
    pub proven: Vec<RecordId>,
    /// The event that pinned the store.
    pub pin: Option<RecordId>,
    /// The event that switched the maintenance page on.
    pub maintenance: Option<RecordId>,
}

impl TargetState {
    /// The state after these events, the oldest first, all of one store and one target.
    pub fn after<'a>(events: impl Iterator<Item = &'a EventRecord>) -> Self {
        let mut state = Self::default();
        for event in events {
            state.apply(event);
        }
        state
    }

    /// The state after one more event.
    pub fn apply(&mut self, event: &EventRecord) {
        match (&event.what, &event.release) {
            (StoreEvent::Staged, Some(release)) => {
                self.unstage(release);
                self.staged.push(release.clone());
            }
            (StoreEvent::Released { .. }, Some(release)) => {
                self.unstage(release);
                self.forget(release);
                self.proven.push(release.clone());
                self.active = Some(release.clone());
            }
            // A release that fails while there is no other one stays live.
            (StoreEvent::Failed, Some(release)) => {
                self.unstage(release);
                self.forget(release);
            }
            (StoreEvent::SwitchedBack { to }, release) => {
                if let Some(release) = release {
                    self.unstage(release);
                    self.forget(release);
                }
                // It may itself have failed, and be live only because there was no other release.
                if let Some(to) = to.as_ref().filter(|to| self.proven.contains(to)) {
                    self.forget(to);
                    self.proven.push(to.clone());
                }
                self.active.clone_from(to);
            }
            (StoreEvent::Retired, Some(release)) => {
                self.unstage(release);
                // Only `store stop`, or somebody outside of alokai, stops the active release.
                self.active.take_if(|active| active == release);
            }
            (StoreEvent::Pinned, _) => self.pin = Some(event.id.clone()),
            (StoreEvent::Unpinned, _) => self.pin = None,
            (StoreEvent::Maintenance { on }, _) => {
                self.maintenance = on.then(|| event.id.clone());
            }
            _ => {}
        }
    }

    /// The releases to which a rollback may go: those that were active and did not fail, without the
    /// active one, the last active one first.
    pub fn candidates(&self) -> impl Iterator<Item = &RecordId> {
        let proven = self.proven.iter().rev();
        proven.filter(|release| self.active.as_ref() != Some(*release))
    }

    /// The release that gets the traffic. If there is none, such as in a stopped store, the last one that
    /// got it and did not fail.
    pub fn last_live(&self) -> Option<&RecordId> {
        self.active.as_ref().or(self.proven.last())
    }

    fn unstage(&mut self, release: &RecordId) {
        self.staged.retain(|staged| staged != release);
    }

    fn forget(&mut self, release: &RecordId) {
        self.proven.retain(|proven| proven != release);
    }
}

/// The runs of a store that started and whose end is not recorded.
pub fn open_runs<'a>(events: impl Iterator<Item = &'a EventRecord>) -> Vec<&'a EventRecord> {
    let mut started = BTreeMap::new();
    let mut ended = BTreeSet::new();
    for event in events {
        match &event.what {
            StoreEvent::Started { .. } => {
                started.insert(event.id.clone(), event);
            }
            StoreEvent::Ended { start, .. } => {
                ended.insert(start.clone());
            }
            _ => {}
        }
    }
    // Events of several machines may be out of order, so the ends are compared last.
    started.retain(|id, _| !ended.contains(id));
    started.into_values().collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{TargetState, open_runs};
    use crate::ledger::{Actor, EventRecord, RecordId, RecordKind, SCHEMA_VERSION, StoreEvent};
    use crate::store::StoreId;

    fn release(number: u64) -> RecordId {
        RecordId::from_parts(RecordKind::Release, Timestamp::UNIX_EPOCH, number)
    }

    fn event(number: i64, what: StoreEvent, release: Option<RecordId>) -> EventRecord {
        let at = Timestamp::from_millisecond(number).unwrap();
        EventRecord {
            schema_version: SCHEMA_VERSION,
            id: RecordId::from_parts(RecordKind::Event, at, 0),
            store: StoreId::new("us").unwrap(),
            target: Some("docker".into()),
            release,
            run: None,
            what,
            seconds: None,
            detail: None,
            actor: Actor::default(),
            log: None,
        }
    }

    fn after(happenings: Vec<(StoreEvent, Option<u64>)>) -> TargetState {
        let events: Vec<_> = (1..)
            .zip(happenings)
            .map(|(at, (what, number))| event(at, what, number.map(release)))
            .collect();
        TargetState::after(events.iter())
    }

    const RELEASED: StoreEvent = StoreEvent::Released { observed: false };

    #[test]
    fn a_rollback_goes_to_releases_that_were_active_and_did_not_fail() {
        let state = after(vec![
            (RELEASED, Some(1)),
            (RELEASED, Some(2)),
            (StoreEvent::Staged, Some(3)),
            (RELEASED, Some(4)),
            (
                StoreEvent::SwitchedBack {
                    to: Some(release(2)),
                },
                Some(4),
            ),
            (RELEASED, Some(5)),
        ]);
        assert_eq!(state.active, Some(release(5)));
        assert_eq!(state.staged, [release(3)]);
        let candidates: Vec<_> = state.candidates().cloned().collect();
        assert_eq!(candidates, [release(2), release(1)]);
    }

    #[test]
    fn the_first_release_has_nothing_to_go_back_to() {
        let state = after(vec![(RELEASED, Some(1))]);
        assert_eq!(state.candidates().count(), 0);
        let state = after(vec![
            (RELEASED, Some(1)),
            (StoreEvent::SwitchedBack { to: None }, Some(1)),
        ]);
        assert_eq!(state, TargetState::default());
    }

    #[test]
    fn a_stopped_store_has_no_active_release_and_can_go_back_to_it() {
        let state = after(vec![
            (RELEASED, Some(1)),
            (RELEASED, Some(2)),
            (StoreEvent::Retired, Some(1)),
            (StoreEvent::Retired, Some(2)),
        ]);
        assert_eq!(state.active, None);
        let candidates: Vec<_> = state.candidates().cloned().collect();
        assert_eq!(candidates, [release(2), release(1)]);
    }

    #[test]
    fn a_failed_release_is_neither_staged_nor_active() {
        let state = after(vec![
            (StoreEvent::Staged, Some(1)),
            (StoreEvent::Failed, Some(1)),
            (StoreEvent::Pinned, None),
        ]);
        assert_eq!((&state.active, state.staged.len()), (&None, 0));
        assert!(state.pin.is_some());
    }

    #[test]
    fn a_run_without_an_end_is_open_whatever_the_order() {
        let start = |at| {
            let operation = "deploy".into();
            event(
                at,
                StoreEvent::Started {
                    operation,
                    lease: 60,
                    folder: String::new(),
                    plan: None,
                },
                None,
            )
        };
        let (first, second) = (start(1), start(2));
        let end = |start: &EventRecord| {
            let start = start.id.clone();
            let succeeded = true;
            event(
                0,
                StoreEvent::Ended {
                    start,
                    succeeded,
                    interrupted: false,
                },
                None,
            )
        };
        let end = end(&first);
        let open = open_runs([&end, &first, &second].into_iter());
        assert_eq!(open, [&second]);
    }
}
