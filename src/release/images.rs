//! Whether the images of a build still exist.

use std::path::Path;

use super::Error;
use crate::ledger::BuildRecord;
use crate::pipeline::{Services, StageError};
use crate::store::AppName;
use crate::target;

/// The prefix of a folder as destination.
const LAYOUT: &str = "oci:";

/// The apps of a build whose images are not at their destination any more.
pub async fn missing_images(
    project: &Path,
    services: &Services,
    build: &BuildRecord,
) -> Result<Vec<AppName>, Error> {
    let mut missing = Vec::new();
    for (app, built) in &build.apps {
        let image = built.reference.as_ref().zip(built.digest.as_ref());
        let is_there = match image {
            None => false,
            Some((reference, digest)) => match reference.strip_prefix(LAYOUT) {
                Some(reference) => is_in_layout(project, reference, digest),
                None => is_in_registry(services, reference, digest).await?,
            },
        };
        if !is_there {
            missing.push(app.clone());
        }
    }
    Ok(missing)
}

/// `<dir>:<repository>:<tag>`: the manifest is a blob of the layout.
fn is_in_layout(project: &Path, reference: &str, digest: &str) -> bool {
    let (folder, _) = reference.split_once(':').unwrap_or((reference, ""));
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let blob = project.join(folder).join("blobs").join(algorithm).join(hex);
    blob.is_file()
}

async fn is_in_registry(services: &Services, reference: &str, digest: &str) -> Result<bool, Error> {
    let (name, _) = reference.rsplit_once(':').unwrap_or((reference, ""));
    let (host, repository) = name.split_once('/').unwrap_or((name, ""));
    let client = services.client(host).await;
    let client = client.map_err(|error| target::Error::from(StageError::from(error)))?;
    let found = client.manifest(repository, digest).await;
    let found = found.map_err(|error| target::Error::from(StageError::from(error)))?;
    Ok(found.is_some())
}
