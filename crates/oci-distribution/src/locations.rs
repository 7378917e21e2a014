//! Which repositories have which blobs: of twenty images that share a layer, one uploads it, and
//! the registry mounts it into the repositories of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use oci::Digest;

/// The repositories that have each blob, and the tasks that are about to upload it.
#[derive(Default)]
pub struct BlobLocations(Mutex<HashMap<Digest, Arc<BlobHolders>>>);

#[derive(Default)]
struct BlobHolders {
    /// Locked by the task that brings the blob to its first repository.
    first: Arc<tokio::sync::Mutex<()>>,
    /// By repository; locked by the task that brings the blob there.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Repositories that have the blob.
    repositories: Mutex<Vec<String>>,
}

/// The exclusive right to bring a blob to a repository.
pub struct BlobLock {
    blob: Arc<BlobHolders>,
    repository: String,
    _guard: OwnedMutexGuard<()>,
}

/// How a repository gets a blob.
pub enum BlobRoute {
    /// The registry mounts it from this repository.
    MountFrom(String),
    /// It is uploaded. Until this value is dropped, every other repository waits for the upload.
    UploadFirst {
        /// Held during the upload.
        _guard: OwnedMutexGuard<()>,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlobLocations {
    /// Waits until no other task brings this blob to this repository.
    pub async fn lock(&self, digest: Digest, repository: &str) -> BlobLock {
        let blob = Arc::clone(lock(&self.0).entry(digest).or_default());
        let mutex = {
            let mut locks = lock(&blob.locks);
            Arc::clone(locks.entry(repository.to_owned()).or_default())
        };
        let guard = mutex.lock_owned().await;
        BlobLock {
            blob,
            repository: repository.to_owned(),
            _guard: guard,
        }
    }
}

impl BlobLock {
    /// Whether the repository is known to have the blob.
    pub fn is_present(&self) -> bool {
        lock(&self.blob.repositories).contains(&self.repository)
    }

    /// Records that the repository has the blob.
    pub fn record(&self) {
        if !self.is_present() {
            lock(&self.blob.repositories).push(self.repository.clone());
        }
    }

    /// How to get the blob there. Waits while another task uploads it to its first repository.
    pub async fn route(&self) -> BlobRoute {
        let holder = || lock(&self.blob.repositories).first().cloned();
        if let Some(repository) = holder() {
            return BlobRoute::MountFrom(repository);
        }
        let guard = Arc::clone(&self.blob.first).lock_owned().await;
        match holder() {
            Some(repository) => BlobRoute::MountFrom(repository),
            None => BlobRoute::UploadFirst { _guard: guard },
        }
    }
}
