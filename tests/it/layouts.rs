//! Blobs and image layouts on disk.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use oci::{Blobs, CONFIG, Descriptor, EMPTY, Error, Layout, MANIFEST, NAME, collect, pack};
use serde_json::{Value, json};

use crate::support::{Random, TIME, file, folder};

#[test]
fn an_unfinished_blob_does_not_exist() {
    let store = folder();
    let blobs = Blobs::new(store.path());
    let mut writer = blobs.writer().expect("a file");
    writer.write_all(b"half").expect("written");
    writer.flush().expect("written");
    // Like a killed process: the file is not removed.
    std::mem::forget(writer);
    let half = Descriptor::of(EMPTY, b"half");
    assert!(!blobs.holds(&half));
    assert!(matches!(blobs.open(&half), Err(Error::Missing { .. })));
    drop(blobs.writer().expect("a file"));
    let left = || {
        let files = std::fs::read_dir(store.path().join("blobs/sha256")).expect("there");
        files
            .map(|file| file.expect("readable").path())
            .collect::<Vec<_>>()
    };
    assert_eq!(left().len(), 1);

    // A file younger than a day may still be written, an older file is removed.
    let age = Duration::from_hours(24 * 30);
    collect(store.path(), u64::MAX, age, SystemTime::now()).expect("collected");
    assert_eq!(left().len(), 1);
    let long_ago = SystemTime::now() - Duration::from_hours(25);
    let file = std::fs::File::options().append(true).open(&left()[0]);
    file.expect("writable")
        .set_modified(long_ago)
        .expect("writable");
    collect(store.path(), u64::MAX, age, SystemTime::now()).expect("collected");
    assert_eq!(left().len(), 0);
}

#[test]
fn blobs_match_their_digest() {
    let store = folder();
    let blobs = Blobs::new(store.path());
    let content = blobs.write(EMPTY, b"{}").expect("written");
    assert_eq!(blobs.read(&content).expect("there"), b"{}");
    let path = blobs.path(&content.digest);
    let inode = path.metadata().expect("there").ino();
    blobs.write(EMPTY, b"{}").expect("there");
    assert_eq!(
        path.metadata().expect("there").ino(),
        inode,
        "written again"
    );
    assert_eq!(path.metadata().expect("there").mode() & 0o044, 0o044);

    let mut file = blobs.temporary().expect("a file");
    file.write_all(b"taken").expect("written");
    let taken = Descriptor::of(EMPTY, b"taken");
    blobs.take(file, &taken).expect("taken");
    assert_eq!(blobs.read(&taken).expect("there"), b"taken");
    let short = blobs.temporary().expect("a file");
    let error = blobs.take(short, &Descriptor::of(EMPTY, b"other"));
    assert!(
        matches!(error, Err(Error::DigestMismatch { .. })),
        "{error:?}"
    );

    std::fs::write(&path, b"[]").expect("writable");
    assert!(matches!(
        blobs.read(&content),
        Err(Error::DigestMismatch { .. })
    ));
    std::fs::write(&path, b"{ }").expect("writable");
    assert!(!blobs.holds(&content));
    assert!(matches!(
        blobs.read(&content),
        Err(Error::DigestMismatch { .. })
    ));
    let huge = Descriptor::new(EMPTY, taken.digest, 1 << 40);
    assert!(matches!(
        blobs.read(&huge),
        Err(Error::DigestMismatch { .. })
    ));
    blobs.remove(&content.digest).expect("removed");
    blobs.remove(&content.digest).expect("gone already");
    assert!(matches!(blobs.read(&content), Err(Error::Missing { .. })));
}

#[test]
fn the_least_recently_used_blob_is_removed_first() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let begun = SystemTime::now();
    let days = |days: u64| Duration::from_hours(24 * days);
    let made = |name: &str, age: u64| {
        let layer = pack(&[file(sources.path(), name, b"x")], TIME, &blobs).expect("packed");
        let path = blobs.path(&layer.descriptor.digest);
        let file = std::fs::File::options().append(true).open(path);
        file.expect("writable")
            .set_modified(begun - days(age))
            .expect("writable");
        layer.descriptor
    };
    let [old, first, second, third, used] = [
        ("old", 40),
        ("first", 3),
        ("second", 2),
        ("third", 1),
        ("used", 50),
    ]
    .map(|(name, age)| made(name, age));
    // `holds` marks the blob as used.
    assert!(blobs.holds(&used));
    let records = || {
        std::fs::read_dir(store.path().join("layers"))
            .expect("there")
            .count()
    };
    assert_eq!(records(), 5);

    let collected = collect(store.path(), u64::MAX, days(30), begun).expect("collected");
    assert_eq!((collected.blobs, collected.bytes), (1, old.size));
    assert_eq!(records(), 4);
    let room = used.size + third.size + second.size;
    collect(store.path(), room, days(30), begun).expect("collected");
    let there = |descriptor: &Descriptor| blobs.path(&descriptor.digest).exists();
    assert!(!there(&first) && there(&second) && there(&third) && there(&used));
    // Blobs that were used in this run are kept, whatever the limits.
    collect(store.path(), 0, Duration::ZERO, begun).expect("collected");
    assert!(!there(&second) && !there(&third) && there(&used));
    assert_eq!(records(), 1);
    assert!(collect(&store.path().join("missing"), 0, days(1), begun).is_ok());
}

/// Writes an image without layers to a layout.
fn image(layout: &Layout, name: &str) -> Descriptor {
    let config = json!({"os": "linux", "architecture": "amd64", "name": name,
        "rootfs": {"type": "layers", "diff_ids": []}, "config": {}});
    let blobs = layout.blobs();
    let config = blobs
        .write(CONFIG, config.to_string().as_bytes())
        .expect("written");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    blobs
        .write(MANIFEST, manifest.to_string().as_bytes())
        .expect("written")
}

#[test]
fn put_all_gives_the_same_index_as_put() {
    let place = folder();
    let random = &mut Random::new(10);
    let [one, all] = ["one", "all"].map(|name| {
        let layout = Layout::create(place.path().join(name)).expect("made");
        let images: Vec<_> = (0..6)
            .map(|number| image(&layout, &number.to_string()))
            .collect();
        (layout, images)
    });
    for round in 0..50 {
        let group: Vec<(Option<String>, usize)> = (0..random.below(8))
            .map(|_| {
                let name = (!random.once_in(3)).then(|| format!("a/b:{}", random.below(5)));
                (name, random.below(6))
            })
            .collect();
        for (name, number) in &group {
            let image = one.1[*number].clone();
            one.0.put(name.as_deref(), image).expect("listed");
        }
        let listings = group.iter().map(|(name, number)| {
            let image = all.1[*number].clone();
            all.0.listing(name.as_deref(), image).expect("it is there")
        });
        let listings: Vec<_> = listings.collect();
        all.0.put_all(&listings).expect("listed");
        let read = |layout: &Layout| {
            std::fs::read_to_string(layout.folder().join("index.json")).expect("there")
        };
        assert_eq!(read(&one.0), read(&all.0), "round {round}");
    }
}

#[test]
fn a_name_is_replaced_and_everything_else_is_kept() {
    let place = folder();
    let layout = Layout::create(place.path().join("layout")).expect("made");
    let [one, two] = ["one", "two"].map(|name| image(&layout, name));
    layout.put(Some("a/b:1"), one.clone()).expect("listed");
    layout.put(Some("a/b:2"), one.clone()).expect("listed");

    // Fields of other tools are kept unchanged.
    let list = layout.folder().join("index.json");
    let mut document: Value =
        serde_json::from_slice(&std::fs::read(&list).expect("there")).expect("JSON");
    document["vendor"] = json!({"z": 1, "a": 2});
    document["manifests"][1]["urls"] = json!(["https://example.com"]);
    std::fs::write(&list, document.to_string()).expect("writable");

    layout.put(Some("a/b:1"), two.clone()).expect("listed");
    layout.put(None, two.clone()).expect("listed");
    layout.put(None, two.clone()).expect("listed");
    let written: Value =
        serde_json::from_slice(&std::fs::read(&list).expect("there")).expect("JSON");
    assert_eq!(written["vendor"], document["vendor"]);
    assert_eq!(written["manifests"][1], document["manifests"][1]);
    assert_eq!(written["manifests"].as_array().expect("a list").len(), 3);
    let found = layout.find("a/b:1").expect("read").expect("listed");
    assert_eq!(found.digest, two.digest);
    assert_eq!(found.annotations[NAME], "a/b:1");
    assert_eq!(layout.find("a/b").expect("read"), None);

    let several = layout.only().expect_err("there are two");
    let Error::NotOne { names, .. } = &several else {
        panic!("{several:?}");
    };
    assert_eq!(
        names[..],
        ["a/b:1".to_owned(), "a/b:2".into(), two.digest.to_string()]
    );

    let unknown = Descriptor::of(MANIFEST, b"not there");
    assert!(matches!(
        layout.put(Some("x"), unknown),
        Err(Error::Missing { .. })
    ));
    assert!(matches!(
        layout.put(Some("no name"), two),
        Err(Error::Name { .. })
    ));
    let files = std::fs::read_dir(layout.folder()).expect("there").count();
    assert_eq!(
        files, 4,
        "something else than `blobs`, `index.json`, `oci-layout` and `.gitignore`"
    );
}

#[test]
fn concurrent_writers_lose_no_entries() {
    let place = folder();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let place = place.path();
            scope.spawn(move || {
                let layout = Layout::create(place).expect("created by the first thread");
                for number in 0..8 {
                    let name = format!("{writer}.{number}");
                    let image = image(&layout, &name);
                    layout.put(Some(&name), image).expect("listed");
                }
            });
        }
    });
    let layout = Layout::open(place.path()).expect("a layout");
    assert_eq!(layout.index().expect("read").images().count(), 64);
    for writer in 0..8 {
        for number in 0..8 {
            let name = format!("{writer}.{number}");
            let listed = layout.find(&name).expect("read").expect("listed");
            assert!(layout.blobs().read(&listed).is_ok());
        }
    }
}

#[test]
fn invalid_layouts_are_errors_with_help() {
    let place = folder();
    let message = |error: Error| {
        let help = error.help();
        let text = format!("{error}; {help}");
        text.replace(place.path().to_str().expect("text"), "<place>")
    };
    let open = || message(Layout::open(place.path().join("x")).expect_err("no layout"));
    let create = || message(Layout::create(place.path().join("x")).expect_err("no layout"));
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(place.path().join("x")).expect("writable");
        std::fs::write(place.path().join("x").join(name), text).expect("writable");
    };
    let mut all = vec![open()];
    write("other", "");
    all.push(open());
    all.push(create());
    write("oci-layout", "{}");
    all.push(open());
    all.push(create());
    write("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    all.push(open());
    write("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    all.push(open());
    write("index.json", "[");
    all.push(open());
    write("index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
    let empty = Layout::open(place.path().join("x")).expect("a layout");
    all.push(message(empty.only().expect_err("it is empty")));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_blob_is_copied_as_a_hard_link() {
    let (store, place) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let layout = Layout::create(place.path()).expect("made");
    let content = blobs.write(EMPTY, b"{}").expect("written");
    layout.take_blob(&blobs, &content).expect("taken");
    layout.take_blob(&blobs, &content).expect("there already");
    assert_eq!(layout.blobs().read(&content).expect("there"), b"{}");
    let missing = layout.take_blob(&blobs, &Descriptor::of(EMPTY, b"?"));
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    let listed = std::fs::read_dir(place.path().join("blobs/sha256")).expect("there");
    assert_eq!(listed.count(), 1, "something is left behind");
}
