//! Base images: what a Dockerfile's `FROM` names, resolved to a digest once a run. Their layers
//! are mounted or copied, and read for users and folders, but never unpacked.

use std::path::Path;
use std::sync::Arc;

use miette::Diagnostic;
use serde_json::{Value, json};

use super::context::Context;
use super::docker::Error as DockerError;
use super::failure::StageError;
use super::stored;
use crate::plan::SCRATCH;
use oci::{
    self, BaseLayer, BaseTree, Blobs, Descriptor, Digest, ImageName, Layout, Manifest, Platform,
};
use oci_distribution::Client;

/// What an address of a folder begins with.
const LAYOUT: &str = "oci:";

/// A base image that nobody has.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the base image `{name}` cannot be had: {own}{}", engine.as_ref().map(|error| format!("; nor from Docker: {error}")).unwrap_or_default())]
#[diagnostic(
    code(alokai::base::missing),
    help(
        "check `image.base` in `alokai.config.json` or the app's Dockerfile, and the network{}",
        without_network(name)
    )
)]
pub struct Missing {
    /// As the Dockerfile has it.
    pub name: String,
    /// Why it cannot be had without an engine.
    pub own: Box<StageError>,
    /// Why the engine does not give it, if it was asked.
    pub engine: Option<Box<DockerError>>,
}

/// How to have an image where there is no network.
fn without_network(name: &str) -> String {
    if name.starts_with(LAYOUT) {
        return String::new();
    }
    format!(
        "; where there is none, take one along: `skopeo copy docker://{name} oci:base-image:base`, and `\"image\": {{ \"base\": \"oci:base-image:base\" }}`"
    )
}

/// What a base's name stands for in this run.
pub struct Base {
    /// As the Dockerfile has it.
    pub name: String,
    /// The digest that it stands for.
    pub digest: Digest,
    /// The image; none where only the engine has it.
    pub image: Option<BaseImage>,
}

/// A base image that can be read without an engine.
pub struct BaseImage {
    /// What it consists of.
    pub manifest: Manifest,
    /// Its config, with what no specification knows.
    pub config: Value,
    origin: Origin,
}

enum Origin {
    Registry { client: Client, repository: String },
    Layout(Layout),
    Scratch,
}

/// Where bases are looked for.
pub struct Sources<'a> {
    /// The project: folders are relative to it.
    pub project: &'a Path,
    /// The layout that images go to, if they go to one: what has a base's name in it is that
    /// base.
    pub layout: Option<&'a Path>,
    /// The run's.
    pub context: &'a Context,
}

impl Sources<'_> {
    /// Resolves a name.
    pub async fn find(&self, name: &str, platform: &Platform) -> Result<Base, StageError> {
        if name == SCRATCH {
            return Ok(scratch(platform));
        }
        if let Some(rest) = name.strip_prefix(LAYOUT) {
            let (folder, image) = match rest.split_once(':') {
                Some((folder, image)) => (folder, Some(image)),
                None => (rest, None),
            };
            let layout = Layout::open(self.project.join(folder))?;
            let found = match image {
                Some(image) => layout.find(image)?.ok_or_else(|| missing(name, &layout))?,
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

    async fn of_registry(&self, name: &str, platform: &Platform) -> Result<Base, StageError> {
        let image = ImageName::parse(name).map_err(|reason| oci::Error::Document {
            what: name.to_owned(),
            kind: "name of an image",
            reason,
        })?;
        let client = self.context.client(&image.registry).await?;
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
        let image = BaseImage {
            manifest,
            config,
            origin: Origin::Registry { client, repository },
        };
        Ok(Base {
            name: name.to_owned(),
            digest,
            image: Some(image),
        })
    }
}

fn of_layout(
    name: &str,
    layout: Layout,
    found: &Descriptor,
    platform: &Platform,
) -> Result<Base, StageError> {
    let (_, manifest) = oci::resolve(found, platform, |blob| layout.blobs().read(blob))?;
    let config = layout.blobs().read(&manifest.config)?;
    let image = BaseImage {
        config: parse(&manifest.config, &config)?,
        manifest,
        origin: Origin::Layout(layout),
    };
    Ok(Base {
        name: name.to_owned(),
        digest: found.digest,
        image: Some(image),
    })
}

/// A layout that has no image of that name.
fn missing(name: &str, layout: &Layout) -> oci::Error {
    oci::Error::Layout {
        folder: layout.folder().to_owned(),
        reason: format!("it has no image that `{name}` names"),
        help: format!(
            "`skopeo copy docker://<image> oci:{}:<name>` puts one there",
            layout.folder().display()
        ),
    }
}

fn parse(config: &Descriptor, bytes: &[u8]) -> Result<Value, oci::Error> {
    serde_json::from_slice(bytes).map_err(|error| oci::Error::Document {
        what: config.digest.to_string(),
        kind: "image config",
        reason: error.to_string(),
    })
}

/// What `FROM scratch` begins with: nothing.
fn scratch(platform: &Platform) -> Base {
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [],
    });
    let bytes = config.to_string();
    let manifest = Manifest::new(Descriptor::of(oci::CONFIG, bytes.as_bytes()), Vec::new());
    Base {
        name: SCRATCH.into(),
        digest: Digest::of(bytes.as_bytes()),
        image: Some(BaseImage {
            manifest,
            config,
            origin: Origin::Scratch,
        }),
    }
}

impl Base {
    /// Whether it wants something done in every image that is made from it.
    pub fn has_triggers(&self) -> bool {
        let image = self.image.as_ref();
        let triggers = image.and_then(|image| image.config["config"]["OnBuild"].as_array());
        triggers.is_some_and(|triggers| !triggers.is_empty())
    }
}

impl BaseImage {
    /// Its repository, if it comes from that registry.
    pub fn repository_at(&self, host: &str) -> Option<&str> {
        match &self.origin {
            Origin::Registry { client, repository } if client.host() == host => Some(repository),
            _ => None,
        }
    }

    /// The blobs on this machine that hold a layer; it is brought to `own` if it is elsewhere.
    pub async fn holding(&self, layer: &Descriptor, own: &Blobs) -> Result<Blobs, StageError> {
        match &self.origin {
            Origin::Layout(layout) => return Ok(layout.blobs().clone()),
            Origin::Registry { client, repository } if !own.holds(layer) => {
                let fresh = own.temporary()?;
                client.download(repository, layer, fresh.path()).await?;
                own.take(fresh, layer)?;
            }
            _ => {}
        }
        Ok(own.clone())
    }

    /// Its users and folders. They are read once for each image, and remembered in `folder`.
    pub async fn tree(&self, folder: &Path, blobs: &Blobs) -> Result<Arc<BaseTree>, StageError> {
        // The config names the content of every layer.
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
                reason: "its `rootfs.diff_ids` are not as many as the image has layers".into(),
            }));
        }
        let mut layers = Vec::new();
        for (layer, diff_id) in self.manifest.layers.iter().zip(ids) {
            layers.push((layer.clone(), diff_id, self.holding(layer, blobs).await?));
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
