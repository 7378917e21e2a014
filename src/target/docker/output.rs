//! What the apps of a release print, and why they do not run.

use bollard::models::ContainerState;
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, Stream};
use hyper::body::Bytes;
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc::Sender;
use tokio_util::io::StreamReader;

use super::DockerTarget;
use super::error::Error;
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::{AppLine, AppState, LogQuery};

impl DockerTarget {
    /// The state of each app of a release.
    pub(super) async fn app_states(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        let mut states = Vec::new();
        for container in engine.app_containers(&owner).await? {
            if container.release != *release {
                continue;
            }
            let Some(found) = engine.inspect(&container.id).await? else {
                continue;
            };
            let state = found.state.unwrap_or_default();
            let running = state.running == Some(true) && state.restarting != Some(true);
            states.push(AppState {
                app: container.app,
                running,
                ended: (!running).then(|| ended(&state)),
                restarts: found
                    .restart_count
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or_default(),
                tail: engine.tail(&container.id).await,
            });
        }
        states.sort_by(|a, b| a.app.cmp(&b.app));
        Ok(states)
    }

    /// Reads the output of the wanted apps. The future ends with the output.
    pub(super) async fn app_lines<'a>(
        &'a self,
        wanted: &'a LogQuery,
    ) -> Result<BoxFuture<'a, ()>, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(&wanted.store)?);
        let release = match &wanted.release {
            Some(release) => Some(release.clone()),
            None => self.observe_store(&wanted.store).await?.active,
        };
        let mut containers = engine.app_containers(&owner).await?;
        containers.retain(|container| {
            let is_app = wanted.app.as_ref().is_none_or(|app| *app == container.app);
            release.as_ref() == Some(&container.release) && is_app
        });
        let reading = containers.into_iter().map(|container| async move {
            let pieces = engine.output(&container.id, wanted.follow, wanted.since);
            send_lines(pieces, &container.app, &wanted.lines).await;
        });
        Ok(join_all(reading).map(drop).boxed())
    }
}

/// Sends the lines of an app's output, until it ends or nobody receives them.
pub async fn send_lines(
    pieces: impl Stream<Item = std::io::Result<Bytes>>,
    app: &AppName,
    receiver: &Sender<AppLine>,
) {
    let mut lines = StreamReader::new(Box::pin(pieces)).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let line = AppLine {
            app: app.clone(),
            line: line.trim_end_matches('\r').to_owned(),
        };
        if receiver.send(line).await.is_err() {
            return;
        }
    }
}

/// How a container ended.
pub fn ended(state: &ContainerState) -> String {
    let code = state.exit_code.unwrap_or_default();
    let how = if state.oom_killed == Some(true) {
        "was killed because it reached its memory limit".to_owned()
    } else if state.pid.unwrap_or_default() == 0
        && state.started_at.as_deref().is_none_or(is_zero_time)
    {
        "was not started".to_owned()
    } else {
        exited(code)
    };
    match state.error.as_deref() {
        None | Some("") => how,
        Some(error) => format!("{how}: {error}"),
    }
}

/// How a container ended with this code.
pub fn exited(code: i64) -> String {
    if code > 128 {
        format!("was ended by signal {}", code - 128)
    } else {
        format!("exited with code {code}")
    }
}

/// Whether this is the zero time, with which the engine says that an event has not occurred.
fn is_zero_time(time: &str) -> bool {
    time.is_empty() || time.starts_with("0001-")
}
