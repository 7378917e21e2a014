//! The progress of a service: the states of its tasks, and the status of its last update.

use bollard::models::TaskState;
use bollard::models::{ServiceUpdateStatus, ServiceUpdateStatusStateEnum as UpdateState, Task};

use super::manager::{has_failed, is_running, reason, state};
use crate::target::ports::is_port_taken;

/// What an engine says if it could not make the secrets of a container read-only, because another container
/// started at the same moment (<https://github.com/moby/moby/issues/48783>). Swarm starts the app again.
const BUSY: &str = "device or resource busy";

/// How often an engine may be busy before the start has failed. Swarm keeps five tasks of an app by default.
const MOST_BUSY: usize = 3;

/// How far the start of an app has come.
#[derive(Debug)]
pub enum StartProgress<'a> {
    /// It runs, or it ran and ended by itself.
    Started(&'a Task),
    /// Another program has its port.
    PortTaken(String),
    /// A node cannot get the image.
    ImageMissing(String),
    /// A node cannot start it.
    Refused(String),
    /// No node can run it now.
    Unplaced(String),
    /// It is starting: the state of its task.
    Waits(String),
}

/// The progress by the tasks that a start has made, the newest last.
pub fn progress<'a>(
    mut tasks: impl DoubleEndedIterator<Item = &'a Task> + Clone,
) -> StartProgress<'a> {
    if let Some(task) = tasks.clone().rev().find(|task| is_running(task)) {
        return StartProgress::Started(task);
    }
    if let Some(task) = tasks.clone().rev().find(|task| has_failed(task)) {
        let reason = reason(task);
        return if is_port_taken(&reason) {
            StartProgress::PortTaken(reason)
        } else if reason.contains("No such image") || reason.contains("manifest unknown") {
            StartProgress::ImageMissing(reason)
        } else if reason.contains(BUSY) && busy(tasks) < MOST_BUSY {
            StartProgress::Waits(reason)
        } else if state(task) == TaskState::REJECTED || reason.starts_with("starting container") {
            StartProgress::Refused(reason)
        } else {
            StartProgress::Started(task)
        };
    }
    let Some(task) = tasks.next_back() else {
        return StartProgress::Waits("new".into());
    };
    let why = reason(task);
    if why.contains("no suitable node") {
        return if is_port_taken(&why) {
            StartProgress::PortTaken(why)
        } else {
            StartProgress::Unplaced(why)
        };
    }
    StartProgress::Waits(format!("{}: {why}", state(task)))
}

/// How many tasks did not start because the engine was busy.
fn busy<'a>(tasks: impl Iterator<Item = &'a Task>) -> usize {
    let failed = tasks.filter(|task| has_failed(task));
    failed.filter(|task| reason(task).contains(BUSY)).count()
}

/// The state and the message of an update that Swarm has stopped or rolled back. The exit code of
/// `docker service update` is 0 then.
pub fn failed_update(update: Option<&ServiceUpdateStatus>) -> Option<(String, String)> {
    let update = update?;
    let state = update.state?;
    let has_failed = matches!(
        state,
        UpdateState::PAUSED
            | UpdateState::ROLLBACK_STARTED
            | UpdateState::ROLLBACK_PAUSED
            | UpdateState::ROLLBACK_COMPLETED
    );
    let message = update.message.clone().unwrap_or_default();
    has_failed.then(|| (state.to_string(), message))
}

#[cfg(test)]
mod tests {
    use bollard::models::TaskStatus;

    use super::*;

    fn task(state: TaskState, desired: TaskState, error: &str) -> Task {
        Task {
            status: Some(TaskStatus {
                state: Some(state),
                err: (!error.is_empty()).then(|| error.to_owned()),
                ..TaskStatus::default()
            }),
            desired_state: Some(desired),
            ..Task::default()
        }
    }

    fn told(tasks: &[Task]) -> String {
        let text = format!("{:?}", progress(tasks.iter()));
        text.split('(').next().unwrap().to_owned()
    }

    #[test]
    fn the_progress_follows_from_the_states_of_the_tasks() {
        use TaskState as S;
        let port = "driver failed: Bind for 0.0.0.0:20998 failed: port is already allocated";
        let full = "no suitable node (host-mode port already in use on 1 node)";
        for (state, error, wanted) in [
            (S::RUNNING, "", "Started"),
            (S::FAILED, "task: non-zero exit (3)", "Started"),
            (
                S::FAILED,
                "starting container failed: no such file",
                "Refused",
            ),
            (S::FAILED, port, "PortTaken"),
            (S::REJECTED, "No such image: a@sha256:0", "ImageMissing"),
            (S::REJECTED, "invalid mount", "Refused"),
            (S::PENDING, full, "PortTaken"),
            (
                S::PENDING,
                "no suitable node (1 node not available)",
                "Unplaced",
            ),
            (S::PREPARING, "", "Waits"),
        ] {
            let tasks = [task(state, S::RUNNING, error)];
            assert_eq!(told(&tasks), wanted, "{state} {error}");
        }
        // The next task of an app that has ended is not the start of the app.
        let next = [
            task(S::FAILED, S::SHUTDOWN, port),
            task(S::READY, S::READY, ""),
        ];
        assert_eq!(told(&next), "PortTaken");
        assert_eq!(told(&[]), "Waits");
        // An engine that was busy is asked again, but not for ever.
        let busy =
            "starting container failed: unable to remount dir as readonly: device or resource busy";
        let busy = || task(S::FAILED, S::SHUTDOWN, busy);
        let running = task(S::RUNNING, S::RUNNING, "");
        assert_eq!(told(&[busy()]), "Waits");
        assert_eq!(told(&[busy(), busy(), running]), "Started");
        assert_eq!(told(&[busy(), busy(), busy()]), "Refused");
    }

    #[test]
    fn an_update_that_swarm_rolled_back_has_failed() {
        for (state, has_failed) in [
            (UpdateState::COMPLETED, false),
            (UpdateState::UPDATING, false),
            (UpdateState::PAUSED, true),
            (UpdateState::ROLLBACK_COMPLETED, true),
        ] {
            let update = ServiceUpdateStatus {
                state: Some(state),
                ..ServiceUpdateStatus::default()
            };
            assert_eq!(
                failed_update(Some(&update)).is_some(),
                has_failed,
                "{state}"
            );
        }
        assert!(failed_update(None).is_none());
    }
}
