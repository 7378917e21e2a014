//! What a run knows of the blobs that registries have: twenty images with one layer send it once,
//! and then let the registry mount it from where it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use oci::Digest;

/// Which repositories have which blobs, and who is about to bring one.
#[derive(Default)]
pub struct BlobLocations(Mutex<HashMap<Digest, Arc<BlobHolders>>>);

#[derive(Default)]
struct BlobHolders {
    /// Held by who brings it to its first repository.
    first: Arc<tokio::sync::Mutex<()>>,
    /// Held by who brings it to that repository, each.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Repositories that have it.
    holders: Mutex<Vec<String>>,
}

/// The right to bring a blob to a repository.
pub struct BlobLock {
    blob: Arc<BlobHolders>,
    repository: String,
    _guard: OwnedMutexGuard<()>,
}

/// What a repository is to do to get a blob.
pub enum BlobRoute {
    /// Take it from that other one.
    MountFrom(String),
    /// Bring it itself. Until this is dropped, all others wait for it.
    UploadFirst {
        /// Held so long.
        _guard: OwnedMutexGuard<()>,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlobLocations {
    /// Waits until nobody else brings that blob to that repository.
    pub async fn turn(&self, digest: Digest, repository: &str) -> BlobLock {
        let blob = Arc::clone(lock(&self.0).entry(digest).or_default());
        let turn = {
            let mut turns = lock(&blob.turns);
            Arc::clone(turns.entry(repository.to_owned()).or_default())
        };
        let guard = turn.lock_owned().await;
        BlobLock {
            blob,
            repository: repository.to_owned(),
            _guard: guard,
        }
    }
}

impl BlobLock {
    /// Whether the repository has it.
    pub fn is_there(&self) -> bool {
        lock(&self.blob.holders).contains(&self.repository)
    }

    /// From now on it has.
    pub fn note(&self) {
        if !self.is_there() {
            lock(&self.blob.holders).push(self.repository.clone());
        }
    }

    /// How to get it there: waits while another brings it to the first repository of all.
    pub async fn way(&self) -> BlobRoute {
        let holder = || lock(&self.blob.holders).first().cloned();
        if let Some(holder) = holder() {
            return BlobRoute::MountFrom(holder);
        }
        let guard = Arc::clone(&self.blob.first).lock_owned().await;
        match holder() {
            Some(holder) => BlobRoute::MountFrom(holder),
            None => BlobRoute::UploadFirst { _guard: guard },
        }
    }
}
