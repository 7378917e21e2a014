//! What uploads learn about a registry, for the uploads after them.

use std::sync::{Mutex, PoisonError};

/// Which uploads a registry supports, as far as the client knows.
#[derive(Debug, Clone, Copy)]
pub struct UploadCapabilities {
    /// A blob of this size or more cannot be sent in one request.
    pub too_large: u64,
    /// Size of a chunk that the registry has accepted.
    pub chunk: Option<u64>,
    /// Whether it accepts chunks.
    pub accepts_chunks: bool,
}

/// What one client has learned about its registry, so that not every upload learns it again.
pub struct LearnedCapabilities(Mutex<UploadCapabilities>);

impl Default for LearnedCapabilities {
    fn default() -> Self {
        Self(Mutex::new(UploadCapabilities {
            too_large: u64::MAX,
            chunk: None,
            accepts_chunks: true,
        }))
    }
}

impl LearnedCapabilities {
    pub fn get(&self) -> UploadCapabilities {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn update(&self, change: impl FnOnce(&mut UploadCapabilities)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
