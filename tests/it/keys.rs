//! A key covers everything that its script can read, or the result is not cached. Each test is a
//! case in which this was once wrong.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{
    FRONTEND, MIDDLEWARE, Project, build, build_middleware, built_value, forget, installed,
    middleware_of, result_of, results,
};

fn unit(app: &str) -> String {
    format!("us/{app}")
}

const US: &str = "--store us";

/// A shop whose middleware is built from a file of the project.
fn reads(path: &str) -> Project {
    middleware_of(&format!("read('../../../{path}')"))
}

/// Fails unless the content of the file is in the key: an edit is a miss, and undoing it is a hit.
fn counts(project: &Project, path: &str) {
    project.write(path, b"one");
    build_middleware(project);
    assert_eq!(built_value(project), "one", "{path}");
    assert_eq!(build_middleware(project), "hit", "{path}");
    project.write(path, b"two");
    assert_eq!(build_middleware(project), "miss", "{path}");
    assert_eq!(built_value(project), "two", "{path}");
    project.write(path, b"one");
    forget(project);
    assert_eq!(build_middleware(project), "hit", "{path}");
    assert_eq!(built_value(project), "one", "{path}");
}

// 1. Inputs that change while a script runs and are restored afterwards.

#[test]
fn an_input_edited_during_a_script_is_named_and_the_result_not_cached() {
    let paths = [
        "top.txt",
        "config/prices.json",
        "patches/left.patch",
        "packages/texts/index.js",
        "types/base.json",
        ".env.build",
        "package-lock.json",
    ];
    for path in paths {
        let outside = tempfile::tempdir().unwrap();
        let flag = outside.path().join("flag");
        // The script edits the file and restores it before it ends.
        let expression = format!(
            "(() => {{ const file = '../../../{path}', flag = {flag:?}; const before = read(file); \
             if (fs.existsSync(flag)) fs.writeFileSync(file, 'edited'); \
             const seen = read(file); fs.writeFileSync(file, before); return seen.length }})()"
        );
        let lock = r#"{ "lockfileVersion": 3, "packages": { "": {}, "node_modules/@acme/texts": { "resolved": "packages/texts", "link": true },
            "packages/texts": {}, "apps/storefront-middleware": { "dependencies": { "@acme/texts": "*" } }, "apps/storefront-unified-nextjs": {} } }"#;
        let project = middleware_of(&expression)
            .file(".gitignore", "node_modules\n.out\nlib\n.next\n.env*\n")
            .file("package-lock.json", lock)
            .file("top.txt", "a text at the top")
            .file("config/prices.json", "[1, 2, 3]")
            .file("patches/left.patch", "a patch")
            .file(
                "packages/texts/package.json",
                r#"{ "name": "@acme/texts" }"#,
            )
            .file("packages/texts/index.js", "module.exports = 1")
            .link("node_modules/@acme/texts", "../../packages/texts")
            .file("types/base.json", "{ }   ")
            .file(".env.build", "A=1")
            .file(
                "apps/storefront-middleware/tsconfig.json",
                r#"{ "extends": "../../types/base.json" }"#,
            )
            .dependency(MIDDLEWARE, "@acme/texts", "*")
            .setting(
                "build",
                &json!({ "globalDependencies": ["config/**", ".env.build"] }),
            );
        let length = project.read(path).len().to_string();
        std::fs::write(&flag, "").unwrap();
        let run = project.alokai("store build --store us").succeeds();
        assert_eq!(built_value(&project), "6", "{path}");
        assert!(
            run.stderr.contains(&format!(
                "not cached: `{path}` changed while the script ran"
            )),
            "{path}: {}",
            run.stderr
        );
        std::fs::remove_file(&flag).unwrap();
        assert_eq!(build_middleware(&project), "miss", "{path}");
        assert_eq!(built_value(&project), length, "{path}");
    }
}

// 2. The order of builds.

#[test]
fn sharing_does_not_depend_on_the_order_of_builds() {
    // Each store has its own middleware. The frontend is shared and reads it.
    let project =
        middleware_of("({ us: 'USD', eu: 'EUR' })[path.basename(path.dirname(process.cwd()))]")
            .build_script(
                "storefront-unified-nextjs",
                "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); \
             fs.copyFileSync('../storefront-middleware/lib/index.js', '.next/currency')",
            )
            .setting("build", &json!({ "shared": [FRONTEND] }));
    for store in ["us", "eu"] {
        let texts = format!("apps/stores/fashion/stores/{store}/{FRONTEND}/texts.txt");
        project.write(&texts, b"the same");
    }
    let currency = |store: &str| project.read(&format!(".out/{store}/{FRONTEND}/.next/currency"));
    for order in [["us", "eu"], ["eu", "us"]] {
        let _ = std::fs::remove_dir_all(project.path(".alokai/cache"));
        for round in 0..2 {
            for store in order {
                build(&project, &["--store", store]);
            }
            assert_eq!(
                (&*currency("us"), &*currency("eu")),
                ("USD", "EUR"),
                "{order:?} {round}"
            );
            forget(&project);
        }
        let found = results(&build(&project, "--all"));
        assert!(found.values().all(|result| result == "hit"), "{found:?}");
        assert_eq!((&*currency("us"), &*currency("eu")), ("USD", "EUR"));
        forget(&project);
    }
}

// 3. Workspace packages are found by the globs of the package manager.

#[test]
fn packages_of_the_workspace_count_wherever_they_lie() {
    let npm = r#"{ "workspaces": ["apps/*", "libs/*", "!libs/old"] }"#;
    let with = |project: Project, folder: &str| {
        project
            .dependency(MIDDLEWARE, "@acme/ui", "*")
            .file(
                &format!("{folder}/package.json"),
                r#"{ "name": "@acme/ui" }"#,
            )
            .file(&format!("{folder}/index.js"), "one")
            .link("node_modules/@acme/ui", &format!("../../{folder}"))
    };
    let through = "read(require.resolve('@acme/ui'))";
    let project = with(middleware_of(through), "libs/ui").file("package.json", npm);
    counts(&project, "libs/ui/index.js");
    let pnpm = r#"{ "packageManager": "pnpm@9.0.0", "workspaces": ["packages/*"] }"#;
    let yaml = "packages:\n  - 'shared/**'\n  - '!shared/old'\n";
    let lock = "lockfileVersion: '9.0'\nimporters:\n  .: {}\n  apps/storefront-middleware:\n    dependencies:\n      '@acme/ui':\n        specifier: '*'\n        version: link:../../shared/deep/ui\n  apps/storefront-unified-nextjs: {}\n  shared/deep/ui: {}\n";
    let bin = installed(&["pnpm@9.15.9"]).join("node_modules/.bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let project = with(middleware_of(through), "shared/deep/ui")
        .file("package.json", pnpm)
        .file("pnpm-workspace.yaml", yaml)
        .file("pnpm-lock.yaml", lock)
        .env("PATH", &path);
    counts(&project, "shared/deep/ui/index.js");
}

#[test]
fn a_folder_that_a_lock_file_reaches_counts_or_nothing_is_kept() {
    let lock = |resolved: &str| {
        format!(
            r#"{{ "lockfileVersion": 3, "packages": {{ "": {{}}, "node_modules/left": {{ "resolved": "{resolved}", "link": true }}, "{resolved}": {{ "name": "left" }},
            "apps/storefront-middleware": {{ "dependencies": {{ "left": "*" }} }}, "apps/storefront-unified-nextjs": {{}} }} }}"#
        )
    };
    let vendored = middleware_of("read(require.resolve('left'))")
        .file("vendor/left/package.json", r#"{ "name": "left" }"#)
        .link("node_modules/left", "../vendor/left")
        .file("package-lock.json", &lock("vendor/left"))
        .dependency(MIDDLEWARE, "left", "file:../../vendor/left");
    counts(&vendored, "vendor/left/index.js");

    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("index.js"), "one").unwrap();
    let outside = middleware_of("read(require.resolve('left'))")
        .link("node_modules/left", elsewhere.path().to_str().unwrap())
        .dependency(
            MIDDLEWARE,
            "left",
            &format!("link:{}", elsewhere.path().display()),
        );
    let run = outside.alokai("store build --store us").succeeds();
    run.stderr_contains("always runs: its dependency `left@link:");
    std::fs::write(elsewhere.path().join("index.js"), "two").unwrap();
    assert_eq!(build_middleware(&outside), "miss");
    assert_eq!(built_value(&outside), "two");
}

// 4. The package manager's own lock file counts.

#[test]
fn a_left_over_lock_file_of_another_package_manager_is_not_used() {
    let project = middleware_of("1")
        .file(
            "package-lock.json",
            r#"{ "lockfileVersion": 3, "packages": {} }"#,
        )
        .file("package.json", r#"{ "packageManager": "yarn@4.0.0" }"#)
        .file("node_modules/left/package.json", "{}")
        .dependency(MIDDLEWARE, "left", "1");
    let lock = |version: &str| {
        format!(
            "__metadata:\n  version: 8\n\n\"left@npm:1\":\n  version: {version}\n  resolution: \"left@npm:{version}\"\n  checksum: x{version}\n\n\
             \"storefront-middleware@workspace:apps/storefront-middleware\":\n  version: 0.0.0-use.local\n  resolution: \"storefront-middleware@workspace:apps/storefront-middleware\"\n  dependencies:\n    left: \"npm:1\"\n\n\
             \"root@workspace:.\":\n  version: 0.0.0-use.local\n  resolution: \"root@workspace:.\"\n"
        )
    };
    project.write("yarn.lock", lock("1.0.0").as_bytes());
    build_middleware(&project);
    assert_eq!(build_middleware(&project), "hit");
    project.write("yarn.lock", lock("1.1.0").as_bytes());
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("left 1.0.0 → 1.1.0");
}

// 5. Files that git ignores.

#[test]
fn ignored_files_count_by_name_by_pattern_and_at_the_top() {
    let rules = "node_modules\n.out\nlib\n.next\n.env*\nsecrets\n*.local\n";
    let declared = |pattern: &str, path: &str| {
        reads(path)
            .file(".gitignore", rules)
            .setting("build", &json!({ "globalDependencies": [pattern] }))
    };
    counts(&declared(".env", ".env"), ".env");
    counts(
        &declared("**/.env.*", "config/.env.local"),
        "config/.env.local",
    );
    counts(&declared("secrets", "secrets/key"), "secrets/key");
    counts(
        &declared("secrets/*.json", "secrets/key.json"),
        "secrets/key.json",
    );
    // Ignored files at the top of the project are inputs if a script opens them.
    for path in [
        ".env",
        "settings.local",
        "README.md",
        "alokai.config.local",
        "LICENSE",
    ] {
        counts(&reads(path).file(".gitignore", rules), path);
    }
    // Files that the script does not open are not inputs.
    let project = reads("top.txt").file("top.txt", "1").file("README.md", "1");
    build_middleware(&project);
    project.write("README.md", b"2");
    assert_eq!(build_middleware(&project), "hit");
}

// 6. Files that a TypeScript config refers to.

#[test]
fn files_that_a_typescript_config_refers_to_are_in_the_key() {
    let with = |config: &str, path: &str| {
        reads(path)
            .file("apps/storefront-middleware/tsconfig.json", config)
            .file("config/base.json", r#"{ "extends": ["./strict.json"] }"#)
            .file("config/strict.json", "{}")
            .file("shared/tsconfig.json", "{}")
    };
    let extends = r#"{ "extends": "../../config/base.json" }"#;
    for path in ["config/base.json", "config/strict.json"] {
        let project = with(extends, path);
        let json = |number: u32| format!(r#"{{ "extends": "./strict.json", "x": {number} }}"#);
        project.write(path, json(1).as_bytes());
        build_middleware(&project);
        project.write(path, json(2).as_bytes());
        assert_eq!(build_middleware(&project), "miss", "{path}");
    }
    let references = r#"{ "references": [{ "path": "../../shared" }] }"#;
    counts(&with(references, "shared/index.ts"), "shared/index.ts");
    let paths = r#"{ "compilerOptions": { "paths": { "x/*": ["../../shared/*"] } } }"#;
    counts(&with(paths, "shared/x.ts"), "shared/x.ts");
}

// 7. The version of Node in the environment of scripts.

#[test]
fn node_is_asked_in_the_environment_of_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("node"))
        .find(|node| node.is_file())
        .unwrap();
    let shim = folder.path().join("node");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo \"v20.0.${{NODE_FLAVOUR:-0}}\" && exit\nexec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(&shim, text).unwrap();
    std::fs::set_permissions(&shim, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let project = middleware_of("process.env.NODE_FLAVOUR").env("PATH", &path);
    assert_eq!(build_middleware(&project), "miss");
    // Scripts do not get the variable, so it is not in the key.
    let project = project.env("NODE_FLAVOUR", "7");
    assert_eq!(build_middleware(&project), "hit");
    assert_eq!(built_value(&project), "undefined");
}

// 8. Files beside a result.

#[test]
fn a_file_beside_a_result_is_shipped_nowhere() {
    let project = Project::shop();
    let prune = "store deploy --store us --until prune --allow-dirty";
    project.alokai(prune).succeeds();
    let result = format!(".out/us/{MIDDLEWARE}/lib");
    project.write(&format!("{result}/evil.js"), b"1");
    project.write(&format!("{result}/deep/er/evil.js"), b"1");
    project.write(&format!(".out/us/{FRONTEND}/.next/static/evil.js"), b"1");
    project.alokai(prune).succeeds();
    for app in [MIDDLEWARE, FRONTEND] {
        let tree = project.tree(&format!(".out/us/{app}"));
        let evil: Vec<_> = tree.keys().filter(|path| path.contains("evil")).collect();
        assert!(evil.is_empty(), "{evil:?}");
    }
}

// Keys that contain the results of other tasks.

#[test]
fn a_frontend_is_built_again_when_the_middlewares_result_or_what_it_reads_of_it_changes() {
    let project = middleware_of("'the same'")
        .build_script(
            "storefront-unified-nextjs",
            "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); \
             fs.copyFileSync('../storefront-middleware/types.ts', '.next/types')",
        )
        .file("apps/storefront-middleware/types.ts", "one");
    build(&project, US);
    project.write("apps/storefront-middleware/src/index.js", b"// an edit");
    let plan = project
        .alokai("store build --store us --dry-run")
        .succeeds();
    plan.stdout_contains("depends on the result of us/storefront-middleware");
    let run = build(&project, US);
    assert_eq!(result_of(&run, &unit(MIDDLEWARE)), "miss");
    assert_eq!(
        result_of(&run, &unit(FRONTEND)),
        "hit",
        "its middleware gives the same"
    );
    project.write("apps/storefront-middleware/types.ts", b"two");
    let run = build(&project, US);
    assert_eq!(
        result_of(&run, &unit(FRONTEND)),
        "miss",
        "the frontend reads this file"
    );
    assert_eq!(
        project.read(&format!(".out/us/{FRONTEND}/.next/types")),
        "two"
    );
    // A store that overrides the file has its own result.
    project.write(
        "apps/stores/fashion/stores/eu/storefront-middleware/types.ts",
        b"three",
    );
    build(&project, "--all");
    assert_eq!(
        project.read(&format!(".out/eu/{FRONTEND}/.next/types")),
        "three"
    );
    assert_eq!(
        project.read(&format!(".out/us/{FRONTEND}/.next/types")),
        "two"
    );
}

#[test]
fn a_task_after_an_uncached_result_is_not_cached() {
    let outside = tempfile::tempdir().unwrap();
    let flag = outside.path().join("flag");
    let edit = format!(
        "(() => {{ if (!fs.existsSync({flag:?})) return 'calm'; fs.writeFileSync('../../../top.txt', 'edited'); const seen = read('../../../top.txt'); \
         fs.writeFileSync('../../../top.txt', 'calm'); return seen }})()"
    );
    let project = middleware_of(&edit).file("top.txt", "calm").build_script(
        "storefront-unified-nextjs",
        "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); \
         fs.copyFileSync('../storefront-middleware/lib/index.js', '.next/seen')",
    );
    std::fs::write(&flag, "").unwrap();
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("note: us/storefront-unified-nextjs: not cached: ");
    std::fs::remove_file(&flag).unwrap();
    let run = build(&project, US);
    assert_eq!(result_of(&run, &unit(FRONTEND)), "miss");
    assert_eq!(
        project.read(&format!(".out/us/{FRONTEND}/.next/seen")),
        "calm"
    );
}

// Cases that hostile testing found.

#[test]
fn a_result_that_another_build_overwrites_is_restored() {
    let project = middleware_of("1").build_script("storefront-unified-nextjs",
        "const fs = require('fs'); fs.mkdirSync('.next', { recursive: true }); fs.writeFileSync('.next/x', '1'); \
         fs.writeFileSync('../storefront-middleware/lib/index.js', 'evil'); fs.writeFileSync('../storefront-middleware/lib/more.js', 'evil')",
    );
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains(
        "the script changed the result of us/storefront-middleware, which was restored",
    );
    assert_eq!(built_value(&project), "1");
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}/lib/more.js")));
}

#[test]
fn packages_and_base_apps_that_nobody_declares_count_when_they_are_opened() {
    for (folder, name) in [("packages/theme", "@acme/theme"), ("apps/cms", "cms")] {
        let project = middleware_of(&format!("read(require.resolve('{name}/value.txt'))"))
            .file(
                &format!("{folder}/package.json"),
                &format!(r#"{{ "name": "{name}" }}"#),
            )
            .link(
                &format!("node_modules/{name}"),
                &format!("{}{folder}", "../".repeat(name.split('/').count())),
            );
        counts(&project, &format!("{folder}/value.txt"));
    }
}

#[test]
fn a_typescript_config_may_name_a_package() {
    let project = middleware_of("read(require.resolve('@acme/tsc/base.json'))")
        .file("packages/tsc/package.json", r#"{ "name": "@acme/tsc" }"#)
        .file(
            "apps/storefront-middleware/tsconfig.json",
            r#"{ "extends": "@acme/tsc/base.json" }"#,
        )
        .link("node_modules/@acme/tsc", "../../packages/tsc");
    counts(&project, "packages/tsc/base.json");
}

#[test]
fn a_declared_folder_counts_with_links_and_all() {
    let declared = |path: &str| {
        reads(path)
            .file("shared/tokens/t.js", "0")
            .link("config/tokens", "../shared/tokens")
            .setting("build", &json!({ "globalDependencies": ["config"] }))
    };
    let project = declared("config/tokens/t.js");
    counts(&project, "shared/tokens/t.js");
    counts(&declared("config/.cache/x"), "config/.cache/x");
    counts(&declared("config/x~"), "config/x~");
}

#[test]
fn reads_and_writes_beside_the_apps_are_named_and_the_result_not_cached() {
    let told = |project: &Project, words: &str| {
        let run = project.alokai("store build --store us").succeeds();
        run.stderr_contains(words);
        assert_eq!(build_middleware(project), "miss");
    };
    let writes = middleware_of("fs.writeFileSync('../gen.json', '1')");
    told(
        &writes,
        "not cached: `.out/us/gen.json` changed while the script ran",
    );
    let reads = middleware_of("read('../left.json') + read('../../left.json')");
    reads.alokai("store compose --all").succeeds();
    for path in [".out/us/left.json", ".out/left.json"] {
        reads.write(path, b"1");
    }
    told(&reads, "which is not part of the cache key");
    let link = middleware_of(
        "(fs.mkdirSync('.cache', { recursive: true }), fs.writeFileSync('.cache/x', '1'), fs.symlinkSync('../.cache/x', 'lib/x'))",
    );
    told(&link, "`lib/x` is a link to an incremental cache");
}

#[test]
fn an_empty_folder_that_is_left_over_is_removed() {
    let project = middleware_of("1");
    build(&project, US);
    let folder = project.path(&format!(".out/us/{MIDDLEWARE}/lib/empty"));
    std::fs::create_dir(&folder).unwrap();
    build(&project, US);
    assert!(!folder.exists());
}

#[test]
fn a_shared_result_that_is_not_kept_comes_whole() {
    let project = middleware_of("(fs.mkdirSync('lib/empty', { recursive: true }), fs.appendFileSync('src/index.js', '// more'), fs.appendFileSync('../../../top.txt', '+'), 1)")
        .file("top.txt", "")
        .setting("build", &json!({ "shared": [MIDDLEWARE] }));
    build(&project, US);
    assert!(
        project
            .path(&format!(".out/us/{MIDDLEWARE}/lib/empty"))
            .is_dir()
    );
    assert!(
        project
            .read(&format!(".out/us/{MIDDLEWARE}/src/index.js"))
            .ends_with("// more")
    );
}
