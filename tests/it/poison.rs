//! Altered results are refused and built again, and nothing is written outside their folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::support::{Project, Random, Run, build, entry_of, forget, results};

/// One entry of a tar: its kind, path, link target and content.
type Member<'a> = (tar::EntryType, &'a str, &'a str, &'a [u8]);

/// An archive with arbitrary names, which the tar crate refuses to write.
fn archive(members: &[Member]) -> (Vec<u8>, u64) {
    let mut bytes = 0;
    let mut whole = Vec::new();
    for (kind, path, target, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        whole.extend_from_slice(header.as_bytes());
        whole.extend_from_slice(content);
        whole.resize(whole.len().next_multiple_of(512), 0);
        bytes += content.len() as u64;
    }
    whole.extend_from_slice(&[0; 1024]);
    (zstd::encode_all(&whole[..], 0).unwrap(), bytes)
}

/// A project with one cached result, and the undamaged output.
struct Poisoned {
    project: Project,
    wanted: BTreeMap<String, String>,
    outside: PathBuf,
}

const MAKER: &str = "us/storefront-middleware";
const ONLY: &str = "--store us --filter storefront-middleware-*";

impl Poisoned {
    fn new() -> Self {
        let project = Project::shop();
        build(&project, ONLY);
        Self {
            wanted: project.tree(".out"),
            outside: project.root().with_file_name("evil"),
            project,
        }
    }

    fn blob(entry: &Value) -> String {
        let digest = entry["blob"].as_str().expect("a digest");
        format!(".alokai/cache/blobs/{digest}.tar.zst")
    }

    /// Builds from the cache alone and fails unless the script runs.
    fn is_rebuilt(&self, what: &str) -> Run {
        let project = &self.project;
        forget(project);
        let run = build(project, ONLY);
        assert_eq!(results(&run)[MAKER], "miss", "{what}");
        assert_eq!(project.tree(".out"), self.wanted, "{what}");
        let escaped =
            self.outside.exists() || project.exists(".out/evil") || project.exists("evil");
        assert!(!escaped, "{what}");
        run
    }
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType as Kind;
    let poisoned = Poisoned::new();
    let absolute = poisoned.outside.to_str().unwrap();
    let file = |path| (Kind::Regular, path, "", &b"evil"[..]);
    let link = |path, target| (Kind::Symlink, path, target, &b""[..]);
    let hostile: Vec<(&str, Vec<Member>)> = vec![
        ("upwards", vec![file("files/../../../../../evil")]),
        ("absolute", vec![file(absolute)]),
        ("only begins like one of ours", vec![file("filesevil")]),
        (
            "a link out",
            vec![link("files/lib", "../../../.."), file("files/lib/evil")],
        ),
        ("an absolute link", vec![link("files/lib", absolute)]),
        (
            "behind a link",
            vec![link("files/lib", "src"), file("files/lib/index.js")],
        ),
        (
            "a hard link",
            vec![(Kind::Link, "files/lib", "/etc/passwd", b"")],
        ),
        ("a device", vec![(Kind::Char, "files/lib", "", b"")]),
        ("a path twice", vec![file("files/a"), file("files/a")]),
        ("below a file", vec![file("files/a"), file("files/a/b")]),
        ("an empty part", vec![file("files/a//b")]),
    ];
    for (what, members) in hostile {
        let (path, mut entry) = entry_of(&poisoned.project, MAKER);
        let (blob, bytes) = archive(&members);
        entry["length"] = blob.len().into();
        entry["bytes"] = bytes.into();
        entry["blob"] = hex(digest(&SHA256, &blob).as_ref()).into();
        poisoned.project.write(&Poisoned::blob(&entry), &blob);
        std::fs::write(&path, entry.to_string()).unwrap();
        let run = poisoned.is_rebuilt(what);
        let is_told = run.stdout.contains("the cached result is not valid");
        assert!(is_told, "{what}: {}", run.stdout);
    }
}

#[test]
fn archives_with_other_bytes_are_refused() {
    let poisoned = Poisoned::new();
    let random = &mut Random::new(4);
    for attempt in 0..60 {
        let (_, entry) = entry_of(&poisoned.project, MAKER);
        let path = poisoned.project.path(&Poisoned::blob(&entry));
        let mut blob = std::fs::read(&path).unwrap();
        match attempt % 4 {
            0 => blob.truncate(random.below(blob.len())),
            1 => blob.push(0),
            _ => {
                let at = random.below(blob.len());
                blob[at] ^= 1 << random.below(8);
            }
        }
        std::fs::write(&path, blob).unwrap();
        poisoned.is_rebuilt(&format!("attempt {attempt}"));
    }
}

#[test]
fn the_inputs_of_a_damaged_result_are_built_too() {
    let project = Project::shop().build_script(
        "storefront-unified-nextjs",
        "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); \
         fs.copyFileSync('../storefront-middleware/lib/index.js', '.next/index.js')",
    );
    let only = ["--store", "us", "--filter", "storefront-unified-*"];
    build(&project, &only);
    let wanted = project.tree(".out/us/storefront-unified-nextjs");
    let (_, entry) = entry_of(&project, "us/storefront-unified-nextjs");
    let path = project.path(&Poisoned::blob(&entry));
    let mut blob = std::fs::read(&path).unwrap();
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    std::fs::write(&path, blob).unwrap();
    forget(&project);
    let run = build(&project, &only);
    assert_eq!(results(&run)["us/storefront-unified-nextjs"], "miss");
    assert_eq!(project.tree(".out/us/storefront-unified-nextjs"), wanted);
}

#[test]
fn entries_that_lie_are_refused() {
    let poisoned = Poisoned::new();
    for (name, value) in [
        ("key", json!("0".repeat(32))),
        ("blob", json!("../../../../../etc/passwd")),
        ("blob", json!("0".repeat(64))),
        ("length", json!(1)),
        ("bytes", json!(1)),
        ("bytes", json!(1_000_000)),
        ("files", json!("many")),
    ] {
        let (path, mut entry) = entry_of(&poisoned.project, MAKER);
        entry[name] = value;
        std::fs::write(&path, entry.to_string()).unwrap();
        poisoned.is_rebuilt(name);
    }
    let (path, _) = entry_of(&poisoned.project, MAKER);
    std::fs::write(path, "{").unwrap();
    poisoned.is_rebuilt("no JSON");
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
