//! Finds apps whose builds gave several stores the same result. Declaring such an app in `build.shared`
//! saves time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lookup::UpstreamOutputs;
use crate::cache::{CachedResult, Key, OutputDigest};
use crate::plan::{Plan, TaskId};

/// The results of this run, by app, by the key that a shared app has, and by content.
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
    /// Adds the result of a script.
    pub fn made(
        &mut self,
        plan: &Plan,
        id: TaskId,
        upstream: &UpstreamOutputs,
        entry: &CachedResult,
        elapsed: Duration,
    ) {
        let task = plan.task(id);
        let Some(unit) = task.subject.unit().filter(|_| task.work.is_build()) else {
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

    /// The hints for the user.
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
                "the builds of `{app}` produced the same files for {stores} stores; set `\"build\": {{ \"shared\": [\"{app}\"] }}` in `alokai.config.json` to build them once, which would have saved {:.1} s in this run",
                saved.as_secs_f64()
            )
        };
        apps.into_iter().map(hint).collect()
    }
}
