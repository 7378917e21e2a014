//! Halts a stage after a failure or an interruption: running units may end, and no other unit begins.

use std::sync::Mutex;

use super::failure::StageError;
use super::services::Services;
use crate::event::EventSubject;

/// Whether a stage is halted, and because of which unit.
pub struct Halt<'a> {
    services: &'a Services,
    keep_going: bool,
    because: Mutex<Option<String>>,
}

impl<'a> Halt<'a> {
    /// A stage in which no unit has failed.
    pub fn new(services: &'a Services, keep_going: bool) -> Self {
        Self {
            services,
            keep_going,
            because: Mutex::new(None),
        }
    }

    /// Carries out one unit, or skips it if the stage is halted.
    pub async fn unless_halted<T, E: std::fmt::Display + Into<StageError>>(
        &self,
        unit: EventSubject,
        note: impl FnOnce(&T) -> String,
        work: impl Future<Output = Result<T, E>>,
    ) -> Option<(EventSubject, Result<T, StageError>)> {
        let because = self.because();
        if let Some(because) = because {
            self.services.skip(unit, &because);
            return None;
        }
        let span = self.services.events.begin(&unit);
        let result = work.await;
        let note = |product| Some(note(product));
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        if result.is_err() && !self.keep_going {
            let mut because = self
                .because
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            because.get_or_insert(unit.to_string());
        }
        Some((unit, result.map_err(Into::into)))
    }

    fn because(&self) -> Option<String> {
        if self.services.interrupt.stopped() {
            return Some("the interruption".into());
        }
        self.because
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}
