//! The steps of a release in words, for a dry run.

use crate::config::DeploySection;
use crate::plan::ReleaseSteps;
use crate::target::Target;

/// The steps with which a target makes a release live, and what it cannot do.
pub fn steps_of(target: &dyn Target, settings: &DeploySection, no_release: bool) -> ReleaseSteps {
    let can = target.capabilities();
    let mut steps = Vec::new();
    if can.locks {
        steps.push("take the lock of the store".to_owned());
    }
    if can.staging {
        steps.push("stage all apps of the release, without traffic".into());
        steps.push("probe the health of every replica".into());
    }
    if !no_release {
        steps.push(if can.staging {
            "switch the traffic of the whole store".into()
        } else {
            "replace the release that is live".into()
        });
        if can.staging {
            steps.push(format!(
                "watch the release for {} s, and switch back if it fails",
                settings.watch
            ));
            steps.push(format!(
                "leave the earlier release up to {} s for its open requests, then stop it",
                settings.drain
            ));
        }
    }
    let limits = [
        (
            can.staging,
            "The target cannot run a release before it gets traffic, so its health is not probed.",
        ),
        (can.seamless, "Becoming live can interrupt requests."),
        (
            can.observes,
            "The target cannot tell what is live; the records of releases tell it.",
        ),
        (
            can.locks,
            "The target has no locks: two deploys of a store at the same time are not noticed.",
        ),
        (
            can.drain || !can.staging,
            "The target does not know when open requests have ended.",
        ),
    ];
    let limits = limits.into_iter().filter(|(can, _)| !can);
    ReleaseSteps {
        target: target.name(),
        steps,
        limits: limits.map(|(_, limit)| limit.to_owned()).collect(),
        notes: Vec::new(),
    }
}
