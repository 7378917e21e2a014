//! The client of the distribution protocol, against a real registry and with real faults.

mod faults;
mod logins;
mod personalities;
mod pushes;
mod reads;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::{CONFIG, Descriptor, LAYER, MANIFEST, Manifest};
use oci_distribution::{
    BlobSource, Client, ClientOptions, Credentials, Error, Login, PutBlob, RetryPolicy,
    TransferLimits, Trust,
};

use crate::support::{Random, Registry, registry};

/// As many retries as by default, with short pauses.
const QUICK: TransferLimits = TransferLimits {
    retry: RetryPolicy {
        retries: 5,
        pause: Duration::from_millis(2),
        factor: 2,
    },
    silence: Duration::from_secs(10),
    commit: Duration::from_secs(20),
    chunk: 4 << 20,
    smallest_chunk: 64 << 10,
};

/// Chunks of which a small layer has many.
const CHUNKS: TransferLimits = TransferLimits {
    chunk: 256 << 10,
    smallest_chunk: 8 << 10,
    ..QUICK
};

fn client(registry: &str, login: Option<Login>, limits: TransferLimits) -> Result<Client, Error> {
    let options = ClientOptions {
        limits,
        ..ClientOptions::default()
    };
    Client::new(registry, login, &options)
}

fn trusting(registry: &str, login: Option<Login>, trust: &Trust) -> Result<Client, Error> {
    let options = ClientOptions {
        limits: QUICK,
        trust: trust.clone(),
        ..ClientOptions::default()
    };
    Client::new(registry, login, &options)
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.below(usize::MAX).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image with one layer, which is in a file.
struct Image {
    folder: tempfile::TempDir,
    layer: Descriptor,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// An image with a layer of this many bytes that no other test has.
    fn new(length: usize) -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let seed = u64::try_from(now.as_nanos() & u128::from(u64::MAX)).expect("masked");
        let layer = bytes(seed ^ u64::from(std::process::id()), length);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("layer"), &layer)
            .expect("a temporary folder can be written");
        let config = format!(r#"{{"architecture":"amd64","os":"linux","seed":{seed}}}"#);
        let config = config.into_bytes();
        let layer = Descriptor::of(LAYER, &layer);
        let manifest = manifest(&config, &layer);
        Self {
            folder,
            layer,
            config,
            manifest: serde_json::to_vec(&manifest).expect("JSON"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("layer")
    }

    async fn put_layer(&self, client: &Client, repository: &str) -> Result<PutBlob, Error> {
        let path = self.path();
        let source = BlobSource::File(&path);
        client.put_blob(repository, &self.layer, source, None).await
    }

    /// Pushes the blobs and then the manifest under its tag.
    async fn push(&self, client: &Client, repository: &str) -> Result<(), Error> {
        self.put_layer(client, repository).await?;
        let config = Descriptor::of(CONFIG, &self.config);
        let source = BlobSource::Bytes(&self.config);
        client.put_blob(repository, &config, source, None).await?;
        let put = client.put_manifest(repository, "tag", MANIFEST, &self.manifest);
        put.await.map(drop)
    }

    /// Whether the tag names this image and all its blobs exist. Fails if the tag names a part of
    /// an image.
    async fn is_whole(&self, client: &Client, repository: &str) -> bool {
        let found = client
            .manifest(repository, "tag")
            .await
            .expect("the registry answers");
        let Some(found) = found else {
            return false;
        };
        assert_eq!(found.bytes, self.manifest);
        let config = Descriptor::of(CONFIG, &self.config);
        for blob in [&self.layer, &config] {
            let read = client
                .blob(repository, blob)
                .await
                .expect("the blob is whole");
            assert_eq!(read.len() as u64, blob.size);
        }
        true
    }
}

/// The manifest of an image with one layer.
fn manifest(config: &[u8], layer: &Descriptor) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: MANIFEST.into(),
        artifact_type: None,
        config: Descriptor::of(CONFIG, config),
        layers: vec![layer.clone()],
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// The real registry, and a repository of the test's own.
struct World {
    registry: Registry,
    repository: String,
}

impl World {
    fn new() -> Option<Self> {
        let registry = registry()?;
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let repository = format!("distribution/{}-{}", now.as_nanos(), std::process::id());
        Some(Self {
            registry,
            repository,
        })
    }

    fn login(&self) -> Login {
        let Registry { user, password, .. } = &self.registry;
        Login::provided(Arc::new(Credentials::new(user.clone(), password.clone())))
    }

    /// A new client of the registry itself.
    fn direct(&self) -> Client {
        self.through(&self.registry.address, QUICK)
    }

    /// A client that reaches the registry through another address.
    fn through(&self, address: &str, limits: TransferLimits) -> Client {
        client(address, Some(self.login()), limits).expect("a client")
    }

    /// Pushes a new image with a layer of this many bytes to the registry itself.
    async fn pushed(&self, length: usize) -> Image {
        self.pushed_to(&self.repository, length).await
    }

    /// Pushes a new image with a layer of this many bytes to another repository.
    async fn pushed_to(&self, repository: &str, length: usize) -> Image {
        let image = Image::new(length);
        let push = image.push(&self.direct(), repository).await;
        push.expect("a pushed image");
        image
    }

    /// Pushes a new image with a layer of this many bytes through a proxy.
    async fn push(&self, address: &str, limits: TransferLimits, length: usize) -> Pushed<'_> {
        let image = Image::new(length);
        let client = self.through(address, limits);
        let result = image.push(&client, &self.repository).await;
        Pushed {
            world: self,
            image,
            result,
        }
    }

    /// Fails unless the image was pushed and all of it exists.
    async fn ends_right(&self, image: &Image, result: Result<(), Error>) {
        result.expect("the push succeeds");
        let is_whole = image.is_whole(&self.direct(), &self.repository).await;
        assert!(is_whole, "the push succeeds, so the image must be whole");
    }

    /// Fails if the push succeeded and a part is missing, or if the error contains the password.
    /// Returns the error.
    async fn ends_clearly(&self, image: &Image, result: Result<(), Error>) -> Option<String> {
        let is_whole = image.is_whole(&self.direct(), &self.repository).await;
        match result {
            Ok(()) => {
                assert!(is_whole, "the push succeeds, so the image must be whole");
                None
            }
            Err(error) => {
                let told = error.to_string();
                let password = &self.registry.password;
                assert!(!told.contains(password), "{told}");
                Some(told)
            }
        }
    }
}

/// An image, and how its push ended.
struct Pushed<'a> {
    world: &'a World,
    image: Image,
    result: Result<(), Error>,
}

impl Pushed<'_> {
    /// Fails unless the image was pushed and is whole.
    async fn ends_right(self) {
        self.world.ends_right(&self.image, self.result).await;
    }

    /// Fails unless the push failed and no tag names a part of the image. Returns the error.
    async fn fails_clearly(self) -> String {
        let told = self.world.ends_clearly(&self.image, self.result).await;
        told.expect("the push fails")
    }
}
