//! The remote cache: clones share results, and no failure of the cache ends a build.

pub mod artifacts;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::artifacts::{archive, artifact, body, plant, tag};
use crate::support::{Fault, FaultyCache, On, Project, RemoteCache, Run, git};

const BUILD: &str = "store build --store us";
/// The smallest build, for tests in which the number of scripts does not matter.
const ONE: &str = "store build --store us --filter storefront-middleware-*";
const MIDDLEWARE: &str = "storefront-middleware";
const FRONTEND: &str = "storefront-unified-nextjs";
const TEAM: &str = "acme";
const KEY: &str = "a signature key of 32 bytes or more";
const OTHER_KEY: &str = "another key, and just as long as the first";

/// A repository and its clones. Every script that runs in a clone appends its app to one file.
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

    /// A new clone on its own path, which uses this remote cache.
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

    /// The apps whose scripts ran since the last call.
    fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.ran_file()).unwrap_or_default();
        let _ = std::fs::remove_file(self.ran_file());
        let mut ran: Vec<String> = text.lines().map(str::to_owned).collect();
        ran.sort();
        ran
    }

    /// Builds in a new clone with a remote cache that fails. Fails unless the script runs, and
    /// one warning with these words is printed.
    #[track_caller]
    fn is_hindered(&self, cache: &FaultyCache, words: &str) -> Project {
        let project = self.clone(&cache.address);
        let project = project.env("TURBO_REMOTE_CACHE_TIMEOUT", "1");
        let begun = Instant::now();
        let run = project.alokai(ONE).succeeds();
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(self.ran(), [MIDDLEWARE], "{}", run.stderr);
        warns_once(&run, words);
        project
    }

    /// Builds in a clone, which fills the remote cache.
    fn fill(&self, project: &Project) -> Run {
        let run = project.alokai(BUILD).succeeds();
        assert_eq!(self.ran(), [MIDDLEWARE, FRONTEND], "{}", run.stderr);
        assert_eq!(notes(&run), Vec::<&str>::new());
        run
    }
}

/// The lines of standard error that start with `note: `.
fn notes(run: &Run) -> Vec<&str> {
    let lines = run.stderr.lines();
    lines.filter(|line| line.starts_with("note: ")).collect()
}

/// Fails unless there is exactly one note, about the remote cache and with these words.
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
    let run = second.alokai(BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new(), "{}", run.stderr);
    assert_eq!(notes(&run), Vec::<&str>::new());
    assert_eq!(second.tree(".out"), first.tree(".out"));
    assert_eq!(second.tree(".alokai/logs"), first.tree(".alokai/logs"));
    assert!(second.exists(&format!(".out/us/{MIDDLEWARE}/lib/index.js")));
    assert!(second.exists(&format!(".out/us/{FRONTEND}/.next/standalone")));

    // A store that was never built takes a shared result.
    let build = json!({ "shared": [MIDDLEWARE], "env": { "*": ["RAN"] } });
    let shared = |project: Project| project.setting("build", &build);
    let first = shared(world.clone(&cache.address));
    first.alokai(BUILD).succeeds();
    world.ran();
    let third = shared(world.clone(&cache.address));
    let run = third.alokai("store build --store eu").succeeds();
    assert_eq!(world.ran(), [FRONTEND], "{}", run.stderr);
}

#[test]
fn only_runs_with_the_key_use_signed_artifacts() {
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    let with = |key: &str| {
        let clone = world.clone(&cache.address);
        clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", key)
    };
    let first = with(KEY);
    world.fill(&first);
    let second = with(KEY);
    let run = second.alokai(BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new(), "{}", run.stderr);
    assert_eq!(second.tree(".out"), first.tree(".out"));

    let stranger = with(OTHER_KEY);
    let run = stranger.alokai(BUILD).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE, FRONTEND]);
    warns_once(&run, "signature");
    assert_eq!(stranger.tree(".out"), first.tree(".out"));
    // The build replaced the artifacts, as turbo does, so now the first key is wrong.
    let run = with(KEY).alokai(BUILD).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE, FRONTEND]);
    warns_once(&run, "signature");
    // A short key gives a warning if there is no other one.
    let run = with("short").env("TURBO_TEAM", "new").alokai(ONE);
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
        let project = world.is_hindered(&proxy, words);
        assert_eq!(project.tree(&out), expected.tree(&out));
        if on != On::Get {
            assert!(
                proxy.count(On::Any) <= 2,
                "the cache is still asked after it failed"
            );
        }
    }
    // No server listens at this address.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://somebody:pa55word@{}", port.local_addr().unwrap());
    drop(port);
    let run = world.clone(&address).alokai(ONE).succeeds();
    assert_eq!(world.ran(), [MIDDLEWARE]);
    warns_once(&run, "cannot be used");
    run.stderr_lacks("pa55word");
    let run = world.clone("no address").alokai(ONE).succeeds();
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
        let run = clone(&proxy.address).alokai(ONE).succeeds();
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
            "rejected an upload: 413",
        ),
        (
            Fault::Answer(403, r#"{"message":"read-only mode"}"#),
            "read-only mode",
        ),
        (Fault::Answer(404, ""), "does not store artifacts"),
    ] {
        println!("{fault:?}");
        proxy.breaks(On::Put, fault);
        world.is_hindered(&proxy, words);
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
    // The server reads the socket buffers within the time limit, and the whole body after it.
    proxy.breaks(On::Put, Fault::Slow(80));
    let project = world.clone(&proxy.address);
    let project = project.env("TURBO_REMOTE_CACHE_TIMEOUT", "4");
    let begun = Instant::now();
    let run = project.alokai(ONE).succeeds();
    assert!(begun.elapsed() > Duration::from_millis(80 * MIB));
    assert_eq!(notes(&run), Vec::<&str>::new());
    assert_eq!((cache.hashes(TEAM).len(), proxy.count(On::Put)), (1, 1));
}

/// Many stores with different middlewares.
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
    // Eight requests run at once, and the first two of three failed requests are retried.
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
fn a_read_only_run_uploads_nothing() {
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
    // A read-only run reads.
    world.fill(&world.clone(&cache.address));
    let reader = world.clone(&proxy.address);
    let reader = reader.env("TURBO_REMOTE_CACHE_READ_ONLY", "1");
    reader.alokai(BUILD).succeeds();
    assert_eq!(world.ran(), Vec::<String>::new());
}

#[test]
fn secrets_of_the_remote_cache_are_found_nowhere() {
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
        for format in ["", "--json --force"] {
            let arguments = format!("{BUILD} --env-mode {mode} {format}");
            let run = project.alokai(&arguments).succeeds();
            let shown = [r#""RAN":"#, "TURBO_TOKEN=***", "SIGNATURE_KEY='***'"];
            let shown = shown.map(|text| run.stderr.contains(text) || !format.is_empty());
            assert_eq!(shown, [true; 3], "{}", run.stderr);
            texts.push((format!("stdout of `{format}`"), run.stdout));
            texts.push((format!("stderr of `{format}`"), run.stderr));
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
            // The environment of scripts does not contain the names of these variables.
            let plain = text.replace('\\', "");
            for name in ["TURBO_TOKEN", "TURBO_REMOTE_CACHE_SIGNATURE_KEY"] {
                assert!(!plain.contains(&format!("\"{name}\":")), "{place}");
            }
        }
        world.ran();
    }
}

#[test]
fn an_artifact_is_a_signed_tar_in_zstd_for_everybody() {
    let (world, cache) = (World::new(), RemoteCache::start(Some(KEY)));
    for team in ["team_abc", "abc"] {
        let clone = world.clone(&cache.address);
        let clone = clone.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", KEY);
        world.fill(&clone.env("TURBO_TEAMID", team));
        // A value that does not start with `team_` is a slug.
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
            // The zstd library skips the frame in front, and GNU tar reads the rest.
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
        ("outside its folder", body(entry.clone(), &link)),
    ];
    // An artifact with another key, one with other content, one with fewer files than its entry
    // says, and one that is cut short.
    let (_, other, middleware) = of(MIDDLEWARE);
    bodies.push((
        "does not match its metadata",
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
        "does not match its metadata",
        honest_body[..honest_body.len() - 9].to_vec(),
    ));
    bodies.push(("its format is not known", honest.clone()));
    bodies.push(("its format is not known", b"x".to_vec()));

    // Only the frontend is selected. It needs the middleware when its own result is not found.
    let frontend = format!("{BUILD} --filter storefront-unified-nextjs-*");
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
    // The last build replaced the artifact.
    let run = clone().alokai(&frontend).succeeds();
    assert_eq!((world.ran(), notes(&run)), (Vec::new(), Vec::new()));
}
