//! The Docker engine: containers with labels, their images, networks and output.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::Docker;
use bollard::body_full;
use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum,
    ContainerUpdateBody, NetworkCreateRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StopContainerOptions,
};
use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use jiff::Timestamp;

use super::apps::always_restarts;
use super::error::Error;
use crate::ledger::RecordId;
use crate::pipeline::docker::{self, is_disk_full, is_missing, lost_connection, message};
use crate::pipeline::{DockerError, Services};
use crate::store::AppName;
use crate::target::labels::{APP, PORT, PROJECT, RELEASE, STORE, StoreLabels};
use oci::StoredImage;

/// An image without files. Locks and access to volumes need a container, which is never started.
const EMPTY_IMAGE: &str = "alokai-empty:1";

/// The most lines of output that an error shows.
pub const TAIL: &str = "40";

/// A container of an app.
#[derive(Debug, Clone)]
pub struct AppContainer {
    /// Its id in the engine.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: RecordId,
    /// The published port.
    pub port: u16,
    /// Whether it runs.
    pub is_running: bool,
    /// Whether it was ever started.
    pub has_run: bool,
}

/// A connection to an engine.
#[derive(Clone)]
pub struct Engine {
    /// The connection.
    pub docker: Docker,
    /// The address of the engine.
    pub address: Arc<str>,
}

impl Engine {
    /// An error for a failed request.
    pub fn failed<Text: Into<String>>(
        &self,
        doing: Text,
    ) -> impl FnOnce(Bollard) -> Error + use<Text> {
        let address = Arc::clone(&self.address);
        move |error| {
            let (doing, message) = (doing.into(), message(&error));
            Error::Engine(match lost_connection(&error) {
                Some(reason) => DockerError::Lost {
                    address: address.to_string(),
                    doing,
                    reason,
                },
                None if is_disk_full(&message) => DockerError::DiskFull { message },
                None => DockerError::Request { doing, message },
            })
        }
    }

    /// The containers of a store's apps, those that do not run included.
    pub async fn app_containers(&self, owner: &StoreLabels) -> Result<Vec<AppContainer>, Error> {
        let mut filters = vec![APP.to_owned()];
        filters.extend(owner.filters());
        let found = self.list(filters).await?;
        Ok(found.into_iter().filter_map(app_container).collect())
    }

    /// The ports that containers of apps of all stores publish, or published before they were stopped.
    pub async fn ports(&self) -> Result<Vec<u16>, Error> {
        let found = self.list(vec![PORT.to_owned()]).await?;
        let ports = found.iter().filter_map(|container| {
            let labels = container.labels.as_ref()?;
            labels.get(PORT)?.parse().ok()
        });
        Ok(ports.collect())
    }

    /// The containers with these labels.
    pub async fn list(&self, labels: Vec<String>) -> Result<Vec<ContainerSummary>, Error> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self.docker.list_containers(Some(options)).await;
        listed.map_err(self.failed("list containers"))
    }

    /// A container, if it exists.
    pub async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, Error> {
        match self.docker.inspect_container(name, None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(format!("inspect the container `{name}`"))(
                error,
            )),
        }
    }

    /// Creates a container. False if another one has its name.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<bool, Error> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(self.failed(format!("create the container `{name}`"))(error)),
        }
    }

    /// Starts a container. The error is the engine's message.
    pub async fn start(&self, name: &str) -> Result<(), String> {
        let started = self.docker.start_container(name, None).await;
        started.map_err(|error| message(&error))
    }

    /// Lets the engine start a container again whenever it ends.
    pub async fn keep_running(&self, name: &str) -> Result<(), Error> {
        let update = ContainerUpdateBody {
            restart_policy: Some(always_restarts()),
            ..ContainerUpdateBody::default()
        };
        match self.docker.update_container(name, update).await {
            // Podman has this request only since version 4.5.
            Err(error) if !is_missing(&error) => {
                Err(self.failed(format!("change the container `{name}`"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Stops a container: SIGTERM, and SIGKILL after the time that the container was created with.
    pub async fn stop(&self, name: &str) -> Result<(), Error> {
        let stopped = self
            .docker
            .stop_container(name, None::<StopContainerOptions>)
            .await;
        match stopped {
            Err(error) if !is_missing(&error) && !is_unchanged(&error) => {
                Err(self.failed(format!("stop the container `{name}`"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a container, by its name or id.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true);
        let removed = self
            .docker
            .remove_container(name, Some(options.build()))
            .await;
        match removed {
            // A removal by another run may be in progress (409).
            Err(error) if !is_missing(&error) && !is_conflict(&error) => {
                Err(self.failed(format!("remove the container `{name}`"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Creates the network of a store, if it does not exist.
    pub async fn network(&self, name: &str, owner: &StoreLabels) -> Result<(), Error> {
        if let Some(labels) = self.network_labels(name).await? {
            return check_labels("network", name, &labels, owner);
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(owner.map()),
            ..NetworkCreateRequest::default()
        };
        let created = self.docker.create_network(request).await;
        created
            .map(drop)
            .map_err(self.failed(format!("create the network `{name}`")))
    }

    /// The labels of a network, if it exists.
    pub async fn network_labels(
        &self,
        name: &str,
    ) -> Result<Option<HashMap<String, String>>, Error> {
        match self.docker.inspect_network(name, None).await {
            Ok(network) => Ok(Some(network.labels.unwrap_or_default())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(format!("inspect the network `{name}`"))(error)),
        }
    }

    /// Removes the network of a store. A network with containers of other programs stays.
    pub async fn remove_network(&self, name: &str, owner: &StoreLabels) -> Result<(), Error> {
        let Some(labels) = self.network_labels(name).await? else {
            return Ok(());
        };
        check_labels("network", name, &labels, owner)?;
        let _ = self.docker.remove_network(name).await;
        Ok(())
    }

    /// The labels of a volume, if it exists.
    pub async fn volume_labels(
        &self,
        name: &str,
    ) -> Result<Option<HashMap<String, String>>, Error> {
        match self.docker.inspect_volume(name).await {
            Ok(volume) => Ok(Some(volume.labels)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.failed(format!("inspect the volume `{name}`"))(error)),
        }
    }

    /// Removes a volume, if it exists.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let options = None::<RemoveVolumeOptions>;
        match self.docker.remove_volume(name, options).await {
            Err(error) if !is_missing(&error) => {
                Err(self.failed(format!("remove the volume `{name}`"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Creates a volume with labels, if it does not exist. Returns the labels that the volume has: of
    /// many that create it at once, one wins. Fails if it belongs to another store.
    pub async fn volume(
        &self,
        name: &str,
        owner: &StoreLabels,
        labels: HashMap<String, String>,
    ) -> Result<HashMap<String, String>, Error> {
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let created = self.docker.create_volume(volume).await;
        let volume = created.map_err(self.failed(format!("create the volume `{name}`")))?;
        check_labels("volume", name, &volume.labels, owner)?;
        Ok(volume.labels)
    }

    /// Pulls an image by its digest, unless the engine has it. Returns the name by which it is run.
    pub async fn pull(
        &self,
        reference: &str,
        digest: &str,
        services: &Services,
    ) -> Result<String, Error> {
        let image = StoredImage::parse(reference).ok_or_else(|| Error::ImageMissing {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            message: "the reference has no registry, no repository or no tag".into(),
        })?;
        let name = image.by_digest(digest).ok_or_else(|| Error::Layout {
            reference: reference.to_owned(),
        })?;
        match self.docker.inspect_image(&name).await {
            Ok(_) => return Ok(name),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(self.failed(format!("inspect the image `{name}`"))(error)),
        }
        let Err(message) = docker::pull(&self.docker, &name, services).await else {
            return Ok(name);
        };
        if is_disk_full(&message) {
            return Err(Error::Engine(DockerError::DiskFull { message }));
        }
        // The message of an engine that has gone away says nothing about the image.
        if let Err(error) = self.docker.ping().await
            && lost_connection(&error).is_some()
        {
            return Err(self.failed(format!("pull the image `{reference}`"))(error));
        }
        Err(Error::ImageMissing {
            reference: reference.to_owned(),
            digest: digest.to_owned(),
            message: services.redact(&message),
        })
    }

    /// The name of an image without files, which is made if the engine does not have it.
    pub async fn empty_image(&self) -> Result<&'static str, Error> {
        match self.docker.inspect_image(EMPTY_IMAGE).await {
            Ok(_) => return Ok(EMPTY_IMAGE),
            Err(error) if is_missing(&error) => {}
            Err(error) => {
                return Err(self.failed(format!("inspect the image `{EMPTY_IMAGE}`"))(
                    error,
                ));
            }
        }
        // The name includes the tag, because Podman ignores the parameter for it.
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(EMPTY_IMAGE)
            .build();
        // An archive without files ends with two empty blocks.
        let archive = body_full(Bytes::from_static(&[0; 1024]));
        let mut importing = self.docker.create_image(Some(options), Some(archive), None);
        while let Some(step) = importing.next().await {
            step.map_err(self.failed("import an empty image"))?;
        }
        Ok(EMPTY_IMAGE)
    }

    /// The clock of the engine.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let info = self
            .docker
            .info()
            .await
            .map_err(self.failed("return its system information"))?;
        let time = info.system_time.unwrap_or_default();
        time.parse().map_err(|error| {
            Error::Engine(DockerError::Request {
                doing: "return its system time".into(),
                message: format!("`{}`: {error}", time.escape_debug()),
            })
        })
    }

    /// The last lines of a container.
    pub async fn tail(&self, name: &str) -> Vec<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true);
        let logs = self.docker.logs(name, Some(options.tail(TAIL).build()));
        let mut text = Vec::new();
        let mut pieces = std::pin::pin!(pieces(logs));
        while let Some(Ok(piece)) = pieces.next().await {
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::to_owned).collect()
    }

    /// The output of a container as it is printed, each piece with its time. A long line has several
    /// pieces.
    pub fn output(
        &self,
        name: &str,
        follow: bool,
        since: Option<Timestamp>,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true);
        let since = since.and_then(|since| i32::try_from(since.as_second()).ok());
        let options = options.follow(follow).since(since.unwrap_or_default());
        let logs = self
            .docker
            .logs(name, Some(options.timestamps(true).build()));
        let engine = self.clone();
        logs.map(move |piece| piece.map_err(engine.failed("read the output of a container")))
    }
}

/// Fails if the labels of an object name another store. An object without labels was made by a person, or by
/// Podman, which ignores some labels.
pub fn check_labels(
    kind: &'static str,
    name: &str,
    labels: &HashMap<String, String>,
    owner: &StoreLabels,
) -> Result<(), Error> {
    let known = labels.get(PROJECT).zip(labels.get(STORE));
    match known {
        Some((project, store)) if *project != owner.project || *store != owner.store => {
            Err(Error::NameTaken {
                kind,
                name: name.to_owned(),
                other: format!("{project}/{store}"),
                owner: owner.key(),
                store: owner.store.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// The output of containers, without the stream that it came from.
pub fn pieces(
    logs: impl Stream<Item = Result<LogOutput, Bollard>>,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    logs.map(|piece| {
        piece
            .map(LogOutput::into_bytes)
            .map_err(std::io::Error::other)
    })
}

/// Whether the engine answers that a name is taken, or that a removal is in progress.
pub fn is_conflict(error: &Bollard) -> bool {
    let Bollard::DockerResponseServerError {
        status_code,
        message,
    } = error
    else {
        return false;
    };
    // Podman answers with 500 for a name that is taken.
    *status_code == 409 || (*status_code == 500 && message.contains("already in use"))
}

/// Whether the engine answers that there is nothing to do.
fn is_unchanged(error: &Bollard) -> bool {
    matches!(
        error,
        Bollard::DockerResponseServerError {
            status_code: 304,
            ..
        }
    )
}

/// A listed container, if its labels are those of an app.
fn app_container(found: ContainerSummary) -> Option<AppContainer> {
    let labels = found.labels?;
    let name = found.names?.into_iter().next()?;
    let state = found.state;
    Some(AppContainer {
        id: found.id?,
        name: name.trim_start_matches('/').to_owned(),
        app: AppName::new(labels.get(APP)?).ok()?,
        release: labels.get(RELEASE)?.parse().ok()?,
        port: labels.get(PORT)?.parse().ok()?,
        is_running: matches!(
            state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::RESTARTING)
        ),
        has_run: state != Some(ContainerSummaryStateEnum::CREATED),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::check_labels;
    use crate::target::labels::StoreLabels;

    #[test]
    fn an_object_of_a_store_with_the_same_names_is_refused() {
        let owner = |project: &str, store: &str| StoreLabels {
            project: project.into(),
            store: store.into(),
        };
        let (one, other) = (owner("acme-b2b", "eu"), owner("acme", "b2b-eu"));
        assert_eq!(one.name(), other.name());
        let volume = "alokai-acme-b2b-eu-data";
        let check = |labels: HashMap<String, String>, owner: &StoreLabels| {
            check_labels("volume", volume, &labels, owner)
        };
        assert!(check(one.map(), &one).is_ok());
        assert!(check(HashMap::new(), &one).is_ok());
        let error = check(one.map(), &other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the volume `alokai-acme-b2b-eu-data` belongs to the store `acme-b2b/eu`, so `acme/b2b-eu` cannot use it"
        );
    }
}
