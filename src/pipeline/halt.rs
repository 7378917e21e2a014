//! Nothing new begins after a failure, or once a person has ended the run; what runs may end.

use std::sync::Mutex;

use super::context::Services;
use super::failure::StageError;
use crate::event::Unit;

/// Whether a stage has been halted, and by whom.
pub struct Halt<'a> {
    context: &'a Services,
    because: Mutex<Option<String>>,
}

impl<'a> Halt<'a> {
    /// Nothing has failed yet.
    pub fn new(context: &'a Services) -> Self {
        Self {
            context,
            because: Mutex::new(None),
        }
    }

    /// Carries out one unit, or skips it and says because of whom.
    pub async fn unless_halted<T, E: std::fmt::Display + Into<StageError>>(
        &self,
        unit: Unit,
        note: impl FnOnce(&T) -> String,
        work: impl Future<Output = Result<T, E>>,
    ) -> Option<(Unit, Result<T, StageError>)> {
        let because = self.because();
        if let Some(because) = because {
            self.context.skip(unit, &because);
            return None;
        }
        let span = self.context.events.begin(&unit);
        let result = work.await;
        let note = |product| Some(note(product));
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        if result.is_err() && !self.context.keep_going {
            let mut because = self
                .because
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            because.get_or_insert(unit.to_string());
        }
        Some((unit, result.map_err(Into::into)))
    }

    fn because(&self) -> Option<String> {
        if self.context.interrupt.stopped() {
            return Some("the interruption".into());
        }
        self.because
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}
