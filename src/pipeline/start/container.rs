//! A container of the Docker engine that runs an app from its image.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::io::AsyncRead;
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::output::{ServerOutput, read, tail};
use super::process::ServerCommand;
use super::{Error, FailedServer};
use crate::pipeline::docker::{self, message};
use crate::pipeline::process::open_log;
use crate::pipeline::services::{Interrupt, Services};
use crate::plan::ContainerNetwork;

/// How long an app has between SIGTERM and SIGKILL, in seconds.
const GRACE: i32 = 5;

/// How long the rest of an ended container's output is read.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// The label of containers with the project's folder. A container that an ended run has left is
/// recognized by it.
pub const LABEL: &str = "com.alokai.project";

/// A running container. It is removed when it is stopped.
pub struct ServerContainer {
    docker: Docker,
    name: String,
    reference: String,
    given: Vec<String>,
    log: PathBuf,
    output: Arc<Mutex<ServerOutput>>,
    reading: AbortOnDropHandle<()>,
    removed: bool,
}

impl Drop for ServerContainer {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let (docker, name) = (self.docker.clone(), self.name.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { remove(&docker, &name).await });
        }
    }
}

impl ServerContainer {
    /// Creates and starts a container of this name from an image. `server.folder` is the project.
    pub async fn run(
        (name, reference): (&str, &str),
        network: &ContainerNetwork,
        server: ServerCommand<'_>,
        services: &Arc<Services>,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        let docker = docker::connect(services.access.engine(None)).await?;
        let pulling = pull_missing(&docker, reference, services);
        interrupt
            .unless_stopped(Error::Interrupted, pulling)
            .await?;
        let project = server.folder.display().to_string();
        remove_left(&docker, name, &project).await?;
        let body = body(reference, network, &server, project);
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let log = open_log(&server.log)?;
        docker
            .create_container(Some(options), body)
            .await
            .map_err(failed(format!("create the container `{name}`")))?;
        let redactor = server.environment.redactor.clone();
        let output = ServerOutput::new(log, Arc::clone(services), redactor, server.reported);
        let output = Arc::new(Mutex::new(output));
        // From here on, the container is removed when this value is dropped.
        let mut container = Self {
            name: name.to_owned(),
            reference: reference.to_owned(),
            given: server.environment.given.clone(),
            log: server.log,
            reading: AbortOnDropHandle::new(tokio::spawn(async {})),
            output,
            docker,
            removed: false,
        };
        let started = container.docker.start_container(name, None).await;
        if let Err(error) = started {
            container.removed = true;
            remove(&container.docker, name).await;
            return Err(failed(format!("start the container `{name}`"))(error));
        }
        container.follow();
        Ok(container)
    }

    /// Reads the output of the container.
    fn follow(&mut self) {
        let pipe = output_of(&self.docker, &self.name);
        let output = Arc::clone(&self.output);
        self.reading = AbortOnDropHandle::new(tokio::spawn(read(Some(pipe), output)));
    }

    /// Waits until the container ends, and returns how it ended.
    pub async fn exited(&mut self) -> String {
        let mut ends = Box::pin(self.docker.wait_container(&self.name, None));
        match ends.next().await {
            Some(Ok(end)) => format!("exited with code {}", end.status_code),
            Some(Err(Bollard::DockerContainerWaitError { code, .. })) => {
                format!("exited with code {code}")
            }
            Some(Err(error)) => format!("was lost: {}", message(&error)),
            None => "was lost".into(),
        }
    }

    /// Stops and removes the container: SIGTERM, and SIGKILL after 5 s or at the second interruption.
    pub async fn stop(&mut self, interrupt: &Interrupt) {
        let options = StopContainerOptionsBuilder::default().t(GRACE).build();
        tokio::select! {
            _ = self.docker.stop_container(&self.name, Some(options)) => {}
            () = interrupt.killing() => {}
        }
        self.read_rest().await;
    }

    /// Reads the rest of the output, and removes the container.
    pub async fn read_rest(&mut self) {
        let _ = timeout(LAST_OUTPUT, &mut self.reading).await;
        remove(&self.docker, &self.name).await;
        self.removed = true;
    }

    /// The image with its last lines, for an error.
    pub fn failed(&self) -> FailedServer {
        FailedServer {
            command: self.reference.clone(),
            variables: self.given.clone(),
            tail: tail(&self.output),
            log: self.log.clone(),
        }
    }
}

fn body(
    reference: &str,
    network: &ContainerNetwork,
    server: &ServerCommand,
    project: String,
) -> ContainerCreateBody {
    let variables = server.environment.variables();
    let env = variables.map(|(name, value)| format!("{name}={}", value.to_string_lossy()));
    let (host, exposed) = match network {
        ContainerNetwork::Own { ports } => {
            let binding = |port: &u16| {
                let binding = PortBinding {
                    host_ip: Some("127.0.0.1".into()),
                    host_port: Some(port.to_string()),
                };
                (format!("{port}/tcp"), Some(vec![binding]))
            };
            let host = HostConfig {
                port_bindings: Some(ports.iter().map(binding).collect()),
                // Apps may need services of this machine.
                extra_hosts: Some(vec!["host.docker.internal:host-gateway".into()]),
                init: Some(true),
                ..HostConfig::default()
            };
            (
                host,
                ports.iter().map(|port| format!("{port}/tcp")).collect(),
            )
        }
        ContainerNetwork::Of { container } => {
            let host = HostConfig {
                network_mode: Some(format!("container:{container}")),
                init: Some(true),
                ..HostConfig::default()
            };
            (host, Vec::new())
        }
    };
    ContainerCreateBody {
        image: Some(reference.to_owned()),
        env: Some(env.collect()),
        labels: Some(HashMap::from([(LABEL.to_owned(), project)])),
        exposed_ports: Some(exposed),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn failed(doing: String) -> impl FnOnce(Bollard) -> Error {
    move |error| {
        Error::Docker(docker::Error::Request {
            doing,
            message: message(&error),
        })
    }
}

/// The output of a container until it ends.
pub fn output_of(docker: &Docker, name: &str) -> impl AsyncRead + Unpin + use<> {
    let options = LogsOptionsBuilder::default().follow(true);
    let options = options.stdout(true).stderr(true).build();
    let logs = docker.logs(name, Some(options));
    let pieces = logs.map(|piece| match piece {
        Ok(
            LogOutput::StdOut { message }
            | LogOutput::StdErr { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message },
        ) => Ok(message),
        Err(error) => Err(std::io::Error::other(error)),
    });
    StreamReader::new(Box::pin(pieces))
}

/// Pulls an image that the engine does not have.
pub async fn pull_missing(
    docker: &Docker,
    reference: &str,
    services: &Services,
) -> Result<(), Error> {
    match docker.inspect_image(reference).await {
        Ok(_) => return Ok(()),
        Err(error) if docker::is_missing(&error) => {}
        Err(error) => return Err(failed(format!("inspect the image `{reference}`"))(error)),
    }
    services.events.notice(format!("pulling `{reference}`"));
    let pulled = docker::pull(docker, reference, services).await;
    pulled.map_err(|message| Error::NoImage {
        reference: reference.to_owned(),
        message,
    })
}

/// Removes a container of this name that an ended run of the same project has left.
async fn remove_left(docker: &Docker, name: &str, project: &str) -> Result<(), Error> {
    let Ok(found) = docker.inspect_container(name, None).await else {
        return Ok(());
    };
    let labels = found.config.and_then(|config| config.labels);
    let owner = labels.and_then(|labels| labels.get(LABEL).cloned());
    if owner.as_deref() != Some(project) {
        return Err(Error::ContainerExists { name: name.into() });
    }
    remove(docker, name).await;
    Ok(())
}

/// Removes a container with its anonymous volumes.
pub async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
    // An error means that the container does not exist any more.
    let _ = docker.remove_container(name, Some(options.build())).await;
}
