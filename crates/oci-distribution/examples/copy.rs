//! Copies an image, or an index with all of its images, from one registry to another.
//!
//! ```console
//! $ cargo run -p oci-distribution --example copy -- \
//!     docker.io library/alpine 3.20 127.0.0.1:5000 alpine 3.20
//! ```
//!
//! Logins are taken from Docker's config.

use std::error::Error;
use std::path::PathBuf;

use oci::{Descriptor, is_index};
use oci_distribution::{BlobSource, Client, ClientOptions, FetchedManifest, Logins};
use serde_json::Value;

/// A repository of a registry.
struct Repository {
    client: Client,
    name: String,
}

impl Repository {
    async fn new(registry: &str, name: &str, logins: &Logins) -> Result<Self, Box<dyn Error>> {
        let login = logins.for_host(registry).await?;
        Ok(Self {
            client: Client::new(registry, login, &ClientOptions::default())?,
            name: name.to_owned(),
        })
    }

    async fn manifest(&self, reference: &str) -> Result<FetchedManifest, Box<dyn Error>> {
        let found = self.client.manifest(&self.name, reference).await?;
        Ok(found.ok_or_else(|| format!("{} has no `{reference}`", self.name))?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, from_name, from_tag, to, to_name, to_tag] = &arguments[..] else {
        return Err(
            "usage: copy <registry> <repository> <tag> <registry> <repository> <tag>".into(),
        );
    };
    let logins = Logins::new(None, docker_config());
    let from = Repository::new(from, from_name, &logins).await?;
    let to = Repository::new(to, to_name, &logins).await?;
    copy(&from, from_tag, &to, to_tag).await
}

#[expect(clippy::disallowed_methods, reason = "an example is its own program")]
fn docker_config() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

/// Copies what a manifest names, and then the manifest: a tag never names an incomplete image.
async fn copy(
    from: &Repository,
    reference: &str,
    to: &Repository,
    tag: &str,
) -> Result<(), Box<dyn Error>> {
    let manifest = from.manifest(reference).await?;
    let document: Value = serde_json::from_slice(&manifest.bytes)?;
    if is_index(&manifest.media_type) {
        for image in descriptors(&document["manifests"])? {
            let digest = image.digest.to_string();
            Box::pin(copy(from, &digest, to, &digest)).await?;
        }
    } else {
        let mut blobs = descriptors(&document["layers"])?;
        blobs.push(serde_json::from_value(document["config"].clone())?);
        for blob in blobs {
            copy_blob(from, &blob, to).await?;
        }
    }
    let put = to
        .client
        .put_manifest(&to.name, tag, &manifest.media_type, &manifest.bytes);
    println!("{tag}: {}", put.await?.digest);
    Ok(())
}

fn descriptors(list: &Value) -> Result<Vec<Descriptor>, serde_json::Error> {
    serde_json::from_value(list.clone())
}

async fn copy_blob(
    from: &Repository,
    blob: &Descriptor,
    to: &Repository,
) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("blob");
    from.client.download(&from.name, blob, &file).await?;
    let source = BlobSource::File(&file);
    let put = to.client.put_blob(&to.name, blob, source, None).await?;
    println!("{}: {put:?}", blob.digest);
    Ok(())
}
