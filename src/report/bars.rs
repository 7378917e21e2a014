//! Reports to a terminal: one live line for each running unit, and one line for each finished unit.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::line;
use super::{Detail, Reporter};
use crate::event::{Event, EventSubject};

/// A reporter that draws live lines on standard error.
pub struct Bars {
    all: MultiProgress,
    running: HashMap<EventSubject, ProgressBar>,
    detail: Detail,
}

impl Bars {
    /// Draws to standard error.
    pub fn new(detail: Detail) -> Self {
        Self {
            detail,
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            running: HashMap::new(),
        }
    }
}

impl Reporter for Bars {
    fn report(&mut self, event: &Event) {
        match event {
            Event::Started { unit } => {
                let bar = self.all.add(ProgressBar::new_spinner());
                // This template is a constant, so it is valid.
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4} {wide_msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(format!("{} {unit}", unit.work()));
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(unit.clone(), bar);
            }
            Event::Output { unit, line } => {
                if let Some(bar) = self.running.get(unit) {
                    bar.set_message(line.replace('\t', " "));
                }
            }
            other => {
                if let Event::Finished { unit, .. } = other
                    && let Some(bar) = self.running.remove(unit)
                {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if let Some(line) = line(other, self.detail) {
                    let _ = self.all.println(line);
                }
            }
        }
    }

    fn finish(&mut self) {
        for (_, bar) in self.running.drain() {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}
