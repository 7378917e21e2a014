//! Limits of one client: retries, timeouts, and sizes of chunks.

use std::time::Duration;

use http_client::RetryPolicy;

/// How often and how long a client tries, and in what chunks it uploads.
#[derive(Debug, Clone, Copy)]
pub struct TransferLimits {
    /// Retries of one request or upload. Progress of an upload resets the count.
    pub retry: RetryPolicy,
    /// How long no data may move in either direction before a request is given up.
    pub silence: Duration,
    /// How long a registry may take to store a blob after it has received all of it. Some
    /// registries copy the blob within their storage first.
    pub commit: Duration,
    /// Bytes of one chunk, for a blob that is not sent in one request.
    pub chunk: u64,
    /// The size that chunks shrink to where connections break.
    pub smallest_chunk: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            retry: RetryPolicy {
                retries: 5,
                pause: Duration::from_millis(250),
                factor: 2,
            },
            silence: Duration::from_mins(1),
            commit: Duration::from_mins(10),
            // GitHub's registry accepts no larger chunks.
            chunk: 4 << 20,
            smallest_chunk: 64 << 10,
        }
    }
}
