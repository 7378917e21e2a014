//! Tool caches: kept beside results, carried to other machines, and never trusted.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::remote::artifacts;
use crate::support::{
    Fault, FaultyCache, MIDDLEWARE, On, Project, RemoteCache, Run, build, entry_of, events, git,
    results, rows,
};

const UNIT: &str = "us/storefront-middleware";
const ONLY: &str = "--store us --filter storefront-middleware-*";
const SOURCE: &str = "apps/storefront-middleware/src/index.js";
const OUT: &str = ".out/us/storefront-middleware";
const TEAM: &str = "acme";

/// A build as of a tool with a cache: it is slow without its cache, which has a module for each
/// source, and prints how many modules it found there. It also writes what must not travel.
const TOOL: &str = r"
const fs = require('fs');
const cache = '.next/cache/webpack';
const others = ['.next/cache/fetch-cache', '.next/cache/images', '.next/cache/swc', 'node_modules/.cache/babel'];
for (const folder of [cache, ...others, 'lib']) fs.mkdirSync(folder, { recursive: true });
const found = fs.readdirSync(cache);
console.log('FOUND', found.length, 'of', fs.readdirSync('.next/cache').sort().join(),
  fs.readdirSync('node_modules/.cache/babel').length);
if (found.length === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 700);
const source = fs.readFileSync('src/index.js', 'utf8');
fs.writeFileSync(`${cache}/${found.length}`, 'm'.repeat(Number(process.env.MODULE_BYTES ?? 100)));
for (const folder of others) fs.writeFileSync(`${folder}/data`, 'secret');
fs.writeFileSync('.next/cache/.rscinfo', 'secret');
if (source.includes('FAIL')) process.exit(1);
fs.writeFileSync('lib/index.js', source.includes('LEAK') ? `${source} ${found.length}` : source);
";

/// A repository, which is cloned again and again to one path, as on CI machines.
struct Machines {
    folder: tempfile::TempDir,
    origin: Project,
}

impl Machines {
    fn new() -> Self {
        Self::of(Project::shop().build_script(MIDDLEWARE, TOOL))
    }

    fn of(origin: Project) -> Self {
        let origin = origin.env_of(MIDDLEWARE, &["MODULE_BYTES"]);
        origin.write(
            ".gitignore",
            "node_modules\n.out\n.alokai\nlib\n.next\n.env\n",
        );
        origin.commit();
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, origin }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("work/project")
    }

    /// A new machine with a clone, in place of the one before.
    fn next(&self, api: &str) -> Project {
        self.next_at(self.root(), api)
    }

    fn next_at(&self, root: PathBuf, api: &str) -> Project {
        let _ = std::fs::remove_dir_all(&root);
        let from = self.origin.root().to_str().expect("text");
        let to = root.to_str().expect("text");
        git(self.folder.path(), &["clone", "--quiet", from, to]);
        let project = Project::at(root);
        project
            .env("TURBO_API", api)
            .env("TURBO_TOKEN", RemoteCache::TOKEN)
            .env("TURBO_TEAM", TEAM)
    }

    /// Commits another source.
    fn edit(&self, source: &str) {
        self.origin.write(SOURCE, source);
        self.origin.commit();
    }
}

/// What the tool printed about its cache.
fn found(run: &Run) -> String {
    let lines = run.stderr.lines().chain(run.stdout.lines());
    let mut said = lines.filter_map(|line| Some(line.split_once("FOUND ")?.1.to_owned()));
    let said = said.next().expect("the script ran");
    said.trim_end_matches("\"}").to_owned()
}

/// What the tool prints without a cache.
const COLD: &str = "0 of fetch-cache,images,swc,webpack 0";

fn notes(run: &Run) -> Vec<String> {
    let notices = events(run).into_iter();
    let notices = notices.filter(|event| event["event"] == "notice");
    notices
        .map(|event| event["message"].as_str().expect("text").to_owned())
        .collect()
}

/// The tool cache with which the unit began, as the summary says.
fn used(run: &Run) -> Value {
    rows(run)[UNIT]["toolCache"].clone()
}

/// The entry of the unit's tool cache on this machine.
fn kept(project: &Project) -> Option<(PathBuf, Value)> {
    let files = std::fs::read_dir(project.path(".alokai/cache/entries")).ok()?;
    let mut entries = files.map(|file| {
        let path = file.expect("readable").path();
        let entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, entry)
    });
    entries.find(|(_, entry)| entry["tools"].is_object())
}

/// The artifact of the tool cache in a remote cache: its path and its entry.
fn artifact(cache: &RemoteCache) -> (PathBuf, Value) {
    let hashes = cache.hashes(TEAM).into_iter();
    let mut found = hashes.filter_map(|hash| {
        let path = cache.store(TEAM).join(hash);
        let (entry, _) = artifacts::artifact(&std::fs::read(&path).unwrap());
        entry["tools"].is_object().then_some((path, entry))
    });
    found.next().expect("an artifact of a tool cache")
}

/// Writes an artifact with this entry and this archive.
fn plant(path: &std::path::Path, entry: Value, archive: &[u8]) {
    std::fs::write(path, artifacts::body(entry, archive)).unwrap();
}

#[test]
fn the_second_machine_starts_with_the_cache_of_the_first() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    let first = machines.next(&cache.address);
    let run = build(&first, ONLY);
    assert_eq!(found(&run), COLD);
    assert_eq!(used(&run), Value::Null);
    let (_, entry) = artifact(&cache);
    let figures = &entry["tools"];
    assert!(figures["coldMilliseconds"].is_u64() && figures["warmMilliseconds"].is_null());

    machines.edit("second");
    let second = machines.next(&cache.address);
    let run = build(&second, ONLY);
    // Answers and pictures of other servers, keys, and compiled programs stay on their machine.
    assert_eq!(found(&run), "1 of fetch-cache,images,swc,webpack 1");
    let with = used(&run);
    assert_eq!(
        (&with["from"], &with["bytes"]),
        (&json!("remote"), &json!(106))
    );
    let missed = events(&run).into_iter();
    let mut missed = missed.filter(|event| event["event"] == "missed");
    assert_eq!(missed.next().expect("a miss")["toolCache"], with);
    assert_eq!(results(&run)[UNIT], "miss");
    let (_, entry) = artifact(&cache);
    let figures = &entry["tools"];
    assert!(figures["coldMilliseconds"].is_u64() && figures["warmMilliseconds"].is_u64());

    machines.edit("third");
    let third = machines.next(&cache.address);
    let run = third.alokai(&format!("store build {ONLY}")).succeeds();
    run.stderr_contains("cache miss: no earlier result, with a tool cache from ");
    run.stderr_contains(" s ago");
    assert!(found(&run).starts_with("2 of "));
    run.stdout_contains("1 built (1 with a kept tool cache)");
}

#[test]
fn keys_and_results_are_the_same_with_and_without_a_tool_cache() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    machines.edit("second");
    let warm = machines.next(&cache.address);
    assert_eq!(used(&build(&warm, ONLY))["from"], "remote");
    let (_, with) = entry_of_result(&warm);
    let other = RemoteCache::start(None);
    let cold = machines.next(&other.address);
    let run = build(&cold, ONLY);
    assert_eq!(found(&run), COLD);
    let (_, without) = entry_of_result(&cold);
    for name in ["key", "output", "files"] {
        assert_eq!(with[name], without[name], "{name}");
    }
    // A machine elsewhere takes the result that was made with the cache.
    let elsewhere = machines.next_at(machines.folder.path().join("elsewhere"), &cache.address);
    assert_eq!(results(&build(&elsewhere, ONLY))[UNIT], "hit");
}

/// The entry of the unit's result.
fn entry_of_result(project: &Project) -> (PathBuf, Value) {
    if let Some((path, _)) = kept(project) {
        std::fs::remove_file(path).unwrap();
    }
    entry_of(project, UNIT)
}

#[test]
fn a_cache_is_not_fetched_to_another_path_or_by_force() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    machines.edit("second");
    let elsewhere = machines.next_at(machines.folder.path().join("elsewhere"), &cache.address);
    assert_eq!(found(&build(&elsewhere, ONLY)), COLD);
    let forced = machines.next(&cache.address);
    let run = build(&forced, &format!("{ONLY} --force"));
    assert_eq!(found(&run), COLD);
}

#[test]
fn a_branch_begins_with_the_cache_of_the_default_branch_and_then_with_its_own() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    machines.origin.git("checkout --quiet -b feature");
    machines.edit("of the feature");
    machines.origin.git("checkout --quiet main");
    let on_branch = machines.next(&cache.address);
    on_branch.git("checkout --quiet feature");
    assert!(found(&build(&on_branch, ONLY)).starts_with("1 of "));

    machines.origin.git("checkout --quiet feature");
    machines.edit("of the feature again");
    machines.origin.git("checkout --quiet main");
    // A CI system checks out a commit and no branch.
    let detached = machines.next(&cache.address);
    detached.git("checkout --quiet --detach origin/feature");
    assert!(found(&build(&detached, ONLY)).starts_with("2 of "));

    // The default branch does not use caches of other branches.
    machines.edit("of main");
    let run = build(&machines.next(&cache.address), ONLY);
    assert!(found(&run).starts_with("1 of "));
}

#[test]
fn this_machine_keeps_a_cache_too_within_its_size_and_age() {
    let machines = Machines::new();
    let project = machines.next("http://127.0.0.1:9").env("TURBO_TOKEN", "");
    build(&project, ONLY);
    let stats = project.alokai("cache stats --json").succeeds().json();
    assert_eq!(
        (&stats["entries"], &stats["toolCaches"]),
        (&json!(1), &json!(1))
    );
    let text = project.alokai("cache stats").succeeds().stdout;
    assert!(text.contains("\n1 tool cache, "), "{text}");

    let forget = || std::fs::remove_dir_all(project.path(".out")).unwrap();
    project.write(SOURCE, "second");
    forget();
    let run = build(&project, ONLY);
    assert!(found(&run).starts_with("1 of "));
    assert_eq!(used(&run)["from"], "local");
    // The cache in the folder is the newest.
    project.write(SOURCE, "third");
    let run = build(&project, ONLY);
    assert_eq!(
        (found(&run), used(&run)),
        (
            "2 of .rscinfo,fetch-cache,images,swc,webpack 1".into(),
            Value::Null
        )
    );

    // A damaged archive is a note, and the build is cold.
    let (_, entry) = kept(&project).expect("it is kept");
    let blob = format!(
        ".alokai/cache/blobs/{}.tar.zst",
        entry["blob"].as_str().unwrap()
    );
    let mut bytes = std::fs::read(project.path(&blob)).unwrap();
    bytes[20] ^= 1;
    project.write(&blob, bytes);
    project.write(SOURCE, "fourth");
    forget();
    let run = build(&project, ONLY);
    assert_eq!(found(&run), COLD);
    assert!(
        notes(&run)[0].contains("the kept tool cache is not used"),
        "{:?}",
        notes(&run)
    );

    // An old one is not used, and a collection removes it.
    let (path, mut entry) = kept(&project).expect("it is kept");
    let old = entry["tools"]["made"].as_u64().unwrap() - 8 * 24 * 3600;
    entry["tools"]["made"] = old.into();
    std::fs::write(&path, entry.to_string()).unwrap();
    project.write(SOURCE, "fifth");
    forget();
    assert_eq!(found(&build(&project, ONLY)), COLD);
    let (path, mut entry) = kept(&project).expect("a new one is kept");
    entry["tools"]["made"] = old.into();
    std::fs::write(path, entry.to_string()).unwrap();
    let text = project.alokai("cache gc").succeeds().stdout;
    assert!(text.contains("removed 1 tool cache\n"), "{text}");

    // A large one is not kept, and results are removed after tool caches.
    let project = project.setting("cache", &json!({ "maxToolCacheSize": "1 kB" }));
    let project = project
        .env_of(MIDDLEWARE, &["MODULE_BYTES"])
        .env("MODULE_BYTES", "2000");
    project.write(SOURCE, "sixth");
    let run = build(&project, ONLY);
    let notes = notes(&run);
    assert!(
        notes[0].contains("more than `cache.maxToolCacheSize` (1.0 kB)"),
        "{notes:?}"
    );
    assert_eq!(kept(&project), None);
}

#[test]
fn a_cache_that_saves_nothing_is_not_fetched() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    let (path, mut entry) = artifact(&cache);
    let (_, archive) = artifacts::artifact(&std::fs::read(&path).unwrap());
    entry["tools"]["coldMilliseconds"] = 500.into();
    entry["tools"]["warmMilliseconds"] = 500.into();
    plant(&path, entry.clone(), &archive);
    machines.edit("second");
    let run = build(&machines.next(&cache.address), ONLY);
    assert_eq!((found(&run), notes(&run)), (COLD.into(), Vec::new()));
    // The next one is fetched again: a cold build has replaced it.
    machines.edit("third");
    let run = build(&machines.next(&cache.address), ONLY);
    assert_eq!(used(&run)["from"], "remote");

    // One that is too old is not fetched either.
    let (path, mut entry) = artifact(&cache);
    entry["tools"]["made"] = (entry["tools"]["made"].as_u64().unwrap() - 8 * 24 * 3600).into();
    plant(&path, entry, &archive);
    machines.edit("fourth");
    let run = build(&machines.next(&cache.address), ONLY);
    assert_eq!((found(&run), notes(&run)), (COLD.into(), Vec::new()));
}

#[test]
fn a_failed_script_sends_no_cache() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    machines.edit("FAIL");
    let project = machines.next(&cache.address);
    project.alokai(&format!("store build {ONLY}")).fails_with(1);
    assert_eq!(cache.hashes(TEAM), Vec::<String>::new());
    assert_eq!(kept(&project), None);
}

/// The digest of an archive of empty files, by an independent implementation.
fn output_of_empty_files(members: &[(&str, tar::EntryType)]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    for (name, _) in members {
        if let Some(path) = name.strip_prefix("files/") {
            part(b"file");
            part(path.as_bytes());
            // The size, which is a number and no part with a length.
            part(b"");
        }
    }
    let digest = context.finish();
    let bytes = digest.as_ref()[..16].iter();
    let digits = bytes.map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

#[test]
fn hostile_and_damaged_caches_are_refused_and_the_build_is_cold() {
    use tar::EntryType::{Regular, Symlink};
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    let (path, entry) = artifact(&cache);
    let good = std::fs::read(&path).unwrap();
    let cases: [(&str, &[(&str, tar::EntryType)]); 6] = [
        ("../", &[("files/../../../outside", Regular)]),
        ("outside", &[("files/.next/cache/webpack/link", Symlink)]),
        ("src/index.js", &[("files/src/index.js", Regular)]),
        (
            "fetch-cache",
            &[("files/.next/cache/fetch-cache/a", Regular)],
        ),
        ("webpack-x", &[("files/.next/cache/webpack-x", Regular)]),
        ("`log`", &[("log", Regular), ("files/log", Regular)]),
    ];
    for (number, (reason, members)) in cases.iter().enumerate() {
        let archive = artifacts::archive(members);
        let mut entry = entry.clone();
        entry["output"] = output_of_empty_files(members).into();
        plant(&path, entry, &archive);
        machines.edit(&format!("case {number}"));
        let project = machines.next(&cache.address);
        let run = build(&project, ONLY);
        assert_eq!(found(&run), COLD, "{reason}");
        let notes = notes(&run);
        assert!(
            notes.len() == 1 && notes[0].contains(reason),
            "{reason}: {notes:?}"
        );
        assert_eq!(
            project.read(&format!("{OUT}/lib/index.js")),
            format!("case {number}")
        );
    }
    let proxy = FaultyCache::before(&cache);
    for (number, fault) in [Fault::Flip, Fault::Truncate].into_iter().enumerate() {
        std::fs::write(&path, &good).unwrap();
        proxy.breaks(On::Get, fault);
        machines.edit(&format!("fault {number}"));
        let run = build(&machines.next(&proxy.address), ONLY);
        assert_eq!(
            (found(&run), notes(&run).len()),
            (COLD.into(), 1),
            "{:?}",
            notes(&run)
        );
    }
}

#[test]
fn with_force_a_cache_that_changes_the_output_is_not_used() {
    // A cache that changes an output is a defect of the tool, here as beside it. `--force` shows it.
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    build(&machines.next(&cache.address), ONLY);
    machines.edit("LEAK");
    let project = machines.next(&cache.address);
    build(&project, ONLY);
    assert_eq!(project.read(&format!("{OUT}/lib/index.js")), "LEAK 1");
    let project = machines.next(&cache.address);
    build(&project, &format!("{ONLY} --force"));
    assert_eq!(project.read(&format!("{OUT}/lib/index.js")), "LEAK 0");
}

#[test]
fn a_shared_app_keeps_one_cache_for_all_stores() {
    let (machines, cache) = (Machines::new(), RemoteCache::start(None));
    let shared = json!({ "shared": [MIDDLEWARE], "env": { MIDDLEWARE: ["MODULE_BYTES"] } });
    let at = |machines: &Machines| machines.next(&cache.address).setting("build", &shared);
    build(&at(&machines), ONLY);
    machines.edit("second");
    let other = "--store eu --filter storefront-middleware-*";
    let run = build(&at(&machines), other);
    assert!(found(&run).starts_with("1 of "), "{}", found(&run));
    assert_eq!(
        rows(&run)["eu/storefront-middleware"]["toolCache"]["from"],
        "remote"
    );
}
