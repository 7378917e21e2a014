//! The watched folders: each one by itself, so that ignored folders, `node_modules` and `.out` cost nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, EventHandler, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches folders without their subfolders.
pub struct FolderWatch {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

/// The system does not watch any more folders.
#[derive(Debug)]
pub struct WatchLimit {
    /// The reason and the remedy.
    pub message: String,
}

impl FolderWatch {
    /// Watches no folder yet.
    pub fn new(handler: impl EventHandler) -> Result<Self, WatchLimit> {
        let watcher = notify::recommended_watcher(handler);
        Ok(Self {
            watcher: watcher.map_err(|error| WatchLimit::new(&error, 0))?,
            watched: BTreeSet::new(),
        })
    }

    /// How many folders are watched.
    pub fn count(&self) -> usize {
        self.watched.len()
    }

    /// Watches these folders too, and returns those that were not watched before. A folder that does not
    /// exist is left out; its parent is watched.
    pub fn add<'p>(
        &mut self,
        folders: impl IntoIterator<Item = &'p Path>,
    ) -> Result<BTreeSet<PathBuf>, WatchLimit> {
        let mut added = BTreeSet::new();
        let mut failure = None;
        let mut paths = self.watcher.paths_mut();
        for folder in folders {
            if self.watched.contains(folder) {
                continue;
            }
            match paths.add(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    added.insert(folder.to_owned());
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let committed = paths.commit();
        let count = self.watched.len() + added.len();
        if let Some(error) = failure.or(committed.err()) {
            return Err(WatchLimit::new(&error, count));
        }
        self.watched.extend(added.iter().cloned());
        Ok(added)
    }

    /// Watches exactly these folders, and returns those that were not watched before.
    pub fn set(&mut self, folders: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>, WatchLimit> {
        let gone = self.watched.difference(folders).cloned();
        for folder in gone.collect::<Vec<_>>() {
            self.drop_watch(&folder);
        }
        self.add(folders.iter().map(PathBuf::as_path))
    }

    /// Stops watching a path and everything below it, since another folder can have its name now.
    pub fn forget(&mut self, path: &Path) {
        let below = self.watched.range(path.to_owned()..);
        let below = below.take_while(|folder| folder.starts_with(path)).cloned();
        for folder in below.collect::<Vec<_>>() {
            self.drop_watch(&folder);
        }
    }

    fn drop_watch(&mut self, folder: &Path) {
        // The system has removed the watch of a folder that does not exist any more.
        let _ = self.watcher.unwatch(folder);
        self.watched.remove(folder);
    }
}

fn is_absent(error: &notify::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => matches!(error.kind(), NotFound | NotADirectory),
        _ => false,
    }
}

impl WatchLimit {
    fn new(error: &notify::Error, count: usize) -> Self {
        let setting = if count == 0 {
            "fs.inotify.max_user_instances=1024"
        } else {
            "fs.inotify.max_user_watches=1048576"
        };
        let reason = match &error.kind {
            ErrorKind::MaxFilesWatch => "the limit of this system is reached".to_owned(),
            _ => error.to_string(),
        };
        let message = format!(
            "folders cannot be watched ({count} are watched; {reason}), so all sources are compared once a \
             second instead, which takes more processor time; on Linux, raise the limit with \
             `sudo sysctl {setting}` and run the command again"
        );
        Self { message }
    }
}
