//! Pushing: existing blobs are not sent, blobs of other repositories are mounted, and uploads are
//! streamed.

use std::path::Path;
use std::sync::Arc;

use oci::{Descriptor, Digest, EMPTY, INDEX, Index, LAYER, MANIFEST, Manifest};
use oci_distribution::{BlobSource, Client, Error, PutBlob, TransferLimits};

use super::{CHUNKS, Image, QUICK, World};
use crate::support::{Before, Resuming, Turn};

#[tokio::test]
async fn existing_blobs_are_not_sent_again() {
    let Some(world) = World::new() else { return };
    let proxy = Before::new(&world.registry.address, |_| Turn::Pass);
    let client = world.through(&proxy.address, QUICK);
    let image = Image::new(100_000);
    let repository = &world.repository;
    assert!(!image.is_whole(&client, repository).await);
    assert_eq!(
        image.put_layer(&client, repository).await.unwrap(),
        PutBlob::Uploaded
    );
    let before = proxy.seen().len();
    assert_eq!(
        image.put_layer(&client, repository).await.unwrap(),
        PutBlob::AlreadyPresent
    );
    assert_eq!(proxy.seen().len(), before, "this client knows the blob");
    let other = world.through(&proxy.address, QUICK);
    assert_eq!(
        image.put_layer(&other, repository).await.unwrap(),
        PutBlob::AlreadyPresent
    );
    assert_eq!(proxy.count("POST", ""), 1);
    let pushed = image.push(&other, repository).await;
    world.ends_right(&image, pushed).await;
}

#[tokio::test]
async fn one_of_twenty_concurrent_pushes_sends_a_common_layer() {
    let Some(world) = World::new() else { return };
    let proxy = Before::new(&world.registry.address, |_| Turn::Pass);
    let client = world.through(&proxy.address, QUICK);
    let image = Arc::new(Image::new(3_000_000));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (client, image) = (client.clone(), Arc::clone(&image));
        let repository = format!("{}/{number}", world.repository);
        tasks.spawn(async move { image.put_layer(&client, &repository).await.unwrap() });
    }
    let sent = tasks.join_all().await;
    let count = |kind: PutBlob| sent.iter().filter(|sent| **sent == kind).count();
    assert_eq!((count(PutBlob::Uploaded), count(PutBlob::Mounted)), (1, 19));
    assert_eq!(proxy.count("POST", "mount="), 19);
    assert_eq!(proxy.count("PUT", ""), 1);
    assert_eq!(proxy.count("PATCH", ""), 0);
}

#[tokio::test]
async fn a_layer_of_the_base_image_is_mounted_from_its_repository() {
    let Some(world) = World::new() else { return };
    let base = format!("{}/base", world.repository);
    let image = world.pushed_to(&base, 1000).await;
    let put = async |repository: &str, from: &str| {
        let path = image.path();
        let (client, source) = (world.direct(), BlobSource::File(&path));
        client
            .put_blob(repository, &image.layer, source, Some(from))
            .await
    };
    let one = format!("{}/one", world.repository);
    assert_eq!(put(&one, &base).await.unwrap(), PutBlob::Mounted);
    // A blob that cannot be mounted is sent in the upload session of the refused mount.
    let nowhere = format!("{}/nowhere", world.repository);
    let two = format!("{}/two", world.repository);
    assert_eq!(put(&two, &nowhere).await.unwrap(), PutBlob::Uploaded);
}

#[tokio::test]
async fn a_mount_that_is_refused_is_sent_instead() {
    let Some(world) = World::new() else { return };
    let base = format!("{}/base", world.repository);
    let image = world.pushed_to(&base, 100_000).await;
    for status in [202, 400, 401, 403, 404, 405, 501] {
        let proxy = Before::new(&world.registry.address, move |seen| {
            match seen.target.split_once("?mount=") {
                Some((plain, _)) if status == 202 => Turn::Rewrite(plain.into()),
                Some(_) => Turn::error(status, "UNSUPPORTED"),
                None => Turn::Pass,
            }
        });
        let client = world.through(&proxy.address, QUICK);
        let repository = format!("{}/{status}", world.repository);
        let path = image.path();
        let put = client.put_blob(
            &repository,
            &image.layer,
            BlobSource::File(&path),
            Some(&base),
        );
        assert_eq!(put.await.unwrap(), PutBlob::Uploaded, "{status}");
        let sessions = proxy.count("POST", "") - proxy.count("POST", "mount=");
        assert_eq!(sessions, usize::from(status != 202), "{status}");
    }
}

#[tokio::test]
async fn large_blobs_are_sent_in_pieces_with_content_ranges() {
    let Some(world) = World::new() else { return };
    let proxy = Before::when(
        &world.registry.address,
        |seen| seen.length.is_some_and(|length| length > 300_000),
        || Turn::error(413, "TOO_LARGE"),
    );
    let client = world.through(&proxy.address, CHUNKS);
    let image = Image::new(1_000_000);
    let pushed = image.push(&client, &world.repository).await;
    world.ends_right(&image, pushed).await;
    let seen = proxy.seen();
    let pieces = seen.iter().filter(|seen| seen.method == "PATCH");
    let lengths: Vec<u64> = pieces.map(|seen| seen.length.expect("it says")).collect();
    assert_eq!(lengths, [262_144, 262_144, 262_144, 213_568]);
}

#[tokio::test]
async fn a_large_layer_is_never_whole_in_memory() {
    let length: u64 = 300 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(length).unwrap();
    let mut hasher = oci::Hasher::default();
    let zeros = vec![0; 1 << 20];
    (0..300).for_each(|_| hasher.update(&zeros));
    let blob = Descriptor::new(LAYER, hasher.end(), length);
    for in_pieces in [false, true] {
        is_streamed(&path, &blob, in_pieces).await;
    }
}

async fn is_streamed(path: &Path, blob: &Descriptor, in_pieces: bool) {
    // A registry that discards what it gets, since it runs in the process whose memory is measured.
    let blind = Before::new("127.0.0.1:9", move |seen| {
        if in_pieces && seen.is("PUT", "") && seen.has_body() {
            return Turn::error(413, "TOO_LARGE");
        }
        let fields = vec![("location", "/v2/a/blobs/uploads/1".to_owned())];
        Turn::Answer(
            match seen.method.as_str() {
                "HEAD" => 404,
                "PUT" => 201,
                _ => 202,
            },
            fields,
            String::new(),
        )
    });
    let client = super::client(&blind.address, None, QUICK).unwrap();
    let before = peak();
    let put = client.put_blob("a", blob, BlobSource::File(path), None);
    assert_eq!(put.await.unwrap(), PutBlob::Uploaded);
    let seen = blind.seen();
    let kind = if in_pieces { "PATCH" } else { "PUT" };
    let sent = seen.iter().filter(|seen| seen.is(kind, "/uploads/"));
    let lengths: Vec<u64> = sent.map(|seen| seen.length.expect("it says")).collect();
    assert_eq!(lengths.iter().sum::<u64>(), blob.size);
    assert!(
        !in_pieces || lengths.iter().all(|length| *length <= 4 << 20),
        "{lengths:?}"
    );
    // Only if each test has its own process.
    if std::env::var_os("NEXTEST").is_some() {
        assert!(peak() - before < 100 << 20, "{} and {before}", peak());
    }
}

/// The peak memory of this process in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.map_or(0, |number| number.parse::<u64>().unwrap() * 1024)
}

#[tokio::test]
async fn a_file_that_differs_from_its_descriptor_is_an_error() {
    let registry = Resuming::start();
    let client = super::client(&registry.address, None, CHUNKS).unwrap();
    let altered = async |change: &dyn Fn(&mut Vec<u8>)| {
        let image = Image::new(600_000);
        let mut bytes = std::fs::read(image.path()).unwrap();
        change(&mut bytes);
        std::fs::write(image.path(), bytes).unwrap();
        let error = image.put_layer(&client, "a").await.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        assert!(error.to_string().contains("has changed"), "{error}");
        assert!(!registry.has(&image.layer.digest));
    };
    altered(&|bytes| bytes[300_000] ^= 1).await;
    altered(&|bytes| bytes[599_999] ^= 1).await;
    altered(&|bytes| bytes.truncate(500_000)).await;
    altered(&|bytes| bytes.push(0)).await;
    altered(&Vec::clear).await;
    let image = Image::new(10);
    std::fs::remove_file(image.path()).unwrap();
    let error = image.put_layer(&client, "a").await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[tokio::test]
async fn pieces_are_as_large_as_a_registry_wants_them() {
    let registry = Resuming::of_large_pieces(100_000);
    let limits = TransferLimits {
        chunk: 10_000,
        ..CHUNKS
    };
    let client = super::client(&registry.address, None, limits).unwrap();
    let image = Image::new(350_000);
    assert_eq!(
        image.put_layer(&client, "a").await.unwrap(),
        PutBlob::Uploaded
    );
    assert!(registry.has(&image.layer.digest));
    assert_eq!(registry.sessions(), 1);
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let Some(world) = World::new() else { return };
    let blob = Descriptor::of(EMPTY, b"");
    let put = async |client: Client| {
        let source = BlobSource::Bytes(b"");
        client
            .put_blob(&world.repository, &blob, source, None)
            .await
    };
    assert_eq!(put(world.direct()).await.unwrap(), PutBlob::Uploaded);
    assert_eq!(put(world.direct()).await.unwrap(), PutBlob::AlreadyPresent);
}

#[tokio::test]
async fn referrers_are_listed_under_the_images_digest() {
    let Some(world) = World::new() else { return };
    let (client, repository) = (world.direct(), &world.repository);
    let image = Image::new(1000);
    image.push(&client, repository).await.unwrap();
    let subject = Descriptor::of(MANIFEST, &image.manifest);
    let empty = Descriptor::of(EMPTY, b"{}");
    let source = BlobSource::Bytes(b"{}");
    client
        .put_blob(repository, &empty, source, None)
        .await
        .unwrap();
    let mut listed = Vec::new();
    for kind in ["application/spdx+json", "application/vnd.in-toto+json"] {
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.into(),
            artifact_type: Some(kind.into()),
            config: empty.clone(),
            layers: vec![empty.clone()],
            subject: Some(subject.clone()),
            annotations: std::collections::BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::of(&bytes).to_string();
        let put = client.put_manifest(repository, &digest, MANIFEST, &bytes);
        let put = put.await.unwrap();
        assert!(!put.subject_taken, "this registry has no referrers API");
        let mut referrer = Descriptor::of(MANIFEST, &bytes);
        referrer.artifact_type = Some(kind.into());
        for _ in 0..2 {
            let add = client.add_referrer(repository, &subject.digest, referrer.clone());
            add.await.unwrap();
        }
        listed.push(referrer);
    }
    let tag = subject.digest.to_string().replace(':', "-");
    let found = client.manifest(repository, &tag).await.unwrap().unwrap();
    assert_eq!(found.media_type, INDEX);
    let index: Index = serde_json::from_slice(&found.bytes).unwrap();
    assert_eq!(index.manifests, listed);
}

#[tokio::test]
async fn names_with_path_traversal_are_refused() {
    let client = super::client("127.0.0.1:9", None, QUICK).unwrap();
    let image = Image::new(1);
    for repository in ["", "a/../b", "A", "a//b", "a?b", "/a", "a%2fb", "-a"] {
        let error = image.put_layer(&client, repository).await.unwrap_err();
        assert!(
            error.to_string().contains("is not a valid"),
            "{repository}: {error}"
        );
    }
    for reference in ["", "a/b", "..", "sha256:12", "a?b"] {
        let error = client.manifest("a", reference).await.unwrap_err();
        assert!(
            error.to_string().contains("is not a valid"),
            "{reference}: {error}"
        );
    }
}
