//! The output of a started app: a log, and the last lines for an error.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http_client::Redactor;
use tokio::io::AsyncRead;

use crate::event::ServerId;
use crate::pipeline::process::{PieceReader, TAIL, readable};
use crate::pipeline::services::Services;

/// Takes the lines of standard output and standard error.
pub struct ServerOutput {
    log: File,
    tail: VecDeque<String>,
    services: Arc<Services>,
    redactor: Redactor,
    reported: Option<ServerId>,
}

impl ServerOutput {
    /// Writes to `log`, and replaces the secrets of the run and of the app. Each line is also sent as
    /// an event of the server `reported`, if it has a name.
    pub fn new(
        log: File,
        services: Arc<Services>,
        redactor: Redactor,
        reported: Option<ServerId>,
    ) -> Self {
        Self {
            log,
            tail: VecDeque::with_capacity(TAIL),
            services,
            redactor,
            reported,
        }
    }

    /// Adds a line, and returns it as it is shown; none for an empty line.
    fn add(&mut self, line: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(line);
        let text = self.redactor.redact(&self.services.redact(&text));
        // A log that cannot be written does not end the app.
        let _ = self.log.write_all(text.as_bytes());
        let shown = readable(&text);
        if shown.is_empty() {
            return None;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(shown.clone());
        Some(shown)
    }
}

/// The last lines so far.
pub fn tail(output: &Mutex<ServerOutput>) -> Vec<String> {
    let output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output.tail.iter().cloned().collect()
}

/// Reads a pipe to its end. A long line is split, but not within a secret.
pub async fn read(pipe: Option<impl AsyncRead + Unpin>, output: Arc<Mutex<ServerOutput>>) {
    let Some(pipe) = pipe else {
        return;
    };
    let (redactors, services, reported) = {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let redactors = output.services.redactors().chain([&output.redactor]);
        (
            redactors.cloned().collect(),
            Arc::clone(&output.services),
            output.reported.clone(),
        )
    };
    let mut pieces = PieceReader::new(pipe, redactors);
    while let Some(line) = pieces.read_piece().await {
        let shown = {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.add(&line)
        };
        if let (Some(shown), Some(server)) = (shown, &reported) {
            services.events.server_output(server, shown).await;
        }
    }
}
