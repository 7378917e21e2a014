//! The published ports of containers: an app gets a free port, and keeps it.

use std::collections::BTreeSet;

use ring::rand::{SecureRandom, SystemRandom};

use super::DockerTarget;
use super::apps::{ReleaseContainers, container_name};
use super::engine::{AppContainer, Engine, StoreLabels};
use super::error::Error;
use crate::target::ReleasedApp;

/// The ports that are published. They are fixed, because a container would get another free port
/// whenever it is started again. The system gives none of them to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried.
const ATTEMPTS: usize = 20;

impl DockerTarget {
    /// Makes the container of an app run, or only exist if there is no proxy. Returns its port.
    pub(super) async fn run_app(
        &self,
        engine: &Engine,
        release: &ReleaseContainers<'_>,
        app: &ReleasedApp,
        image: &str,
        ports: &mut PortChooser,
    ) -> Result<u16, Error> {
        let name = container_name(release.spec, app);
        let starts = self.proxy.is_some();
        if let Some(found) = self.existing(engine, release.owner, &name).await? {
            if found.is_running || !starts || engine.start(&name).await.is_ok() {
                return Ok(found.port);
            }
            // Another program may have its port meanwhile.
            engine.remove(&found.id).await?;
        }
        if !starts {
            let port = self.fixed_port(&release.spec.store, &app.app);
            create(engine, release, app, image, port).await?;
            return Ok(port);
        }
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let port = ports.choose();
            create(engine, release, app, image, port).await?;
            let Err(message) = engine.start(&name).await else {
                return Ok(port);
            };
            engine.remove(&name).await?;
            last = message;
            if !is_port_taken(&last) {
                break;
            }
        }
        Err(Error::Start {
            container: name,
            message: last,
        })
    }

    /// The container of this name. One that does not belong to the store is an error.
    async fn existing(
        &self,
        engine: &Engine,
        owner: &StoreLabels,
        name: &str,
    ) -> Result<Option<AppContainer>, Error> {
        let mut own = engine.app_containers(owner).await?;
        if let Some(found) = own.iter().position(|container| container.name == name) {
            return Ok(Some(own.swap_remove(found)));
        }
        match engine.inspect(name).await? {
            None => Ok(None),
            Some(_) => Err(Error::ForeignContainer { name: name.into() }),
        }
    }
}

/// Chooses free ports.
pub struct PortChooser {
    taken: BTreeSet<u16>,
}

impl PortChooser {
    /// These ports are taken.
    pub fn new(taken: impl IntoIterator<Item = u16>) -> Self {
        Self {
            taken: taken.into_iter().collect(),
        }
    }

    /// A port that no container of this program has. The engine refuses a port of another program.
    fn choose(&mut self) -> u16 {
        let mut bytes = [0; 2];
        // Without a source of randomness, the search begins with the first port.
        let _ = SystemRandom::new().fill(&mut bytes);
        let count = PORTS.end - PORTS.start;
        let first = PORTS.start + u16::from_le_bytes(bytes) % count;
        let mut all = (first..PORTS.end).chain(PORTS.start..first);
        let port = all.find(|port| !self.taken.contains(port)).unwrap_or(first);
        self.taken.insert(port);
        port
    }
}

fn is_port_taken(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["already allocated", "already in use", "not available"]
        .iter()
        .any(|text| message.contains(text))
}

async fn create(
    engine: &Engine,
    release: &ReleaseContainers<'_>,
    app: &ReleasedApp,
    image: &str,
    port: u16,
) -> Result<(), Error> {
    let name = container_name(release.spec, app);
    if engine.create(&name, release.body(app, image, port)).await? {
        Ok(())
    } else {
        Err(Error::ForeignContainer { name })
    }
}
