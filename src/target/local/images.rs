//! The images of a release: in a layout on this machine, or pulled from a registry.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci::{Blobs, Digest, Manifest, StoredImage};
use serde_json::Value;

use super::folder::LocalFolder;
use super::image::LocalImage;
use super::state::LocalState;
use super::{Error, LocalTarget};
use crate::pipeline::{StageError, UnpackedImage, isolated_folder};
use crate::target::ReleasedApp;

impl LocalTarget {
    /// The image of an app. Layers of an image in a registry are pulled, without those of its base
    /// image.
    pub(super) async fn image(&self, app: &ReleasedApp) -> Result<LocalImage, Error> {
        let name = (app.reference.as_str(), app.digest.as_str());
        let image = StoredImage::parse(&app.reference).ok_or_else(|| Error::Image {
            reference: app.reference.clone(),
            reason: "the reference has no registry, no repository or no tag".into(),
        })?;
        match image.folder() {
            Some(folder) => {
                let folder = self.client.place.project().join(folder);
                LocalImage::in_layout(name, &folder)
            }
            None => self.pulled(name, &image).await,
        }
    }

    /// The image of an app in a folder of its own, with no `node_modules` above it.
    pub(super) async fn unpacked_for_hook(
        &self,
        app: &ReleasedApp,
    ) -> Result<UnpackedImage, Error> {
        let image = self.image(app).await?;
        let folder = isolated_folder(Path::new(app.app.as_str()))?;
        let root = folder.path().join(app.app.as_str());
        image.unpack(&root)?;
        Ok(UnpackedImage {
            workdir: image.workdir(&root),
            variables: image.variables(&root),
            folder: Arc::new(folder),
        })
    }

    async fn pulled(
        &self,
        (reference, digest): (&str, &str),
        stored: &StoredImage,
    ) -> Result<LocalImage, Error> {
        let unusable = |reason: String| Error::Image {
            reference: reference.to_owned(),
            reason,
        };
        let failed = |error| Error::from(StageError::from(error));
        let client = self.services.client(&stored.place).await;
        let client = client.map_err(|error| Error::from(StageError::from(error)))?;
        let repository = &stored.repository;
        let found = client.manifest(repository, digest).await.map_err(failed)?;
        let found =
            found.ok_or_else(|| unusable(format!("the registry does not have {digest}")))?;
        let manifest: Manifest = serde_json::from_slice(&found.bytes)
            .map_err(|error| unusable(format!("its manifest is not valid: {error}")))?;
        let config = client.blob(repository, &manifest.config).await;
        let config: Value = serde_json::from_slice(&config.map_err(failed)?)
            .map_err(|error| unusable(format!("its config is not valid: {error}")))?;
        let folder = self.client.place.images();
        self.client.place.make()?;
        let image = LocalImage::new((reference, digest), &manifest, &config, &folder)?;
        let blobs = Blobs::new(folder);
        for layer in image.layers.iter().filter(|layer| !blobs.holds(layer)) {
            let temporary = blobs.temporary()?;
            let download = client.download(repository, layer, temporary.path());
            download.await.map_err(failed)?;
            blobs.take(temporary, layer)?;
        }
        Ok(image)
    }
}

/// How long a layer stays that no release has. A client pulls the layers of a release before the release is
/// known.
const UNUSED_FOR: Duration = Duration::from_hours(24);

/// Removes pulled layers that no release has, and that were not used for a day, and downloads that a killed
/// run has left.
pub fn remove_unused(place: &LocalFolder, state: &LocalState) {
    let blobs = Blobs::new(place.images());
    let releases = state.stores.values().flat_map(|it| it.releases.values());
    let apps = releases.flat_map(|it| &it.apps);
    let used = apps.flat_map(|it| it.image.layers.iter().map(|layer| layer.digest));
    let used: BTreeSet<String> = used.map(|digest| digest.hex()).collect();
    let listed = std::fs::read_dir(place.images().join("blobs/sha256"));
    for file in listed.into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let digest: Option<Digest> = format!("sha256:{name}").parse().ok();
        let age = file.metadata().and_then(|metadata| metadata.modified());
        let age = age.ok().and_then(|used| used.elapsed().ok());
        let is_old = age.is_some_and(|age| age >= UNUSED_FOR);
        // The file only uses disk space.
        if is_old && name.starts_with('.') {
            let _ = std::fs::remove_file(file.path());
        } else if let Some(digest) = digest.filter(|_| is_old && !used.contains(&name)) {
            let _ = blobs.remove(&digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use oci::Blobs;

    use super::{UNUSED_FOR, remove_unused};
    use crate::target::local::folder::LocalFolder;
    use crate::target::local::state::LocalState;

    #[test]
    fn recent_layers_are_kept_and_old_partial_downloads_are_removed() {
        let project = tempfile::tempdir().unwrap();
        let place = LocalFolder::of(project.path());
        let blobs = Blobs::new(place.images());
        let [new, old] = ["new", "old"].map(|text| blobs.write("layer", text.as_bytes()).unwrap());
        let file = File::options().append(true).open(blobs.path(&old.digest));
        let before = SystemTime::now() - UNUSED_FOR;
        file.unwrap().set_modified(before).unwrap();
        let (_, cut) = blobs.temporary().unwrap().keep().unwrap();
        let (_, under_way) = blobs.temporary().unwrap().keep().unwrap();
        let file = File::options().append(true).open(&cut);
        file.unwrap().set_modified(before).unwrap();
        remove_unused(&place, &LocalState::default());
        assert!(blobs.path(&new.digest).exists());
        assert!(!blobs.path(&old.digest).exists());
        assert!(under_way.exists() && !cut.exists());
    }
}
