//! Source files, each read once however many stores take it.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::overlay::{Body, Entry, Stamp};
use crate::pipeline::failure::Io;

/// Files up to this size, in bytes, are read and written; the system copies larger ones, and
/// clones them where the file system can.
const LARGEST: u64 = 1 << 20;

/// What is read of a file.
#[derive(Debug)]
pub struct Source {
    /// The bytes.
    pub content: Vec<u8>,
    /// Its permissions, which its copies get.
    pub mode: u32,
}

/// A file that several stores take.
#[derive(Debug, Default)]
struct Shared {
    /// How many still will.
    takers: AtomicUsize,
    source: Mutex<Option<Arc<Source>>>,
}

/// Files that several stores take.
#[derive(Debug, Default)]
pub struct Sources {
    shared: HashMap<usize, Shared>,
}

/// Compositions of all stores share a layer's paths, so where a path lies in memory tells it
/// from others.
fn key(path: &Arc<Path>) -> usize {
    Arc::as_ptr(path).cast::<u8>().addr()
}

impl Sources {
    /// Gets ready for everything that will be taken.
    pub fn new<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let mut takers = HashMap::<usize, usize>::new();
        for entry in entries {
            if let Body::Copy(path, stamp) = entry.body()
                && stamp.size() <= LARGEST
            {
                *takers.entry(key(path)).or_default() += 1;
            }
        }
        let shared = takers.into_iter().filter(|(_, takers)| *takers > 1);
        Self {
            shared: shared
                .map(|(key, takers)| {
                    let shared = Shared {
                        takers: takers.into(),
                        source: Mutex::default(),
                    };
                    (key, shared)
                })
                .collect(),
        }
    }

    /// The file's content; none for a file that the system is better asked to copy.
    pub fn take(&self, path: &Arc<Path>, stamp: Stamp) -> Result<Option<Arc<Source>>, Io> {
        if stamp.size() > LARGEST {
            return Ok(None);
        }
        let Some(shared) = self.shared.get(&key(path)) else {
            return Ok(Some(Arc::new(read(path, stamp)?)));
        };
        let mut known = shared.source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match &*known {
            Some(source) => Arc::clone(source),
            None => Arc::new(read(path, stamp)?),
        };
        // The last one leaves nothing behind.
        let left = shared.takers.fetch_sub(1, Ordering::Relaxed);
        *known = (left > 1).then(|| Arc::clone(&source));
        Ok(Some(source))
    }
}

fn read(path: &Path, stamp: Stamp) -> Result<Source, Io> {
    let failed = || Io::at("read", path);
    let content = std::fs::read(path).map_err(failed())?;
    // Looked at after reading: the id was taken when the layer was listed, and content that has
    // changed since would be recorded under the wrong one.
    let metadata = path.metadata().map_err(failed())?;
    unchanged(path, stamp)?;
    Ok(Source {
        content,
        mode: metadata.permissions().mode(),
    })
}

/// An error when the file is not any more what it was when its id was taken.
pub fn unchanged(path: &Path, stamp: Stamp) -> Result<(), Io> {
    if stamp.is_of(path) {
        return Ok(());
    }
    let error = std::io::Error::other("it changed while it was composed; run again");
    Err(Io::at("copy", path)(error))
}
