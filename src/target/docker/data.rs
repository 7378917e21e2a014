//! The data of a store: one volume or folder for all of its releases.

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use hyper::body::Bytes;

use super::engine::{Engine, check_labels};
use super::error::Error;
use crate::config::DataSection;
use crate::pipeline::DockerError;
use crate::target::labels::StoreLabels;

/// The mount path of a new volume in the container that sets its permissions, without the slash.
const PLACE: &str = "data";

/// The permissions of a new volume, as those of `/tmp`: apps run as any user.
const MODE: u32 = 0o1777;

/// The volume of a store, if the config does not name one.
pub fn default_volume(owner: &StoreLabels) -> String {
    format!("alokai-{}-data", owner.name())
}

/// The data of a store.
pub struct StoreData<'a> {
    /// The section of the config.
    pub section: &'a DataSection,
    /// The owner.
    pub owner: &'a StoreLabels,
}

impl StoreData<'_> {
    /// The mount for apps.
    pub fn mount(&self) -> Mount {
        self.mount_at(self.section.path.clone())
    }

    /// The folder of the engine's machine, if the data is not a volume.
    fn folder(&self) -> Option<String> {
        let source = self.section.source.as_deref()?;
        let folder = source
            .starts_with('/')
            .then(|| source.trim_end_matches('/'))?;
        Some(format!("{folder}/{}", self.owner.store))
    }

    /// The name of the volume.
    fn volume(&self) -> String {
        match &self.section.source {
            Some(start) => format!("{start}-{}", self.owner.store),
            None => default_volume(self.owner),
        }
    }

    fn mount_at(&self, target: String) -> Mount {
        if let Some(folder) = self.folder() {
            return Mount {
                target: Some(target),
                source: Some(folder),
                typ: Some(MountType::BIND),
                ..Mount::default()
            };
        }
        Mount {
            target: Some(target),
            source: Some(self.volume()),
            typ: Some(MountType::VOLUME),
            volume_options: Some(MountVolumeOptions {
                labels: Some(self.owner.map()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }

    /// Makes the volume if it does not exist. A new volume belongs to root, so apps of other users get the
    /// permission to write. If a killed run has left its container, the permissions are set again.
    pub async fn prepare(&self, engine: &Engine) -> Result<(), Error> {
        if self.folder().is_some() {
            return Ok(());
        }
        let volume = self.volume();
        let setup = format!("{volume}-setup");
        let known = engine.volume_labels(&volume).await?;
        if let Some(labels) = &known
            && self.section.source.is_none()
        {
            check_labels("volume", &volume, labels, self.owner)?;
        }
        if known.is_some() && engine.inspect(&setup).await?.is_none() {
            return Ok(());
        }
        // Podman ignores the labels of a volume in the request for a container.
        if known.is_none() {
            let labels = self.owner.map();
            engine.volume(&volume, self.owner, labels).await?;
        }
        let body = ContainerCreateBody {
            image: Some(engine.empty_image().await?.to_owned()),
            cmd: Some(vec![PLACE.into()]),
            labels: Some(self.owner.map()),
            host_config: Some(HostConfig {
                mounts: Some(vec![self.mount_at(format!("/{PLACE}"))]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        engine.create(&setup, body).await?;
        let written = permit(engine, &setup).await;
        engine.remove(&setup).await?;
        written
    }
}

/// Sets the permissions of the folder in the container, which is never started.
async fn permit(engine: &Engine, container: &str) -> Result<(), Error> {
    let doing = "set the permissions of the volume for data";
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(MODE);
    let mut archive = tar::Builder::new(Vec::new());
    let archive = archive
        .append_data(&mut header, format!("{PLACE}/"), std::io::empty())
        .and_then(|()| archive.into_inner());
    let archive = archive.map_err(|error| {
        Error::Engine(DockerError::Request {
            doing: doing.into(),
            message: error.to_string(),
        })
    })?;
    let options = UploadToContainerOptionsBuilder::default().path("/");
    let archive = bollard::body_full(Bytes::from(archive));
    let uploaded = engine
        .docker
        .upload_to_container(container, Some(options.build()), archive);
    uploaded.await.map_err(engine.failed(doing))
}
