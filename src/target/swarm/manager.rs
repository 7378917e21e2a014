//! The manager of a swarm: services with labels, their tasks and ports.

use std::collections::HashMap;

use bollard::container::LogOutput;
use bollard::errors::Error as Bollard;
use bollard::models::{
    LocalNodeState, NetworkCreateRequest, Node, NodeSpecAvailabilityEnum, Service, ServiceSpec,
    ServiceSpecMode, ServiceSpecModeReplicated, ServiceUpdateStatus, Task,
    TaskSpecContainerSpecSecrets, TaskState,
};
use bollard::query_parameters::{
    ListServicesOptionsBuilder, ListTasksOptionsBuilder, LogsOptionsBuilder,
    UpdateServiceOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use jiff::Timestamp;

use super::error::Error;
use crate::ledger::RecordId;
use crate::pipeline::Services;
use crate::pipeline::docker::{is_missing, message};
use crate::store::AppName;
use crate::target::docker::engine::{Engine, TAIL, check_labels, is_conflict, pieces};
use crate::target::labels::{APP, PORT, RELEASE, SETTINGS, StoreLabels};
use crate::target::ports::socket_address;

/// The label with the image that a service was made for.
pub const IMAGE: &str = "com.alokai.image";

/// The label with the release whose values of `.env` files a service has.
pub const ENV_OF: &str = "com.alokai.env-of";

/// How often a change is tried while Swarm itself writes to a service.
const ATTEMPTS: usize = 10;

/// The time limit for the last lines of an app. A node that does not answer within it returns no lines.
const TAIL_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The service of an app.
#[derive(Debug, Clone)]
pub struct AppService {
    /// Its id in the swarm.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: RecordId,
    /// The published port.
    pub port: u16,
    /// The image that it was made for.
    pub image: String,
    /// The version of its settings.
    pub settings: Option<String>,
    /// Its specification, as it was requested last.
    pub spec: ServiceSpec,
    /// The status of its last update.
    pub update: Option<ServiceUpdateStatus>,
    version: u64,
}

impl AppService {
    /// Whether its tasks are requested. A kept release has no tasks.
    pub fn is_wanted(&self) -> bool {
        let mode = self.spec.mode.as_ref();
        let replicated = mode.and_then(|mode| mode.replicated.as_ref());
        replicated.and_then(|it| it.replicas).unwrap_or_default() > 0
    }

    /// The secrets that its tasks get.
    pub fn secrets(&self) -> impl Iterator<Item = &TaskSpecContainerSpecSecrets> {
        let task = self.spec.task_template.as_ref();
        let container = task.and_then(|task| task.container_spec.as_ref());
        let secrets = container.and_then(|container| container.secrets.as_ref());
        secrets.into_iter().flatten()
    }

    /// The release whose values of `.env` files its tasks get. A copy has those of its original.
    pub fn env_of(&self) -> Option<&str> {
        let labels = self.spec.labels.as_ref()?;
        labels.get(ENV_OF).map(String::as_str)
    }

    /// The ids of its secrets.
    pub fn secret_ids(&self) -> impl Iterator<Item = &str> {
        self.secrets()
            .filter_map(|secret| secret.secret_id.as_deref())
    }
}

/// The mode of a service with this many tasks.
pub fn replicas(count: i64) -> ServiceSpecMode {
    ServiceSpecMode {
        replicated: Some(ServiceSpecModeReplicated {
            replicas: Some(count),
        }),
        ..ServiceSpecMode::default()
    }
}

/// A connection to a manager.
pub struct Manager {
    /// The engine.
    pub engine: Engine,
}

impl Manager {
    /// Connects to the manager of a swarm. Fails if the engine is not a manager.
    pub async fn new(engine: Engine, address: &str) -> Result<Self, Error> {
        let info = engine.docker.info().await;
        let info = info.map_err(engine.failed("return its system information"))?;
        let swarm = info.swarm.unwrap_or_default();
        if swarm.control_available == Some(true) {
            return Ok(Self { engine });
        }
        let state = match swarm.local_node_state {
            Some(LocalNodeState::ACTIVE) => "it is a worker of a swarm".to_owned(),
            Some(LocalNodeState::LOCKED) => "its swarm is locked; see `docker swarm unlock`".into(),
            None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE) => {
                "it is not in a swarm".into()
            }
            Some(state) => format!("its state is `{state}`"),
        };
        Err(Error::NotManager {
            address: address.to_owned(),
            state,
        })
    }

    /// The services of a store's apps, those that are kept included.
    pub async fn app_services(&self, owner: &StoreLabels) -> Result<Vec<AppService>, Error> {
        let mut labels = vec![APP.to_owned()];
        labels.extend(owner.filters());
        self.services(labels).await
    }

    /// The services of the apps of all stores.
    pub async fn all_services(&self) -> Result<Vec<AppService>, Error> {
        self.services(vec![APP.to_owned()]).await
    }

    async fn services(&self, labels: Vec<String>) -> Result<Vec<AppService>, Error> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListServicesOptionsBuilder::default().filters(&filters);
        let found = self
            .engine
            .docker
            .list_services(Some(options.build()))
            .await;
        let found = found.map_err(self.engine.failed("list services"))?;
        Ok(found.into_iter().filter_map(app_service).collect())
    }

    /// A service, if it still exists.
    pub async fn service(&self, id: &str) -> Result<Option<AppService>, Error> {
        match self.engine.docker.inspect_service(id, None).await {
            Ok(found) => Ok(app_service(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => {
                Err(self.engine.failed(format!("inspect the service `{id}`"))(error).into())
            }
        }
    }

    /// Creates a service and returns its id. None if another service has its name.
    pub async fn create(
        &self,
        spec: ServiceSpec,
        image: &str,
        services: &Services,
    ) -> Result<Option<String>, Error> {
        let name = spec.name.clone().unwrap_or_default();
        let login = services.engine_login(image).await;
        match self.engine.docker.create_service(spec, login).await {
            Ok(created) => Ok(created.id),
            Err(error) if is_conflict(&error) => Ok(None),
            Err(error) => {
                Err(self.engine.failed(format!("create the service `{name}`"))(error).into())
            }
        }
    }

    /// Changes a service, if nobody has changed it since it was read. Swarm refuses a change of another
    /// version, but also creates versions itself, so only the specifications are compared.
    pub async fn update(
        &self,
        service: &AppService,
        change: impl Fn(&mut ServiceSpec) + Send,
    ) -> Result<(), Error> {
        let changed = || Error::Changed {
            service: service.name.clone(),
        };
        let mut version = service.version;
        for _ in 0..ATTEMPTS {
            let mut spec = service.spec.clone();
            change(&mut spec);
            let number = i32::try_from(version).map_err(|_| changed())?;
            let options = UpdateServiceOptionsBuilder::default().version(number);
            let docker = &self.engine.docker;
            let updated = docker
                .update_service(&service.id, spec, options.build(), None)
                .await;
            match updated {
                Ok(_) => return Ok(()),
                Err(error) if is_out_of_sequence(&error) => {}
                Err(error) if is_missing(&error) => return Err(changed()),
                Err(error) => {
                    let doing = format!("change the service `{}`", service.name);
                    return Err(self.engine.failed(doing)(error).into());
                }
            }
            match self.service(&service.id).await? {
                Some(now) if now.spec == service.spec => version = now.version,
                _ => return Err(changed()),
            }
        }
        Err(changed())
    }

    /// Removes a service, by its id.
    pub async fn remove(&self, service: &AppService) -> Result<(), Error> {
        match self.engine.docker.delete_service(&service.id).await {
            Err(error) if !is_missing(&error) => Err(self
                .engine
                .failed(format!("remove the service `{}`", service.name))(
                error
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// The tasks of a service, the newest last. Swarm keeps some that have ended.
    pub async fn tasks(&self, service: &str) -> Result<Vec<Task>, Error> {
        let filters = HashMap::from([("service", vec![service])]);
        let options = ListTasksOptionsBuilder::default().filters(&filters);
        let found = self.engine.docker.list_tasks(Some(options.build())).await;
        let mut tasks = match found {
            Ok(tasks) => tasks,
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(self.engine.failed("list tasks")(error).into()),
        };
        tasks.sort_by_key(|task| time(task.created_at.as_deref()));
        Ok(tasks)
    }

    /// The address and port of a running app, for HAProxy.
    pub async fn address(&self, service: &AppService) -> Result<Option<String>, Error> {
        let tasks = self.tasks(&service.id).await?;
        match tasks.iter().rev().find(|task| is_running(task)) {
            Some(task) => Ok(Some(self.address_of(task, service.port).await?)),
            None => Ok(None),
        }
    }

    /// The address and port of a task. A task that has ended publishes no port, and gets `port`.
    pub async fn address_of(&self, task: &Task, port: u16) -> Result<String, Error> {
        let status = task.status.as_ref().and_then(|it| it.port_status.as_ref());
        let ports = status
            .and_then(|it| it.ports.as_deref())
            .unwrap_or_default();
        let published = ports.iter().find_map(|port| port.published_port);
        let published = published.and_then(|port| u16::try_from(port).ok());
        let node = task.node_id.as_deref().unwrap_or("self");
        let found = self.engine.docker.inspect_node(node).await;
        let found = found.map_err(self.engine.failed(format!("inspect the node `{node}`")))?;
        let manager = found.manager_status.and_then(|it| it.addr);
        let manager = manager.and_then(|it| Some(it.rsplit_once(':')?.0.to_owned()));
        let address = found.status.and_then(|it| it.addr);
        let address = address.filter(|it| !it.is_empty() && it != "0.0.0.0");
        let address = address.or(manager).unwrap_or_else(|| "127.0.0.1".into());
        Ok(socket_address(&address, published.unwrap_or(port)))
    }

    /// The ports that services publish or published, and those of containers of apps on this engine.
    pub async fn ports(&self) -> Result<Vec<u16>, Error> {
        let mut ports = self.engine.ports().await?;
        let services = self.engine.docker.list_services(None).await;
        for service in services.map_err(self.engine.failed("list services"))? {
            let endpoint = service.spec.and_then(|spec| spec.endpoint_spec);
            let published = endpoint.and_then(|it| it.ports).unwrap_or_default();
            let published = published.iter().filter_map(|port| port.published_port);
            ports.extend(published.filter_map(|port| u16::try_from(port).ok()));
        }
        Ok(ports)
    }

    /// How many nodes run tasks.
    pub async fn nodes(&self) -> Result<usize, Error> {
        let nodes = self.engine.docker.list_nodes(None).await;
        let nodes = nodes.map_err(self.engine.failed("list nodes"))?;
        let is_drained = |node: &Node| {
            let availability = node.spec.as_ref().and_then(|spec| spec.availability);
            availability == Some(NodeSpecAvailabilityEnum::DRAIN)
        };
        Ok(nodes.iter().filter(|node| !is_drained(node)).count())
    }

    /// Creates the network of a store, which spans all nodes, if it does not exist.
    pub async fn network(&self, name: &str, owner: &StoreLabels) -> Result<(), Error> {
        if let Some(labels) = self.engine.network_labels(name).await? {
            return Ok(check_labels("network", name, &labels, owner)?);
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("overlay".into()),
            labels: Some(owner.map()),
            ..NetworkCreateRequest::default()
        };
        match self.engine.docker.create_network(request).await {
            Ok(_) => Ok(()),
            // Another run may have created it meanwhile.
            Err(_) if self.engine.network_labels(name).await?.is_some() => Ok(()),
            Err(error) => {
                Err(self.engine.failed(format!("create the network `{name}`"))(error).into())
            }
        }
    }

    /// The last lines of a service.
    pub async fn tail(&self, service: &str) -> Vec<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true);
        let options = options.tail(TAIL).build();
        let logs = self.engine.docker.service_logs(service, Some(options));
        let mut pieces = std::pin::pin!(pieces(logs));
        let mut text = Vec::new();
        let reading = async {
            while let Some(Ok(piece)) = pieces.next().await {
                text.extend_from_slice(&piece);
            }
        };
        let _ = tokio::time::timeout(TAIL_LIMIT, reading).await;
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::to_owned).collect()
    }

    /// The output of a service as it is printed, each piece with its time.
    pub fn output(
        &self,
        service: &str,
        follow: bool,
        since: Option<Timestamp>,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true);
        let since = since.and_then(|since| i32::try_from(since.as_second()).ok());
        let options = options.follow(follow).since(since.unwrap_or_default());
        let logs = self
            .engine
            .docker
            .service_logs(service, Some(options.timestamps(true).build()));
        let engine = self.engine.clone();
        logs.map(move |piece| {
            let failed = engine.failed("read the output of a service");
            piece.map_err(|error| Error::from(failed(error)))
        })
    }
}

/// The state of a task.
pub fn state(task: &Task) -> TaskState {
    let status = task.status.as_ref();
    status.and_then(|it| it.state).unwrap_or(TaskState::NEW)
}

/// Whether a task runs, and Swarm does not want it to end.
pub fn is_running(task: &Task) -> bool {
    state(task) == TaskState::RUNNING && task.desired_state == Some(TaskState::RUNNING)
}

/// Whether a task has ended by itself, or could not be started.
pub fn has_failed(task: &Task) -> bool {
    matches!(
        state(task),
        TaskState::FAILED | TaskState::REJECTED | TaskState::COMPLETE | TaskState::ORPHANED
    )
}

/// Whether a task of a stopped service has not ended yet, or is about to be removed.
pub fn is_leaving(task: &Task) -> bool {
    let has_ended = has_failed(task) || matches!(state(task), TaskState::SHUTDOWN);
    !has_ended || task.desired_state == Some(TaskState::REMOVE)
}

/// The message of a task's error, or of its state.
pub fn reason(task: &Task) -> String {
    let status = task.status.as_ref();
    let error = status.and_then(|it| it.err.clone());
    let message = status.and_then(|it| it.message.clone());
    error.or(message).unwrap_or_default()
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// Whether Swarm refuses a change, because another change came first.
pub fn is_out_of_sequence(error: &Bollard) -> bool {
    message(error).contains("out of sequence")
}

/// A listed service, if its labels are those of an app.
fn app_service(found: Service) -> Option<AppService> {
    let spec = found.spec?;
    let labels = spec.labels.as_ref()?;
    Some(AppService {
        id: found.id?,
        name: spec.name.clone()?,
        app: AppName::new(labels.get(APP)?).ok()?,
        release: labels.get(RELEASE)?.parse().ok()?,
        port: labels.get(PORT)?.parse().ok()?,
        image: labels.get(IMAGE)?.clone(),
        settings: labels.get(SETTINGS).cloned(),
        version: found.version?.index?,
        update: found.update_status,
        spec,
    })
}
