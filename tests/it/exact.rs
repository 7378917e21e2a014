//! A build is a cache hit if and only if nothing changed that its script can read.

use serde_json::json;

use crate::support::{
    FRONTEND, MIDDLEWARE, Project, build, build_middleware, built_value, events, forget,
    middleware_of, results,
};

const US: &str = "--store us";

fn unit(app: &str) -> String {
    format!("us/{app}")
}

/// Whether a line says that a task is a hit, after any time.
fn shows_hit(lines: &str, task: &str) -> bool {
    let start = format!("ok {task} (");
    lines
        .lines()
        .any(|line| line.starts_with(&start) && line.ends_with("s): hit"))
}

/// A shop whose middleware depends on the workspace package `@acme/theme`, which this script
/// builds.
fn with_theme(script: &str) -> Project {
    let manifest = r#"{ "name": "@acme/theme", "scripts": { "build": "node build.js" } }"#;
    Project::shop()
        .file("packages/theme/package.json", manifest)
        .file("packages/theme/build.js", script)
        .link("node_modules/@acme/theme", "../../packages/theme")
        .dependency(MIDDLEWARE, "@acme/theme", "*")
}

#[test]
fn files_of_a_failed_script_are_not_in_the_next_result() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.mkdirSync('gen', { recursive: true }); \
        const source = fs.readFileSync('src/index.js', 'utf8'); fs.writeFileSync('gen/' + source, ''); \
        if (!fs.existsSync('once')) fs.writeFileSync('once', source); \
        fs.writeFileSync('lib/index.js', fs.readdirSync('gen').join()); if (source === 'bad') process.exit(1)";
    let project = Project::shop().build_script("storefront-middleware", script);
    let source = "apps/storefront-middleware/src/index.js";
    project.write(source, b"bad");
    project.alokai("store build --store us").fails_with(1);
    project.write(source, b"good");
    assert_eq!(build_middleware(&project), "miss");
    assert_eq!(built_value(&project), "good");
    forget(&project);
    assert_eq!(build_middleware(&project), "hit");
    assert_eq!(built_value(&project), "good");
    assert_eq!(project.read(&format!(".out/us/{MIDDLEWARE}/once")), "good");
}

#[test]
fn packages_are_rows_of_the_summary_and_are_counted() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.writeFileSync('lib/i.js', '1')";
    let project = with_theme(script);
    let run = project.alokai("store build --all").succeeds();
    run.stdout_contains("5 built, 0 cache hits");
    let row = run.stdout.lines().find(|line| line.contains("@acme/theme"));
    let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!((words[0], words[3]), ("-", "s"), "{}", run.stdout);

    // The result of the package is in the cache, and a script needs it.
    project.write("apps/storefront-middleware/src/index.js", "// other");
    let run = project.alokai("store build --all --json").succeeds();
    let events = events(&run);
    let summary = events.last().unwrap();
    let packages = summary["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 1);
    assert_eq!(packages[0]["name"], "@acme/theme");
    assert_eq!(packages[0]["cache"], "hit");
    assert!(packages[0]["buildSeconds"].is_number());
    assert_eq!(summary["units"].as_array().unwrap().len(), 4);
}

#[test]
fn files_that_lay_in_a_package_are_not_in_its_result() {
    let project = with_theme("const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); if (!fs.existsSync('lib/i.js')) fs.writeFileSync('lib/i.js', '1')")
        .file("packages/theme/lib/i.js", "by hand");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains(
        "lib/i.js` existed before the script ran and was not written by the script",
    );
    std::fs::remove_dir_all(project.path("packages/theme/lib")).unwrap();
    project.write("apps/storefront-middleware/src/index.js", b"// other");
    build(&project, US);
    assert_eq!(project.read("packages/theme/lib/i.js"), "1");
    // The output is recorded now: it is removed before the next build and restored from the cache.
    std::fs::remove_dir_all(project.path("packages/theme/lib")).unwrap();
    project.write("apps/storefront-middleware/src/index.js", b"// third");
    let run = project.alokai("store build --store us").succeeds();
    assert!(
        shows_hit(&run.stderr, "build @acme/theme"),
        "{}",
        run.stderr
    );
    assert_eq!(project.read("packages/theme/lib/i.js"), "1");
}

#[test]
fn a_result_that_depends_on_a_stores_own_result_is_not_shared() {
    let project = middleware_of("'// ' + process.cwd() + ({ us: 'USD', eu: 'EUR' })[path.basename(path.dirname(process.cwd()))]").build_script("storefront-unified-nextjs",
        "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); \
         fs.writeFileSync('.next/currency', fs.readFileSync('../storefront-middleware/lib/index.js', 'utf8').slice(-3))",
    );
    for store in ["us", "eu"] {
        let texts =
            format!("apps/stores/fashion/stores/{store}/storefront-unified-nextjs/texts.txt");
        project.write(&texts, b"the same");
    }
    let currency = |store: &str| project.read(&format!(".out/{store}/{FRONTEND}/.next/currency"));
    build(&project, "--all");
    assert_eq!(
        (currency("us").as_str(), currency("eu").as_str()),
        ("USD", "EUR")
    );
    forget(&project);
    build(&project, "--all");
    assert_eq!(
        (currency("us").as_str(), currency("eu").as_str()),
        ("USD", "EUR")
    );
}

#[test]
fn a_result_belongs_to_its_store_unless_its_app_is_shared() {
    // The result does not contain the name of its store.
    let looked_up = "({ us: 'dollar', eu: 'euro' })[path.basename(path.dirname(process.cwd()))]";
    let project = middleware_of(looked_up);
    for _ in 0..2 {
        build(&project, "--all");
        assert_eq!(built_value(&project), "dollar");
        assert_eq!(
            project.read(&format!(".out/eu/{MIDDLEWARE}/lib/index.js")),
            "euro"
        );
        forget(&project);
    }
    // The script of a shared app does not get the name of a store.
    let project = middleware_of("JSON.stringify([process.cwd(), require('./package.json').name])");
    let project = project.setting("build", &json!({ "shared": [MIDDLEWARE] }));
    let found = results(&build(&project, "--all"));
    assert_eq!(found[&format!("eu/{MIDDLEWARE}")], "miss", "{found:?}");
    assert_eq!(
        found[&unit(MIDDLEWARE)],
        format!("reused from eu/{MIDDLEWARE}")
    );
    let made: Vec<String> = serde_json::from_str(&built_value(&project)).unwrap();
    assert!(
        made[0].ends_with(&format!("/.out/_{MIDDLEWARE}/{MIDDLEWARE}")),
        "{made:?}"
    );
    assert_eq!(made[1], "storefront-middleware-shared");
    assert_eq!(
        built_value(&project),
        project.read(&format!(".out/eu/{MIDDLEWARE}/lib/index.js"))
    );
    let wrong = project.setting("build", &json!({ "shared": ["storefront-midleware"] }));
    let run = wrong.alokai("store build --all").fails_with(2);
    run.stderr_contains("did you mean `storefront-middleware`?");
}

#[test]
fn loose_results_are_not_taken_for_strict_ones() {
    let project = middleware_of("process.env.MODE").env("MODE", "dev");
    let loose = ["--store", "us", "--env-mode", "loose"];
    build(&project, &loose);
    assert_eq!(built_value(&project), "dev");
    assert_eq!(build_middleware(&project), "miss");
    assert_eq!(built_value(&project), "undefined");
}

#[test]
fn other_scripts_see_arguments_builds_and_the_middleware() {
    let project = Project::shop()
        .app(MIDDLEWARE, r#""start": "node lib/index.js", "check": "node check.js""#)
        .app(FRONTEND, r#""build": "node build.js", "check": "node check.js""#)
        .file("apps/storefront-middleware/check.js", "console.log('ARGS', JSON.stringify(process.argv.slice(2)))")
        .file("apps/storefront-unified-nextjs/check.js", "const fs = require('fs'); \
            console.log('SEES', fs.readFileSync('../storefront-middleware/src/index.js', 'utf8'), fs.existsSync('.next/built') && fs.readFileSync('.next/built', 'utf8'))")
        .build_script("storefront-unified-nextjs", "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); fs.copyFileSync('texts.txt', '.next/built')");
    let source = "apps/storefront-middleware/src/index.js";
    project.write(source, b"one");
    let check = |more: &[&str]| {
        let arguments = [&["store", "run", "check", "--store", "us"], more].concat();
        project.alokai(&arguments).succeeds().stderr
    };
    assert!(check(&["--", "a", "b"]).contains(r#"ARGS ["a","b"]"#));
    assert!(check(&["--", "a b"]).contains(r#"ARGS ["a b"]"#));
    assert!(check(&[]).contains("SEES one false"));
    project.write(source, b"two");
    assert!(check(&[]).contains("SEES two false"));
    let again = check(&[]);
    assert!(
        shows_hit(&again, "check us/storefront-unified-nextjs"),
        "{again}"
    );
}

/// A shop whose middleware has these scripts besides `build`.
fn with_scripts(scripts: &str) -> Project {
    let all = format!(r#""build": "node build.js", "start": "node lib/index.js", {scripts}"#);
    Project::shop().app(MIDDLEWARE, &all)
}

#[test]
fn another_script_neither_sees_nor_removes_the_build() {
    let project = with_scripts(r#""test": "node test.js", "stamp": "node stamp.js", "fail": "node fail.js""#)
        .file("apps/storefront-middleware/test.js", "console.log('SEES', require('fs').readdirSync('.').sort().join())")
        .file("apps/storefront-middleware/stamp.js", "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.writeFileSync('lib/stamp', 'x'); fs.writeFileSync('src/index.js', 'BY STAMP')")
        .file("apps/storefront-middleware/fail.js", "require('fs').writeFileSync('left', ''); process.exit(3)");
    let run = |script: &str| {
        project.alokai(&[
            "store",
            "run",
            script,
            "--store",
            "us",
            "--filter",
            "storefront-middleware-*",
        ])
    };
    let sees = |run: &str| {
        run.lines()
            .find_map(|line| Some(line.split_once("SEES ")?.1.to_owned()))
            .expect("it printed")
    };
    let clean = "build.js,fail.js,package.json,src,stamp.js,test.js";
    assert_eq!(sees(&run("test").succeeds().stderr), clean);
    let before = build(&project, US);
    drop(before);
    let built = project.tree(&format!(".out/us/{MIDDLEWARE}/lib"));
    project.write(
        "apps/storefront-middleware/test.js",
        b"console.log('SEES', require('fs').readdirSync('.').sort().join()) // again",
    );
    assert_eq!(
        sees(&run("test").succeeds().stderr),
        clean,
        "the build is put aside for the script"
    );
    assert_eq!(
        project.tree(&format!(".out/us/{MIDDLEWARE}/lib")),
        built,
        "the build is restored"
    );
    run("fail").fails_with(1);
    project.write(
        "apps/storefront-middleware/test.js",
        b"console.log('SEES', require('fs').readdirSync('.').sort().join()) // third",
    );
    assert_eq!(sees(&run("test").succeeds().stderr), clean);

    // A composed file that another script overwrites is restored before the next script.
    run("stamp").succeeds();
    let source = format!(".out/us/{MIDDLEWARE}/src/index.js");
    assert_eq!(project.read(&source), "BY STAMP");
    project.alokai("store compose --store us").succeeds();
    assert!(
        !project.read(&source).contains("BY STAMP"),
        "edits of other scripts are not kept"
    );
    run("stamp").succeeds();
    build(&project, "--store us --force");
    assert!(
        !built_value(&project).contains("BY STAMP"),
        "{}",
        built_value(&project)
    );
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}/lib/stamp")));
}

#[test]
fn a_build_is_not_put_aside_while_a_neighbour_reads_it() {
    let project = with_scripts(r#""check": "node check.js""#)
        .app(FRONTEND, r#""build": "node build.js", "check": "node check.js""#)
        .file("apps/storefront-middleware/check.js", "setTimeout(() => 0, 400)")
        .file("apps/storefront-unified-nextjs/check.js", "const fs = require('fs'); \
            for (const end = Date.now() + 400; Date.now() < end;) fs.readFileSync('../storefront-middleware/lib/index.js')");
    for _ in 0..3 {
        project
            .alokai("store run check --store us --force --jobs 4")
            .succeeds();
    }
}

#[test]
fn nothing_outside_of_out_is_written_or_removed() {
    let outside = |project: &Project| {
        let folder = project.root().with_file_name("outside");
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for name in ["i.js", "deep/old.js", "v.txt"] {
            std::fs::write(folder.join(name), "precious").unwrap();
        }
        folder
    };
    let is_whole = |folder: &std::path::Path| {
        ["i.js", "deep/old.js", "v.txt"].iter().all(|name| {
            std::fs::read_to_string(folder.join(name)).is_ok_and(|text| text == "precious")
        })
    };
    // A script that replaces composed files with symbolic links and hard links.
    for link in ["symlinkSync", "linkSync"] {
        let script = format!(
            "const fs = require('fs'); fs.mkdirSync('lib', {{ recursive: true }}); fs.copyFileSync('src/index.js', 'lib/index.js'); \
             fs.rmSync('v.txt'); fs.{link}(require('path').resolve('../../../../outside/v.txt'), 'v.txt')"
        );
        let project = Project::shop()
            .build_script("storefront-middleware", &script)
            .file("apps/storefront-middleware/v.txt", "composed");
        let folder = outside(&project);
        for content in ["1", "2", "3"] {
            project.write(
                "apps/storefront-middleware/src/index.js",
                content.as_bytes(),
            );
            build(&project, US);
        }
        assert!(is_whole(&folder), "{link}");
    }
    // A folder that a person replaced with a link.
    let project = with_scripts(r#""gen": "node gen.js""#)
        .file("apps/storefront-middleware/gen.js", "const fs = require('fs'); fs.mkdirSync('gen/deep', { recursive: true }); fs.writeFileSync('gen/i.js', ''); fs.writeFileSync('gen/deep/old.js', '')");
    let folder = outside(&project);
    let run = |project: &Project| {
        project
            .alokai("store run gen --store us --force")
            .succeeds()
    };
    run(&project);
    let gen_folder = project.path(&format!(".out/us/{MIDDLEWARE}/gen"));
    std::fs::remove_dir_all(&gen_folder).unwrap();
    std::os::unix::fs::symlink(&folder, &gen_folder).unwrap();
    run(&project);
    build(&project, "--store us --force");
    assert!(is_whole(&folder));
}

#[test]
fn files_that_people_put_into_a_package_are_kept() {
    let project = with_theme("const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.writeFileSync('lib/i.js', '1'); if (!fs.existsSync('local.json')) fs.writeFileSync('local.json', '{}')")
        .file("packages/theme/.gitignore", "local.json\n");
    build(&project, US);
    project.write("packages/theme/local.json", b"mine");
    project.write("packages/theme/more.js", b"1");
    build(&project, US);
    assert_eq!(project.read("packages/theme/local.json"), "mine");
    project.remove("packages/theme/more.js");
    project.write("apps/storefront-middleware/src/index.js", b"5");
    let run = project.alokai("store build --store us").succeeds();
    assert_eq!(project.read("packages/theme/local.json"), "mine");
    run.stderr_contains("the script runs although its result is cached");
}

#[test]
fn a_folder_at_the_path_of_an_output_is_a_miss() {
    let project = Project::shop();
    build(&project, US);
    let file = project.path(&format!(".out/us/{MIDDLEWARE}/lib/index.js"));
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("sub")).unwrap();
    build(&project, US);
    assert!(file.is_file());
}

#[test]
fn an_app_of_another_kind_sees_its_store_whatever_is_chosen() {
    let project = Project::shop()
        .app("cms", r#""build": "node build.js", "start": "node lib/index.js""#)
        .file("apps/cms/build.js", "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.copyFileSync('../storefront-unified-nextjs/shared.txt', 'lib/index.js')");
    let shared = "apps/storefront-unified-nextjs/shared.txt";
    let only = ["--store", "us", "--filter", "cms-*"];
    for content in ["one", "two"] {
        project.write(shared, content.as_bytes());
        assert_eq!(results(&build(&project, &only))["us/cms"], "miss");
        assert_eq!(project.read(".out/us/cms/lib/index.js"), content);
        assert_eq!(
            results(&build(&project, US))["us/cms"],
            "hit",
            "the key is the same without the filter"
        );
    }
}

#[test]
fn files_of_the_project_and_of_packages_count() {
    let package = r#"{ "name": "@acme/theme" }"#;
    let project = middleware_of("fs.readFileSync('../../../packages/theme/dist/i.js') + fs.readFileSync('../../../tsconfig.base.json') + fs.readFileSync('../../../tools/t')")
        .file("package.json", r#"{ "name": "acme", "dependencies": { "@acme/theme": "*" } }"#)
        .file("package-lock.json", "{}")
        .file("packages/theme/package.json", package)
        .file("packages/theme/.gitignore", "dist\n")
        .file("packages/theme/dist/i.js", "1")
        .link("node_modules/@acme/theme", "../../packages/theme")
        .file("config/base.json", "1")
        .link("tsconfig.base.json", "config/base.json")
        .file("tools/t", "1")
        .setting("build", &json!({ "globalDependencies": ["./tools/"] }));
    assert_eq!(build_middleware(&project), "miss");
    assert_eq!(build_middleware(&project), "hit");
    for (number, path) in [
        "packages/theme/dist/i.js",
        "config/base.json",
        "tools/t",
        "package-lock.json",
    ]
    .iter()
    .enumerate()
    {
        project.write(path, format!("{{}}{number}").as_bytes());
        assert_eq!(build_middleware(&project), "miss", "{path}");
        assert_eq!(build_middleware(&project), "hit", "{path}");
    }
    let project = project.setting("build", &json!({ "globalDependencies": ["toolz"] }));
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("`toolz` in `build.globalDependencies` matches no file");
    let project = project.setting("build", &json!({ "globalDependencies": ["../x"] }));
    project.alokai("store build --store us").fails_with(2);
}

#[test]
fn force_runs_every_script() {
    let project = Project::shop();
    build(&project, "--all");
    let plan = project.alokai("store build --all --dry-run").succeeds();
    plan.stdout_contains("0 of 4 scripts would run");
    let found = results(&build(&project, "--all --force"));
    assert!(found.values().all(|result| result == "miss"), "{found:?}");
    std::fs::remove_dir_all(project.path(".alokai")).unwrap();
    let project = project.setting("build", &json!({ "shared": [MIDDLEWARE] }));
    let plan = project.alokai("store build --all --dry-run").succeeds();
    plan.stdout_contains("reuses the result of eu/storefront-middleware");
    plan.stdout_contains("depends on the result of us/storefront-middleware");
    plan.stdout_contains("1 of 4 scripts would run, and up to 2 more");
}

#[test]
fn a_forced_result_takes_the_place_of_what_was_kept() {
    let project =
        middleware_of("fs.readFileSync('../../../tools/t', 'utf8')").file("tools/t", "us");
    build(&project, "--all");
    project.write("tools/t", b"mended");
    build(&project, "--store us --force");
    forget(&project);
    let found = results(&build(&project, "--all"));
    assert!(!found[&unit(MIDDLEWARE)].contains("miss"), "{found:?}");
    assert_eq!(built_value(&project), "mended");
}

#[test]
fn a_script_finds_composed_files_as_they_are_composed() {
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); const source = fs.readFileSync('src/index.js', 'utf8'); \
        fs.writeFileSync('lib/index.js', fs.readFileSync('version.txt', 'utf8')); if (source === 'writes') fs.writeFileSync('version.txt', 'by the script'); \
        if (source === 'removes') fs.rmSync('version.txt')";
    let project = Project::shop()
        .build_script("storefront-middleware", script)
        .file("apps/storefront-middleware/version.txt", "composed");
    let source = "apps/storefront-middleware/src/index.js";
    let version = format!(".out/us/{MIDDLEWARE}/version.txt");
    project.write(source, b"writes");
    build(&project, US);
    assert_eq!(project.read(&version), "by the script");
    // The next compose and a hit keep the edit, like the edits of Next.js in `tsconfig.json`.
    assert_eq!(build_middleware(&project), "hit");
    assert_eq!(project.read(&version), "by the script");
    project.write(source, b"only reads");
    build(&project, US);
    assert_eq!(
        (
            built_value(&project).as_str(),
            project.read(&version).as_str()
        ),
        ("composed", "composed")
    );

    project.write(source, b"removes");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("`version.txt` is a source file that the script removed");
    assert_eq!(
        build_middleware(&project),
        "miss",
        "the result is not cached"
    );
}

#[test]
fn a_package_that_changes_while_its_script_runs_is_not_kept() {
    let project = with_theme("const fs = require('fs'); fs.writeFileSync('src.js', fs.readFileSync('src.js', 'utf8') + '!'); fs.mkdirSync('lib', { recursive: true }); fs.copyFileSync('src.js', 'lib/i.js')")
        .file("packages/theme/src.js", "one");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("`packages/theme/src.js` changed while the script ran");
}

#[test]
fn a_result_with_a_name_that_is_not_utf_8_is_not_cached() {
    let project = middleware_of(
        "(fs.mkdirSync('lib', { recursive: true }), fs.writeFileSync(Buffer.from('6c69622f636166e92e6a73', 'hex'), ''), 1)",
    );
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("is not valid UTF-8");
    assert_eq!(build_middleware(&project), "miss");
}
