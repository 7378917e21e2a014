//! `store releases prune`: releases without traffic are removed from the target.

use serde_json::json;

use super::answer;
use super::arguments::Global;
use super::arguments::live::ReleasesPruneOptions;
use super::one_store::{StoreAtTarget, at_store};
use crate::error::Error as AnyError;
use crate::ledger::RecordId;
use crate::release::StoreRun;

pub fn prune(global: &Global, options: &ReleasesPruneOptions) -> Result<(), AnyError> {
    at_store(
        global,
        &options.place,
        "releases prune",
        (false, false),
        |place| {
            let id = place.id();
            let now = place.snapshot()?;
            let planned = place.with_flow(|flow| {
                StoreRun::new(flow, &*place.target, id).prunable(&now, options.keep)
            });
            if options.dry_run || planned.is_empty() {
                return show(place, &planned, options);
            }
            let removed = place.recorded(None, |flow| {
                let run = StoreRun::new(flow, &*place.target, id);
                Ok(place.targets.registry.wait(run.prune(options.keep))?)
            })?;
            show(place, &removed, options)
        },
    )
}

fn show(
    place: &StoreAtTarget,
    releases: &[RecordId],
    options: &ReleasesPruneOptions,
) -> Result<(), AnyError> {
    let (id, is_dry) = (place.id(), options.dry_run);
    if options.json {
        return place.document(&json!({ "dryRun": is_dry, "removed": releases }));
    }
    if releases.is_empty() {
        return answer(&format!("{id}: there are no releases to remove\n"));
    }
    let done = if is_dry { "would be" } else { "is" };
    for release in releases {
        answer(&format!("{id}: {release} {done} removed\n"))?;
    }
    if is_dry {
        answer("Dry run: nothing was changed.\n")?;
    }
    Ok(())
}
