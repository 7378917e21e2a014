//! A build that comes as a tar. Everything is unpacked and checked before anything is copied to its
//! destination.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::super::logs::LogFolder;
use super::super::page;
use super::super::record::{BuildRecord, BuildStatus, Record, SCHEMA_VERSION};
use super::{BuildTransferError, ImagePlace, StoredImage};
use crate::store::AppName;
use oci::{Descriptor, Layout, Manifest, is_manifest};

/// The unpacked and checked files of a build.
#[derive(Debug)]
pub struct ImportedBuildFiles {
    /// The record that came with it.
    pub build: BuildRecord,
    layout: Layout,
    images: BTreeMap<AppName, (Descriptor, Manifest)>,
    log: Option<Descriptor>,
}

/// The name of an image at its destination, and where that is.
pub struct ImportName {
    /// Its name.
    pub name: StoredImage,
    /// Its app.
    pub app: AppName,
}

fn invalid(reason: impl std::fmt::Display) -> BuildTransferError {
    BuildTransferError::Archive {
        reason: reason.to_string(),
    }
}

impl ImportedBuildFiles {
    /// Unpacks a tar into an empty folder, and checks that it is one whole build.
    pub fn read(tar: impl BufRead, folder: &Path) -> Result<Self, BuildTransferError> {
        Self::unpacked(tar, folder).map_err(|error| in_archive(error, folder))
    }

    fn unpacked(tar: impl BufRead, folder: &Path) -> Result<Self, BuildTransferError> {
        let layout = oci::unpack_layout(tar, folder)?;
        let index = layout.index()?;
        let is_record = |it: &&Descriptor| it.artifact_type.as_deref() == Some(page::RECORDS);
        let (records, images): (Vec<_>, Vec<_>) = index.images().partition(is_record);
        let [record] = records[..] else {
            return Err(invalid(format!("it has {} records", records.len())));
        };
        let record = manifest(&layout, record)?;
        let build = build_of(&layout, &record)?;
        check_log(&layout, &build, record.layers.first())?;
        let mut listed = BTreeMap::new();
        for image in images {
            listed.insert(
                image.digest.to_string(),
                (image.clone(), manifest(&layout, image)?),
            );
        }
        let mut found = BTreeMap::new();
        for (app, built) in &build.apps {
            let digest = built.digest.as_deref().unwrap_or_default();
            let image = listed.get(digest).cloned();
            let image = image.ok_or_else(|| invalid(format!("it has no image for `{app}`")))?;
            found.insert(app.clone(), image);
        }
        let is_recorded = |digest: &String| {
            let mut apps = build.apps.values();
            apps.any(|app| app.digest.as_ref() == Some(digest))
        };
        if let Some(other) = listed.keys().find(|digest| !is_recorded(digest)) {
            return Err(invalid(format!(
                "its record does not name the image `{other}`"
            )));
        }
        let log = record.layers.first().cloned();
        Ok(Self {
            build,
            layout,
            images: found,
            log,
        })
    }

    /// The apps, each with the digest of its image.
    pub fn apps(&self) -> impl Iterator<Item = (&AppName, String)> {
        let images = self.images.iter();
        images.map(|(app, (image, _))| (app, image.digest.to_string()))
    }

    /// Whether one of these names belongs to another image already.
    pub async fn is_taken(
        &self,
        place: &ImagePlace,
        names: impl Iterator<Item = &ImportName>,
    ) -> Result<bool, BuildTransferError> {
        for ImportName { name, app } in names {
            let own = self.images.get(app).map(|(image, _)| image.digest);
            let tagged = place.tagged(name).await?;
            if tagged.is_some() && tagged != own {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies the images to their destination: all blobs first, and the names last.
    pub async fn put(
        &self,
        place: &ImagePlace,
        names: &[&ImportName],
    ) -> Result<(), BuildTransferError> {
        for ImportName { name, app } in names {
            if let Some((_, manifest)) = self.images.get(app) {
                let blobs = self.layout.blobs();
                place.put_blobs(&name.repository, manifest, blobs).await?;
            }
        }
        for ImportName { name, app } in names {
            if let Some((image, _)) = self.images.get(app) {
                place.put_manifest(name, image, self.layout.blobs()).await?;
            }
        }
        Ok(())
    }

    /// Copies the output of the build. False if the archive does not have it.
    pub fn put_log(&self, logs: &LogFolder) -> Result<bool, BuildTransferError> {
        let (Some(blob), Some(log)) = (&self.log, &self.build.log) else {
            return Ok(false);
        };
        let compressed = self.layout.blobs().read(blob)?;
        let inserted = logs.insert(log, &compressed);
        inserted.map_err(|error| invalid(format!("its output is not valid: {error}")))?;
        Ok(true)
    }
}

/// Names the entry of the archive instead of the temporary file with its content.
fn in_archive(error: BuildTransferError, folder: &Path) -> BuildTransferError {
    let BuildTransferError::Files { source, .. } = &error else {
        return error;
    };
    let (text, folder) = (source.to_string(), folder.display().to_string());
    // What cannot be written is a fault of this machine.
    if matches!(**source, oci::Error::Io { .. }) || !text.contains(&folder) {
        return error;
    }
    let text = text.replace(&format!("{folder}/"), "");
    invalid(text.replace(&format!("`{folder}`"), "the archive"))
}

fn check_log(
    layout: &Layout,
    build: &BuildRecord,
    blob: Option<&Descriptor>,
) -> Result<(), BuildTransferError> {
    let (Some(log), Some(blob)) = (&build.log, blob) else {
        return Ok(());
    };
    let compressed = layout.blobs().read(blob)?;
    let checked = LogFolder::check(log, &compressed);
    checked.map_err(|reason| invalid(format!("its output is not valid: {reason}")))
}

/// A manifest whose blobs are all in the layout.
fn manifest(layout: &Layout, image: &Descriptor) -> Result<Manifest, BuildTransferError> {
    if !is_manifest(&image.media_type) {
        let media_type = image.media_type.escape_debug();
        return Err(invalid(format!(
            "`{}` has the media type `{media_type}`",
            image.digest
        )));
    }
    let bytes = layout.blobs().read(image)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
        invalid(format!(
            "the manifest `{}` is not valid: {error}",
            image.digest
        ))
    })?;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        // Its digest was checked when it was unpacked.
        layout.blobs().open(blob)?;
    }
    Ok(manifest)
}

fn build_of(layout: &Layout, manifest: &Manifest) -> Result<BuildRecord, BuildTransferError> {
    let bytes = layout.blobs().read(&manifest.config)?;
    let lines = page::unpack(&bytes);
    let lines =
        lines.map_err(|error| invalid(format!("its record cannot be decompressed: {error}")))?;
    let mut content = page::records_of(&lines);
    if let Some(reason) = content.invalid.pop() {
        return Err(invalid(reason));
    }
    match (content.records.pop(), content.records.is_empty()) {
        (Some(record), true) => match record.record {
            Record::Build(build) if build.schema_version != SCHEMA_VERSION => {
                Err(invalid(format!(
                    "its record has the schema version {}, which is not supported",
                    build.schema_version
                )))
            }
            Record::Build(build) if build.status == BuildStatus::Complete => Ok(build),
            Record::Build(build) => Err(BuildTransferError::NoImages { id: build.id }),
            other => Err(invalid(format!("{} is not a build", other.id()))),
        },
        _ => Err(invalid("it does not have exactly one record")),
    }
}
