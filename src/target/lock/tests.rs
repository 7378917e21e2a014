//! A lock in memory. Its clock stands still until a test moves it, and another run can come between the
//! reading of the lock and its change.

use std::cell::{Cell, RefCell};

use super::*;

const LEASE: u64 = 30;

/// The object of an engine: it changes with each renewal.
#[derive(Clone)]
struct Entry {
    claim: LockClaim,
    renewed: Timestamp,
    version: u64,
}

/// What another run does with a lock.
type OtherRun = Box<dyn FnOnce(&MemoryLock)>;

#[derive(Default)]
struct MemoryLock {
    entry: RefCell<Option<Entry>>,
    now: Cell<Timestamp>,
    versions: Cell<u64>,
    /// Whether a lock is taken over by its removal.
    removes: bool,
    /// What another run does before the next change.
    between: RefCell<Option<OtherRun>>,
    /// How many times the name of the lock is refused although there is no lock.
    reserved: Cell<usize>,
    /// How many times a creation was tried.
    creations: Cell<usize>,
}

impl MemoryLock {
    fn pass(&self, seconds: i64) {
        let passed = SignedDuration::from_secs(seconds);
        self.now.set(self.now.get() + passed);
    }

    fn write(&self, claim: &LockClaim) {
        self.versions.set(self.versions.get() + 1);
        *self.entry.borrow_mut() = Some(Entry {
            claim: claim.clone(),
            renewed: self.now.get(),
            version: self.versions.get(),
        });
    }

    /// Whether the lock is another one by now. The other run comes first.
    fn is_changed(&self, held: &HeldLock<u64>) -> bool {
        let between = self.between.borrow_mut().take();
        if let Some(between) = between {
            between(self);
        }
        let entry = self.entry.borrow();
        let version = entry.as_ref().map(|entry| entry.version);
        version != Some(held.object)
    }
}

impl LockStore for MemoryLock {
    type Object = u64;
    type Error = String;

    async fn held(&self) -> Result<Option<HeldLock<u64>>, String> {
        let entry = self.entry.borrow().clone();
        Ok(entry.map(|entry| HeldLock {
            object: entry.version,
            claim: entry.claim,
            renewed: entry.renewed,
        }))
    }

    async fn create(&self, claim: &LockClaim) -> Result<bool, String> {
        self.creations.set(self.creations.get() + 1);
        let reserved = self.reserved.get();
        self.reserved.set(reserved.saturating_sub(1));
        let is_free = reserved == 0 && self.entry.borrow().is_none();
        if is_free {
            self.write(claim);
        }
        Ok(is_free)
    }

    async fn renew(&self, held: &HeldLock<u64>, claim: &LockClaim) -> Result<bool, String> {
        let is_changed = self.is_changed(held);
        if !is_changed {
            self.write(claim);
        }
        Ok(!is_changed)
    }

    async fn take_over(&self, held: &HeldLock<u64>, claim: &LockClaim) -> Result<Takeover, String> {
        if self.is_changed(held) {
            return Ok(Takeover::Lost);
        }
        if self.removes {
            *self.entry.borrow_mut() = None;
            return Ok(Takeover::Removed);
        }
        self.write(claim);
        Ok(Takeover::Taken)
    }

    async fn remove(&self, held: &HeldLock<u64>) -> Result<(), String> {
        if !self.is_changed(held) {
            *self.entry.borrow_mut() = None;
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, String> {
        Ok(self.now.get())
    }

    fn refused(&self, reason: &str) -> String {
        reason.to_owned()
    }
}

fn claim(holder: &str) -> LockClaim {
    LockClaim {
        holder: holder.into(),
        who: format!("{holder} on a machine"),
        operation: "deploy".into(),
        since: Timestamp::UNIX_EPOCH,
        lease: LEASE,
    }
}

fn taken(from: Option<&str>) -> LockAnswer {
    let from = from.map(claim);
    LockAnswer::Taken { from }
}

fn held(holder: &str) -> LockAnswer {
    LockAnswer::Held(claim(holder))
}

#[tokio::test]
async fn of_two_holders_the_second_waits_for_the_first() {
    let lock = MemoryLock::default();
    let (first, second) = (claim("first"), claim("second"));
    assert_eq!(lock.holder().await, Ok(None));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
    assert_eq!(lock.take(&second).await.unwrap(), held("first"));
    // The lock of another holder stays.
    lock.give_back("second").await.unwrap();
    assert_eq!(lock.holder().await, Ok(Some(first)));
    lock.give_back("first").await.unwrap();
    assert_eq!(lock.holder().await, Ok(None));
    assert_eq!(lock.take(&second).await.unwrap(), taken(None));
}

#[tokio::test]
async fn a_lock_is_held_as_long_as_it_is_renewed() {
    let lock = MemoryLock::default();
    let (first, second) = (claim("first"), claim("second"));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
    for _ in 0..3 {
        lock.pass(20);
        // A renewal is not a takeover.
        assert_eq!(lock.take(&first).await.unwrap(), taken(None));
        assert_eq!(lock.take(&second).await.unwrap(), held("first"));
    }
    lock.pass(30);
    assert_eq!(lock.take(&second).await.unwrap(), held("first"));
    lock.pass(1);
    // The lease has ended, and nobody else has taken the lock.
    assert_eq!(lock.holder().await, Ok(None));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
    assert_eq!(lock.take(&second).await.unwrap(), held("first"));
}

#[tokio::test]
async fn a_lock_whose_lease_has_ended_is_taken_over() {
    for removes in [false, true] {
        let lock = MemoryLock {
            removes,
            ..MemoryLock::default()
        };
        let (first, second) = (claim("first"), claim("second"));
        assert_eq!(lock.take(&first).await.unwrap(), taken(None));
        lock.pass(31);
        assert_eq!(lock.take(&second).await.unwrap(), taken(Some("first")));
        // The earlier holder has lost it, and removes nothing.
        assert_eq!(lock.take(&first).await.unwrap(), held("second"));
        lock.give_back("first").await.unwrap();
        assert_eq!(lock.holder().await, Ok(Some(second)));
    }
}

#[tokio::test]
async fn of_a_renewal_and_a_takeover_one_wins() {
    let lock = MemoryLock::default();
    let (first, second) = (claim("first"), claim("second"));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
    lock.pass(31);
    // Another run takes it over after the holder has read it.
    let rival = second.clone();
    *lock.between.borrow_mut() = Some(Box::new(move |lock| lock.write(&rival)));
    assert_eq!(lock.take(&first).await.unwrap(), held("second"));
    lock.pass(31);
    // The holder renews it after another run has seen that its lease has ended.
    let holder = second.clone();
    *lock.between.borrow_mut() = Some(Box::new(move |lock| lock.write(&holder)));
    assert_eq!(lock.take(&first).await.unwrap(), held("second"));
    // The holder gives it back after another run has seen that its lease has ended.
    lock.pass(31);
    *lock.between.borrow_mut() = Some(Box::new(|lock| *lock.entry.borrow_mut() = None));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
}

#[tokio::test]
async fn a_lock_that_is_taken_over_before_it_is_given_back_stays() {
    let lock = MemoryLock::default();
    let (first, second) = (claim("first"), claim("second"));
    assert_eq!(lock.take(&first).await.unwrap(), taken(None));
    let rival = second.clone();
    *lock.between.borrow_mut() = Some(Box::new(move |lock| lock.write(&rival)));
    lock.give_back("first").await.unwrap();
    assert_eq!(lock.holder().await, Ok(Some(second)));
}

#[tokio::test]
async fn a_name_that_is_refused_without_a_lock_is_tried_again_up_to_a_limit() {
    let lock = MemoryLock::default();
    lock.reserved.set(MemoryLock::ATTEMPTS - 1);
    assert_eq!(lock.take(&claim("first")).await.unwrap(), taken(None));
    assert_eq!(lock.creations.get(), MemoryLock::ATTEMPTS);

    let lock = MemoryLock::default();
    lock.reserved.set(usize::MAX);
    let refused = "other runs took and released it at each attempt".to_owned();
    assert_eq!(lock.take(&claim("first")).await, Err(refused));
    assert_eq!(lock.creations.get(), MemoryLock::ATTEMPTS);
}
