//! Which apps gave several stores the same result, although each store has built its own: then
//! `build.shared` would have saved time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::outlook::UpstreamOutputs;
use crate::cache::{CachedResult, Key, OutputDigest};
use crate::plan::{BUILD, Plan, TaskId};

/// Results that were made in this run, by app, by what they are made of, and by content.
#[derive(Default)]
pub struct SharingHints {
    made: BTreeMap<(String, Key, OutputDigest), EqualResults>,
}

#[derive(Default)]
struct EqualResults {
    stores: BTreeSet<String>,
    longest: Duration,
    all: Duration,
}

impl SharingHints {
    /// A script has made this result.
    pub fn made(
        &mut self,
        plan: &Plan,
        id: TaskId,
        upstream: &UpstreamOutputs,
        entry: &CachedResult,
        elapsed: Duration,
    ) {
        let task = plan.task(id);
        let Some(unit) = task.subject.unit().filter(|_| task.script == BUILD) else {
            return;
        };
        let key = plan.neutral_key(id, upstream);
        let made = self
            .made
            .entry((unit.app.to_string(), key, entry.output))
            .or_default();
        made.stores.insert(unit.store.to_string());
        made.longest = made.longest.max(elapsed);
        made.all += elapsed;
    }

    /// What to tell.
    pub fn hints(&self) -> Vec<String> {
        let mut apps: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for ((app, _, _), made) in &self.made {
            if made.stores.len() > 1 {
                let (stores, saved) = apps.entry(app).or_default();
                *stores += made.stores.len();
                *saved += made.all.saturating_sub(made.longest);
            }
        }
        let hint = |(app, (stores, saved)): (&str, (usize, Duration))| {
            format!(
                "the builds of `{app}` gave the same files for {stores} stores; `\"build\": {{ \"shared\": [\"{app}\"] }}` in `alokai.config.json` would build equal ones once ({:.1} s less here)",
                saved.as_secs_f64()
            )
        };
        apps.into_iter().map(hint).collect()
    }
}
