//! Locks of stores: a file that is read and replaced under a lock of the system.

use std::collections::BTreeMap;
use std::fs::File;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use super::folder::{self, LocalFolder};
use crate::pipeline::Io;
use crate::store::StoreId;
use crate::target::{LockAnswer, LockClaim};

type Claims = BTreeMap<StoreId, WrittenClaim>;

/// A claim, and when it was written. Its lease begins then.
#[derive(Serialize, Deserialize)]
struct WrittenClaim {
    claim: LockClaim,
    written: Timestamp,
}

impl WrittenClaim {
    /// Whether the lease has ended. All holders use the clock of this machine.
    fn has_ended(&self) -> bool {
        let lease = i64::try_from(self.claim.lease).unwrap_or(i64::MAX);
        let end = self.written.as_second().saturating_add(lease);
        Timestamp::now().as_second() >= end
    }
}

/// Takes the lock of a store, or returns its holder.
pub fn take(place: &LocalFolder, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, Error> {
    let (_guard, mut claims) = read(place)?;
    let others = claims.get(store);
    let others = others.filter(|it| it.claim.holder != claim.holder);
    if let Some(held) = others.filter(|it| !it.has_ended()) {
        return Ok(LockAnswer::Held(held.claim.clone()));
    }
    let from = others.map(|it| it.claim.clone());
    let written = WrittenClaim {
        claim: claim.clone(),
        written: Timestamp::now(),
    };
    claims.insert(store.clone(), written);
    folder::write(&place.locks(), &claims)?;
    Ok(LockAnswer::Taken { from })
}

/// Gives a lock back.
pub fn give_back(place: &LocalFolder, store: &StoreId, holder: &str) -> Result<(), Error> {
    let (_guard, mut claims) = read(place)?;
    if claims
        .get(store)
        .is_some_and(|it| it.claim.holder == holder)
    {
        claims.remove(store);
        folder::write(&place.locks(), &claims)?;
    }
    Ok(())
}

/// The holder of the lock of a store. A lock whose lease has ended has no holder.
pub fn holder(place: &LocalFolder, store: &StoreId) -> Result<Option<LockClaim>, Error> {
    if !place.locks().exists() {
        return Ok(None);
    }
    let (_guard, mut claims) = read(place)?;
    let held = claims.remove(store).filter(|it| !it.has_ended());
    Ok(held.map(|it| it.claim))
}

/// Reads the locks. Nobody changes them until the file is dropped.
fn read(place: &LocalFolder) -> Result<(File, Claims), Error> {
    let path = place.root().join("locks.lock");
    let guard = folder::open(&path)?;
    guard.lock().map_err(Io::at("lock", &path))?;
    let claims = folder::read(&place.locks())?;
    Ok((guard, claims.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{LocalFolder, LockAnswer, LockClaim, give_back, holder, take};
    use crate::store::StoreId;

    fn claim(holder: &str, lease: u64) -> LockClaim {
        LockClaim {
            holder: holder.into(),
            who: format!("{holder} on a machine"),
            operation: "deploy".into(),
            since: Timestamp::UNIX_EPOCH,
            lease,
        }
    }

    #[test]
    fn a_lock_has_one_holder_until_its_lease_ends() {
        let project = tempfile::tempdir().unwrap();
        let place = LocalFolder::of(project.path());
        let us = StoreId::new("us").unwrap();
        let eu = StoreId::new("eu").unwrap();
        assert_eq!(holder(&place, &us).unwrap(), None);
        let first = claim("first", 60);
        let taken = LockAnswer::Taken { from: None };
        assert_eq!(take(&place, &us, &first).unwrap(), taken);
        // A renewal is not a takeover.
        assert_eq!(take(&place, &us, &first).unwrap(), taken);
        assert_eq!(take(&place, &eu, &claim("second", 60)).unwrap(), taken);
        let held = take(&place, &us, &claim("second", 60)).unwrap();
        assert_eq!(held, LockAnswer::Held(first.clone()));
        give_back(&place, &us, "second").unwrap();
        assert_eq!(holder(&place, &us).unwrap(), Some(first));
        give_back(&place, &us, "first").unwrap();
        assert_eq!(holder(&place, &us).unwrap(), None);

        let stale = claim("stale", 0);
        take(&place, &us, &stale).unwrap();
        assert_eq!(holder(&place, &us).unwrap(), None);
        let taken = take(&place, &us, &claim("second", 60)).unwrap();
        assert_eq!(taken, LockAnswer::Taken { from: Some(stale) });
    }
}
