//! Transfers that end when nothing moves, and bodies of limited length.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Response;

/// Why a request or its response was not transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection failed. The message has no address, since a query may hold a secret.
    #[error("{}", root_cause(.0))]
    Connection(#[source] reqwest::Error),
    /// Nothing was sent or received for this long.
    #[error("no data was sent or received for {} s", .0.as_secs())]
    Idle(Duration),
}

impl From<reqwest::Error> for TransferError {
    fn from(error: reqwest::Error) -> Self {
        Self::Connection(error.without_url())
    }
}

/// The message of an error's first cause, such as `Connection refused (os error 111)`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn StdError = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// When data of a request was last sent, and whether that was the last of it. Clones share it.
#[derive(Debug, Clone)]
pub struct TransferProgress(Arc<Mutex<(Instant, bool)>>);

impl Default for TransferProgress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), false))))
    }
}

impl TransferProgress {
    /// Records that data is sent now, and whether it is the last.
    pub fn record(&self, is_last: bool) {
        *self.lock() = (Instant::now(), is_last);
    }

    /// Time since data was last sent.
    pub fn elapsed(&self) -> Duration {
        self.lock().0.elapsed()
    }

    /// Whether all data was sent.
    pub fn is_sent(&self) -> bool {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a transfer may stand still.
#[derive(Debug, Clone, Copy)]
pub struct IdleLimits {
    /// While a request is sent or a response is received.
    pub silence: Duration,
    /// Between the last byte of the request and the response. A server may have work to do.
    pub response: Duration,
}

impl From<Duration> for IdleLimits {
    fn from(silence: Duration) -> Self {
        Self {
            silence,
            response: silence,
        }
    }
}

/// Waits for a transfer as long as data moves.
///
/// reqwest's own read timeout also counts while a request is sent, so it would end an upload that
/// takes long although the server keeps receiving.
pub async fn while_active<T>(
    transfer: impl Future<Output = reqwest::Result<T>>,
    progress: &TransferProgress,
    limits: IdleLimits,
) -> Result<T, TransferError> {
    tokio::pin!(transfer);
    loop {
        let limit = if progress.is_sent() {
            limits.response
        } else {
            limits.silence
        };
        let left = limit.saturating_sub(progress.elapsed());
        if left.is_zero() {
            return Err(TransferError::Idle(limit));
        }
        tokio::select! {
            result = &mut transfer => return result.map_err(TransferError::from),
            // Data may have moved meanwhile, so the limit is computed again.
            () = tokio::time::sleep(left.min(limits.silence)) => {}
        }
    }
}

/// The next bytes of a response's body; `None` at its end.
pub async fn next_chunk(
    response: &mut Response,
    silence: Duration,
) -> Result<Option<impl AsRef<[u8]> + Send + use<>>, TransferError> {
    while_active(
        response.chunk(),
        &TransferProgress::default(),
        silence.into(),
    )
    .await
}

/// A body of which no more than a limit was read.
#[derive(Debug, Default)]
pub struct LimitedBody {
    /// The body, or as much of it as the limit allows.
    pub bytes: Vec<u8>,
    /// Whether that is all of it.
    pub is_complete: bool,
}

/// Reads a body up to a limit of bytes.
pub async fn read_at_most(
    mut response: Response,
    limit: u64,
    silence: Duration,
) -> Result<LimitedBody, TransferError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut response, silence).await? {
        bytes.extend_from_slice(chunk.as_ref());
        if bytes.len() > limit {
            bytes.truncate(limit);
            return Ok(LimitedBody {
                bytes,
                is_complete: false,
            });
        }
    }
    Ok(LimitedBody {
        bytes,
        is_complete: true,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{IdleLimits, TransferError, TransferProgress, read_at_most, while_active};
    use crate::{HttpOptions, build};

    const PATIENT: Duration = Duration::from_secs(10);

    /// The response of a server that writes this text and then keeps the connection open.
    async fn response(text: &'static str) -> reqwest::Response {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let url = url.parse().unwrap();
        let client = build(&url, HttpOptions::new("test")).unwrap();
        client.get(url).send().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        for (limit, expected, is_complete) in [(3, "abc", false), (4, "abcd", true)] {
            let response = response("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd").await;
            let body = read_at_most(response, limit, PATIENT).await.unwrap();
            assert_eq!(body.bytes, expected.as_bytes());
            assert_eq!(body.is_complete, is_complete);
        }
    }

    #[tokio::test]
    async fn a_body_that_stops_in_the_middle_ends_with_the_idle_limit() {
        let response = response("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab").await;
        let silence = Duration::from_millis(50);
        let result = read_at_most(response, 10, silence).await;
        assert!(matches!(result, Err(TransferError::Idle(limit)) if limit == silence));
    }

    #[tokio::test]
    async fn a_response_has_its_own_limit_once_everything_is_sent() {
        let progress = TransferProgress::default();
        progress.record(true);
        let limits = IdleLimits {
            silence: Duration::from_millis(1),
            response: Duration::from_millis(50),
        };
        let never = std::future::pending::<reqwest::Result<()>>();
        let result = while_active(never, &progress, limits).await;
        assert!(matches!(result, Err(TransferError::Idle(limit)) if limit == limits.response));
    }
}
