//! The barrier between the stages of a run.

use super::failure::{Error, Failure, StageResult};
use super::services::Services;
use crate::event::Stage;
use crate::store::{StoreId, UnitId};

/// The barrier between stages. After a failure the run ends, or, with `--keep-going`, continues
/// without the stores that have failed.
pub struct StageGate {
    /// Whether the run continues without the stores that have failed.
    pub keep_going: bool,
    /// What has failed so far.
    pub failures: Vec<Failure>,
}

impl StageGate {
    /// Passes the products of a stage on: those of stores without a failed or a skipped unit.
    pub fn pass<T>(
        &mut self,
        stage: Stage,
        services: &Services,
        result: StageResult<T>,
        unit: impl Fn(&T) -> &UnitId,
    ) -> Result<Vec<T>, Error> {
        self.failures.extend(result.failed);
        if services.interrupt.stopped() || (!self.failures.is_empty() && !self.keep_going) {
            self.end_of(stage, services)?;
        }
        let lost = |store: &StoreId| {
            self.has_lost(store) || result.skipped.iter().any(|unit| unit.store == *store)
        };
        Ok(result
            .done
            .into_iter()
            .filter(|product| !lost(&unit(product).store))
            .collect())
    }

    /// Whether a unit of the store has failed.
    pub fn has_lost(&self, store: &StoreId) -> bool {
        let mut failures = self.failures.iter();
        failures.any(|failure| failure.unit.store.as_ref() == Some(store))
    }

    /// The end of the run in a stage. Ok if the run continues.
    pub fn end_of(&mut self, stage: Stage, services: &Services) -> Result<(), Error> {
        if services.interrupt.stopped() {
            // Units that failed before are reported too; interrupted units are not.
            let mut failures = std::mem::take(&mut self.failures);
            failures.retain(|failure| !failure.error.is_interruption());
            return Err(Error::Interrupted { stage, failures });
        }
        self.end()
    }

    /// The end of the run: an error if a unit has failed.
    pub fn end(&mut self) -> Result<(), Error> {
        if self.failures.is_empty() {
            return Ok(());
        }
        Err(Error::Failed {
            failures: std::mem::take(&mut self.failures),
        })
    }
}
