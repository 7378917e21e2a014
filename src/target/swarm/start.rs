//! The start of an app: its image, its service, and the wait for its task.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::models::Task;
use tokio::time::{Instant, sleep};

use super::SwarmTarget;
use super::error::Error;
use super::manager::{AppService, ENV_OF, Manager};
use super::progress::{StartProgress, failed_update, progress};
use super::service::{
    ReleaseServices, ServiceImage, env_secret_of, mounted, move_port, service_name,
};
use super::steps::{PAUSE, set_replicas};
use crate::pipeline::DockerError;
use crate::pipeline::docker::message;
use crate::target::docker;
use crate::target::ports::{ATTEMPTS, PortChooser};
use crate::target::{ReleasedApp, Settings};

/// How long a node may take to pull an image and start a task.
const START_LIMIT: Duration = Duration::from_mins(10);

/// How long Swarm may search for a node.
const PLACE_LIMIT: Duration = Duration::from_secs(20);

/// The inputs for the start of an app.
pub struct ServiceStart<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The release.
    pub release: &'a ReleaseServices<'a>,
    /// The services that the store had before.
    pub existing: &'a [AppService],
    /// Chooses ports.
    pub ports: &'a Mutex<PortChooser>,
}

impl ServiceStart<'_> {
    /// The service of an app in the release of which this one is a copy.
    fn original(&self, app: &ReleasedApp) -> Option<&AppService> {
        let original = self.release.spec.copy_of.as_ref()?;
        let mut existing = self.existing.iter();
        existing.find(|it| it.release == *original && it.app == app.app)
    }

    /// The values of `.env` files with which apps of this release start for the first time, and which their
    /// output must not show.
    pub fn hidden_values(&self) -> Settings {
        let apps = self.release.spec.apps.iter();
        let new = apps.filter(|app| self.original(app).is_none() && !self.exists(app));
        let values = new.flat_map(|app| {
            let hidden = app.hidden();
            hidden.map(move |(name, value)| (format!("{} {name}", app.app), value.clone()))
        });
        values.collect()
    }

    fn exists(&self, app: &ReleasedApp) -> bool {
        let mut existing = self.existing.iter();
        existing.any(|it| it.release == self.release.spec.id && it.app == app.app)
    }

    /// Whether the release is a copy that starts with the values of `.env` files of the working tree.
    pub fn has_lost_values(&self) -> bool {
        let spec = self.release.spec;
        let mut apps = spec.apps.iter();
        spec.copy_of.is_some() && apps.any(|app| !self.exists(app) && self.original(app).is_none())
    }
}

/// The result of waiting for an app.
enum Started {
    /// It has this address and port.
    At(String),
    /// Another program has its port.
    PortTaken(String),
}

impl SwarmTarget {
    /// The image of an app. The manager pulls it, so that a missing image is known before a service
    /// exists, and returns its command.
    pub(super) async fn image(
        &self,
        manager: &Manager,
        app: &ReleasedApp,
    ) -> Result<ServiceImage, Error> {
        let services = &self.context.services;
        let engine = &manager.engine;
        let name = engine.pull(&app.reference, &app.digest, services).await?;
        let found = engine.docker.inspect_image(&name).await;
        let found = found.map_err(|error| DockerError::Request {
            doing: format!("inspect the image `{name}`"),
            message: message(&error),
        })?;
        let config = found.config.unwrap_or_default();
        let mut command = config.entrypoint.unwrap_or_default();
        command.extend(config.cmd.unwrap_or_default());
        Ok(ServiceImage { name, command })
    }

    /// Makes an app run. Returns its address and port.
    pub(super) async fn start_app(
        &self,
        start: &ServiceStart<'_>,
        app: &ReleasedApp,
        image: &ServiceImage,
    ) -> Result<String, Error> {
        let manager = start.manager;
        let name = service_name(start.release.spec, app);
        let known = start.existing.iter().find(|service| service.name == name);
        let mut earlier = BTreeSet::new();
        let id = match known {
            None => self.create(start, app, image).await?,
            Some(service) => {
                if !service.is_wanted() {
                    earlier = ids(&manager.tasks(&service.id).await?);
                    let run = |spec: &mut _| set_replicas(spec, 1);
                    manager.update(service, run).await?;
                }
                service.id.clone()
            }
        };
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let service = manager.service(&id).await?;
            let service = service.ok_or_else(|| Error::Changed {
                service: name.clone(),
            })?;
            match await_start(manager, &service, app, &earlier).await? {
                Started::At(address) => return Ok(address),
                Started::PortTaken(message) => last = message,
            }
            earlier = ids(&manager.tasks(&id).await?);
            let port = choose(start.ports);
            manager
                .update(&service, |spec| move_port(spec, port))
                .await?;
        }
        Err(Error::Start {
            service: name,
            message: last,
        })
    }

    async fn create(
        &self,
        start: &ServiceStart<'_>,
        app: &ReleasedApp,
        image: &ServiceImage,
    ) -> Result<String, Error> {
        let (manager, release) = (start.manager, start.release);
        let own = release.spec.id.as_str();
        let (kept, env, env_of) = if let Some(original) = start.original(app) {
            // Swarm does not return the values of a secret, so the copy gets the secret of its original.
            (env_secret_of(original), None, original.env_of())
        } else {
            let env = release.env_secret(app)?;
            let is_hidden = app.hidden().next().is_some();
            let env_of = env.as_ref().filter(|_| is_hidden).map(|_| own);
            (None, env, env_of)
        };
        let mut secrets = Vec::from_iter(kept);
        for secret in env.into_iter().chain(release.settings_secret(app)?) {
            let labels = release.labels(app);
            let id = manager.secret(&secret.name, labels, &secret.script).await?;
            secrets.push(mounted(id, secret));
        }
        let mut body = release.body(app, image, secrets, choose(start.ports));
        let labels = body.labels.get_or_insert_default();
        labels.extend(env_of.map(|of| (ENV_OF.to_owned(), of.to_owned())));
        let services = &self.context.services;
        let created = manager.create(body, &image.name, services).await?;
        created.ok_or_else(|| Error::Foreign {
            kind: "service",
            name: service_name(release.spec, app),
        })
    }
}

/// Waits until an app has started.
async fn await_start(
    manager: &Manager,
    service: &AppService,
    app: &ReleasedApp,
    earlier: &BTreeSet<String>,
) -> Result<Started, Error> {
    let started = Instant::now();
    let mut placed = started;
    loop {
        let tasks = manager.tasks(&service.id).await?;
        let own = tasks.iter().filter(|task| {
            let id = task.id.as_deref().unwrap_or_default();
            !earlier.contains(id)
        });
        let state = match progress(own) {
            StartProgress::Started(task) => {
                let address = manager.address_of(task, service.port).await?;
                return Ok(Started::At(address));
            }
            StartProgress::PortTaken(message) => return Ok(Started::PortTaken(message)),
            StartProgress::ImageMissing(message) => return Err(image_missing(app, message)),
            StartProgress::Refused(message) => {
                return Err(Error::Start {
                    service: service.name.clone(),
                    message,
                });
            }
            StartProgress::Unplaced(message) if placed.elapsed() > PLACE_LIMIT => {
                return Err(Error::NoNode {
                    service: service.name.clone(),
                    message,
                });
            }
            StartProgress::Unplaced(message) => message,
            StartProgress::Waits(state) => {
                placed = Instant::now();
                state
            }
        };
        check_update(manager, service).await?;
        if started.elapsed() > START_LIMIT {
            return Err(Error::Slow {
                service: service.name.clone(),
                seconds: START_LIMIT.as_secs(),
                state,
            });
        }
        sleep(PAUSE).await;
    }
}

/// Fails if Swarm has stopped an update of the service, or rolled it back. An update before this start does
/// not matter.
async fn check_update(manager: &Manager, service: &AppService) -> Result<(), Error> {
    let now = manager.service(&service.id).await?;
    let update = now.and_then(|now| now.update);
    match failed_update(update.as_ref()) {
        Some((state, message)) if update != service.update => Err(Error::Update {
            service: service.name.clone(),
            state,
            message,
        }),
        _ => Ok(()),
    }
}

fn image_missing(app: &ReleasedApp, message: String) -> Error {
    let error = docker::Error::ImageMissing {
        reference: app.reference.clone(),
        digest: app.digest.clone(),
        message,
    };
    error.into()
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().filter_map(|task| task.id.clone()).collect()
}

fn choose(ports: &Mutex<PortChooser>) -> u16 {
    let mut ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
    ports.choose()
}
