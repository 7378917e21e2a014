//! The build cache: hits, shared results, reasons of misses, damaged results and collection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    FRONTEND, MIDDLEWARE, Mount, Project, Random, build, entry_of, events, filtered, forget,
    is_excused, many, results,
};

fn count(results: &BTreeMap<String, String>, app: &str, result: &str) -> usize {
    let of_app = results.iter().filter(|(unit, _)| unit.ends_with(app));
    of_app
        .filter(|(_, found)| found.starts_with(result))
        .count()
}

/// [`Project::shop`] with this build script of the middleware.
fn with_build(script: &str) -> Project {
    Project::shop().build_script("storefront-middleware", script)
}

#[test]
fn shared_apps_are_built_once_and_unchanged_apps_not_again() {
    let project = many(20);
    let apart = project.alokai("store build --all").succeeds();
    apart.stdout_contains("40 built, 0 cache hits");
    apart.stdout_contains(
        "hint: the builds of `storefront-middleware` produced the same files for 20 stores",
    );
    apart.stdout_lacks("the builds of `storefront-unified-nextjs`");
    let project = project.setting("build", &json!({ "shared": [MIDDLEWARE] }));
    project.alokai("cache clear").succeeds();
    forget(&project);
    let first = project.alokai("store build --all").succeeds();
    first.stdout_contains("21 built, 0 cache hits, 19 reused from other stores\n");
    first.stdout_contains("/storefront-middleware was built once for 20 stores\n");
    for number in 1..=20 {
        let lib = format!(".out/shop-{number:02}/{MIDDLEWARE}/lib/index.js");
        assert!(project.exists(&lib), "{lib}");
    }

    let second = results(&build(&project, "--all"));
    assert_eq!(
        second.values().filter(|result| *result == "hit").count(),
        40,
        "{second:?}"
    );

    project.write(
        &format!("apps/stores/shop-07/{FRONTEND}/header.tsx"),
        b"a header of its own\n",
    );
    let run = build(&project, "--all");
    let third = results(&run);
    assert_eq!(third[&format!("shop-07/{FRONTEND}")], "miss");
    assert_eq!(
        third.values().filter(|result| *result == "hit").count(),
        39,
        "{third:?}"
    );
    let events = events(&run);
    let missed: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "missed")
        .collect();
    assert_eq!(missed.len(), 1);
    assert_eq!(
        missed[0]["changes"],
        json!([{ "what": "file", "path": "header.tsx", "layer": "shop-07", "how": "added" }])
    );
}

#[test]
fn a_result_that_contains_its_stores_name_is_not_shared() {
    let into = |content: &str| {
        format!(
            "const fs = require('fs'); fs.mkdirSync('lib', {{ recursive: true }}); \
             fs.writeFileSync('lib/index.js', {content})"
        )
    };
    let folder = "'// ' + process.cwd()";
    let name = "'// ' + require('./package.json').name";
    let id = "'const STORE = \"' + require('path').basename(require('path').dirname(process.cwd())).toUpperCase() + '\"'";
    let mapped = "'//# sourceMappingURL=data:application/json;base64,' + Buffer.from('x' + process.cwd()).toString('base64')";
    let packed = "require('zlib').gzipSync('whatever')";
    for content in [folder, name, id, mapped, packed] {
        let results = results(&build(&with_build(&into(content)), &["--all"]));
        assert_eq!(
            count(&results, MIDDLEWARE, "miss"),
            2,
            "{content}: {results:?}"
        );
    }
    // The result is a hit for its own store, also when only the cache is left.
    let project = with_build(&into(folder));
    build(&project, "--all");
    let before = project.tree(".out");
    forget(&project);
    let results = results(&build(&project, "--all"));
    assert_eq!(count(&results, "", "hit"), 4, "{results:?}");
    assert_eq!(project.tree(".out"), before);
}

#[test]
fn results_do_not_mix_and_incremental_caches_stay() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.mkdirSync('.next/cache', { recursive: true });\
        fs.appendFileSync('.next/cache/log', 'built '); fs.writeFileSync('.next/cache/' + fs.readFileSync('src/index.js'), ''); \
        fs.writeFileSync('lib/' + fs.readFileSync('src/index.js', 'utf8') + '.js', ''); fs.writeFileSync('beside.txt', fs.readFileSync('src/index.js'));\
        fs.mkdirSync('lib/empty', { recursive: true }); fs.symlinkSync('../beside.txt', 'lib/link'); \
        fs.writeFileSync('lib/run.sh', ''); fs.chmodSync('lib/run.sh', 0o755)";
    let project = with_build(script);
    let only = ["--store", "us", "--filter", "storefront-middleware-*"];
    let source = "apps/storefront-middleware/src/index.js";
    let out = format!(".out/us/{MIDDLEWARE}");
    project.write(source, b"one");
    build(&project, &only);
    let one = project.tree(&out);
    assert!(
        one.contains_key("lib/one.js") && one["beside.txt"] == "one",
        "{one:?}"
    );

    project.write(source, b"two");
    build(&project, &only);
    let two = project.tree(&out);
    assert!(
        two.contains_key("lib/two.js") && !two.contains_key("lib/one.js"),
        "{two:?}"
    );
    assert_eq!(
        two[".next/cache/log"], "built built ",
        "the incremental cache stays"
    );

    // The first content again: the first result without files of the second, and no script runs.
    project.write(source, b"one");
    let run = build(&project, &only);
    assert_eq!(results(&run)[&format!("us/{MIDDLEWARE}")], "hit");
    let mut again = project.tree(&out);
    assert_eq!(
        again.remove(".next/cache/log").as_deref(),
        Some("built built ")
    );
    again.remove(".next/cache/two");
    let mut one = one;
    one.remove(".next/cache/log");
    assert_eq!(again, one);
    let mode = |path: &str| {
        let metadata = project.path(&format!("{out}/{path}")).metadata().unwrap();
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111
    };
    assert!(mode("lib/run.sh") != 0 && mode("lib/one.js") == 0);
    assert!(project.path(&format!("{out}/lib/empty")).is_dir());

    // A changed output is noticed.
    project.write(&format!("{out}/lib/one.js"), b"edited by hand");
    build(&project, &only);
    assert_eq!(project.read(&format!("{out}/lib/one.js")), "");
}

#[test]
fn a_script_sees_what_is_declared_and_nothing_else() {
    let script = "console.log('SEES', JSON.stringify(Object.keys(process.env).filter(name => /^(A|B|NEXT_PUBLIC_C|CLI_CLOUD_USERNAME|TURBO_TOKEN|NODE_ENV|HOME)$/.test(name)).sort()))";
    let project = Project::shop()
        .build_script(
            "storefront-middleware",
            &format!("{script}; require('fs').mkdirSync('lib')"),
        )
        .build_script("storefront-unified-nextjs", script)
        .env_of("storefront-middleware", &["A*", "CLI_*", "TURBO_*"])
        .env("A", "1")
        .env("B", "2")
        .env("NEXT_PUBLIC_C", "3")
        .env("NODE_ENV", "production")
        .env("CLI_CLOUD_USERNAME", "somebody");
    let sees = |arguments: &[&str]| -> Vec<String> {
        let arguments = [&["store", "build", "--store", "us", "--force"], arguments].concat();
        let run = project.alokai(&arguments).succeeds();
        let lines = run
            .stderr
            .lines()
            .filter_map(|line| Some(line.split_once("SEES ")?.1.to_owned()));
        lines.collect()
    };
    assert_eq!(
        sees(&[]),
        [
            r#"["A","HOME","NODE_ENV"]"#,
            r#"["HOME","NEXT_PUBLIC_C","NODE_ENV"]"#,
        ]
    );
    let all = r#"["A","B","HOME","NEXT_PUBLIC_C","NODE_ENV"]"#;
    assert_eq!(sees(&["--env-mode", "loose"]), [all, all]);
    let run = project
        .alokai("store build --store us --env-mode loose")
        .succeeds();
    run.stderr_contains("cached results can be wrong");
}

#[test]
fn a_miss_says_what_has_changed() {
    // A `node` that prints another version and otherwise runs the real one.
    let tools = tempfile::tempdir().unwrap();
    let node = tools.path().join("node");
    let real = which("node");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo v99.0.0 || exec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(&node, script).unwrap();
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let lock = |version: &str| {
        json!({
            "name": "acme", "lockfileVersion": 3, "packages": {
                "": { "name": "acme" },
                "apps/storefront-middleware": { "name": "storefront-middleware", "dependencies": { "left": "^1.0.0" } },
                "apps/storefront-unified-nextjs": { "name": "storefront-unified-nextjs" },
                "apps/playwright": { "name": "playwright" },
                "node_modules/left": { "version": version, "integrity": format!("sha512-{version}") },
            }
        })
        .to_string()
    };
    let project = Project::shop()
        .dependency(MIDDLEWARE, "left", "^1.0.0")
        .file("node_modules/left/package.json", "{}")
        .file("package-lock.json", &lock("1.0.0"))
        .file("tsconfig.base.json", "{}")
        .env_of("*", &["REGION"]);
    let why = |project: &Project, more: &[&str]| -> String {
        let arguments = [&["store", "build", "--store", "us"], more].concat();
        let run = project.alokai(&arguments).succeeds();
        let lines = run
            .stderr
            .lines()
            .skip_while(|line| !line.contains(": cache miss") && !line.contains("--force"))
            .take_while(|line| !line.contains("] ") && !line.contains("build: "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let mut told = vec![why(&project, &[])];
    project.write("apps/storefront-middleware/src/index.js", b"// other\n");
    told.push(why(&project, &[]));
    project.write("package-lock.json", lock("1.0.1").as_bytes());
    told.push(why(&project, &[]));
    let project = project.env("REGION", "a secret place");
    told.push(why(&project, &[]));
    project.write("tsconfig.base.json", b"{ }");
    told.push(why(&project, &[]));
    let path = format!(
        "{}:{}",
        tools.path().display(),
        std::env::var("PATH").unwrap()
    );
    let project = project.env("PATH", &path);
    told.push(why(&project, &[]).replace(&node_version(), "[version]"));
    for number in 0..5 {
        project.write(
            &format!("apps/stores/fashion/storefront-middleware/{number}.ts"),
            b"",
        );
    }
    told.push(why(&project, &[]));
    project.write("apps/stores/fashion/storefront-middleware/0.ts", b"0");
    project.remove("apps/stores/fashion/storefront-middleware/1.ts");
    told.push(why(&project, &["--explain"]));
    std::fs::remove_dir_all(project.path(".alokai/cache/entries")).unwrap();
    forget(&project);
    told.push(why(&project, &[]));
    told.push(why(&project, &["--force"]));
    let told = filtered(&told.join("\n--\n"), &project);
    assert!(!told.contains("secret place"));
    insta::assert_snapshot!(told);
    // The cache does not contain the value either.
    for (path, content) in project.tree(".alokai") {
        assert!(!content.contains("a secret place"), "{path}");
    }
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.expect("the program is installed")
}

fn node_version() -> String {
    let output = std::process::Command::new("node")
        .arg("--version")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn another_script_runs_and_is_kept_and_composes_only_what_it_needs() {
    let project = Project::shop()
        .app(MIDDLEWARE, r#""build": "node build.js", "start": "node lib/index.js", "lint": "node lint.js""#)
        .app(FRONTEND, r#""build": "node build.js", "lint": "node lint.js""#)
        .file("apps/storefront-middleware/lint.js", "console.log('LINT', ...process.argv.slice(2))")
        .file("apps/storefront-unified-nextjs/lint.js", "require('fs').readFileSync('../storefront-middleware/lib/index.js'); console.log('LINT')");
    let run = project
        .alokai("store run lint --store us --json -- --fix")
        .succeeds();
    let first = results(&run);
    assert_eq!(
        first.len(),
        2,
        "the build of the middleware has a row: {first:?}"
    );
    assert_eq!(count(&first, "", "miss"), 2);
    run.stdout_contains("LINT --fix");
    run.stdout_contains(r#""script":"lint""#);

    // No script runs, so no files are composed.
    forget(&project);
    let run = project
        .alokai("store run lint --store us --json -- --fix")
        .succeeds();
    assert!(
        run.stdout.contains("LINT --fix"),
        "the output is not printed again: {}",
        run.stdout
    );
    assert!(!project.exists(".out"), "{:?}", project.tree(".out"));

    let run = project.alokai("store run tset --store us").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}

#[test]
fn scripts_beside_browser_tests_are_cached() {
    let scripts = r#""lint": "node lint.js", "format": "node lint.js", "browsers": "playwright test",
        "smoke": "npm run browsers", "e2e:us": "node lint.js""#;
    let project = Project::shop()
        .app("playwright", scripts)
        .file("apps/playwright/lint.js", "console.log('LINTED')")
        .file("node_modules/.bin/playwright", "#!/bin/sh\n");
    project.make_executable("node_modules/.bin/playwright");
    let run = |script: &str| {
        let only = "--store us --filter playwright-*";
        let run = project.alokai(&format!("store run {script} {only}"));
        run.succeeds()
    };
    for script in ["lint", "format"] {
        let always = "always runs";
        run(script)
            .stderr_lacks(always)
            .stdout_contains("1 ran, 0 cache hits");
        run(script)
            .stderr_lacks(always)
            .stdout_contains("0 ran, 1 cache hit,");
    }
    for script in ["browsers", "smoke", "e2e:us"] {
        for _ in 0..2 {
            run(script).stderr_contains("always runs");
        }
    }
}

#[test]
fn browser_tests_always_run_and_other_apps_see_their_whole_store() {
    let project = Project::shop()
        .app("playwright", r#""test": "node test.js""#)
        .file("apps/playwright/test.js", "console.log('TESTED')")
        .app(
            "cms",
            r#""build": "node build.js", "start": "node lib/index.js""#,
        )
        .file(
            "apps/cms/build.js",
            "const fs = require('fs'); fs.mkdirSync('lib'); \
             fs.copyFileSync('../storefront-unified-nextjs/app/[locale]/page.tsx', 'lib/page')",
        );
    let test = "store run test --store us";
    for _ in 0..2 {
        let run = project.alokai(test).succeeds();
        run.stderr_contains(
            "always runs: its result depends on running apps, which are not part of the cache key",
        );
        run.stderr_contains("TESTED");
    }
    let of_cms = |project: &Project| {
        let run = build(project, "--store us");
        results(&run)["us/cms"].clone()
    };
    assert_eq!(of_cms(&project), "miss");
    assert_eq!(of_cms(&project), "hit");
    project.write(
        "apps/storefront-unified-nextjs/app/[locale]/page.tsx",
        b"other\n",
    );
    assert_eq!(
        of_cms(&project),
        "miss",
        "the app reads this file of the frontend"
    );
    project.write("apps/storefront-unified-nextjs/texts.txt", b"other\n");
    assert_eq!(of_cms(&project), "hit", "the app does not read this file");
    project.write("apps/storefront-unified-nextjs/more.txt", b"");
    assert_eq!(of_cms(&project), "miss", "the app may list the files");
}

#[test]
fn a_cached_frontend_needs_no_middleware() {
    let project = Project::shop();
    let only = ["--store", "us", "--filter", "storefront-unified-*"];
    build(&project, &only);
    assert!(project.exists(&format!(".out/us/{MIDDLEWARE}/lib")));
    forget(&project);
    let run = build(&project, &only);
    assert_eq!(results(&run).len(), 1);
    assert!(project.exists(&format!(".out/us/{FRONTEND}/.next")));
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}")));
}

/// A lock file with one dependency of the middleware.
const LOCK: &str = r#"{ "lockfileVersion": 3, "packages": {
  "": {}, "apps/storefront-middleware": { "dependencies": { "left": "1" } },
  "apps/storefront-unified-nextjs": {}, "node_modules/left": { "version": "1.0.0", "integrity": "sha512-x" }
} }"#;

#[test]
fn cached_results_need_no_installed_dependencies() {
    let project = Project::shop()
        .dependency(MIDDLEWARE, "left", "1")
        .file("package-lock.json", LOCK)
        .file("node_modules/left/package.json", "{}");
    build(&project, "--all");
    std::fs::remove_dir_all(project.path("node_modules")).unwrap();
    let results = results(&build(&project, "--all"));
    assert_eq!(count(&results, "", "hit"), 4, "{results:?}");
    let run = project.alokai("store build --all --force").fails_with(3);
    run.stderr_contains("`left` (needed by `storefront-middleware`)");
}

#[test]
fn the_cache_is_collected_by_size_and_age() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); \
        fs.writeFileSync('lib/index.js', require('crypto').randomBytes(100000))";
    let project = with_build(script);
    let only = ["--store", "us", "--filter", "storefront-middleware-*"];
    let source = "apps/storefront-middleware/src/index.js";
    for content in [b"1", b"2", b"3", b"4"] {
        project.write(source, content);
        build(&project, &only);
    }
    let stats = |project: &Project| project.alokai("cache stats --json").succeeds().json();
    assert_eq!(stats(&project)["entries"], 4);
    let text = project.alokai("cache stats").succeeds().stdout;
    assert!(text.starts_with("4 results in 4 archives\n40"), "{text}");

    // The first result is used again, so the second is the least recently used.
    std::thread::sleep(Duration::from_millis(20));
    project.write(source, b"1");
    assert_eq!(
        results(&build(&project, &only))[&format!("us/{MIDDLEWARE}")],
        "hit"
    );
    let project = project.setting("cache", &json!({ "maxSize": "310 kB" }));
    let text = project.alokai("cache gc").succeeds().stdout;
    assert!(text.starts_with("removed 1 result, 100."), "{text}");
    project.write(source, b"2");
    assert_eq!(
        results(&build(&project, &only))[&format!("us/{MIDDLEWARE}")],
        "miss"
    );
    // A build collects when it adds a result.
    assert_eq!(stats(&project)["entries"], 3);

    // Old results are removed regardless of the size limit.
    let project = project.setting("cache", &json!({ "maxAgeDays": 7 }));
    let old = std::time::SystemTime::now() - Duration::from_hours(8 * 24);
    let (path, _) = entry_of(&project, &format!("us/{MIDDLEWARE}"));
    std::fs::File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let text = project.alokai("cache gc").succeeds().stdout;
    assert!(text.starts_with("removed 1 result, 100."), "{text}");

    let text = project.alokai("cache clear").succeeds().stdout;
    assert!(text.starts_with("removed 2 results, 200."), "{text}");
    assert!(!project.exists(".alokai/cache/blobs"));
    assert_eq!(stats(&project)["entries"], 0);
    let wrong = project.setting("cache", &json!({ "maxSize": "much" }));
    insta::assert_snapshot!(wrong.alokai("cache stats").fails_with(2).diagnostic(&wrong));
}

#[test]
fn a_full_disk_means_no_cache_and_a_warning() {
    let Some(mount) = Mount::new("256k") else {
        assert!(is_excused("only root can mount a small file system"));
        return;
    };
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); \
        fs.writeFileSync('lib/index.js', require('crypto').randomBytes(1000000))";
    let project = with_build(script).file("other", "");
    std::fs::create_dir_all(project.path(".alokai")).unwrap();
    std::os::unix::fs::symlink(mount.path(), project.path(".alokai/cache")).unwrap();
    let run = project.alokai("store build --all").succeeds();
    let warnings = run
        .stderr
        .lines()
        .filter(|line| line.contains(": not cached: "));
    assert_eq!(warnings.count(), 1, "{}", run.stderr);
    run.stderr_contains("No space left on device");
    assert!(project.exists(&format!(".out/eu/{MIDDLEWARE}/lib/index.js")));
    // A result in place is a hit although the cache does not have it.
    let results = results(&build(&project, "--all"));
    assert_eq!(count(&results, "", "hit"), 4, "{results:?}");
}

/// The number of builds that are killed.
const KILLS: usize = 45;

#[test]
fn a_killed_build_leaves_a_cache_that_can_be_used() {
    let project = many(3);
    let started = std::time::Instant::now();
    build(&project, "--all");
    let usual = started.elapsed();
    let wanted = project.tree(".out");
    let random = &mut Random::new(5);
    for kill in 0..KILLS {
        match kill % 3 {
            0 => forget(&project),
            1 => {
                project.alokai("cache clear").succeeds();
            }
            _ => {
                forget(&project);
                project.alokai("cache clear").succeeds();
            }
        }
        let mut child = project.start("store build --all");
        let moment = usual.mul_f64(f64::from(u32::try_from(random.below(1_000)).unwrap()) / 1000.0);
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        let run = build(&project, "--all");
        assert!(
            !run.stdout.contains("cached result is not valid"),
            "kill {kill}: {}",
            run.stdout
        );
        assert_eq!(
            wanted,
            project.tree(".out"),
            "kill {kill}, after {moment:?}"
        );
        let again = results(&build(&project, "--all"));
        assert_eq!(count(&again, "", "hit"), 6, "kill {kill}: {again:?}");
    }
}

#[test]
fn a_result_that_cannot_be_cached_is_built_with_a_note() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.writeFileSync('lib/index.js', ''); \
        try { fs.symlinkSync('/etc/hosts', 'lib/hosts') } catch {}";
    let project = with_build(script);
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("`lib/hosts` is a link to a path outside its folder");
    // A result in place is a hit. Without it, the script runs again.
    assert_eq!(
        count(&results(&build(&project, "--store us")), "", "hit"),
        2
    );
    forget(&project);
    assert_eq!(
        results(&build(&project, "--store us"))[&format!("us/{MIDDLEWARE}")],
        "miss"
    );
}
