//! Removing releases without traffic from a target.

use std::collections::BTreeSet;

use super::Error;
use super::steps::{StoreRun, StoreSnapshot};
use crate::ledger::RecordId;

impl StoreRun<'_> {
    /// Stops and removes releases without traffic, except `keep` of them (default: `deploy.keep`). Returns
    /// the removed releases.
    pub async fn prune(&self, keep: Option<usize>) -> Result<Vec<RecordId>, Error> {
        self.locked(async {
            let now = self.observe().await?;
            let mut removed = Vec::new();
            for id in self.prunable(&now, keep) {
                self.retire(&id, false, "pruned").await?;
                removed.push(id);
            }
            Ok(removed)
        })
        .await
    }

    /// The releases that a prune removes. Staged releases are kept first, the newest first, then
    /// releases that were live, the latest first.
    pub fn prunable(&self, now: &StoreSnapshot, keep: Option<usize>) -> Vec<RecordId> {
        let staged = now.observed.staged.iter().map(|it| &it.release);
        let staged: BTreeSet<&RecordId> = staged.collect();
        let all: BTreeSet<&RecordId> = staged.iter().copied().chain(&now.observed.kept).collect();
        let mut all: Vec<&RecordId> = all.into_iter().rev().collect();
        all.retain(|id| now.live() != Some(*id));
        let live = |id: &RecordId| now.state.proven.iter().rev().position(|it| it == id);
        all.sort_by_key(|id| (!staged.contains(id), live(id).unwrap_or(usize::MAX)));
        let keep = keep.unwrap_or_else(|| self.keep());
        all.into_iter().skip(keep).cloned().collect()
    }
}
