//! A hook in a container of a new image. The container is removed when the hook has ended.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as Bollard;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::variables::HookVariables;
use super::{Error, HookStatus};
use crate::event::EventSubject;
use crate::pipeline::docker::{self, message};
use crate::pipeline::process::{OutputSink, open_log, read, tail};
use crate::pipeline::services::{Interrupt, Services};
use crate::pipeline::start::{PROJECT_LABEL, output_of, pull_missing, remove};
use crate::plan::HookPlan;

/// The label of containers of hooks, with the store.
const LABEL: &str = "com.alokai.hook";

/// How long the rest of an ended container's output is read.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A hook to run in an image.
pub struct ImageHook<'a> {
    /// The hook.
    pub hook: &'a HookPlan,
    /// The reference of the image, by digest.
    pub image: &'a str,
    /// Its variables.
    pub variables: HookVariables,
    /// The subject of its events.
    pub subject: &'a EventSubject,
    /// The project.
    pub project: &'a Path,
    /// The file for its output.
    pub log: &'a Path,
}

/// Runs a hook in a container of the image: its command replaces the entrypoint.
pub async fn run(wanted: ImageHook<'_>, services: &Services) -> Result<HookStatus, Error> {
    let _outside = services.events.waiting();
    let hook = wanted.hook;
    if wanted.image.starts_with(oci::LAYOUT_PREFIX) {
        return Err(Error::needs_registry(hook, wanted.image));
    }
    let deadline = Instant::now() + hook.timeout;
    let connecting = docker::connect(services.access.engine(hook.engine.as_deref()));
    let docker = connecting
        .await
        .map_err(|error| Error::engine(hook, error))?;
    let pulling = async {
        let pulled = pull_missing(&docker, wanted.image, services).await;
        pulled.map_err(Error::from)
    };
    let interrupt = &services.interrupt;
    let pulling = interrupt.unless_stopped(Error::Interrupted, pulling);
    match timeout_at(deadline, pulling).await {
        Ok(pulled) => pulled?,
        Err(_) => return Ok(HookStatus::timed_out(hook, Vec::new())),
    }
    let failed = |doing: &str| {
        let doing = format!("{doing} the container of the hook");
        move |error: Bollard| {
            let message = message(&error);
            Error::engine(hook, docker::Error::Request { doing, message })
        }
    };
    let log = open_log(wanted.log)?;
    let redactor = wanted.variables.redactor();
    let body = body(hook, wanted.image, wanted.project, wanted.variables);
    let options = CreateContainerOptionsBuilder::default().build();
    let created = docker.create_container(Some(options), body).await;
    let id = created.map_err(failed("create"))?.id;
    let container = CreatedContainer {
        docker: &docker,
        id: Some(id.clone()),
    };
    let sink = Mutex::new(OutputSink::new(log, wanted.subject, Some(&redactor)));
    let ended = match docker.start_container(&id, None).await {
        Ok(()) => follow(&docker, &id, deadline, services, &sink).await,
        Err(error) => Err(failed("start")(error)),
    };
    container.remove().await;
    match ended? {
        ContainerEnd::Exit(code) => Ok(HookStatus {
            code: i32::try_from(code).ok(),
            how: format!("exited with code {code}"),
            tail: tail(sink),
        }),
        ContainerEnd::Lost(reason) => Ok(HookStatus {
            code: None,
            how: format!("was lost: {reason}"),
            tail: tail(sink),
        }),
        ContainerEnd::Timeout => Ok(HookStatus::timed_out(hook, tail(sink))),
        ContainerEnd::Interruption => Err(Error::Interrupted),
    }
}

/// A container, which is removed also if its work is abandoned.
struct CreatedContainer<'a> {
    docker: &'a Docker,
    id: Option<String>,
}

impl CreatedContainer<'_> {
    async fn remove(mut self) {
        if let Some(id) = self.id.take() {
            remove(self.docker, &id).await;
        }
    }
}

impl Drop for CreatedContainer<'_> {
    fn drop(&mut self) {
        let (docker, Some(id)) = (self.docker.clone(), self.id.take()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&docker, &id).await });
        }
    }
}

/// Why a container ended.
enum ContainerEnd {
    Exit(i64),
    Lost(String),
    Timeout,
    Interruption,
}

/// Reads the output of a container until it has ended. An interruption and the time limit stop it.
async fn follow(
    docker: &Docker,
    id: &str,
    deadline: Instant,
    services: &Services,
    sink: &Mutex<OutputSink<'_>>,
) -> Result<ContainerEnd, Error> {
    let reading = read(Some(output_of(docker, id)), services, sink);
    tokio::pin!(reading);
    let ending = async {
        tokio::select! {
            end = exit_of(docker, id) => return end,
            () = services.interrupt.stopping() => {}
            () = sleep_until(deadline) => {
                stop(docker, id, &services.interrupt).await;
                return ContainerEnd::Timeout;
            }
        }
        stop(docker, id, &services.interrupt).await;
        ContainerEnd::Interruption
    };
    tokio::pin!(ending);
    let mut has_read = false;
    let end = loop {
        tokio::select! {
            end = &mut ending => break end,
            () = &mut reading, if !has_read => has_read = true,
        }
    };
    if !has_read {
        let _ = timeout(LAST_OUTPUT, reading).await;
    }
    Ok(end)
}

/// Waits until the container ends.
async fn exit_of(docker: &Docker, id: &str) -> ContainerEnd {
    let mut ends = Box::pin(docker.wait_container(id, None));
    match ends.next().await {
        Some(Ok(end)) => ContainerEnd::Exit(end.status_code),
        Some(Err(Bollard::DockerContainerWaitError { code, .. })) => ContainerEnd::Exit(code),
        Some(Err(error)) => ContainerEnd::Lost(message(&error)),
        None => ContainerEnd::Lost("the engine does not say how it ended".into()),
    }
}

/// Sends SIGTERM, and SIGKILL after the time that scripts have too, or at the second interruption.
async fn stop(docker: &Docker, id: &str, interrupt: &Interrupt) {
    let grace = i32::try_from(Interrupt::GRACE.as_secs()).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::default().t(grace).build();
    tokio::select! {
        _ = docker.stop_container(id, Some(options)) => {}
        () = interrupt.killing() => {}
    }
}

fn body(
    hook: &HookPlan,
    image: &str,
    project: &Path,
    variables: HookVariables,
) -> ContainerCreateBody {
    let host = HostConfig {
        // Databases may run on this machine.
        extra_hosts: Some(vec!["host.docker.internal:host-gateway".into()]),
        init: Some(true),
        ..HostConfig::default()
    };
    let labels = [
        (PROJECT_LABEL.to_owned(), project.display().to_string()),
        (LABEL.to_owned(), hook.store.to_string()),
    ];
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(hook.command.clone()),
        cmd: Some(Vec::new()),
        env: Some(variables.in_container()),
        labels: Some(HashMap::from(labels)),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}
