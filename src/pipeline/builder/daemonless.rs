//! The daemonless builder: this program applies a Dockerfile that runs no command, packs the
//! layers, and uploads those that the destination does not have.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::{ContextFiles, context_files};
use super::layers::{LayerPart, split};
use super::{BuiltContent, Image, ImageOrder, PreparedImage};
use crate::pipeline::base::{ReadableBase, check_shell};
use crate::pipeline::destination::Destination;
use crate::pipeline::failure::StageError;
use crate::plan::DestinationReference;
use crate::store::AppKind;
use oci::dockerfile::{BuildContext, HistoryEntry, ParsedDockerfile};
use oci::{self, Blobs, Descriptor, Digest, Manifest, PackedLayer, TreeEntry, layer_type, pack};
use oci_distribution;

/// The number of layers of one image that are uploaded at the same time.
const AT_ONCE: usize = 3;

/// The modification time, in seconds, of files that do not change with a commit. With it, a
/// framework that was packed for an earlier commit is the same layer for this one. (1980, since
/// some tools do not accept earlier times.)
const TIMELESS: i64 = 315_532_800;

/// Builds images without an engine.
pub struct DaemonlessBuilder {
    /// The folder for packed layers and what is known of base images.
    folder: PathBuf,
    blobs: Blobs,
    /// One image is packed at a time, on all cores. So the next image finds the layers that the
    /// two have in common.
    packing: tokio::sync::Mutex<()>,
}

/// An image that this program has built.
pub struct AssembledImage {
    /// The manifest as it is uploaded.
    bytes: Vec<u8>,
    manifest: Descriptor,
    /// The config as it is uploaded.
    config: Vec<u8>,
    base: Arc<ReadableBase>,
    /// The layers on top of those of the base.
    layers: Vec<Descriptor>,
    /// The blobs of this machine, with these layers.
    blobs: Blobs,
}

impl DaemonlessBuilder {
    /// A builder that keeps layers in `folder`.
    pub fn new((folder, blobs): (PathBuf, Blobs)) -> Self {
        Self {
            folder,
            blobs,
            packing: tokio::sync::Mutex::new(()),
        }
    }

    /// Builds an image by the recipe of its Dockerfile.
    pub async fn build(
        &self,
        order: ImageOrder<'_>,
        recipe: &ParsedDockerfile,
        base: &Arc<ReadableBase>,
    ) -> Result<Image, StageError> {
        let workdir = &order.artifact.workdir;
        let plan = &order.image.plan;
        let packing = self.packing.lock().await;
        let tree = base.tree(&self.folder.join("bases"), &self.blobs).await?;
        check_shell(plan, base, &tree)?;
        let ContextFiles { files, ignored } = context_files(workdir, &plan.dockerfile)?;
        let context = BuildContext::new(workdir, files, ignored.as_deref())?;
        let applied = recipe.apply(&base.config, &tree, &context)?;

        let (blobs, kind, modified) = (self.blobs.clone(), plan.kind, plan.modified);
        let entries = applied.entries;
        let pack = move || pack_layers(&entries, kind, modified, &blobs);
        let packed = tokio::task::spawn_blocking(pack).await;
        let packed =
            packed.unwrap_or_else(|crashed| std::panic::resume_unwind(crashed.into_panic()))?;
        drop(packing);

        let config = config(applied.config, &applied.history, base, order.image, &packed);
        let config = serde_json::to_vec(&config).unwrap_or_default();
        let layers = packed.into_iter().map(|(_, layer)| layer.descriptor);
        let layers: Vec<Descriptor> = layers.collect();
        let manifest = manifest(order.image, base, &config, &layers);
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        let mut descriptor = Descriptor::of(oci::MANIFEST, &bytes);
        descriptor.annotations.clone_from(&order.image.labels);
        descriptor.platform = Some(plan.platform.clone());
        Ok(Image {
            prepared: Arc::clone(order.image),
            size: manifest.size(),
            content: BuiltContent::Assembled(Box::new(AssembledImage {
                bytes,
                manifest: descriptor,
                config,
                base: Arc::clone(base),
                layers,
                blobs: self.blobs.clone(),
            })),
        })
    }
}

impl AssembledImage {
    /// Uploads layers, config and manifest, but no tag.
    pub async fn push(
        &self,
        reference: &DestinationReference,
        destination: &Destination,
    ) -> Result<Digest, StageError> {
        let mount_from = destination
            .host()
            .and_then(|host| self.base.repository_at(host));
        let of_base = self.base.manifest.layers.iter().map(|layer| (layer, true));
        let own = self.layers.iter().map(|layer| (layer, false));
        futures_util::stream::iter(of_base.chain(own).map(Ok::<_, StageError>))
            .try_for_each_concurrent(AT_ONCE, async |(layer, is_base)| {
                let blobs = if is_base {
                    self.base.blobs_with(layer, &self.blobs).await?
                } else {
                    self.blobs.clone()
                };
                let mount_from = mount_from.filter(|_| is_base);
                let put = destination
                    .put_layer(reference, layer, &blobs, mount_from)
                    .await;
                if put.as_ref().is_err_and(is_damaged) && blobs.folder() == self.blobs.folder() {
                    // The next run packs or downloads it again.
                    self.blobs.remove(&layer.digest)?;
                }
                put
            })
            .await?;
        destination
            .put_bytes(reference, oci::CONFIG, &self.config)
            .await?;
        let manifest = destination.put_manifest(reference, &self.bytes).await?;
        Ok(manifest.digest)
    }

    /// Tags the manifest.
    pub async fn tag(
        &self,
        reference: &DestinationReference,
        destination: &Destination,
    ) -> Result<(), StageError> {
        destination
            .tag(reference, &self.manifest, &self.bytes)
            .await
    }
}

/// Whether the content of a blob does not match its digest.
fn is_damaged(error: &StageError) -> bool {
    matches!(
        error,
        StageError::Oci(oci::Error::DigestMismatch { .. })
            | StageError::Registry(crate::registry::Error::Client(
                oci_distribution::Error::Changed { .. }
            ))
    )
}

/// Packs the entries into layers, by how often they change.
fn pack_layers(
    entries: &[TreeEntry],
    kind: AppKind,
    modified: i64,
    blobs: &Blobs,
) -> Result<Vec<(LayerPart, PackedLayer)>, StageError> {
    let mut packed = Vec::new();
    for (part, entries) in split(entries, kind) {
        // Servers derive cache headers from the modification times of the app's files.
        let time = if part == LayerPart::App {
            modified
        } else {
            TIMELESS
        };
        packed.push((part, pack(&entries, time, blobs)?));
    }
    Ok(packed)
}

/// The manifest: the layers of the base and those of the image.
fn manifest(
    image: &PreparedImage,
    base: &ReadableBase,
    config: &[u8],
    layers: &[Descriptor],
) -> Manifest {
    let of_base = base
        .manifest
        .layers
        .iter()
        .map(|layer| Descriptor::new(layer_type(&layer.media_type), layer.digest, layer.size));
    let mut manifest = Manifest::new(
        Descriptor::of(oci::CONFIG, config),
        of_base.chain(layers.iter().cloned()).collect(),
    );
    // Layouts and registries show annotations without reading the config.
    manifest.annotations.clone_from(&image.labels);
    manifest
}

/// The config: that of the base as the Dockerfile's instructions have changed it, with labels,
/// layers and history.
fn config(
    mut config: Value,
    instructions: &[HistoryEntry],
    base: &ReadableBase,
    image: &PreparedImage,
    packed: &[(LayerPart, PackedLayer)],
) -> Value {
    let created = Timestamp::from_second(image.plan.modified)
        .unwrap_or_default()
        .to_string();
    config["created"] = json!(created);
    // They describe the container in which an engine built the base image.
    if let Some(config) = config.as_object_mut() {
        for stale in ["container", "container_config", "docker_version"] {
            config.shift_remove(stale);
        }
    }
    for (name, value) in &image.labels {
        config["config"]["Labels"][name] = json!(value);
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut ids = list(&base.config["rootfs"]["diff_ids"]);
    ids.extend(packed.iter().map(|(_, layer)| json!(layer.diff_id)));
    config["rootfs"] = json!({ "type": "layers", "diff_ids": ids });
    let mut history = list(&base.config["history"]);
    history.extend(instructions.iter().map(|step| {
        let created_by = format!("{} # alokai", step.created_by);
        json!({ "created": created, "created_by": created_by, "empty_layer": true })
    }));
    history.extend(packed.iter().map(|(part, _)| {
        let what = match part {
            LayerPart::Framework => "the framework",
            LayerPart::Dependencies => "other dependencies",
            LayerPart::App => "the app",
        };
        json!({ "created": created, "created_by": format!("alokai: {what}") })
    }));
    config["history"] = json!(history);
    config
}
