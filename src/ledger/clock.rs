//! The times of new records. Ids of records sort by time, so no two records of a run have the same time.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

use super::set::RecordSet;

/// The last time that an id of this run has, or that an id of a known record has, in milliseconds.
static LAST: AtomicI64 = AtomicI64::new(0);

/// How far the clock of another machine may be ahead. A record beyond that does not move the times of
/// this run.
const CLOCK_DIFFERENCE: i64 = 24 * 60 * 60 * 1000;

/// Makes the next times later than the ids of these records. Another machine may have written them, with
/// a clock that is ahead of the clock of this machine, and the order of the ids is the order of the steps.
pub fn continue_after(records: &RecordSet) {
    let limit = Timestamp::now().as_millisecond() + CLOCK_DIFFERENCE;
    let known = records
        .iter()
        .map(|it| it.record.id().made_at().as_millisecond());
    if let Some(latest) = known.filter(|moment| *moment <= limit).max() {
        LAST.fetch_max(latest, Ordering::SeqCst);
    }
}

/// The current time, later than every time that was returned before. Two steps of one millisecond would
/// have no order.
pub fn next_moment() -> Timestamp {
    let now = Timestamp::now().as_millisecond();
    let step = |last: i64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step);
    let moment = last.map_or(now, |last| now.max(last + 1));
    Timestamp::from_millisecond(moment).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::{
        Actor, EventRecord, Record, RecordId, RecordKind, StoreEvent, StoredRecord,
    };
    use crate::store::StoreId;

    fn event() -> EventRecord {
        EventRecord::new(
            StoreId::new("us").unwrap(),
            StoreEvent::Staged,
            Actor::default(),
        )
    }

    #[test]
    fn events_of_one_millisecond_have_an_order() {
        let ids: Vec<RecordId> = (0..2000).map(|_| event().id).collect();
        let by_time: BTreeMap<_, _> = ids.iter().map(|id| (id.made_at(), id)).collect();
        assert_eq!(by_time.len(), ids.len());
        assert!(ids.is_sorted());
    }

    #[test]
    fn events_come_after_the_records_of_a_machine_whose_clock_is_ahead() {
        let ahead = Timestamp::now() + jiff::SignedDuration::from_mins(5);
        let mut other = event();
        other.id = RecordId::new(RecordKind::Event, ahead);
        let mut records = RecordSet::default();
        records.insert(StoredRecord::new(Record::Event(other.clone())).unwrap());
        continue_after(&records);
        assert!(event().id > other.id);
    }
}
