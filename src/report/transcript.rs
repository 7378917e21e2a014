//! The output of each store, kept for the record of its build.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Detail, Lines, Reporter};
use crate::event::Event;
use crate::store::StoreId;

/// Bytes that are kept of the beginning of a store's output.
const FIRST_BYTES: usize = 256 << 10;

/// Bytes that are kept of the end of a store's output.
const LAST_BYTES: usize = 4 << 20;

/// A reporter that shows events and keeps the output of each store.
pub struct Recording {
    shown: Box<dyn Reporter>,
    kept: Transcripts,
}

impl Recording {
    /// Shows events with `shown`, and keeps them in `kept`.
    pub fn new(shown: Box<dyn Reporter>, kept: Transcripts) -> Self {
        Self { shown, kept }
    }
}

impl Reporter for Recording {
    fn report(&mut self, event: &Event) {
        self.kept.add(event);
        self.shown.report(event);
    }

    fn finish(&mut self) {
        self.shown.finish();
    }
}

/// The output of stores. Clones share it.
#[derive(Clone, Default)]
pub struct Transcripts(Arc<Mutex<BTreeMap<Option<StoreId>, Lines<Excerpt>>>>);

impl Transcripts {
    /// Copies the further output of a store, and that of workspace packages, line by line.
    pub fn copy_to(&self, store: &StoreId, copy: &(impl Write + Clone + Send + 'static)) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for part in [None, Some(store.clone())] {
            let lines = kept.entry(part).or_insert_with(new_lines);
            lines.written_mut().copies.push(Box::new(copy.clone()));
        }
    }

    fn add(&self, event: &Event) {
        let store = match event {
            Event::Started { unit }
            | Event::Output { unit, .. }
            | Event::Finished { unit, .. }
            | Event::Missed { unit, .. }
            | Event::Sizes { unit, .. } => unit.store.clone(),
            Event::Notice { .. } => None,
            _ => return,
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(store).or_insert_with(new_lines).report(event);
    }

    /// The output of workspace packages, which all stores share, and that of the store. Returns also
    /// whether lines were left out.
    pub fn of(&self, store: &StoreId) -> (Vec<u8>, bool) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = [None, Some(store.clone())];
        let parts = parts.iter().filter_map(|part| kept.get(part));
        let mut all = (Vec::new(), false);
        for part in parts {
            part.written().append_to(&mut all.0);
            all.1 |= part.written().left_out > 0;
        }
        all
    }
}

fn new_lines() -> Lines<Excerpt> {
    Lines::new(Excerpt::default(), Detail::Full)
}

/// The beginning and the end of a text, in whole lines.
#[derive(Default)]
pub struct Excerpt {
    first: Vec<u8>,
    last: VecDeque<Vec<u8>>,
    last_bytes: usize,
    /// Lines that were left out.
    left_out: usize,
    /// A line without its end.
    open: Vec<u8>,
    /// Receive each line at once.
    copies: Vec<Box<dyn Write + Send>>,
}

impl Excerpt {
    fn push(&mut self, line: Vec<u8>) {
        for copy in &mut self.copies {
            // The run continues if a copy cannot be written. The whole output is kept at the end.
            let _ = copy.write_all(&line);
        }
        if self.last.is_empty() && self.first.len() + line.len() <= FIRST_BYTES {
            self.first.extend(line);
            return;
        }
        self.last_bytes += line.len();
        self.last.push_back(line);
        while self.last_bytes > LAST_BYTES
            && let Some(line) = self.last.pop_front()
        {
            self.last_bytes -= line.len();
            self.left_out += 1;
        }
    }

    fn append_to(&self, text: &mut Vec<u8>) {
        text.extend(&self.first);
        if self.left_out > 0 {
            text.extend(format!("… {} lines were left out …\n", self.left_out).into_bytes());
        }
        self.last.iter().for_each(|line| text.extend(line));
        text.extend(&self.open);
    }
}

impl Write for Excerpt {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.open.extend(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.open);
                self.push(line);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Excerpt, FIRST_BYTES, LAST_BYTES};

    #[test]
    fn a_long_output_keeps_its_beginning_and_its_end() {
        let mut excerpt = Excerpt::default();
        let lines = (FIRST_BYTES + 2 * LAST_BYTES) / 16;
        for number in 0..lines {
            writeln!(excerpt, "line {number:>10}").unwrap();
        }
        let mut text = Vec::new();
        excerpt.append_to(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.len() < FIRST_BYTES + LAST_BYTES + 100);
        assert!(text.starts_with("line          0\n"));
        assert!(text.ends_with(&format!("line {:>10}\n", lines - 1)));
        let kept = text.lines().filter(|line| line.starts_with("line")).count();
        assert_eq!(kept + excerpt.left_out, lines);
        assert!(text.contains(&format!("… {} lines were left out …\n", excerpt.left_out)));
    }
}
