//! Base images: the images that `FROM` names. Each is resolved to a digest once a run. Layers of a
//! base image are mounted or copied, and scanned for users and folders, but never unpacked.

use std::path::Path;
use std::sync::Arc;

use miette::Diagnostic;
use serde_json::{Value, json};

use super::docker::Error as DockerError;
use super::failure::StageError;
use super::services::Services;
use super::stored;
use crate::plan::{ImagePlan, SCRATCH};
use crate::store::UnitId;
use oci::{
    self, BaseLayer, BaseTree, Blobs, Descriptor, Digest, ImageReference, LAYOUT_PREFIX, Layout,
    Manifest, Platform,
};
use oci_distribution::Client;

/// A base image that cannot be resolved.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the base image `{name}` cannot be resolved: {own}{}", engine.as_ref().map(|error| format!("; Docker does not have it either: {error}")).unwrap_or_default())]
#[diagnostic(
    code(alokai::base::missing),
    help(
        "check `image.base` in `alokai.config.json`, the app's Dockerfile and the network{}",
        without_network(name)
    )
)]
pub struct BaseUnavailable {
    /// The name in the Dockerfile.
    pub name: String,
    /// Why it cannot be resolved without an engine.
    pub own: Box<StageError>,
    /// Why the engine cannot resolve it, if the engine was asked.
    pub engine: Option<Box<DockerError>>,
}

/// A base image without a shell for an app with an entrypoint script.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{script}` of `{unit}` needs `/{SHELL}`, which the base image `{base}` does not have")]
#[diagnostic(
    code(alokai::base::no_shell),
    help(
        "use a base image with a shell, such as `node:22-alpine`, or leave the script out of the store with `ignorePaths`"
    )
)]
pub struct NoShell {
    /// The script.
    pub script: String,
    /// Store and app.
    pub unit: UnitId,
    /// The base image.
    pub base: String,
}

/// The shell that runs an entrypoint script.
const SHELL: &str = "bin/sh";

/// Checks that the base image of an image with an entrypoint script has a shell.
pub fn check_shell(image: &ImagePlan, base: &ReadableBase, tree: &BaseTree) -> Result<(), NoShell> {
    match &image.entrypoint {
        Some(script) if !tree.has_program(SHELL) => Err(NoShell {
            script: script.clone(),
            unit: image.unit.clone(),
            base: base.pinned.name.clone(),
        }),
        _ => Ok(()),
    }
}

/// How to use a base image without network access.
fn without_network(name: &str) -> String {
    if name.starts_with(LAYOUT_PREFIX) {
        return String::new();
    }
    format!(
        "; to build without a network, copy the image into a layout first: `skopeo copy docker://{name} oci:base-image:base`, and set `\"image\": {{ \"base\": \"oci:base-image:base\" }}`"
    )
}

/// The digest that a base image's name stands for in this run.
#[derive(Debug, Clone)]
pub struct PinnedBase {
    /// The name in the Dockerfile.
    pub name: String,
    /// The digest.
    pub digest: Digest,
}

/// A base image that can be read without an engine.
pub struct ReadableBase {
    /// Its name and digest.
    pub pinned: PinnedBase,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its config, with fields that the specification does not define.
    pub config: Value,
    origin: BaseOrigin,
}

enum BaseOrigin {
    Registry { client: Client, repository: String },
    Layout(Layout),
    Scratch,
}

/// The places in which base images are looked up.
pub struct BaseSources<'a> {
    /// The project. Folders of layouts are relative to it.
    pub project: &'a Path,
    /// The layout that is the destination of the run, if it is one. Its images are looked up first.
    pub layout: Option<&'a Path>,
    /// The clients for registries.
    pub services: &'a Services,
}

impl BaseSources<'_> {
    /// Resolves a name.
    pub async fn find(&self, name: &str, platform: &Platform) -> Result<ReadableBase, StageError> {
        if name == SCRATCH {
            return Ok(scratch(platform));
        }
        if let Some(rest) = name.strip_prefix(LAYOUT_PREFIX) {
            let (folder, image) = match rest.split_once(':') {
                Some((folder, image)) => (folder, Some(image)),
                None => (rest, None),
            };
            let layout = Layout::open(self.project.join(folder))?;
            let found = match image {
                Some(image) => layout
                    .find(image)?
                    .ok_or_else(|| not_in_layout(name, &layout))?,
                None => layout.only()?,
            };
            return of_layout(name, layout, &found, platform);
        }
        if let Some(folder) = self
            .layout
            .filter(|folder| folder.join("index.json").is_file())
        {
            let layout = Layout::open(folder)?;
            if let Some(found) = layout.find(name)? {
                return of_layout(name, layout, &found, platform);
            }
        }
        self.of_registry(name, platform).await
    }

    async fn of_registry(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<ReadableBase, StageError> {
        let image = ImageReference::parse(name).map_err(|reason| oci::Error::Document {
            what: name.to_owned(),
            kind: "image name",
            reason,
        })?;
        let client = self.services.client(&image.registry).await?;
        let not_found = || oci_distribution::Error::Unreadable {
            what: image.to_string(),
            login_host: None,
            account: client.account(),
            message: "the registry does not have it (404)".into(),
        };
        let repository = &image.repository;
        let found = client.manifest(repository, &image.reference()).await?;
        let found = found.ok_or_else(not_found)?;
        let digest = found.digest;
        let mut listed = Descriptor::new(&found.media_type, digest, found.bytes.len() as u64);
        let mut bytes = found.bytes;
        if oci::is_index(&listed.media_type) {
            let index = oci::index(&listed, &bytes)?;
            listed = oci::choose(name, &index, platform)?.clone();
            let chosen = client
                .manifest(repository, &listed.digest.to_string())
                .await?;
            bytes = chosen.ok_or_else(not_found)?.bytes;
        }
        let manifest = oci::manifest(&listed, &bytes)?;
        let config = client.blob(repository, &manifest.config).await?;
        oci::fits(&listed, &config, platform)?;
        let config = parse(&manifest.config, &config)?;
        let repository = repository.clone();
        Ok(ReadableBase {
            pinned: pinned(name, digest),
            manifest,
            config,
            origin: BaseOrigin::Registry { client, repository },
        })
    }
}

fn of_layout(
    name: &str,
    layout: Layout,
    found: &Descriptor,
    platform: &Platform,
) -> Result<ReadableBase, StageError> {
    let (_, manifest) = oci::resolve(found, platform, |blob| layout.blobs().read(blob))?;
    let config = layout.blobs().read(&manifest.config)?;
    Ok(ReadableBase {
        pinned: pinned(name, found.digest),
        config: parse(&manifest.config, &config)?,
        manifest,
        origin: BaseOrigin::Layout(layout),
    })
}

/// The error for a layout without an image of this name.
fn not_in_layout(name: &str, layout: &Layout) -> oci::Error {
    oci::Error::Layout {
        folder: layout.folder().to_owned(),
        reason: format!("it does not have the image `{name}`"),
        help: format!(
            "copy the image there: `skopeo copy docker://<image> oci:{}:<name>`",
            layout.folder().display()
        ),
    }
}

fn pinned(name: &str, digest: Digest) -> PinnedBase {
    PinnedBase {
        name: name.to_owned(),
        digest,
    }
}

fn parse(config: &Descriptor, bytes: &[u8]) -> Result<Value, oci::Error> {
    serde_json::from_slice(bytes).map_err(|error| oci::Error::Document {
        what: config.digest.to_string(),
        kind: "image config",
        reason: error.to_string(),
    })
}

/// The empty image of `FROM scratch`.
fn scratch(platform: &Platform) -> ReadableBase {
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [],
    });
    let bytes = config.to_string();
    let manifest = Manifest::new(Descriptor::of(oci::CONFIG, bytes.as_bytes()), Vec::new());
    ReadableBase {
        pinned: pinned(SCRATCH, Digest::of(bytes.as_bytes())),
        manifest,
        config,
        origin: BaseOrigin::Scratch,
    }
}

impl ReadableBase {
    /// Whether the image has `ONBUILD` instructions.
    pub fn has_triggers(&self) -> bool {
        let triggers = self.config["config"]["OnBuild"].as_array();
        triggers.is_some_and(|triggers| !triggers.is_empty())
    }

    /// Its repository, if it comes from that registry.
    pub fn repository_at(&self, host: &str) -> Option<&str> {
        match &self.origin {
            BaseOrigin::Registry { client, repository } if client.host() == host => {
                Some(repository)
            }
            _ => None,
        }
    }

    /// The blobs on this machine that contain a layer. It is downloaded to `own` if necessary.
    pub async fn blobs_with(&self, layer: &Descriptor, own: &Blobs) -> Result<Blobs, StageError> {
        match &self.origin {
            BaseOrigin::Layout(layout) => return Ok(layout.blobs().clone()),
            BaseOrigin::Registry { client, repository } if !own.holds(layer) => {
                let temporary = own.temporary()?;
                client.download(repository, layer, temporary.path()).await?;
                own.take(temporary, layer)?;
            }
            _ => {}
        }
        Ok(own.clone())
    }

    /// Its users and folders. They are read once for each image and saved in `folder`.
    pub async fn tree(&self, folder: &Path, blobs: &Blobs) -> Result<Arc<BaseTree>, StageError> {
        // The config has the digests of all layers, so its own digest identifies their content.
        let path = folder.join(format!("{}.json", self.manifest.config.digest.hex()));
        if let Some(tree) = stored::read(&path)? {
            return Ok(Arc::new(tree));
        }
        let ids = self.config["rootfs"]["diff_ids"].clone();
        let ids: Vec<Digest> = serde_json::from_value(ids).unwrap_or_default();
        if ids.len() != self.manifest.layers.len() {
            return Err(StageError::from(oci::Error::Document {
                what: self.manifest.config.digest.to_string(),
                kind: "image config",
                reason: "the number of its `rootfs.diff_ids` differs from the number of layers"
                    .into(),
            }));
        }
        let mut layers = Vec::new();
        for (layer, diff_id) in self.manifest.layers.iter().zip(ids) {
            layers.push((layer.clone(), diff_id, self.blobs_with(layer, blobs).await?));
        }
        let read = move || {
            BaseTree::read(layers.into_iter().map(|(descriptor, diff_id, blobs)| {
                let content = blobs.open(&descriptor)?;
                Ok(BaseLayer {
                    descriptor,
                    diff_id,
                    content,
                })
            }))
        };
        let tree = tokio::task::spawn_blocking(read).await;
        let tree =
            tree.unwrap_or_else(|crashed| std::panic::resume_unwind(crashed.into_panic()))?;
        stored::write(&path, &tree)?;
        Ok(Arc::new(tree))
    }
}
