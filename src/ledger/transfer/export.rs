//! A build as a tar: an image layout with its images, its record and its output. Blobs that several
//! images share are in it once.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::super::logs::LogFolder;
use super::super::page;
use super::super::record::BuildRecord;
use super::super::set::StoredRecord;
use super::{BuildTransferError, ImagePlace, StoredImage};
use oci::{Descriptor, Index, LayoutWriter, MANIFEST, Manifest, NAME};

/// An image of a build, and where it is.
pub struct ExportedImage {
    /// Its name.
    pub name: StoredImage,
    /// The digest of its manifest.
    pub digest: String,
    /// Where it is.
    pub place: ImagePlace,
}

/// A manifest with the place of its blobs.
struct FoundImage<'a> {
    image: &'a ExportedImage,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// Writes a build as a tar. `scratch` is a folder for temporary files.
pub async fn export(
    build: &BuildRecord,
    record: &StoredRecord,
    images: &[ExportedImage],
    logs: &LogFolder,
    scratch: &Path,
    output: impl Write,
) -> Result<(), BuildTransferError> {
    let mut found = Vec::new();
    for image in images {
        found.push(find(build, image).await?);
    }
    // A damaged log is as good as none.
    let log = build.log.as_ref();
    let log = log.and_then(|log| Some((log.clone(), logs.compressed(log).ok()??)));
    let records = page::pack([record].into_iter());
    let records = records.map_err(|error| BuildTransferError::Archive {
        reason: format!("its record cannot be compressed: {error}"),
    })?;
    let config = Descriptor::of(page::RECORDS, &records);
    let held: Vec<_> = log.iter().map(|(log, _)| log.clone()).collect();
    let page = page::manifest(config.clone(), &held);
    let page = serde_json::to_vec(&page).unwrap_or_default();
    let mut entry = Descriptor::of(MANIFEST, &page);
    entry.artifact_type = Some(page::RECORDS.to_owned());
    let record_entry = named(&entry, &format!("alokai.{}", build.id));
    let names = found.iter();
    let names = names.map(|it| named(&it.descriptor, &it.image.name.within()));
    let index = Index {
        manifests: names.chain([record_entry]).collect(),
        ..Index::default()
    };
    let mut tar = LayoutWriter::new(output, &index)?;
    tar.blob(&entry, &mut &*page)?;
    tar.blob(&config, &mut &*records)?;
    if let Some((log, compressed)) = &log
        && let Ok(digest) = log.digest.parse()
    {
        let blob = Descriptor::new(page::LOG, digest, log.size);
        tar.blob(&blob, &mut &**compressed)?;
    }
    let mut written = BTreeSet::new();
    for found in &found {
        if written.insert(found.descriptor.digest) {
            tar.blob(&found.descriptor, &mut &*found.bytes)?;
        }
    }
    for found in &found {
        let manifest = &found.manifest;
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            if written.insert(blob.digest) {
                let (place, name) = (&found.image.place, &found.image.name);
                let mut file = place.open_blob(&name.repository, blob, scratch).await?;
                tar.blob(blob, &mut file)?;
            }
        }
    }
    Ok(tar.end()?)
}

async fn find<'a>(
    build: &BuildRecord,
    image: &'a ExportedImage,
) -> Result<FoundImage<'a>, BuildTransferError> {
    let name = &image.name;
    let found = image.place.manifest(name, &image.digest).await?;
    let Some((descriptor, bytes)) = found else {
        return Err(BuildTransferError::Gone {
            id: build.id.clone(),
            reference: format!("{}/{}", name.place, name.within()),
        });
    };
    let manifest = serde_json::from_slice(&bytes).map_err(|error| BuildTransferError::Archive {
        reason: format!("the manifest of `{}` is not valid: {error}", name.within()),
    })?;
    Ok(FoundImage {
        image,
        descriptor,
        bytes,
        manifest,
    })
}

fn named(image: &Descriptor, name: &str) -> Descriptor {
    let mut image = image.clone();
    image.annotations.insert(NAME.to_owned(), name.to_owned());
    image
}
