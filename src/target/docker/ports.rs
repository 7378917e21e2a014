//! The published ports of containers: an app gets a free port, and keeps it.

use super::DockerTarget;
use super::apps::{ReleaseContainers, container_name};
use super::engine::{AppContainer, Engine};
use super::error::Error;
use crate::pipeline::DockerError;
use crate::pipeline::docker::is_disk_full;
use crate::target::ReleasedApp;
use crate::target::labels::StoreLabels;
use crate::target::ports::{ATTEMPTS, PortChooser, is_port_taken};

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
        if is_disk_full(&last) {
            return Err(Error::Engine(DockerError::DiskFull { message: last }));
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
