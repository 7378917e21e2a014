//! Whether the images of a build still exist.

use std::path::Path;

use oci::Layout;

use super::Error;
use crate::ledger::{BuildRecord, StoredImage};
use crate::pipeline::{Services, StageError};
use crate::store::AppName;
use crate::target;

/// The apps of a build whose images are not at their destination any more.
pub async fn missing_images(
    project: &Path,
    services: &Services,
    build: &BuildRecord,
) -> Result<Vec<AppName>, Error> {
    let mut missing = Vec::new();
    for (app, built) in &build.apps {
        let image = built.reference.as_deref().and_then(StoredImage::parse);
        let is_there = match image.zip(built.digest.as_ref()) {
            None => false,
            Some((image, digest)) => match image.folder() {
                Some(folder) => is_in_layout(&project.join(folder), digest),
                None => is_in_registry(services, &image, digest).await?,
            },
        };
        if !is_there {
            missing.push(app.clone());
        }
    }
    Ok(missing)
}

/// Whether the layout lists the image and has its manifest. Blobs of an image that it does not list any more
/// are removed later.
fn is_in_layout(folder: &Path, digest: &str) -> bool {
    let Ok(layout) = Layout::open(folder) else {
        return false;
    };
    let Ok(index) = layout.index() else {
        return false;
    };
    let mut images = index.images();
    let listed = images.find(|image| image.digest.to_string() == digest);
    listed.is_some_and(|image| layout.blobs().holds(image))
}

async fn is_in_registry(
    services: &Services,
    image: &StoredImage,
    digest: &str,
) -> Result<bool, Error> {
    let client = services.client(&image.place).await;
    let client = client.map_err(|error| target::Error::from(StageError::from(error)))?;
    let found = client.manifest(&image.repository, digest).await;
    let found = found.map_err(|error| target::Error::from(StageError::from(error)))?;
    Ok(found.is_some())
}
