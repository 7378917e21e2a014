//! One JSON object a line, for machines.

use std::io::Write;

use super::Reporter;
use crate::event::Event;

/// Writes every event as it is.
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
            // Whole lines, at once: a reader may look at any moment.
            let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
        }
    }

    fn finish(&mut self) {
        let _ = self.out.flush();
    }
}
