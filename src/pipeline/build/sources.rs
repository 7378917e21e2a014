//! Sources that change while a script runs. A script can write outside of its composed app
//! with a computed path, and only `--sandbox` prevents that.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::disk::Stamp;
use crate::overlay::{Composition, EntryContent};
use crate::plan::{Plan, TaskId};

/// The sources of the apps in a task's store that differ from what was composed.
pub fn changed(plan: &Plan, id: TaskId) -> BTreeSet<PathBuf> {
    let siblings = plan.siblings(id).map(|(sibling, _)| sibling);
    let compositions = siblings.chain(plan.composition_of(id));
    compositions.flat_map(|it| changed_in(it)).collect()
}

fn changed_in(composition: &Composition) -> impl Iterator<Item = PathBuf> {
    composition.entries.values().filter_map(|entry| {
        let EntryContent::Copy(path, stamp) = entry.content() else {
            return None;
        };
        (Stamp::of(path) != Some(stamp)).then(|| path.to_path_buf())
    })
}

/// The note about sources that have changed since `before`.
pub fn note(plan: &Plan, id: TaskId, before: &BTreeSet<PathBuf>) -> Option<String> {
    let now = changed(plan, id);
    let mut new = now.difference(before).map(|path| {
        let inside = path.strip_prefix(&plan.project).unwrap_or(path);
        format!("`{}`", inside.display())
    });
    let first = new.next()?;
    let more = match new.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(format!(
        "{}: the source {first}{more} changed while the script ran; if nobody has edited it, the script writes to it",
        plan.task(id).name()
    ))
}
