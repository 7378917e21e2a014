use std::io::Write;

use tar::EntryType::{self, Block, Directory, Link, Regular, Symlink};

use super::{ExpectedArchive, OutputHasher, stays_inside, unpack, verify};
use oci::Digest;

/// A path, its kind, and its target if it is a link.
type TestMember = (&'static str, EntryType, &'static str);

/// An archive with these members, some of which no writer creates.
fn archive(members: &[TestMember]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, target) in members {
        let mut header = super::header(*kind, 0o644, 0);
        let gnu = header.as_gnu_mut().expect("it is one");
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_link_name_literal(target).expect("short");
        header.set_cksum();
        builder.append(&header, &b""[..]).expect("memory");
    }
    let tar = builder.into_inner().expect("memory");
    zstd::encode_all(&tar[..], 1).expect("memory")
}

/// Members of an archive that is accepted.
const INSIDE: &[TestMember] = &[
    ("log", Regular, ""),
    ("files/a/", Directory, ""),
    ("files/a/b", Regular, ""),
    ("files/a/link", Symlink, "../c"),
    ("files/c", Regular, ""),
];

/// Archives, each with a part of the reason why it is refused. An empty reason: it is accepted.
const CASES: &[(&str, &[TestMember])] = &[
    ("", INSIDE),
    ("not a path inside", &[("files/../outside", Regular, "")]),
    ("not a path inside", &[("files//outside", Regular, "")]),
    ("not a path inside", &[("files/..", Directory, "")]),
    (
        "is not a valid path in the archive",
        &[("../outside", Regular, "")],
    ),
    (
        "is not a valid path in the archive",
        &[("/outside", Regular, "")],
    ),
    (
        "is not a valid path in the archive",
        &[("log", Symlink, "files")],
    ),
    (
        "a path outside its folder",
        &[("files/link", Symlink, "..")],
    ),
    ("a path outside its folder", &[("files/link", Symlink, "/")]),
    (
        "below a file or a link",
        &[("files/a", Symlink, "b"), ("files/a/b", Regular, "")],
    ),
    (
        "below a file or a link",
        &[("files/a", Regular, ""), ("files/a/b", Regular, "")],
    ),
    (
        "occurs twice",
        &[("files/a/b", Regular, ""), ("files/a", Regular, "")],
    ),
    (
        "occurs twice",
        &[("files/a", Regular, ""), ("files/a", Symlink, "b")],
    ),
    (
        "occurs twice",
        &[("log", Regular, ""), ("log", Regular, "")],
    ),
    (
        "not a file, a folder or a link",
        &[("files/a", Link, "/etc/passwd")],
    ),
    ("not a file, a folder or a link", &[("files/a", Block, "")]),
];

#[test]
fn verifying_refuses_what_unpacking_refuses() {
    for (refusal, members) in CASES {
        let bytes = archive(members);
        let digest = Digest::of(&bytes);
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("into");
        std::fs::create_dir(&into).expect("a folder");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&bytes).expect("written");
        let open = || file.reopen().expect("it is there");
        let mut output = OutputHasher::default();
        for (name, kind, target) in *members {
            let Some(path) = name.strip_prefix("files/") else {
                continue;
            };
            match kind {
                Directory => output.folder(path.trim_end_matches('/')),
                Symlink => output.link(path, target.as_bytes()),
                _ => output.file(path, 0o644, 0),
            }
        }
        let expected = ExpectedArchive {
            digest,
            bytes: 0,
            output: output.end(),
        };
        let verified = verify(open(), &expected);
        let unpacked = unpack(open(), &expected, &into).map(drop);
        for result in [verified, unpacked] {
            let said = result.err().map(|error| error.to_string());
            match said {
                None => assert_eq!(*refusal, "", "{members:?} is taken"),
                Some(said) => assert!(
                    !refusal.is_empty() && said.contains(refusal),
                    "{members:?}: {said}"
                ),
            }
        }
        assert!(!folder.path().join("outside").exists());
    }
}

#[test]
fn a_link_is_checked_by_its_text() {
    assert!(stays_inside("a/b/link", "../c"));
    assert!(stays_inside("a/b/link", "../../c"));
    assert!(!stays_inside("a/b/link", "../../../c"));
    assert!(!stays_inside("link", "../c"));
    assert!(stays_inside("link", "c/../d"));
    assert!(!stays_inside("link", "c/../../d"));
    assert!(!stays_inside("link", "/etc/passwd"));
    assert!(!stays_inside("link", ""));
}
