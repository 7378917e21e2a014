//! Source files. A file that several stores contain is read once.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Stamp;
use crate::overlay::{Entry, EntryContent};
use crate::pipeline::failure::Io;

/// Files up to this size, in bytes, are read into memory. The system copies larger files, and
/// clones them where the file system supports that.
const LARGEST_READ: u64 = 1 << 20;

/// A file's content and permissions.
#[derive(Debug)]
pub struct SourceFile {
    /// The bytes.
    pub content: Vec<u8>,
    /// The permission bits that copies of the file get.
    pub mode: u32,
}

/// A file that several stores contain.
#[derive(Debug, Default)]
struct SharedFile {
    /// The number of stores that have not read it yet.
    takers: usize,
    source: Option<Arc<SourceFile>>,
}

/// The files that several stores contain.
#[derive(Debug, Default)]
pub struct SourceFiles {
    shared: HashMap<usize, Mutex<SharedFile>>,
}

/// Identifies a path by its address in memory, since the compositions of all stores share the
/// paths of a layer.
fn key(path: &Arc<Path>) -> usize {
    Arc::as_ptr(path).cast::<u8>().addr()
}

impl SourceFiles {
    /// Counts how many of these entries have the same source file.
    pub fn new<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let mut takers = HashMap::<usize, usize>::new();
        for entry in entries {
            if let EntryContent::Copy(path, stamp) = entry.content()
                && stamp.size <= LARGEST_READ
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

    /// The file's content, or none for a large file, which the system copies.
    pub fn take(&self, path: &Arc<Path>, stamp: Stamp) -> Result<Option<Arc<SourceFile>>, Io> {
        if stamp.size > LARGEST_READ {
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
        // After the last store has read it, the content is dropped.
        shared.takers = shared.takers.saturating_sub(1);
        shared.source = (shared.takers > 0).then(|| Arc::clone(&source));
        Ok(Some(source))
    }
}

fn read(path: &Path, stamp: Stamp) -> Result<SourceFile, Io> {
    let failed = || Io::at("read", path);
    let content = std::fs::read(path).map_err(failed())?;
    // Compared after the read: the id was computed when the layer was listed, and content that
    // has changed since then would be recorded under the wrong id.
    let metadata = path.metadata().map_err(failed())?;
    check_unchanged(path, stamp, &metadata)?;
    Ok(SourceFile {
        content,
        mode: metadata.permissions().mode(),
    })
}

/// Fails where the file has changed since its id was computed.
pub fn check_unchanged(path: &Path, stamp: Stamp, metadata: &Metadata) -> Result<(), Io> {
    if Stamp::new(metadata) == stamp {
        return Ok(());
    }
    let error = std::io::Error::other("the file changed during the compose; run again");
    Err(Io::at("copy", path)(error))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::{SharedFile, SourceFile, SourceFiles, key};
    use crate::disk::Stamp;

    /// Sources in which `path` is expected to be read `takers` times.
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
        // Later readers do not open the file.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(content(sources.take(&path, stamp).unwrap()), b"content");
        assert_eq!(content(sources.take(&path, stamp).unwrap()), b"content");
        assert!(
            sources.take(&path, stamp).is_err(),
            "the content is dropped"
        );
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
            format!("{error:?}").contains("changed during the compose"),
            "{error:?}"
        );
    }
}
