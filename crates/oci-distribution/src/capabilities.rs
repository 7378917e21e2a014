//! What uploads find out about a registry, for the uploads after them.

use std::sync::{Mutex, PoisonError};

/// What a registry takes, as far as this run knows.
#[derive(Debug, Clone, Copy)]
pub struct UploadCapabilities {
    /// Blobs of so many bytes and more do not get through whole.
    pub too_large: u64,
    /// Bytes of a piece that gets through.
    pub piece: Option<u64>,
    /// Whether it takes pieces.
    pub takes_pieces: bool,
}

/// What uploads of one run have learnt of a registry, so that a thousand images do not each learn
/// it anew.
pub struct LearnedCapabilities(Mutex<UploadCapabilities>);

impl Default for LearnedCapabilities {
    fn default() -> Self {
        Self(Mutex::new(UploadCapabilities {
            too_large: u64::MAX,
            piece: None,
            takes_pieces: true,
        }))
    }
}

impl LearnedCapabilities {
    pub fn get(&self) -> UploadCapabilities {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, change: impl FnOnce(&mut UploadCapabilities)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
