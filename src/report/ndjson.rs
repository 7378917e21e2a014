//! Reports as NDJSON: one JSON object a line.

use std::io::Write;

use super::Reporter;
use crate::event::Event;

/// A reporter that writes every event as JSON.
pub struct Ndjson<W> {
    out: W,
}

impl<W: Write + Send> Ndjson<W> {
    /// Writes to `out`, which is standard output.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write + Send> Reporter for Ndjson<W> {
    fn report(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // A reader must never see half a line.
            let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }

    fn finish(&mut self) {
        let _ = self.out.flush();
    }
}
