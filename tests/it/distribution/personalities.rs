//! Every push to every registry that people use: of layers of 1, 17, 40 and 400 MB, over a line
//! that holds, one that breaks once in the middle, and one that breaks again and again. What is in
//! the registry then has the digest of what was sent; the registry makes it itself.
//!
//! `ALOKAI_LONG=1` (`scripts/test --long`) pushes all of them, a usual run a share.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use oci::{CONFIG, Descriptor, Hasher, LAYER, MANIFEST, Manifest};
use oci_distribution::{BlobSource, Client, Error, Login, PutBlob};

use super::{QUICK, bytes};
use crate::support::{Habits, PERSONALITIES, Personality, Random, cutting_times};

const MB: u64 = 1_000_000;

/// How often a connection breaks, each time after half of what a layer has.
const BREAKS: [usize; 3] = [0, 1, 4];

/// Pushes of a usual run, of nine for each registry.
const SHARE: usize = 3;

fn is_long() -> bool {
    std::env::var("ALOKAI_LONG").is_ok_and(|value| value == "1")
}

/// A layer of that many bytes in a file that takes little of the disk: no block is like its
/// neighbour, and between them are holes.
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

/// Pushes an image with that layer and says whether all of it is there.
async fn push(
    client: &Client,
    registry: &Personality,
    folder: &Path,
    layer: &Descriptor,
) -> Result<PutBlob, Error> {
    let config = layer.digest.to_string().into_bytes();
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.into(),
        artifact_type: None,
        config: Descriptor::of(CONFIG, &config),
        layers: vec![layer.clone()],
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    };
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
    let habits = *habits.expect("it is in the table");
    let mut cases: Vec<(u64, usize)> = [MB, 17 * MB, 40 * MB]
        .into_iter()
        .flat_map(|length| BREAKS.map(|breaks| (length, breaks)))
        .collect();
    if is_long() {
        cases.extend(BREAKS.map(|breaks| (400 * MB, breaks)));
    } else {
        // Another share for each registry, and the same in every run.
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

/// Once in every run, at the registry that makes most of it: whole is too much, and pieces are.
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

/// Of a thousand images the first one finds out how layers get through.
#[tokio::test]
async fn what_a_personality_takes_is_found_out_once() {
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
        // One each from the second one on.
        let first = sessions[0];
        let expected: Vec<usize> = (first..first + 5).collect();
        assert_eq!(sessions, expected, "{name}");
    }
}
