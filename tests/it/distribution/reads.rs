//! Reading: by tag and by digest, within limits, and never other content than requested.

use oci::{CONFIG, Descriptor, Digest, LAYER, MANIFEST};
use oci_distribution::{BlobSource, Error, PutBlob};

use super::{Image, QUICK, World, bytes};
use crate::support::{Before, Resuming, Turn, cutting};

/// Fails unless the error says that the registry sent other content than requested.
#[track_caller]
fn is_mismatch(error: &Error) {
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_is_read_by_tag_and_by_digest() {
    let Some(world) = World::new() else { return };
    let (client, repository) = (world.direct(), &world.repository);
    let image = Image::new(1000);
    assert_eq!(client.manifest(repository, "tag").await.unwrap(), None);
    assert_eq!(client.head_manifest(repository, "tag").await.unwrap(), None);
    image.push(&client, repository).await.unwrap();
    let expected = Descriptor::of(MANIFEST, &image.manifest);
    let digest = expected.digest.to_string();
    for reference in ["tag", &digest] {
        let found = client
            .manifest(repository, reference)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(found.bytes, image.manifest);
        assert_eq!(found.media_type, MANIFEST);
        assert_eq!(found.digest, expected.digest);
        let head = client.head_manifest(repository, reference).await.unwrap();
        assert_eq!(head.as_ref(), Some(&expected));
    }
}

#[tokio::test]
async fn a_config_that_is_said_to_be_large_is_not_read() {
    let registry = Before::new("127.0.0.1:9", |_| Turn::Pass);
    let client = super::client(&registry.address, None, QUICK).unwrap();
    let config = Descriptor {
        size: (16 << 20) + 1,
        ..Descriptor::of(CONFIG, b"{}")
    };
    let error = client.blob("a", &config).await.unwrap_err();
    is_mismatch(&error);
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_blob_may_be_named_by_sha512() {
    let registry = Resuming::start();
    let client = super::client(&registry.address, None, QUICK).unwrap();
    let any: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let bytes = bytes(7, 100_000);
    let blob = Descriptor::new(LAYER, any.like(&bytes), bytes.len() as u64);
    let put = client.put_blob("a", &blob, BlobSource::Bytes(&bytes), None);
    assert_eq!(put.await.unwrap(), PutBlob::Uploaded);
    assert_eq!(client.blob("a", &blob).await.unwrap(), bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer");
    client.download("a", &blob, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    // An upload from the file, which is hashed while it is sent.
    let other = super::client(&Resuming::start().address, None, QUICK).unwrap();
    other
        .put_blob("a", &blob, BlobSource::File(&path), None)
        .await
        .unwrap();
    std::fs::write(&path, vec![0; bytes.len()]).unwrap();
    let other = super::client(&Resuming::start().address, None, QUICK).unwrap();
    let put = other.put_blob("a", &blob, BlobSource::File(&path), None);
    let error = put.await.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let longer = Before::new(&registry.address, |_| Turn::Append);
    let client = super::client(&longer.address, None, QUICK).unwrap();
    let error = client.blob("a", &blob).await.unwrap_err();
    is_mismatch(&error);
}

#[tokio::test]
async fn content_with_another_digest_is_refused() {
    let Some(world) = World::new() else { return };
    let repository = &world.repository;
    let image = world.pushed(1000).await;
    let digest = Descriptor::of(MANIFEST, &image.manifest).digest.to_string();
    let longer = Before::new(&world.registry.address, |_| Turn::Append);
    let liar = Before::new(&world.registry.address, |_| {
        let other = format!("sha256:{}", "0".repeat(64));
        Turn::Lie("docker-content-digest", other)
    });
    for (proxy, reference) in [
        (&longer, "tag"),
        (&longer, &digest),
        (&liar, "tag"),
        (&liar, &digest),
    ] {
        let client = world.through(&proxy.address, QUICK);
        let error = client.manifest(repository, reference).await.unwrap_err();
        is_mismatch(&error);
    }
    let error = world
        .through(&liar.address, QUICK)
        .head_manifest(repository, &digest)
        .await;
    assert!(
        matches!(error, Err(Error::DigestMismatch { .. })),
        "{error:?}"
    );
    let client = world.through(&longer.address, QUICK);
    let error = client.blob(repository, &image.layer).await.unwrap_err();
    is_mismatch(&error);
    let path = image.folder.path().join("read");
    let error = client
        .download(repository, &image.layer, &path)
        .await
        .unwrap_err();
    is_mismatch(&error);
    assert!(!path.exists(), "no partial file is left");
    // A blob of the same length with other content.
    let mut other = image.layer.clone();
    other.digest = oci::Digest::of(b"other");
    let swapped = image.layer.digest.to_string();
    let from = other.digest.to_string();
    let mixing = Before::new(&world.registry.address, move |seen| {
        Turn::Rewrite(seen.target.replace(&from, &swapped))
    });
    let client = world.through(&mixing.address, QUICK);
    let error = client
        .download(repository, &other, &path)
        .await
        .unwrap_err();
    is_mismatch(&error);
    assert!(!path.exists(), "no partial file is left");
}

#[tokio::test]
async fn a_download_is_taken_up_where_it_broke() {
    let Some(world) = World::new() else { return };
    let repository = &world.repository;
    let image = world.pushed(600_000).await;
    let whole = std::fs::read(image.path()).unwrap();
    let path = image.folder.path().join("read");
    for kilobytes in [20, 64, 300] {
        let counter = Before::new(&world.registry.address, |_| Turn::Pass);
        let address = cutting(&counter.address, kilobytes * 1000);
        let client = world.through(&address, QUICK);
        client
            .download(repository, &image.layer, &path)
            .await
            .unwrap();
        assert!(std::fs::read(&path).unwrap() == whole);
        let seen = counter.count("GET", "/blobs/");
        assert!(seen > 600 / usize::try_from(kilobytes).unwrap(), "{seen}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_sends_the_whole_blob_again() {
    let Some(world) = World::new() else { return };
    let repository = &world.repository;
    let image = world.pushed(300_000).await;
    let path = image.folder.path().join("read");
    for status in [200, 206, 416] {
        // After a break the rest is requested with a range, which is refused or answered with
        // another one.
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let proxy = Before::new(&world.registry.address, move |seen| {
            let is_blob = seen.is("GET", "/blobs/") && seen.authorization.is_some();
            let number = if is_blob {
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            } else {
                usize::MAX
            };
            match number {
                0 => Turn::Truncate,
                1 if status == 200 => Turn::WithoutRange,
                1 => {
                    let fields = vec![("content-range", "bytes 7-9/300000".to_owned())];
                    Turn::Answer(status, fields, "123".into())
                }
                _ => Turn::Pass,
            }
        });
        let client = world.through(&proxy.address, QUICK);
        client
            .download(repository, &image.layer, &path)
            .await
            .unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(image.path()).unwrap());
        assert!(proxy.count("GET", "/blobs/") >= 3 - usize::from(status == 200));
    }
}

#[tokio::test]
async fn a_download_that_is_dropped_leaves_nothing_behind() {
    let silent = Before::new("127.0.0.1:9", |_| {
        loop {
            std::thread::park();
        }
    });
    let client = super::client(&silent.address, None, QUICK).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("read");
    let blob = Descriptor::new(LAYER, oci::Digest::of(b""), 7);
    let download = client.download("a", &blob, &path);
    let ended = tokio::time::timeout(std::time::Duration::from_millis(100), download).await;
    assert!(ended.is_err() && !path.exists());
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let Some(world) = World::new() else { return };
    let repository = &world.repository;
    world.pushed(1000).await;
    // Another port counts as another host for credentials.
    let layer = "what the storage has".to_owned();
    let blob = Descriptor::of(LAYER, layer.as_bytes());
    let body = layer.clone();
    let storage = Before::new("127.0.0.1:9", move |seen| {
        if seen.target == "/refuses" {
            // A challenge of another host is ignored.
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.host);
            return Turn::Answer(401, vec![("www-authenticate", realm)], String::new());
        }
        Turn::Answer(200, Vec::new(), body.clone())
    });
    let address = storage.address.clone();
    let proxy = Before::new(&world.registry.address, move |seen| {
        if seen.is("GET", "/blobs/") {
            let place = if seen.number < 4 { "blob" } else { "refuses" };
            let fields = vec![("location", format!("http://{address}/{place}"))];
            return Turn::Answer(307, fields, String::new());
        }
        Turn::Pass
    });
    let client = world.through(&proxy.address, QUICK);
    // The client gets a challenge.
    client.check().await.unwrap();
    assert_eq!(
        client.blob(repository, &blob).await.unwrap(),
        layer.as_bytes()
    );
    while proxy.seen().len() < 4 {
        client.check().await.unwrap();
    }
    let error = client.blob(repository, &blob).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    let seen = storage.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
    assert!(proxy.seen().iter().any(|seen| seen.authorization.is_some()));
}

#[tokio::test]
async fn an_image_that_cannot_be_read_says_how_to_log_in() {
    let Some(world) = World::new() else { return };
    let client = super::client(&world.registry.address, None, QUICK).unwrap();
    let error = client.manifest("library/node", "22").await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("library/node:22") && told.contains("without credentials"),
        "{told}"
    );
    assert!(told.contains("(401)"), "{told}");
    let help = miette::Diagnostic::help(&alokai::registry::Error::from(error))
        .unwrap()
        .to_string();
    let login = format!("`docker login {}`", world.registry.address);
    assert!(help.contains(&login), "{help}");
}
