//! What was done to stores: runs with a start and an end, and events outside of runs.

use std::collections::BTreeMap;

use super::id::RecordId;
use super::record::{Actor, EventRecord, StoreEvent};
use super::set::RecordSet;
use crate::store::StoreId;

/// A run, a hook, or an event outside of runs, such as the removal of a pin.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation<'a> {
    /// The start of a run, or the only event.
    pub event: &'a EventRecord,
    /// The end of a run, if it is recorded.
    pub end: Option<&'a EventRecord>,
    /// What happened in a run, the oldest first.
    pub steps: Vec<&'a EventRecord>,
}

impl Operation<'_> {
    /// Whether this is a run, with a start and an end.
    pub fn is_run(&self) -> bool {
        self.event.starts_run()
    }

    /// What a run was asked for, such as `deploy`.
    pub fn name(&self) -> Option<&str> {
        match &self.event.what {
            StoreEvent::Started { operation, .. } => Some(operation),
            _ => None,
        }
    }

    /// The digest of the plan of a run.
    pub fn plan(&self) -> Option<&String> {
        match &self.event.what {
            StoreEvent::Started { plan, .. } => plan.as_ref(),
            _ => None,
        }
    }

    /// Whether the end of a run is recorded, and it succeeded.
    pub fn succeeded(&self) -> bool {
        let end = self.end.map(|end| &end.what);
        matches!(
            end,
            Some(StoreEvent::Ended {
                succeeded: true,
                ..
            })
        )
    }

    /// Seconds from the start to the end; of a single event, how long it took.
    pub fn seconds(&self) -> Option<f64> {
        match self.end {
            None => self.event.seconds,
            Some(end) => end.seconds.or_else(|| {
                let (start, end) = (self.event.id.made_at(), end.id.made_at());
                let elapsed = end.duration_since(start).as_secs_f64();
                Some(elapsed.max(0.0))
            }),
        }
    }
}

/// The runs of one store by one user, the oldest first: positions in the list of operations.
type RunsByActor<'a> = BTreeMap<(&'a StoreId, &'a str, &'a str), Vec<usize>>;

fn key(event: &EventRecord) -> (&StoreId, &str, &str) {
    let Actor { user, host, .. } = &event.actor;
    (&event.store, user, host)
}

/// All operations, the oldest first. Events of a run are its steps; a hook is also an operation of its
/// own.
pub fn operations<'a>(events: &[&'a EventRecord]) -> Vec<Operation<'a>> {
    let mut ends: BTreeMap<&RecordId, &EventRecord> = BTreeMap::new();
    for event in events {
        if let StoreEvent::Ended { start, .. } = &event.what {
            ends.insert(start, event);
        }
    }
    let mut found: Vec<Operation> = Vec::new();
    let mut runs = RunsByActor::new();
    let mut starts: BTreeMap<&RecordId, usize> = BTreeMap::new();
    for event in events.iter().copied() {
        match &event.what {
            StoreEvent::Started { .. } => {
                runs.entry(key(event)).or_default().push(found.len());
                starts.insert(&event.id, found.len());
                found.push(Operation {
                    event,
                    end: ends.get(&event.id).copied(),
                    steps: Vec::new(),
                });
            }
            StoreEvent::Ended { .. } => {}
            what => {
                let run = if let Some(start) = &event.run {
                    starts.get(start).map(|index| &mut found[*index])
                } else {
                    let last = runs.get(&key(event)).and_then(|runs| runs.last());
                    let run = last.map(|index| &mut found[*index]);
                    // Events have the time of the machine that wrote them, and a run is of one machine.
                    run.filter(|run| run.end.is_none_or(|end| event.id <= end.id))
                };
                let is_step = run.is_some();
                if let Some(run) = run {
                    run.steps.push(event);
                }
                if !is_step || matches!(what, StoreEvent::Hook { .. }) {
                    found.push(Operation {
                        event,
                        end: None,
                        steps: Vec::new(),
                    });
                }
            }
        }
    }
    found
}

/// Operations that decide what a store runs.
const DEPLOYS: [&str; 3] = ["deploy", "release", "rollback"];

/// The last deploy, release or rollback of each store.
pub fn last_deploys(records: &RecordSet) -> BTreeMap<&StoreId, Operation<'_>> {
    let events: Vec<&EventRecord> = records.events().collect();
    let mut last = BTreeMap::new();
    for operation in operations(&events) {
        let word = operation.name().and_then(|it| it.split(' ').next());
        if word.is_some_and(|word| DEPLOYS.contains(&word)) {
            last.insert(&operation.event.store, operation);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::operations;
    use crate::ledger::{Actor, EventRecord, RecordId, RecordKind, SCHEMA_VERSION, StoreEvent};
    use crate::store::StoreId;

    fn event(at: i64, store: &str, user: &str, what: StoreEvent) -> EventRecord {
        let at = Timestamp::from_millisecond(at).unwrap();
        EventRecord {
            schema_version: SCHEMA_VERSION,
            id: RecordId::from_parts(RecordKind::Event, at, 0),
            store: StoreId::new(store).unwrap(),
            target: None,
            release: None,
            run: None,
            what,
            seconds: None,
            detail: None,
            actor: Actor {
                user: user.into(),
                ..Actor::default()
            },
            log: None,
        }
    }

    fn started() -> StoreEvent {
        StoreEvent::Started {
            operation: "deploy".into(),
            lease: 60,
            folder: String::new(),
            plan: None,
        }
    }

    #[test]
    fn events_of_a_run_are_its_steps_and_others_are_operations() {
        let hook = StoreEvent::Hook {
            command: "migrate".into(),
            code: Some(0),
        };
        let start = event(1, "us", "ci", started());
        let ended = StoreEvent::Ended {
            start: start.id.clone(),
            succeeded: true,
            interrupted: false,
        };
        let events = [
            event(0, "us", "ci", StoreEvent::Pinned),
            start,
            event(2, "us", "ci", StoreEvent::Staged),
            event(3, "us", "eva", StoreEvent::Unpinned),
            event(4, "eu", "ci", StoreEvent::Unpinned),
            event(5, "us", "ci", hook),
            event(6, "us", "ci", ended),
            event(7, "us", "ci", StoreEvent::Pinned),
            event(8, "eu", "ci", started()),
            event(9, "eu", "ci", StoreEvent::Staged),
        ];
        let found = operations(&events.iter().collect::<Vec<_>>());
        let shown: Vec<_> = found
            .iter()
            .map(|it| (it.event.id.made_at().as_millisecond(), it.steps.len()))
            .collect();
        assert_eq!(
            shown,
            [(0, 0), (1, 2), (3, 0), (4, 0), (5, 0), (7, 0), (8, 1)]
        );
        assert_eq!(found[1].seconds(), Some(0.005));
        assert_eq!((found[6].is_run(), found[6].seconds()), (true, None));
    }

    #[test]
    fn a_refused_run_does_not_take_the_steps_of_the_run_that_holds_the_lock() {
        let (deploy, refused) = (
            event(1, "us", "ci", started()),
            event(2, "us", "ci", started()),
        );
        let step = |at, what| EventRecord {
            run: Some(deploy.id.clone()),
            ..event(at, "us", "ci", what)
        };
        let ended = |run: &EventRecord, succeeded| StoreEvent::Ended {
            start: run.id.clone(),
            succeeded,
            interrupted: false,
        };
        let events = [
            deploy.clone(),
            refused.clone(),
            event(3, "us", "ci", ended(&refused, false)),
            step(4, StoreEvent::Healthy),
            event(5, "us", "ci", ended(&deploy, true)),
            // Times of records are unique, so a step can have a later time than the end.
            step(6, StoreEvent::Unlocked),
        ];
        let found = operations(&events.iter().collect::<Vec<_>>());
        let steps: Vec<_> = found.iter().map(|it| it.steps.len()).collect();
        assert_eq!(steps, [2, 0]);
    }
}
