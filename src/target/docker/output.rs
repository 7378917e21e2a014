//! What the apps of a release print, and why they do not run.

use std::pin::pin;

use bollard::container::LogOutput;
use bollard::models::{ContainerConfig, ContainerState};
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt};
use http_client::Redactor;
use jiff::Timestamp;

use super::DockerTarget;
use super::engine::{AppContainer, Engine};
use super::error::Error;
use crate::ledger::RecordId;
use crate::redaction::redactor;
use crate::store::{AppName, StoreId};
use crate::target::labels::SECRETS;
use crate::target::{AppLine, AppState, LogQuery};

/// The most bytes of a line that are kept together.
const LONGEST_LINE: usize = 1 << 20;

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
            let config = found.config.unwrap_or_default();
            // A copy has values that the working tree does not have.
            let redactor = redactor(secrets_of(&config));
            let tail = engine.tail(&container.id).await.into_iter();
            let running = state.running == Some(true) && state.restarting != Some(true);
            states.push(AppState {
                app: container.app,
                running,
                ended: (!running).then(|| ended(&state)),
                restarts: found
                    .restart_count
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or_default(),
                tail: tail.map(|line| redactor.redact(&line)).collect(),
            });
        }
        states.sort_by(|a, b| a.app.cmp(&b.app));
        Ok(states)
    }

    /// Sends the output of the wanted apps.
    pub(super) async fn app_lines(&self, wanted: &LogQuery) -> Result<(), Error> {
        let (engine, owner) = (self.engine().await?, self.owner(&wanted.store)?);
        let release = match &wanted.release {
            Some(release) => Some(release.clone()),
            None => self.active(engine, &owner, &wanted.store).await?,
        };
        let mut containers = engine.app_containers(&owner).await?;
        containers.retain(|container| {
            let is_app = wanted.app.as_ref().is_none_or(|app| *app == container.app);
            release.as_ref() == Some(&container.release) && is_app
        });
        let reading = containers
            .iter()
            .map(|container| send_output(engine, container, wanted));
        try_join_all(reading).await?;
        Ok(())
    }
}

/// Sends the output of a container. Values of its secrets are replaced.
async fn send_output(
    engine: &Engine,
    container: &AppContainer,
    wanted: &LogQuery,
) -> Result<(), Error> {
    let Some(found) = engine.inspect(&container.id).await? else {
        return Ok(());
    };
    let config = found.config.unwrap_or_default();
    let redactor = redactor(secrets_of(&config));
    let pieces = engine.output(&container.id, wanted.follow, wanted.since);
    send_lines(pieces, &container.app, &redactor, wanted).await
}

/// Sends the lines of an app's output, until it ends or nobody receives them. Secrets are replaced.
pub async fn send_lines<E>(
    pieces: impl Stream<Item = Result<LogOutput, E>>,
    app: &AppName,
    redactor: &Redactor,
    wanted: &LogQuery,
) -> Result<(), E> {
    let mut pieces = pin!(pieces);
    let mut outputs = [PartialLine::default(), PartialLine::default()];
    let send = async |(at, line): (Option<Timestamp>, String)| {
        // The engine compares whole seconds.
        if wanted.since.is_some() && at.is_some() && at < wanted.since {
            return true;
        }
        let line = AppLine {
            app: app.clone(),
            replica: 1,
            at,
            line: redactor.redact(&line),
        };
        wanted.lines.send(line).await.is_ok()
    };
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let output = usize::from(matches!(piece, LogOutput::StdErr { .. }));
        if let Some(line) = outputs[output].add(&piece.into_bytes())
            && !send(line).await
        {
            return Ok(());
        }
    }
    for mut output in outputs {
        if !output.text.is_empty() && !send(output.take()).await {
            break;
        }
    }
    Ok(())
}

/// The values of a container's variables that are secrets: those that its label names. A container
/// without the label is of an earlier version of this program, and all of its values are secrets.
fn secrets_of(config: &ContainerConfig) -> impl Iterator<Item = &str> {
    let labels = config.labels.as_ref();
    let names = labels.and_then(|labels| labels.get(SECRETS));
    let names: Option<Vec<&str>> = names.map(|names| names.split(',').collect());
    let variables = config.env.iter().flatten();
    let variables = variables.filter_map(|variable| variable.split_once('='));
    variables.filter_map(move |(name, value)| {
        let is_named = names.as_ref().is_none_or(|names| names.contains(&name));
        is_named.then_some(value)
    })
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

/// Joins the pieces of an output into lines.
#[derive(Default)]
struct PartialLine {
    at: Option<Timestamp>,
    text: Vec<u8>,
}

impl PartialLine {
    /// Adds a piece with its time in front, and returns the line if it is complete.
    fn add(&mut self, piece: &[u8]) -> Option<(Option<Timestamp>, String)> {
        let time = piece.iter().position(|byte| *byte == b' ');
        let time = time.and_then(|end| {
            let time = std::str::from_utf8(&piece[..end]).ok()?;
            Some((time.parse::<Timestamp>().ok()?, &piece[end + 1..]))
        });
        let (at, text) = time.map_or((None, piece), |(at, text)| (Some(at), text));
        self.at = self.at.or(at);
        self.text.extend_from_slice(text);
        let is_complete = self.text.last() == Some(&b'\n');
        (is_complete || self.text.len() > LONGEST_LINE).then(|| self.take())
    }

    fn take(&mut self) -> (Option<Timestamp>, String) {
        let text = std::mem::take(&mut self.text);
        let text = String::from_utf8_lossy(&text);
        (
            self.at.take(),
            text.trim_end_matches(['\r', '\n']).to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::PartialLine;

    #[test]
    fn pieces_of_a_long_line_are_one_line_with_the_time_of_the_first() {
        let mut line = PartialLine::default();
        assert_eq!(line.add(b"2026-01-02T03:04:05.123456789Z secret-"), None);
        let whole = line.add(b"2026-01-02T03:04:05.2Z value\r\n").unwrap();
        assert_eq!(whole.1, "secret-value");
        assert_eq!(
            whole.0.unwrap().to_string(),
            "2026-01-02T03:04:05.123456789Z"
        );
        // An engine that sends no times.
        assert_eq!(line.add(b"no time\n"), Some((None, "no time".into())));
        assert_eq!(line.add(b"2026-01-02T03:04:05Z \n").unwrap().1, "");
    }
}
