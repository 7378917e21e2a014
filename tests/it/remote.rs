//! The remote cache: what one fills another takes, and nothing that goes wrong ends a build.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::{Fault, FaultyCache, On, Project, RemoteCache, Run, git};

const BUILD: [&str; 4] = ["store", "build", "--store", "us"];
/// Where it is all the same how much is built.
const ONE: [&str; 6] = [
    "store",
    "build",
    "--store",
    "us",
    "--filter",
    "storefront-middleware-*",
];
const MIDDLEWARE: &str = "storefront-middleware";
const FRONTEND: &str = "storefront-unified-nextjs";
const TEAM: &str = "acme";
const KEY: &str = "a signature key of 32 bytes or more";
const OTHER_KEY: &str = "another key, and just as long as the first";

/// A repository that is cloned, and the note of every script that ran in any of its clones.
struct World {
    folder: tempfile::TempDir,
    origin: Project,
    clones: AtomicUsize,
}

impl World {
    fn new() -> Self {
        Self::of(Project::shop())
    }

    fn of(origin: Project) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for app in [MIDDLEWARE, FRONTEND] {
            let path = format!("apps/{app}/build.js");
            let build = origin.read(&path);
            let note = "require('fs').appendFileSync(process.env.RAN, process.cwd().split('/').pop() + '\\n');\n";
            origin.write(&path, (note.to_owned() + &build).as_bytes());
        }
        let variables = serde_json::json!({ MIDDLEWARE: ["RAN"], FRONTEND: ["RAN"] });
        let origin = origin.setting("build", &serde_json::json!({ "env": variables }));
        origin.commit();
        Self {
            folder,
            origin,
            clones: AtomicUsize::new(0),
        }
    }

    /// A new clone on a path of its own, whose runs find this remote cache.
    fn clone(&self, api: &str) -> Project {
        let number = self.clones.fetch_add(1, Ordering::Relaxed);
        let root = self
            .folder
            .path()
            .join(format!("{number}/{}", "x".repeat(number)));
        let from = self.origin.root().to_str().expect("text");
        let to = root.to_str().expect("text");
        git(self.folder.path(), &["clone", "--quiet", from, to]);
        Project::at(root)
            .env("RAN", self.ran_file().to_str().expect("text"))
            .env("TURBO_API", api)
            .env("TURBO_TOKEN", RemoteCache::TOKEN)
            .env("TURBO_TEAM", TEAM)
    }

    fn ran_file(&self) -> PathBuf {
        self.folder.path().join("ran")
    }

    /// Apps whose scripts ran since this was asked last.
    fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.ran_file()).unwrap_or_default();
        let _ = std::fs::remove_file(self.ran_file());
        let mut ran: Vec<String> = text.lines().map(str::to_owned).collect();
        ran.sort();
        ran
    }

    /// Builds in a clone, so that the remote cache has what others look for.
    fn fill(&self, project: &Project) -> Run {
        let run = project.alokai(&BUILD).succeeds();
        assert_eq!(self.ran(), [MIDDLEWARE, FRONTEND], "{}", run.stderr);
        assert_eq!(notes(&run), Vec::<&str>::new());
        run
    }
}

/// What a person is told beside the work itself.
fn notes(run: &Run) -> Vec<&str> {
    let lines = run.stderr.lines();
    lines.filter(|line| line.starts_with("note: ")).collect()
}

/// Fails unless there is one warning, of the remote cache and with these words.
#[track_caller]
fn warns_once(run: &Run, words: &str) {
    let notes = notes(run);
    let is_right = |note: &&str| note.contains("remote cache") && note.contains(words);
    assert!(
        notes.len() == 1 && notes.iter().all(is_right),
        "no single warning of `{words}`:\n{}",
        run.stderr
    );
}

#[test]
fn a_clone_on_another_path_builds_nothing() {
    let (world, cache) = (World::new(), RemoteCache::start(None));
    let first = world.clone(&cache.address);
    world.fill(&first);

    let second = world.clone(&cache.address);
    let run = second.alokai(&BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new(), "{}", run.stderr);
    assert_eq!(notes(&run), Vec::<&str>::new());
    assert_eq!(second.tree(".out"), first.tree(".out"));
    assert_eq!(second.tree(".alokai/logs"), first.tree(".alokai/logs"));
    assert!(second.exists(&format!(".out/us/{MIDDLEWARE}/lib/index.js")));
    assert!(second.exists(&format!(".out/us/{FRONTEND}/.next/standalone")));

    // A shared result is taken by a store that has never been built anywhere.
    let build = json!({ "shared": [MIDDLEWARE], "env": { "*": ["RAN"] } });
    let shared = |project: Project| project.setting("build", &build);
    let first = shared(world.clone(&cache.address));
    first.alokai(&BUILD).succeeds();
    world.ran();
    let third = shared(world.clone(&cache.address));
    let run = third
        .alokai(&["store", "build", "--store", "eu"])
        .succeeds();
    assert_eq!(world.ran(), [FRONTEND], "{}", run.stderr);
}

#[test]
fn only_who_has_the_key_takes_what_it_signed() {
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    let with = |key: &str| {
        let clone = world.clone(&cache.address);
        clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", key)
    };
    let first = with(KEY);
    world.fill(&first);
    let second = with(KEY);
    let run = second.alokai(&BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new(), "{}", run.stderr);
    assert_eq!(second.tree(".out"), first.tree(".out"));

    let stranger = with(OTHER_KEY);
    let run = stranger.alokai(&BUILD).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE, FRONTEND]);
    warns_once(&run, "signature");
    assert_eq!(stranger.tree(".out"), first.tree(".out"));
    // It has replaced them, as turbo would; so now the first key is the wrong one.
    let run = with(KEY).alokai(&BUILD).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE, FRONTEND]);
    warns_once(&run, "signature");
    // A short key is advised against where nothing worse is to be told.
    let run = with("short").env("TURBO_TEAM", "new").alokai(&ONE);
    warns_once(&run.succeeds(), "fewer than 32 bytes");
}

#[test]
fn faults_of_the_server_end_no_build() {
    const OFF: &str =
        r#"{"error":{"code":"remote_caching_disabled","message":"switched off by the team"}}"#;
    let (world, cache) = (World::new(), RemoteCache::start(None));
    let proxy = FaultyCache::before(&cache);
    let expected = world.clone(&cache.address);
    world.fill(&expected);
    let out = format!(".out/us/{MIDDLEWARE}");
    let faults = [
        (On::Any, Fault::Answer(500, "{}"), "500"),
        (On::Get, Fault::Answer(500, "no JSON"), "500"),
        (
            On::Any,
            Fault::Stall,
            "no data was sent or received for 1 s",
        ),
        (
            On::Get,
            Fault::Stall,
            "no data was sent or received for 1 s",
        ),
        (
            On::Get,
            Fault::StallWithin,
            "no data was sent or received for 1 s",
        ),
        (On::Get, Fault::Truncate, "cannot be used"),
        (On::Get, Fault::Flip, "is not used"),
        (
            On::Get,
            Fault::Answer(200, "not ours"),
            "its format is not known",
        ),
        (On::Get, Fault::Answer(403, OFF), "switched off by the team"),
        (On::Any, Fault::Answer(401, "{}"), "401"),
        (
            On::Status,
            Fault::Answer(200, r#"{"status":"disabled"}"#),
            "`disabled`",
        ),
    ];
    for (on, fault, words) in faults {
        println!("{on:?} {fault:?}");
        proxy.breaks(on, fault);
        let project = world.clone(&proxy.address);
        let project = project.env("TURBO_REMOTE_CACHE_TIMEOUT", "1");
        let begun = Instant::now();
        let run = project.alokai(&ONE).succeeds();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(world.ran(), [MIDDLEWARE], "{}", run.stderr);
        warns_once(&run, words);
        assert_eq!(project.tree(&out), expected.tree(&out));
        if on != On::Get {
            assert!(proxy.count(On::Any) <= 2, "it was asked on");
        }
    }
    // Nobody listens there.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://somebody:pa55word@{}", port.local_addr().unwrap());
    drop(port);
    let run = world.clone(&address).alokai(&ONE).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE]);
    warns_once(&run, "cannot be used");
    assert!(!run.stderr.contains("pa55word"), "{}", run.stderr);
    let run = world.clone("no address").alokai(&ONE).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE]);
    warns_once(&run, "`TURBO_API`");
}

#[test]
fn a_wrong_signature_is_a_miss() {
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    let proxy = FaultyCache::before(&cache);
    let clone = |api: &str| {
        let clone = world.clone(api);
        clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", KEY)
    };
    world.fill(&clone(&cache.address));
    for fault in [
        Fault::Tag("bm90IGEgc2lnbmF0dXJl"),
        Fault::Tag("no base64 at all"),
        Fault::NoTag,
        Fault::Flip,
    ] {
        println!("{fault:?}");
        proxy.breaks(On::Get, fault);
        let run = clone(&proxy.address).alokai(&ONE).succeeds();
        assert_eq!(world.ran(), [MIDDLEWARE], "{}", run.stderr);
        warns_once(&run, "signature");
    }
}

#[test]
fn uploads_that_fail_end_no_build_and_hold_none_for_long() {
    let (world, cache) = (World::new(), RemoteCache::start(None));
    let proxy = FaultyCache::before(&cache);
    for (fault, words) in [
        (Fault::Stall, "no data was sent or received for 1 s"),
        (Fault::Answer(412, "{}"), "412"),
        (
            Fault::Answer(413, r#"{"message":"too large"}"#),
            "does not accept a result: 413",
        ),
        (
            Fault::Answer(403, r#"{"message":"read-only mode"}"#),
            "read-only mode",
        ),
        (Fault::Answer(404, ""), "does not store artifacts"),
    ] {
        println!("{fault:?}");
        proxy.breaks(On::Put, fault);
        let project = world.clone(&proxy.address);
        let project = project.env("TURBO_REMOTE_CACHE_TIMEOUT", "1");
        let begun = Instant::now();
        let run = project.alokai(&ONE).succeeds();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(world.ran(), [MIDDLEWARE], "{}", run.stderr);
        warns_once(&run, words);
        assert_eq!(cache.hashes(TEAM), Vec::<String>::new());
    }
}

#[test]
fn an_upload_may_take_longer_than_the_server_may_be_silent() {
    const MIB: u64 = 60;
    let build = format!(
        "require('fs').mkdirSync('lib', {{ recursive: true }}); \
         require('fs').writeFileSync('lib/index.js', require('crypto').randomBytes({MIB} << 20))"
    );
    let project = Project::shop().file(&format!("apps/{MIDDLEWARE}/build.js"), &build);
    let (world, cache) = (World::of(project), RemoteCache::start(None));
    let proxy = FaultyCache::before(&cache);
    // What the sockets hold is read within the time, all of it is not.
    proxy.breaks(On::Put, Fault::Slow(80));
    let project = world.clone(&proxy.address);
    let project = project.env("TURBO_REMOTE_CACHE_TIMEOUT", "4");
    let begun = Instant::now();
    let run = project.alokai(&ONE).succeeds();
    assert!(begun.elapsed() > Duration::from_millis(80 * MIB));
    assert_eq!(notes(&run), Vec::<&str>::new());
    assert_eq!((cache.hashes(TEAM).len(), proxy.count(On::Put)), (1, 1));
}

/// Many stores whose middlewares all differ.
fn many() -> World {
    let store = |number: usize| format!("s{number:02}");
    let mut stores = serde_json::Map::new();
    let mut project = Project::shop();
    for number in 0..12 {
        let deployment = serde_json::json!({
            "projectName": format!("many-{number}"), "cloudRegion": "us-east1", "framework": "nextjs"
        });
        stores.insert(
            store(number),
            serde_json::json!({ "deployment": deployment }),
        );
        let path = format!("apps/stores/{}/{MIDDLEWARE}/own.txt", store(number));
        project = project.file(&path, &number.to_string());
    }
    std::fs::remove_dir_all(project.path("apps/stores/fashion")).unwrap();
    World::of(project.config(&serde_json::json!({ "stores": stores }).to_string()))
}

#[test]
fn a_server_that_fails_is_left_alone() {
    let (world, cache) = (many(), RemoteCache::start(None));
    let proxy = FaultyCache::before(&cache);
    let arguments = [
        "store",
        "build",
        "--all",
        "--filter",
        "storefront-middleware-*",
    ];

    proxy.breaks(On::Get, Fault::Answer(500, "{}"));
    let run = world.clone(&proxy.address).alokai(&arguments).succeeds();
    assert_eq!(world.ran().len(), 12);
    warns_once(&run, "500");
    // Eight are asked at once, and the first two of the three outages are asked again.
    assert!(proxy.count(On::Get) <= 10, "{} reads", proxy.count(On::Get));
    assert_eq!((proxy.count(On::Status), proxy.count(On::Put)), (1, 0));

    proxy.breaks(On::Put, Fault::Answer(500, "{}"));
    let one = [&arguments[..], &["--concurrency", "1"]].concat();
    let run = world.clone(&proxy.address).alokai(&one).succeeds();
    assert_eq!(world.ran().len(), 12);
    warns_once(&run, "500");
    assert_eq!(proxy.count(On::Put), 3);
}

#[test]
fn who_may_only_read_uploads_nothing() {
    let (world, cache) = (World::new(), RemoteCache::start(None));
    let proxy = FaultyCache::before(&cache);
    let reader = world.clone(&proxy.address);
    world.fill(&reader.env("TURBO_REMOTE_CACHE_READ_ONLY", "1"));
    assert_eq!(
        (proxy.count(On::Put), cache.hashes(TEAM)),
        (0, Vec::new()),
        "something was uploaded"
    );
    assert!(proxy.count(On::Get) > 0);
    // And it does read.
    world.fill(&world.clone(&cache.address));
    let reader = world.clone(&proxy.address);
    let reader = reader.env("TURBO_REMOTE_CACHE_READ_ONLY", "1");
    reader.alokai(&BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new());
}

#[test]
fn its_secrets_are_found_nowhere() {
    const ECHO: &str =
        r#"{"error":{"code":"forbidden","message":"no right for t0ken-of-the-remote-cache"}}"#;
    let build = "console.log(JSON.stringify(process.env)); \
        console.log(require('fs').readFileSync('../../../.env', 'utf8')); \
        require('fs').mkdirSync('lib', { recursive: true }); \
        require('fs').writeFileSync('lib/index.js', JSON.stringify(process.env))";
    let project = Project::shop().file(&format!("apps/{MIDDLEWARE}/build.js"), build);
    let (world, cache) = (World::of(project), RemoteCache::start(Some(KEY)));
    let proxy = FaultyCache::before(&cache);
    let file = format!(
        "TURBO_TOKEN={}\nTURBO_REMOTE_CACHE_SIGNATURE_KEY='{KEY}'\n",
        RemoteCache::TOKEN
    );
    for (fault, is_loose) in [
        (None, false),
        (None, true),
        (Some(Fault::Answer(403, ECHO)), false),
    ] {
        if let Some(fault) = fault.clone() {
            proxy.breaks(On::Get, fault);
        }
        let project = world.clone(&proxy.address).file(".env", &file);
        let mode = if is_loose { "loose" } else { "strict" };
        let mut texts = Vec::new();
        for format in [&[][..], &["--json", "--force"]] {
            let arguments = [&BUILD[..], &["--env-mode", mode], format].concat();
            let run = project.alokai(&arguments).succeeds();
            let shown = [r#""RAN":"#, "TURBO_TOKEN=***", "SIGNATURE_KEY='***'"];
            let shown = shown.map(|text| run.stderr.contains(text) || !format.is_empty());
            assert_eq!(shown, [true; 3], "{}", run.stderr);
            texts.push((format!("stdout of {format:?}"), run.stdout));
            texts.push((format!("stderr of {format:?}"), run.stderr));
        }
        assert_eq!(fault.is_some(), texts[1].1.contains("no right for ***"));
        for folder in [".out", ".alokai"] {
            let tree = project.tree(folder).into_iter();
            texts.extend(tree.map(|(path, text)| (format!("{folder}/{path}"), text)));
        }
        for entry in std::fs::read_dir(project.path(".alokai/cache/blobs")).unwrap() {
            let path = entry.unwrap().path();
            let bytes = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            texts.push((path.display().to_string(), text));
        }
        for (place, text) in texts {
            for secret in [RemoteCache::TOKEN, KEY] {
                assert!(!text.contains(secret), "`{secret}` is in {place}");
            }
            // Not even their names are in the environment of scripts.
            let plain = text.replace('\\', "");
            for name in ["TURBO_TOKEN", "TURBO_REMOTE_CACHE_SIGNATURE_KEY"] {
                assert!(!plain.contains(&format!("\"{name}\":")), "{place}");
            }
        }
        world.ran();
    }
}

/// The tag that turbo gives a body, worked out by somebody else.
fn tag(key: &str, hash: &str, team: &str, body: &std::path::Path) -> String {
    const SCRIPT: &str = "
        const [key, hash, team, body] = process.argv.slice(1);
        const hmac = require('crypto').createHmac('sha256', key);
        for (const part of ['artifact-signature:v2', hash, team, require('fs').readFileSync(body)]) {
          const length = Buffer.alloc(8);
          length.writeBigUInt64LE(BigInt(Buffer.byteLength(part)));
          hmac.update(length).update(part);
        }
        process.stdout.write(hmac.digest('base64'));";
    let output = Command::new("node")
        .args(["-e", SCRIPT, key, hash, team])
        .arg(body)
        .output()
        .expect("node runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("base64")
}

#[test]
fn an_artifact_is_a_signed_tar_in_zstd_for_everybody() {
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    for team in ["team_abc", "abc"] {
        let clone = world.clone(&cache.address);
        let clone = clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", KEY);
        world.fill(&clone.env("TURBO_TEAMID", team));
        // What does not begin as an id does is none.
        let (store, signed) = match team {
            "abc" => (TEAM, ""),
            id => (id, id),
        };
        let hashes = cache.hashes(store);
        assert_eq!(hashes.len(), 2);
        for hash in hashes {
            let body = cache.store(store).join(&hash);
            let given = std::fs::read_to_string(body.with_extension("tag")).unwrap();
            assert_eq!(given, tag(KEY, &hash, signed, &body));
            // zstd's own library skips what is in front; a `tar` that is not ours reads the rest.
            let plain = zstd::decode_all(std::fs::File::open(&body).unwrap()).unwrap();
            let mut child = Command::new("tar")
                .args(["--list", "--file", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("tar runs");
            let mut stdin = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut stdin, &plain).unwrap();
            drop(stdin);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let list = String::from_utf8(output.stdout).unwrap();
            assert!(
                list.starts_with("log\nfiles/")
                    && list.contains("index.js") != list.contains(".next/"),
                "{list}"
            );
        }
    }
}

/// An artifact: the entry in front, and the archive.
fn artifact(body: &[u8]) -> (Value, Vec<u8>) {
    let length = u32::from_le_bytes(body[4..8].try_into().unwrap());
    let end = 8 + usize::try_from(length).unwrap();
    let entry = serde_json::from_slice(&body[8..end]).expect("the entry is JSON");
    (entry, body[end..].to_vec())
}

/// The body of an artifact whose entry fits its archive.
fn body(mut entry: Value, archive: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, archive);
    let digest = digest.as_ref().iter();
    let mut plain = Vec::new();
    zstd::Decoder::new(archive)
        .unwrap()
        .read_to_end(&mut plain)
        .unwrap();
    let mut tar = tar::Archive::new(&plain[..]);
    let sizes = tar.entries().unwrap().map(|member| member.unwrap().size());
    let digits = digest.map(|byte| format!("{byte:02x}"));
    entry["blob"] = digits.collect::<Vec<_>>().concat().into();
    entry["length"] = archive.len().into();
    entry["bytes"] = sizes.sum::<u64>().into();
    let text = entry.to_string();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [
        &0x184D_2A50_u32.to_le_bytes()[..],
        &length,
        text.as_bytes(),
        archive,
    ]
    .concat()
}

/// Puts an artifact there, rightly signed.
fn plant(cache: &RemoteCache, hash: &str, body: &[u8]) {
    let path = cache.store(TEAM).join(hash);
    std::fs::write(&path, body).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in [&b"artifact-signature:v2"[..], hash.as_bytes(), b"", body] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let tag = BASE64.encode(context.sign().as_ref());
    std::fs::write(path.with_extension("tag"), tag).unwrap();
}

/// An archive with members that no honest writer makes; links lead to the root.
fn archive(members: &[(&str, tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(0);
        // The crate's own way refuses such names.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == tar::EntryType::Symlink {
            header.set_link_name_literal("/").unwrap();
        }
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    zstd::encode_all(&builder.into_inner().unwrap()[..], 3).unwrap()
}

#[test]
fn hostile_artifacts_are_refused_although_they_are_signed() {
    use tar::EntryType::{Regular, Symlink};
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    let clone = || {
        let clone = world.clone(&cache.address);
        clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", KEY)
    };
    let expected = clone();
    world.fill(&expected);
    let all: Vec<(String, Value, Vec<u8>)> = cache
        .hashes(TEAM)
        .into_iter()
        .map(|hash| {
            let (entry, archive) = artifact(&std::fs::read(cache.store(TEAM).join(&hash)).unwrap());
            (hash, entry, archive)
        })
        .collect();
    let of = |maker: &str| {
        let wanted = format!("us/{maker}");
        all.iter()
            .find(|(_, entry, _)| entry["maker"] == *wanted)
            .unwrap()
    };
    let (hash, entry, honest) = of(FRONTEND);
    let outside = world.folder.path().join("outside");
    let above = archive(&[("files/../../../../../outside", Regular)]);
    let link = archive(&[("files/link", Symlink)]);
    let mut bodies: Vec<(&str, Vec<u8>)> = vec![
        ("not a path inside", body(entry.clone(), &above)),
        ("leads out", body(entry.clone(), &link)),
    ];
    // Of another key, of another content, with less in it than it says, and cut short.
    let (_, other, middleware) = of(MIDDLEWARE);
    bodies.push((
        "does not match its own entry",
        body(other.clone(), middleware),
    ));
    let honest_body = body(entry.clone(), honest);
    let mut more = entry.clone();
    more["bytes"] = (entry["bytes"].as_u64().unwrap() + 1).into();
    let text = more.to_string();
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    let front = [&0x184D_2A50_u32.to_le_bytes()[..], &length, text.as_bytes()].concat();
    bodies.push(("bytes are missing", [&front[..], honest].concat()));
    bodies.push((
        "does not match its own entry",
        honest_body[..honest_body.len() - 9].to_vec(),
    ));
    bodies.push(("its format is not known", honest.clone()));
    bodies.push(("its format is not known", b"x".to_vec()));

    // Only the frontend is asked for, which needs its middleware once it has to be built itself.
    let frontend = [&BUILD[..], &["--filter", "storefront-unified-nextjs-*"]].concat();
    for (words, body) in bodies {
        plant(&cache, hash, &body);
        let project = clone();
        let run = project.alokai(&frontend).succeeds();
        assert_eq!(world.ran(), [FRONTEND], "{words}: {}", run.stderr);
        warns_once(&run, words);
        assert!(!outside.exists() && !world.folder.path().join("../outside").exists());
        for app in [MIDDLEWARE, FRONTEND] {
            let out = format!(".out/us/{app}");
            assert_eq!(project.tree(&out), expected.tree(&out), "{words}");
        }
    }
    // The last one to build has mended it.
    let run = clone().alokai(&frontend).succeeds();
    assert_eq!((world.ran(), notes(&run)), (Vec::new(), Vec::new()));
}
