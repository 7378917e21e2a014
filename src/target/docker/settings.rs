//! The settings of a store: one file for each version, in a volume of the engine.
//!
//! The engine gives access to a volume through a container, which is created and never started. So the
//! values are in no label, no argument and no image.

use std::collections::BTreeMap;
use std::io::Read;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt;
use hyper::body::Bytes;
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use secrecy::ExposeSecret;

use super::engine::Engine;
use super::error::Error;
use crate::pipeline::DockerError;
use crate::pipeline::docker::is_missing;
use crate::target::Settings;
use crate::target::labels::StoreLabels;

/// Where the volume is in the container.
const FOLDER: &str = "/settings";

/// A container for access that is older than this, in seconds, belongs to a killed run.
const ACCESS_TIME: i64 = 60 * 60;

/// The label with the process that has created a container for access.
const OPENED_BY: &str = "com.alokai.opened-by";

/// The settings of a store.
pub struct SettingsVolume<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The owner of the volume.
    pub owner: &'a StoreLabels,
}

impl SettingsVolume<'_> {
    /// The name of the volume.
    pub fn name(&self) -> String {
        format!("alokai-{}-settings", self.owner.name())
    }

    /// Stores settings under a version. Equal settings may be stored again. False if the version exists
    /// with other values.
    pub async fn write(&self, version: &str, settings: &Settings) -> Result<bool, Error> {
        let values: BTreeMap<&str, &str> = settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
            .collect();
        let text = serde_json::to_vec(&values).map_err(|error| self.unreadable(version, &error))?;
        let container = self.open().await?;
        let written = self.write_file(&container, version, &text).await;
        self.engine.remove(&container).await?;
        written
    }

    /// The settings of a version, if the volume has them.
    pub async fn read(&self, version: &str) -> Result<Option<Settings>, Error> {
        let container = self.open().await?;
        let text = self.read_file(&container, version).await;
        self.engine.remove(&container).await?;
        let Some(text) = text? else { return Ok(None) };
        let values: BTreeMap<String, String> =
            serde_json::from_slice(&text).map_err(|error| self.unreadable(version, &error))?;
        let settings = values.into_iter().map(|(name, value)| (name, value.into()));
        Ok(Some(settings.collect()))
    }

    /// Removes the containers for access that killed runs have left.
    pub async fn sweep(&self) -> Result<(), Error> {
        let owner = self.owner.map();
        let labels = owner.iter().map(|(key, value)| format!("{key}={value}"));
        let prefix = format!("/{}-", self.name());
        let now = self.engine.now().await?.as_second();
        for container in self.engine.list(labels.collect()).await? {
            let mut names = container.names.iter().flatten();
            let is_access = names.any(|name| name.starts_with(&prefix));
            let is_old = container.created.is_some_and(|it| now - it > ACCESS_TIME);
            let opened_by = container.labels.and_then(|mut it| it.remove(OPENED_BY));
            let is_left = is_old || opened_by.is_some_and(|process| has_ended(&process));
            if let Some(id) = container.id.filter(|_| is_access && is_left) {
                self.engine.remove(&id).await?;
            }
        }
        Ok(())
    }

    /// An error without the values.
    fn unreadable(&self, version: &str, error: &serde_json::Error) -> Error {
        Error::Engine(DockerError::Request {
            doing: format!(
                "read the settings {version} in the volume `{}`",
                self.name()
            ),
            message: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    async fn write_file(&self, container: &str, version: &str, text: &[u8]) -> Result<bool, Error> {
        if let Some(known) = self.read_file(container, version).await? {
            return Ok(known == text);
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        let mut archive = tar::Builder::new(Vec::new());
        let archive = archive
            .append_data(&mut header, file_name(version), text)
            .and_then(|()| archive.into_inner());
        let archive = archive.map_err(|error| {
            Error::Engine(DockerError::Request {
                doing: format!("pack the settings {version}"),
                message: error.to_string(),
            })
        })?;
        let options = UploadToContainerOptionsBuilder::default().path(FOLDER);
        let archive = bollard::body_full(Bytes::from(archive));
        let docker = &self.engine.docker;
        let uploaded = docker.upload_to_container(container, Some(options.build()), archive);
        uploaded.await.map_err(
            self.engine
                .failed(format!("write to the volume `{}`", self.name())),
        )?;
        Ok(true)
    }

    async fn read_file(&self, container: &str, version: &str) -> Result<Option<Vec<u8>>, Error> {
        let doing = format!("read the volume `{}`", self.name());
        let path = format!("{FOLDER}/{}", file_name(version));
        let options = DownloadFromContainerOptionsBuilder::default().path(&path);
        let docker = &self.engine.docker;
        let mut pieces = Box::pin(docker.download_from_container(container, Some(options.build())));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => archive.extend_from_slice(&piece),
                Err(error) if is_missing(&error) => return Ok(None),
                Err(error) => return Err(self.engine.failed(doing)(error)),
            }
        }
        let mut text = Vec::new();
        let mut archive = tar::Archive::new(archive.as_slice());
        let read = archive.entries().and_then(|mut entries| {
            entries
                .next()
                .transpose()?
                .map(|mut entry| entry.read_to_end(&mut text))
                .transpose()
        });
        read.map_err(|error| {
            Error::Engine(DockerError::Request {
                doing,
                message: error.to_string(),
            })
        })?;
        Ok(Some(text))
    }

    /// A container with the volume.
    async fn open(&self) -> Result<String, Error> {
        let volume = self.name();
        let labels = self.owner.map();
        self.engine.volume(&volume, self.owner, labels).await?;
        let now = Timestamp::now().as_nanosecond();
        let name = format!("{}-{}-{now}", self.name(), std::process::id());
        let mount = Mount {
            target: Some(FOLDER.into()),
            source: Some(self.name()),
            typ: Some(MountType::VOLUME),
            ..Mount::default()
        };
        let mut labels = self.owner.map();
        let process = format!("{} {}", machine(), std::process::id());
        labels.insert(OPENED_BY.to_owned(), process);
        let body = ContainerCreateBody {
            image: Some(self.engine.empty_image().await?.to_owned()),
            cmd: Some(vec!["settings".into()]),
            labels: Some(labels),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        if self.engine.create(&name, body).await? {
            Ok(name)
        } else {
            Err(Error::ForeignContainer { name })
        }
    }
}

/// Identifies this machine, to recognize its processes: the boot id, and the
/// namespace of process ids. Empty if they cannot be read.
fn machine() -> String {
    let started = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    match (started, namespace) {
        (Ok(started), Ok(namespace)) => format!("{} {}", started.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// Whether a process of this machine has ended. False for a process of another machine.
fn has_ended(process: &str) -> bool {
    let Some((place, id)) = process.rsplit_once(' ') else {
        return false;
    };
    let id = id.parse().ok().and_then(Pid::from_raw);
    let is_here = !place.is_empty() && place == machine();
    is_here && id.is_some_and(|id| test_kill_process(id) == Err(Errno::SRCH))
}

/// The name of a version's file. A version is the id of a record; other characters are replaced, so that
/// no version leads out of the volume.
fn file_name(version: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = version.chars().map(allowed).collect();
    format!("{name}.json")
}
