//! Ids of files that were hashed before, for a program that reads the same layers again and again.

use std::collections::HashMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::content::ContentId;
use crate::disk::Stamp;

/// How old a change has to be so that the next change gives the file another stamp. The clock of file
/// times advances in steps of up to 10 ms.
const SETTLED: Duration = Duration::from_millis(50);

/// Ids of files with their stamps. The id of a file with the same stamp is not computed again.
#[derive(Debug, Default)]
pub struct KnownContents {
    files: RwLock<HashMap<PathBuf, (Stamp, ContentId)>>,
}

impl KnownContents {
    /// The id of a file with this stamp. `hash` computes it.
    pub(super) fn id(
        &self,
        file: &Path,
        stamp: &Stamp,
        hash: &dyn Fn() -> Result<ContentId>,
    ) -> Result<ContentId> {
        let known = self.files.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, id)) = known.get(file)
            && of == stamp
        {
            return Ok(*id);
        }
        drop(known);
        let now = SystemTime::now();
        let id = hash()?;
        let mut known = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if is_settled(stamp, now) {
            known.insert(file.to_owned(), (*stamp, id));
        } else {
            known.remove(file);
        }
        Ok(id)
    }
}

/// Whether a change after `now` gives the file another stamp.
fn is_settled(stamp: &Stamp, now: SystemTime) -> bool {
    let limit = now.checked_sub(SETTLED).unwrap_or(now);
    let limit = limit.duration_since(SystemTime::UNIX_EPOCH);
    limit.is_ok_and(|limit| {
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let changed = (stamp.changed.seconds, stamp.changed.nanoseconds);
        changed < (seconds, i64::from(limit.subsec_nanos()))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::{KnownContents, SETTLED};
    use crate::disk::Stamp;
    use crate::overlay::ContentId;

    #[test]
    fn a_file_is_hashed_again_until_its_stamp_proves_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "1").unwrap();
        let known = KnownContents::default();
        let hashed = Cell::new(0);
        let id = || {
            let stamp = Stamp::of(&file).unwrap();
            let hash = || {
                hashed.set(hashed.get() + 1);
                ContentId::of_file(&file)
            };
            known.id(&file, &stamp, &hash).unwrap()
        };
        assert_eq!(id(), ContentId::of(b"1"));
        // A write within one step of the clock may leave the stamp as it is.
        assert_eq!(id(), ContentId::of(b"1"));
        assert_eq!(hashed.get(), 2);
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        id();
        assert_eq!((id(), hashed.get()), (ContentId::of(b"1"), 3));
        std::fs::write(&file, "2").unwrap();
        assert_eq!((id(), hashed.get()), (ContentId::of(b"2"), 4));
    }
}
