//! `store releases prune`: releases without traffic are removed from the target.

use super::answer;
use super::arguments::Global;
use super::arguments::live::ReleasesPruneOptions;
use super::make_live::at_store;
use crate::error::Error as AnyError;
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
            if planned.is_empty() {
                return answer(&format!("{id}: there are no releases to remove\n"));
            }
            if options.dry_run {
                for release in planned {
                    answer(&format!("{id}: {release} would be removed\n"))?;
                }
                return answer("Dry run: nothing was changed.\n");
            }
            let removed = place.recorded(None, |flow| {
                let run = StoreRun::new(flow, &*place.target, id);
                Ok(place.targets.registry.wait(run.prune(options.keep))?)
            })?;
            for release in removed {
                answer(&format!("{id}: {release} is removed\n"))?;
            }
            Ok(())
        },
    )
}
