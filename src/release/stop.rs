//! Stopping a whole store at its target.

use super::Error;
use super::steps::StoreRun;
use crate::ledger::{RecordId, StoreEvent};

impl StoreRun<'_> {
    /// Ends the traffic of the store, and removes its releases. Returns them.
    pub async fn stop(&self) -> Result<Vec<RecordId>, Error> {
        self.locked(async {
            let shows_page = self.observe().await?.state.maintenance.is_some();
            let ended = self.target.end_store(self.store).await?;
            if shows_page {
                let off = StoreEvent::Maintenance { on: false };
                self.journal.event(off, None, None, None);
            }
            for release in &ended {
                let detail = Some("the store was stopped".to_owned());
                self.journal
                    .event(StoreEvent::Retired, Some(release), None, detail);
            }
            Ok(ended)
        })
        .await
    }
}
