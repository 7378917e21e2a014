//! Images without a daemon: a Dockerfile that runs nothing is carried out here, its layers are
//! packed apart, and what the registry lacks of them is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::{ContextFiles, context_files};
use super::layers::{Part, split};
use super::{Builder, Image, Order};
use crate::event::Unit;
use crate::pipeline::base::{Base, BaseImage};
use crate::pipeline::destination::Destination;
use crate::pipeline::failure::StageError;
use crate::plan::{ImagePlan, Maker};
use crate::registry;
use oci::dockerfile::{Context, History};
use oci::{self, Blobs, Descriptor, Digest, Entry, Layer, Manifest, layer_type, pack};

/// Layers of one image that are sent at the same time.
const AT_ONCE: usize = 3;

/// The time of what does not change with a commit, in seconds: a framework that was packed for
/// an earlier commit is the same layer for this one. (1980, since some tools take no earlier.)
const TIMELESS: i64 = 315_532_800;

/// Makes images itself.
pub struct OciBuilder {
    /// Where layers are packed and kept.
    folder: PathBuf,
    blobs: Blobs,
    /// One image is packed at a time, by all cores; so what the next has in common with it is
    /// there already.
    packing: tokio::sync::Mutex<()>,
    bases: BTreeMap<String, Arc<Base>>,
    destination: Option<Arc<Destination>>,
}

/// An image that this program has made.
#[derive(Clone)]
pub struct OciImage {
    /// The manifest, as it is sent.
    bytes: Vec<u8>,
    /// Its name by content.
    manifest: Descriptor,
    /// The config, as it is sent.
    config: Vec<u8>,
    /// What it is made from.
    base: Arc<Base>,
    /// Its own layers.
    layers: Vec<Descriptor>,
}

impl std::fmt::Debug for OciImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.manifest.digest)
    }
}

impl OciBuilder {
    /// Keeps layers in `folder`.
    pub fn new(
        (folder, blobs): (PathBuf, Blobs),
        bases: BTreeMap<String, Arc<Base>>,
        destination: Option<Arc<Destination>>,
    ) -> Self {
        Self {
            folder,
            blobs,
            packing: tokio::sync::Mutex::new(()),
            bases,
            destination,
        }
    }

    async fn one(&self, order: Order<'_>) -> Result<Image, StageError> {
        let Order {
            artifact, image, ..
        } = order;
        let Maker::Oci(recipe) = &image.maker else {
            unreachable!("the preflight chooses the builder by the plan");
        };
        let base = image.base_keys().find_map(|key| self.bases.get(&key));
        let base = Arc::clone(base.expect("resolved before the first stage"));
        let of_base = base.image.as_ref().expect("others go to the engine");
        let alone = self.packing.lock().await;
        let tree = of_base
            .tree(&self.folder.join("bases"), &self.blobs)
            .await?;
        let ContextFiles { files, ignored } = context_files(&artifact.workdir, &image.dockerfile)?;
        let context = Context::new(&artifact.workdir, files, ignored.as_deref())?;
        let applied = recipe.apply(&of_base.config, &tree, &context)?;

        let (blobs, kind, modified) = (self.blobs.clone(), image.kind, image.modified);
        let entries = applied.entries;
        let packing = move || layers(&entries, kind, modified, &blobs);
        let packed = tokio::task::spawn_blocking(packing).await;
        let packed =
            packed.unwrap_or_else(|crashed| std::panic::resume_unwind(crashed.into_panic()))?;
        drop(alone);

        let steps = Steps {
            config: applied.config,
            history: applied.history,
        };
        let config = steps.config_of(of_base, image, order.labels, &packed);
        let config = serde_json::to_vec(&config).unwrap_or_default();
        let own: Vec<Descriptor> = packed
            .into_iter()
            .map(|(_, layer)| layer.descriptor)
            .collect();
        let of_base =
            of_base.manifest.layers.iter().map(|layer| {
                Descriptor::new(layer_type(&layer.media_type), layer.digest, layer.size)
            });
        let mut manifest = Manifest::new(
            Descriptor::of(oci::CONFIG, &config),
            of_base.chain(own.iter().cloned()).collect(),
        );
        // What layouts and registries show of an image without opening it.
        manifest.annotations.clone_from(order.labels);
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        let mut descriptor = Descriptor::of(oci::MANIFEST, &bytes);
        descriptor.annotations.clone_from(order.labels);
        descriptor.platform = Some(image.platform.clone());
        Ok(Image {
            unit: artifact.unit.clone(),
            reference: order.reference.clone(),
            size: manifest.size(),
            made: Some(OciImage {
                bytes,
                manifest: descriptor,
                config,
                base,
                layers: own,
            }),
        })
    }

    /// Everything but the name.
    async fn send(&self, image: &Image) -> Result<Digest, StageError> {
        let (made, destination) = self.made(image);
        let reference = &image.reference;
        let of_base = made.base.image.as_ref().expect("it was made of it");
        let from = destination
            .host()
            .and_then(|host| of_base.repository_at(host));
        let base = of_base.manifest.layers.iter().map(|layer| (layer, true));
        let layers = base.chain(made.layers.iter().map(|layer| (layer, false)));
        futures_util::stream::iter(layers.map(Ok::<_, StageError>))
            .try_for_each_concurrent(AT_ONCE, async |(layer, is_base)| {
                let holding = if is_base {
                    of_base.holding(layer, &self.blobs).await?
                } else {
                    self.blobs.clone()
                };
                let from = from.filter(|_| is_base);
                let put = destination
                    .put_layer(reference, layer, &holding, from)
                    .await;
                if put.as_ref().is_err_and(is_damaged) && holding.folder() == self.blobs.folder() {
                    // The next run makes or brings it anew.
                    self.blobs.remove(&layer.digest)?;
                }
                put
            })
            .await?;
        destination
            .put_bytes(reference, oci::CONFIG, &made.config)
            .await?;
        let manifest = destination.put_manifest(reference, &made.bytes).await?;
        Ok(manifest.digest)
    }

    fn made<'a>(&'a self, image: &'a Image) -> (&'a OciImage, &'a Destination) {
        let made = image.made.as_ref().expect("this builder has made it");
        let destination = self.destination.as_ref().expect("the run pushes");
        (made, destination)
    }
}

impl Builder for OciBuilder {
    fn build<'a>(&'a self, order: Order<'a>) -> LocalBoxFuture<'a, Result<Image, StageError>> {
        self.one(order).boxed_local()
    }

    fn push<'a>(
        &'a self,
        _unit: &'a Unit,
        image: &'a Image,
    ) -> LocalBoxFuture<'a, Result<Digest, StageError>> {
        self.send(image).boxed_local()
    }

    fn tag<'a>(
        &'a self,
        image: &'a Image,
        _digest: Digest,
    ) -> LocalBoxFuture<'a, Result<(), StageError>> {
        let (made, destination) = self.made(image);
        destination
            .name(&image.reference, &made.manifest, &made.bytes)
            .boxed_local()
    }
}

/// Whether a blob is not what its digest says.
fn is_damaged(error: &StageError) -> bool {
    matches!(
        error,
        StageError::Oci(oci::Error::Damaged { .. })
            | StageError::Registry(registry::Error::Client(
                oci_distribution::Error::Changed { .. }
            ))
    )
}

/// Packs the entries, apart by how often they change.
fn layers(
    entries: &[Entry],
    kind: crate::store::AppKind,
    modified: i64,
    blobs: &Blobs,
) -> Result<Vec<(Part, Layer)>, StageError> {
    let mut packed = Vec::new();
    for (part, entries) in split(entries, kind) {
        // Servers tell browsers by it whether a file is another one than before.
        let time = if part == Part::App {
            modified
        } else {
            TIMELESS
        };
        packed.push((part, pack(&entries, time, blobs)?));
    }
    Ok(packed)
}

/// What a Dockerfile's steps have come to.
struct Steps {
    config: Value,
    history: Vec<History>,
}

impl Steps {
    /// The image's config: the base's, changed by the steps, with its layers and ours.
    fn config_of(
        self,
        base: &BaseImage,
        image: &ImagePlan,
        labels: &BTreeMap<String, String>,
        packed: &[(Part, Layer)],
    ) -> Value {
        let mut config = self.config;
        let created = Timestamp::from_second(image.modified)
            .unwrap_or_default()
            .to_string();
        config["created"] = json!(created);
        // Of the container in which an engine has built the base; none was there for this one.
        if let Some(config) = config.as_object_mut() {
            for stale in ["container", "container_config", "docker_version"] {
                config.shift_remove(stale);
            }
        }
        for (name, value) in labels {
            config["config"]["Labels"][name] = json!(value);
        }
        let mut ids = base.config["rootfs"]["diff_ids"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ids.extend(packed.iter().map(|(_, layer)| json!(layer.diff_id)));
        config["rootfs"] = json!({ "type": "layers", "diff_ids": ids });
        let mut history = base.config["history"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        history.extend(
            self.history
                .iter()
                .map(|step| json!({ "created": created, "created_by": step.created_by, "empty_layer": true })),
        );
        history.extend(packed.iter().map(|(part, _)| {
            let what = match part {
                Part::Framework => "the framework",
                Part::Dependencies => "other dependencies",
                Part::App => "the app",
            };
            json!({ "created": created, "created_by": format!("alokai: {what}") })
        }));
        config["history"] = json!(history);
        config
    }
}
