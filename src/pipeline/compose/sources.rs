//! Source files, each read once however many stores take it.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Stamp;
use crate::overlay::{Entry, EntryContent};
use crate::pipeline::failure::Io;

/// Files up to this size, in bytes, are read and written; the system copies larger ones, and
/// clones them where the file system can.
const LARGEST: u64 = 1 << 20;

/// What is read of a file.
#[derive(Debug)]
pub struct SourceFile {
    /// The bytes.
    pub content: Vec<u8>,
    /// Its permissions, which its copies get.
    pub mode: u32,
}

/// A file that several stores take.
#[derive(Debug, Default)]
struct SharedFile {
    /// How many still will.
    takers: usize,
    source: Option<Arc<SourceFile>>,
}

/// Files that several stores take.
#[derive(Debug, Default)]
pub struct SourceFiles {
    shared: HashMap<usize, Mutex<SharedFile>>,
}

/// Compositions of all stores share a layer's paths, so where a path lies in memory tells it
/// from others.
fn key(path: &Arc<Path>) -> usize {
    Arc::as_ptr(path).cast::<u8>().addr()
}

impl SourceFiles {
    /// Gets ready for everything that will be taken.
    pub fn new<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let mut takers = HashMap::<usize, usize>::new();
        for entry in entries {
            if let EntryContent::Copy(path, stamp) = entry.content()
                && stamp.size <= LARGEST
            {
                *takers.entry(key(path)).or_default() += 1;
            }
        }
        let shared = takers.into_iter().filter(|(_, takers)| *takers > 1);
        Self {
            shared: shared
                .map(|(key, takers)| {
                    let source = None;
                    (key, Mutex::new(SharedFile { takers, source }))
                })
                .collect(),
        }
    }

    /// The file's content; none for a file that the system is better asked to copy.
    pub fn take(&self, path: &Arc<Path>, stamp: Stamp) -> Result<Option<Arc<SourceFile>>, Io> {
        if stamp.size > LARGEST {
            return Ok(None);
        }
        let Some(shared) = self.shared.get(&key(path)) else {
            return Ok(Some(Arc::new(read(path, stamp)?)));
        };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let source = match &shared.source {
            Some(source) => Arc::clone(source),
            None => Arc::new(read(path, stamp)?),
        };
        // The last one leaves nothing behind.
        shared.takers = shared.takers.saturating_sub(1);
        shared.source = (shared.takers > 0).then(|| Arc::clone(&source));
        Ok(Some(source))
    }
}

fn read(path: &Path, stamp: Stamp) -> Result<SourceFile, Io> {
    let failed = || Io::at("read", path);
    let content = std::fs::read(path).map_err(failed())?;
    // Looked at after reading: the id was taken when the layer was listed, and content that has
    // changed since would be recorded under the wrong one.
    let metadata = path.metadata().map_err(failed())?;
    unchanged(path, stamp, &metadata)?;
    Ok(SourceFile {
        content,
        mode: metadata.permissions().mode(),
    })
}

/// An error when the file is not any more what it was when its id was taken.
pub fn unchanged(path: &Path, stamp: Stamp, metadata: &Metadata) -> Result<(), Io> {
    if Stamp::new(metadata) == stamp {
        return Ok(());
    }
    let error = std::io::Error::other("it changed while it was composed; run again");
    Err(Io::at("copy", path)(error))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::{SharedFile, SourceFile, SourceFiles, key};
    use crate::disk::Stamp;

    /// Sources of which `path` will be taken `takers` times.
    fn sources(path: &Arc<Path>, takers: usize) -> SourceFiles {
        let source = None;
        let shared = Mutex::new(SharedFile { takers, source });
        SourceFiles {
            shared: HashMap::from([(key(path), shared)]),
        }
    }

    fn content(taken: Option<Arc<SourceFile>>) -> Vec<u8> {
        taken.unwrap().content.clone()
    }

    #[test]
    fn a_file_is_read_by_the_first_and_forgotten_by_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("file").into();
        std::fs::write(&path, "content").unwrap();
        let stamp = Stamp::new(&path.metadata().unwrap());
        let sources = sources(&path, 3);
        assert_eq!(content(sources.take(&path, stamp).unwrap()), b"content");
        // Whoever comes later does not look at the file any more.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(content(sources.take(&path, stamp).unwrap()), b"content");
        assert_eq!(content(sources.take(&path, stamp).unwrap()), b"content");
        assert!(sources.take(&path, stamp).is_err(), "nobody keeps it");
    }

    #[test]
    fn a_file_that_has_changed_since_it_was_listed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("file").into();
        std::fs::write(&path, "content").unwrap();
        let stamp = Stamp::new(&path.metadata().unwrap());
        std::fs::write(&path, "other content").unwrap();
        let error = sources(&path, 2).take(&path, stamp).unwrap_err();
        assert!(
            format!("{error:?}").contains("it changed while"),
            "{error:?}"
        );
    }
}
