//! Packs layers: the same entries give the same bytes, and are packed once.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use oci::{Blobs, Digest, Error, PackedLayer, TreeContent, TreeEntry, pack};
use proptest::prelude::*;

use crate::support::{TIME, entry, file, folder, hard, link, run, same, text};

/// The tar of a compressed layer.
fn unpacked(blobs: &Blobs, layer: &PackedLayer) -> Vec<u8> {
    let file = blobs.open(&layer.descriptor).expect("it was packed");
    let mut tar = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(file);
    decoder.read_to_end(&mut tar).expect("it is gzip");
    tar
}

#[test]
fn the_same_entries_are_the_same_bytes_on_every_machine() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let layer = pack(&hard(sources.path()), TIME, &blobs).expect("packed");
    let tar = unpacked(&blobs, &layer);
    assert_eq!(Digest::of(&tar), layer.diff_id);
    let packed = std::fs::read(blobs.path(&layer.descriptor.digest)).expect("it is there");
    assert_eq!(Digest::of(&packed), layer.descriptor.digest);
    assert_eq!(packed.len() as u64, layer.descriptor.size);
    // If these digests change, raise the number in `FORMAT` of `crates/oci/src/layer.rs`.
    insta::assert_snapshot!(
        format!("{}\n{}", layer.diff_id, layer.descriptor.digest),
        @r"
    sha256:af88a2c0bf5b59a5bf059838d4fc79c1bfbb26135d6235c46cce887f3acd4c4f
    sha256:a52bd8787be14c8db528925937552501ca1b54b1e2fd90e5f82bc550fa9e16fc
    "
    );

    for cores in [1, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(cores).build();
        let store = folder();
        let blobs = Blobs::new(store.path());
        let packed = pool
            .expect("threads")
            .install(|| pack(&hard(sources.path()), TIME, &blobs));
        assert_eq!(packed.expect("packed"), layer, "{cores} cores");
    }

    let (sources, store) = (folder(), folder());
    let mut entries = hard(sources.path());
    for file in std::fs::read_dir(sources.path()).expect("it is there") {
        let path = file.expect("readable").path();
        let file = std::fs::File::options().append(true).open(path);
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        file.expect("writable")
            .set_modified(early)
            .expect("writable");
    }
    entries.reverse();
    let again = pack(&entries, TIME, &Blobs::new(store.path())).expect("packed");
    assert_eq!(again, layer);

    let other_time = pack(&entries, TIME + 1, &Blobs::new(store.path())).expect("packed");
    assert_ne!(other_time.diff_id, layer.diff_id);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_order_of_entries_has_no_effect(
        paths in prop::collection::btree_map("[a-c]{1,2}(/[a-cä-]{1,3}){0,2}", 0_usize..300, 1..12),
        seed in any::<u64>(),
    ) {
        let sources = folder();
        let mut entries = Vec::new();
        for (path, length) in &paths {
            // A path with paths below it must be a folder.
            let below = format!("{path}/");
            let is_folder = paths.keys().any(|other| other.starts_with(&below));
            entries.push(match length % 3 {
                _ if is_folder => entry(path, TreeContent::Folder),
                0 => entry(path, TreeContent::Folder),
                1 => link(path, "elsewhere"),
                _ => file(sources.path(), path, &text(*length)),
            });
        }
        let (store, other) = (folder(), folder());
        let first = pack(&entries, TIME, &Blobs::new(store.path())).expect("packed");
        let mut state = seed;
        for place in (1..entries.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            entries.swap(place, usize::try_from(state >> 33).expect("small") % (place + 1));
        }
        let shuffled = pack(&entries, TIME, &Blobs::new(other.path())).expect("packed");
        prop_assert_eq!(&first, &shuffled);

        let tar = unpacked(&Blobs::new(store.path()), &first);
        let mut archive = tar::Archive::new(&tar[..]);
        let found: Vec<String> = archive
            .entries()
            .expect("a tar")
            .map(|entry| {
                let entry = entry.expect("an entry");
                String::from_utf8(entry.path_bytes().into_owned()).expect("text")
            })
            .collect();
        let found: Vec<&str> = found.iter().map(|path| path.trim_end_matches('/')).collect();
        let sorted: Vec<&str> = paths.keys().map(String::as_str).collect();
        prop_assert_eq!(found, sorted);
    }
}

#[test]
fn gzip_and_tar_agree_with_what_was_packed() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let entries = hard(sources.path());
    let layer = pack(&entries, TIME, &blobs).expect("packed");
    let packed = store.path().join("layer.tar.gz");
    std::fs::copy(blobs.path(&layer.descriptor.digest), &packed).expect("writable");
    let packed = packed.to_str().expect("text");
    run("gzip", &["-t", packed]);

    let into = folder();
    let to = into.path().to_str().expect("text");
    run("tar", &["-xpzf", packed, "-C", to, "--no-same-owner"]);
    same(&entries, into.path());
    let all = walkdir::WalkDir::new(into.path()).min_depth(1).into_iter();
    assert_eq!(all.count(), entries.len());

    let listed = run("tar", &["--numeric-owner", "-tvzf", packed]);
    let of = |name: &str| {
        let found = listed.lines().find(|line| line.ends_with(name));
        found
            .expect(name)
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(" app/")[..2], ["drwxr-xr-x", "1000/1001"]);
    assert_eq!(of(" app/tool")[..3], ["-rwsr-xr-x", "3000000/0", "19"]);
    assert_eq!(of(" app/one")[..3], ["-rw-r--r--", "1000/1001", "1"]);
}

#[test]
fn a_layer_is_packed_once() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let mut entries = vec![
        entry("a", TreeContent::Folder),
        file(sources.path(), "a/b", b"content"),
        link("a/c", "b"),
    ];
    let first = pack(&entries, TIME, &blobs).expect("packed");
    assert!(first.is_new);
    let second = pack(&entries, TIME, &blobs).expect("found");
    assert!(!second.is_new);
    assert_eq!(
        (&second.descriptor, second.diff_id),
        (&first.descriptor, first.diff_id)
    );

    // All attributes of an entry are part of the key, but not the path of its source file.
    let elsewhere = folder();
    entries[1] = file(elsewhere.path(), "a/b", b"content");
    assert!(!pack(&entries, TIME, &blobs).expect("found").is_new);
    let change: [fn(&mut Vec<TreeEntry>); 7] = [
        |entries| entries[1].mode = 0o755,
        |entries| entries[1].owner.user = 0,
        |entries| entries[1].owner.group = 0,
        |entries| entries[2].content = TreeContent::Link { target: "d".into() },
        |entries| entries[2].content = TreeContent::Folder,
        |entries| entries[2].path = "a/d".into(),
        |entries| {
            let TreeContent::File { from, .. } = &entries[1].content else {
                panic!("it is a file");
            };
            std::fs::write(from, b"CONTENT").expect("writable");
        },
    ];
    for (number, change) in change.into_iter().enumerate() {
        let mut other = entries.clone();
        change(&mut other);
        let packed = pack(&other, TIME, &blobs).expect("packed");
        assert!(packed.is_new && packed.diff_id != first.diff_id, "{number}");
    }

    // A record is used only while its blob exists with the right size.
    std::fs::write(elsewhere.path().join(Digest::of(b"a/b").hex()), b"content").expect("writable");
    let path = blobs.path(&first.descriptor.digest);
    std::fs::write(&path, b"short").expect("writable");
    assert!(pack(&entries, TIME, &blobs).expect("packed").is_new);
    assert!(blobs.open(&first.descriptor).is_ok());
    blobs.remove(&first.descriptor.digest).expect("it is there");
    assert!(pack(&entries, TIME, &blobs).expect("packed").is_new);
    for record in std::fs::read_dir(store.path().join("layers")).expect("there") {
        std::fs::write(record.expect("readable").path(), b"{").expect("writable");
    }
    assert!(pack(&entries, TIME, &blobs).expect("packed").is_new);
}

#[test]
fn a_file_that_changes_is_an_error_and_leaves_nothing() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let good = file(sources.path(), "a", b"12345");
    for bytes in [4, 6] {
        let mut wrong = good.clone();
        if let TreeContent::File { bytes: said, .. } = &mut wrong.content {
            *said = bytes;
        }
        let error = pack(&[wrong], TIME, &blobs).expect_err("it has other bytes");
        assert!(matches!(error, Error::Changed { .. }), "{error:?}");
        assert!(error.to_string().ends_with("changed while it was packed"));
    }
    // A pipe returns other bytes when it is read again.
    let pipe = sources.path().join("pipe");
    run("mkfifo", &[pipe.to_str().expect("text")]);
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            for content in [b"12345", b"54321"] {
                let mut open = std::fs::File::options()
                    .write(true)
                    .open(&pipe)
                    .expect("read");
                open.write_all(content).expect("read");
                drop(open);
                // Wait until the reader has reached the end.
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    });
    let from = pipe;
    let changing = entry("b", TreeContent::File { from, bytes: 5 });
    let error = pack(&[good, changing], TIME, &blobs).expect_err("it changes");
    writer.join().expect("it ends");
    assert!(matches!(error, Error::Changed { .. }), "{error:?}");
    let all = walkdir::WalkDir::new(store.path()).into_iter();
    let files = all.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.file_type().is_file())
    });
    assert_eq!(files.count(), 0);
}

#[test]
fn entries_that_cannot_be_unpacked_are_errors() {
    let (sources, store) = (folder(), folder());
    let blobs = Blobs::new(store.path());
    let one = |path: &str| file(sources.path(), path, b"");
    for (entries, reason) in [
        (vec![one("a"), one("a")], "occurs twice"),
        (vec![one("a"), one("a-"), one("a/b")], "a parent of it"),
        (vec![link("a", "b"), one("a/b")], "a parent of it"),
        (vec![one("")], "not a valid relative path"),
        (vec![one("/a")], "not a valid relative path"),
        (vec![one("a/")], "not a valid relative path"),
        (vec![one("a//b")], "not a valid relative path"),
        (vec![one("a/../b")], "not a valid relative path"),
        (vec![one("./a")], "not a valid relative path"),
        (vec![one("a/.wh.b")], "removes"),
        (vec![one("a\0b")], "zero byte"),
        (vec![link("a", "")], "valid target"),
    ] {
        let error = pack(&entries, TIME, &blobs).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let missing = sources.path().join("missing");
    let missing = entry(
        "a",
        TreeContent::File {
            from: missing,
            bytes: 1,
        },
    );
    assert!(matches!(
        pack(&[missing], TIME, &blobs),
        Err(Error::Io { .. })
    ));
}
