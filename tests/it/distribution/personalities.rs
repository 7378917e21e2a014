//! Pushes layers of 1, 17, 40 and 400 MB to every common kind of registry: over a stable
//! connection, one that breaks once, and one that breaks repeatedly. The registry computes the
//! digest of what it received.
//!
//! `ALOKAI_LONG=1` (`scripts/test --long`) runs all pushes; a usual run takes a part of them.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use oci::{Descriptor, Hasher, LAYER, MANIFEST};
use oci_distribution::{BlobSource, Client, Error, Login, PutBlob};

use super::{QUICK, bytes, manifest};
use crate::support::{Habits, PERSONALITIES, Personality, Random, cutting_times};

const MB: u64 = 1_000_000;

/// How often a connection breaks, each time after half of a layer's bytes.
const BREAKS: [usize; 3] = [0, 1, 4];

/// The number of pushes in a usual run, of nine for each registry.
const SHARE: usize = 3;

fn is_long() -> bool {
    std::env::var("ALOKAI_LONG").is_ok_and(|value| value == "1")
}

/// A layer of this many bytes in a sparse file. No block equals its neighbour.
fn layer(folder: &Path, length: u64, seed: u64) -> Descriptor {
    let mut file = File::create(folder.join("layer")).unwrap();
    file.set_len(length).unwrap();
    for (number, start) in (0..length).step_by(256 << 10).enumerate() {
        let block = bytes(seed + number as u64, 4096);
        let room = usize::try_from(length - start).unwrap_or(usize::MAX);
        file.seek(SeekFrom::Start(start)).unwrap();
        file.write_all(&block[..room.min(block.len())]).unwrap();
    }
    let mut hasher = Hasher::default();
    let mut written = File::open(folder.join("layer")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut written, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Descriptor::new(LAYER, hasher.end(), length)
}

/// Pushes an image with this layer and fails unless the registry has all of it.
async fn push(
    client: &Client,
    registry: &Personality,
    folder: &Path,
    layer: &Descriptor,
) -> Result<PutBlob, Error> {
    let config = layer.digest.to_string().into_bytes();
    let manifest = manifest(&config, layer);
    let path = folder.join("layer");
    let put = client.put_blob("there/a", layer, BlobSource::File(&path), None);
    let sent = put.await?;
    let source = BlobSource::Bytes(&config);
    client
        .put_blob("there/a", &manifest.config, source, None)
        .await?;
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let put = client.put_manifest("there/a", "tag", MANIFEST, &bytes);
    put.await?;
    let found = client
        .manifest("there/a", "tag")
        .await?
        .expect("it is there");
    assert_eq!(found.bytes, bytes);
    assert_eq!(registry.length(&layer.digest), Some(layer.size));
    let length = registry.length(&manifest.config.digest);
    assert_eq!(length, Some(manifest.config.size));
    Ok(sent)
}

async fn one(habits: Habits, length: u64, breaks: usize, seed: u64) {
    let case = format!("{} bytes to {}, {breaks} breaks", length, habits.name);
    let registry = Personality::start(habits);
    let folder = tempfile::tempdir().unwrap();
    let layer = layer(folder.path(), length, seed);
    let half = i64::try_from(length / 2).unwrap();
    let address = cutting_times(&registry.address, half, breaks);
    let login = Login::password(Personality::USER.into(), Personality::PASSWORD.into());
    let client = super::client(&address, Some(login), QUICK).unwrap();
    client.check().await.unwrap();
    let sent = push(&client, &registry, folder.path(), &layer).await;
    assert_eq!(sent.expect(&case), PutBlob::Uploaded, "{case}");
    assert_eq!(registry.wrong(), Vec::<String>::new(), "{case}");
}

async fn all(name: &str) {
    let habits = PERSONALITIES.iter().find(|habits| habits.name == name);
    let habits = *habits.expect("the registry is in the table");
    let mut cases: Vec<(u64, usize)> = [MB, 17 * MB, 40 * MB]
        .into_iter()
        .flat_map(|length| BREAKS.map(|breaks| (length, breaks)))
        .collect();
    if is_long() {
        cases.extend(BREAKS.map(|breaks| (400 * MB, breaks)));
    } else {
        // A different part for each registry, and the same part in every run.
        let seed = name.bytes().map(u64::from).sum();
        let mut random = Random::new(seed);
        while cases.len() > SHARE {
            cases.swap_remove(random.below(cases.len()));
        }
    }
    for (number, (length, breaks)) in cases.into_iter().enumerate() {
        one(habits, length, breaks, number as u64).await;
    }
}

#[tokio::test]
async fn ghcr() {
    all("ghcr").await;
}

#[tokio::test]
async fn google() {
    all("google").await;
}

#[tokio::test]
async fn ecr() {
    all("ecr").await;
}

#[tokio::test]
async fn ecr_whose_range_stands_still() {
    all("ecr, with a `Range` that stands still").await;
}

#[tokio::test]
async fn acr() {
    all("acr").await;
}

#[tokio::test]
async fn hub() {
    all("hub").await;
}

#[tokio::test]
async fn harbor() {
    all("harbor").await;
}

#[tokio::test]
async fn gitlab() {
    all("gitlab").await;
}

#[tokio::test]
async fn quay() {
    all("quay").await;
}

/// One large push in every run, to the most restrictive registry: it refuses the whole blob, and
/// pieces.
#[tokio::test]
async fn a_layer_of_400_mb_with_a_break_in_the_middle() {
    for name in ["gitlab", "ghcr"] {
        let habits = PERSONALITIES.iter().find(|habits| habits.name == name);
        one(*habits.expect("it is there"), 400 * MB, 1, 7).await;
    }
}

#[tokio::test]
async fn a_repository_that_has_to_be_made_first_is_named() {
    let habits = PERSONALITIES.iter().find(|habits| habits.name == "ecr");
    let registry = Personality::start(*habits.expect("it is there"));
    let login = Login::password(Personality::USER.into(), Personality::PASSWORD.into());
    let client = super::client(&registry.address, Some(login), QUICK).unwrap();
    let blob = Descriptor::of(LAYER, b"a");
    let put = client.put_blob("missing/a", &blob, BlobSource::Bytes(b"a"), None);
    let error = put.await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("missing/a"), "{error}");
}

/// The first push learns which uploads the registry takes, and later pushes use that.
#[tokio::test]
async fn the_accepted_way_of_upload_is_found_once() {
    for name in ["harbor", "google", "acr"] {
        let habits = PERSONALITIES.iter().find(|habits| habits.name == name);
        let registry = Personality::start(*habits.expect("it is there"));
        let login = Login::password(Personality::USER.into(), Personality::PASSWORD.into());
        let client = super::client(&registry.address, Some(login), QUICK).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("layer");
        let mut sessions = Vec::new();
        for seed in 0..5 {
            let layer = layer(folder.path(), 21 * MB, 1000 * seed);
            let put = client.put_blob("there/a", &layer, BlobSource::File(&path), None);
            assert_eq!(put.await.unwrap(), PutBlob::Uploaded);
            sessions.push(registry.sessions());
        }
        // From the second image on, each push opens one session.
        let first = sessions[0];
        let expected: Vec<usize> = (first..first + 5).collect();
        assert_eq!(sessions, expected, "{name}");
    }
}
