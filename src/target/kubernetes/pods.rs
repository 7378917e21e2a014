//! The pods of a release: their state, why they do not run, and their output.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use http_client::Redactor;
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio_util::io::StreamReader;

use super::KubernetesTarget;
use super::api::{Api, name_of};
use super::error::Error;
use super::kinds::POD;
use super::names::APP;
use super::probe::ready;
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::{AppLine, AppState, LogQuery};

/// The most lines of output that an error shows.
const TAIL: usize = 40;

/// Reasons for which a container does not start, whatever the time.
const NEVER_STARTS: [&str; 6] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

impl KubernetesTarget {
    /// The state of each app of a release.
    pub(super) async fn app_states(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let pods = api.list(POD, &owner.query_release(release)).await?;
        let pods = pods_by_app(pods.unwrap_or_default());
        let mut states = Vec::new();
        let mut redactors = None;
        for deployment in self.deployments(api, &owner).await? {
            if deployment.release != *release {
                continue;
            }
            let own = pods.get(&deployment.app).map_or(&[][..], Vec::as_slice);
            let mut state = state_of(deployment.app, own);
            if deployment.replicas == 0 {
                state.running = false;
            }
            let (ready, wanted) = ready(&deployment.object);
            if ready < wanted {
                state
                    .tail
                    .insert(0, format!("{ready} of {wanted} pods are ready"));
            }
            state.tail.extend(conditions(&deployment.object));
            if let Some(pod) = own.iter().find(|pod| ended(pod).is_some()).or(own.first()) {
                let room = TAIL.saturating_sub(state.tail.len());
                let lines = tail(api, pod, room).await;
                if !lines.is_empty() && redactors.is_none() {
                    // A copy has values that the working tree does not have.
                    let known = self.redactors(api, &owner, release).await;
                    redactors = Some(known.unwrap_or_default());
                }
                let redactor = redactors.as_ref().and_then(|known| known.get(&state.app));
                // Lines whose secrets are not known are not shown.
                let lines = redactor.into_iter().flat_map(|redactor| {
                    let lines = lines.iter();
                    lines.map(|line| redactor.redact(line))
                });
                state.tail.extend(lines);
            }
            states.push(state);
        }
        states.sort_by(|a, b| a.app.cmp(&b.app));
        Ok(states)
    }

    /// Reads the output of the wanted apps to its end. Values of their Secrets are replaced.
    pub(super) async fn app_lines(&self, wanted: &LogQuery) -> Result<(), Error> {
        let (api, owner) = (self.api()?, self.owner(&wanted.store)?);
        let release = match &wanted.release {
            Some(release) => Some(release.clone()),
            None => self.observe_store(&wanted.store).await?.active,
        };
        let Some(release) = release else {
            return Ok(());
        };
        let pods = api.list(POD, &owner.query_release(&release)).await?;
        let pods = pods_by_app(pods.unwrap_or_default()).into_iter();
        let pods = pods.filter(|(app, _)| wanted.app.as_ref().is_none_or(|it| it == app));
        let numbered = pods.flat_map(|(app, pods)| {
            let pods = (1..).zip(pods);
            pods.map(move |(replica, pod)| (app.clone(), replica, pod))
        });
        let pods: Vec<(AppName, u32, Value)> = numbered.collect();
        let redactors = &self.redactors(api, &owner, &release).await?;
        let reading = pods.into_iter().map(|(app, replica, pod)| async move {
            let pod = name_of(&pod);
            let redactor = redactors.get(&app).ok_or_else(|| Error::PodLeft {
                app: app.to_string(),
                pod: POD.object(pod),
            })?;
            let source = PodOutput { api, pod, redactor };
            let line_of = |at, line| AppLine {
                app: app.clone(),
                replica,
                at,
                line,
            };
            source.send(wanted, line_of).await
        });
        try_join_all(reading).await?;
        Ok(())
    }
}

/// The output of a pod.
struct PodOutput<'a> {
    api: &'a Api,
    pod: &'a str,
    redactor: &'a Redactor,
}

impl PodOutput<'_> {
    /// Sends the lines, until the output ends or nobody receives them.
    async fn send(
        &self,
        wanted: &LogQuery,
        line_of: impl Fn(Option<Timestamp>, String) -> AppLine,
    ) -> Result<(), Error> {
        let mut query = vec![
            ("container", "app".to_owned()),
            ("timestamps", "true".to_owned()),
        ];
        if wanted.follow {
            query.push(("follow", "true".into()));
        }
        if let Some(since) = wanted.since {
            query.push(("sinceTime", format!("{since:.0}")));
        }
        let Some(response) = self.api.log(self.pod, &query).await? else {
            return Ok(());
        };
        let pieces = response.bytes_stream().map_err(std::io::Error::other);
        let mut lines = StreamReader::new(Box::pin(pieces)).split(b'\n');
        let lost = |error: std::io::Error| Error::Lost {
            pod: POD.object(self.pod),
            reason: error.to_string(),
        };
        while let Some(line) = lines.next_segment().await.map_err(lost)? {
            let line = String::from_utf8_lossy(&line);
            let (at, line) = with_time(line.trim_end_matches('\r'));
            // The server compares whole seconds.
            if wanted.since.is_some() && at.is_some() && at < wanted.since {
                continue;
            }
            let line = line_of(at, self.redactor.redact(line));
            if wanted.lines.send(line).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// A line with the time that the server has put in front.
fn with_time(line: &str) -> (Option<Timestamp>, &str) {
    let (time, text) = line.split_once(' ').unwrap_or((line, ""));
    match time.parse() {
        Ok(at) => (Some(at), text),
        Err(_) => (None, line),
    }
}

/// The pods of each app. Pods that are being deleted, and pods that a node has given up, are left out: other
/// pods take their place.
fn pods_by_app(pods: Vec<Value>) -> BTreeMap<AppName, Vec<Value>> {
    let mut all: BTreeMap<AppName, Vec<Value>> = BTreeMap::new();
    for pod in pods {
        let is_deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        let is_given_up = pod["status"]["phase"] == "Failed";
        let app = pod["metadata"]["annotations"][APP].as_str();
        let app = app.and_then(|app| AppName::new(app).ok());
        if let Some(app) = app.filter(|_| !is_deleted && !is_given_up) {
            all.entry(app).or_default().push(pod);
        }
    }
    all
}

/// The state of an app. An app whose pods are about to start counts as running.
fn state_of(app: AppName, pods: &[Value]) -> AppState {
    let restarts = pods
        .iter()
        .filter_map(|pod| container(pod)["restartCount"].as_u64());
    let ended = pods.iter().find_map(ended);
    AppState {
        app,
        running: ended.is_none(),
        ended,
        restarts: restarts.sum::<u64>().try_into().unwrap_or(u32::MAX),
        tail: pods.iter().flat_map(conditions).take(TAIL / 4).collect(),
    }
}

/// The status of a pod's container.
fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// How the container of a pod ended, or why it does not start.
pub fn ended(pod: &Value) -> Option<String> {
    let status = container(pod);
    let now = &status["state"];
    if now["terminated"].is_object() {
        return Some(how(&now["terminated"]));
    }
    let reason = now["waiting"]["reason"].as_str()?;
    let before = &status["lastState"]["terminated"];
    if reason == "CrashLoopBackOff" && before.is_object() {
        return Some(how(before));
    }
    NEVER_STARTS.contains(&reason).then(|| {
        let message = now["waiting"]["message"].as_str().unwrap_or_default();
        let message = message.trim();
        let colon = if message.is_empty() { "" } else { ": " };
        format!("was not started: {reason}{colon}{message}")
    })
}

/// How a container ended.
fn how(terminated: &Value) -> String {
    let code = terminated["exitCode"].as_i64().unwrap_or_default();
    match terminated["reason"].as_str() {
        Some("OOMKilled") => "was killed because it reached its memory limit".into(),
        _ if code > 128 => format!("was ended by signal {}", code - 128),
        _ => format!("exited with code {code}"),
    }
}

/// The conditions of a pod or a Deployment that are not met, such as that no node has enough memory.
pub fn conditions(object: &Value) -> impl Iterator<Item = String> {
    let conditions = object["status"]["conditions"].as_array();
    let conditions = conditions.into_iter().flatten().filter_map(|condition| {
        let failed = match condition["type"].as_str()? {
            "PodScheduled" | "Progressing" => "False",
            "ReplicaFailure" => "True",
            _ => return None,
        };
        let reason = condition["reason"].as_str().unwrap_or_default();
        let message = condition["message"].as_str()?;
        (condition["status"] == failed).then(|| format!("{}: {reason}: {message}", name_of(object)))
    });
    conditions.collect::<Vec<_>>().into_iter()
}

/// The last lines of a pod. A container that was started again has its reason in the output before.
async fn tail(api: &Api, pod: &Value, lines: usize) -> Vec<String> {
    let query = |previous: bool| {
        vec![
            ("container", "app".to_owned()),
            ("tailLines", lines.to_string()),
            ("previous", previous.to_string()),
        ]
    };
    let is_restarted = container(pod)["restartCount"].as_u64() > Some(0);
    let mut response = api.log(name_of(pod), &query(is_restarted)).await;
    if is_restarted && !matches!(response, Ok(Some(_))) {
        response = api.log(name_of(pod), &query(false)).await;
    }
    let Ok(Some(response)) = response else {
        return Vec::new();
    };
    let text = response.text().await.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{pods_by_app, state_of};
    use crate::store::AppName;

    fn pod(status: &Value) -> Value {
        json!({
            "metadata": { "name": "p", "annotations": { "alokai.com/app": "a" } },
            "status": { "phase": "Running", "containerStatuses": [status] },
        })
    }

    fn state(status: &Value) -> (bool, Option<String>, u32) {
        let state = state_of(AppName::new("a").unwrap(), &[pod(status)]);
        (state.running, state.ended, state.restarts)
    }

    #[test]
    fn a_container_that_ended_says_how() {
        let exited = json!({ "terminated": { "exitCode": 3, "reason": "Error" } });
        let ended = Some("exited with code 3".to_owned());
        assert_eq!(
            state(&json!({ "state": exited })),
            (false, ended.clone(), 0)
        );
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let looping = json!({ "restartCount": 2, "state": waiting, "lastState": exited });
        assert_eq!(state(&looping), (false, ended, 2));
        let killed = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let (_, why, _) = state(&json!({ "state": killed }));
        assert_eq!(
            why.unwrap(),
            "was killed because it reached its memory limit"
        );
        let signal = json!({ "terminated": { "exitCode": 143, "reason": "Error" } });
        let (_, why, _) = state(&json!({ "state": signal }));
        assert_eq!(why.unwrap(), "was ended by signal 15");
    }

    #[test]
    fn a_container_that_starts_late_is_not_a_failure_and_one_without_its_image_is() {
        for reason in ["ContainerCreating", "PodInitializing", "ErrImagePull"] {
            let (running, ended, _) =
                state(&json!({ "state": { "waiting": { "reason": reason } } }));
            assert_eq!((running, ended), (true, None), "{reason}");
        }
        let waiting = json!({ "reason": "ImagePullBackOff", "message": "Back-off pulling image" });
        let (running, ended, _) = state(&json!({ "state": { "waiting": waiting } }));
        assert!(!running);
        assert_eq!(
            ended.unwrap(),
            "was not started: ImagePullBackOff: Back-off pulling image"
        );
        // Started again, and running.
        let (running, ended, restarts) =
            state(&json!({ "restartCount": 1, "state": { "running": {} } }));
        assert_eq!((running, ended, restarts), (true, None, 1));
    }

    #[test]
    fn a_pod_without_a_node_says_why() {
        let mut waiting = pod(&json!({}));
        let message = "0/3 nodes are available: 3 Insufficient memory.";
        waiting["status"] = json!({
            "phase": "Pending",
            "conditions": [
                { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message },
                { "type": "Ready", "status": "False", "message": "not this one" },
            ],
        });
        let state = state_of(AppName::new("a").unwrap(), &[waiting]);
        assert!(state.running);
        assert_eq!(state.tail, [format!("p: Unschedulable: {message}")]);
    }

    #[test]
    fn pods_that_leave_are_not_judged() {
        let mut leaving = pod(&json!({}));
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut evicted = pod(&json!({}));
        evicted["status"]["phase"] = "Failed".into();
        assert!(pods_by_app(vec![leaving, evicted]).is_empty());
        assert_eq!(pods_by_app(vec![pod(&json!({}))]).len(), 1);
    }
}
