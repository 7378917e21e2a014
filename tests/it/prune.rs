//! Pruning: `.deploy` runs by itself and has no other files.

use std::path::Path;
use std::process::Command;

use alokai::config::DropList;

use crate::support::{Project, copy_of, next_is_whole, output_of};

const UNTIL_PRUNE: &str = "store deploy --all --until prune";

fn pruned(project: &Project) -> &Project {
    project.alokai(UNTIL_PRUNE).succeeds();
    project
}

#[test]
fn next_has_server_js_at_the_top_statics_and_public_and_no_env() {
    let project = Project::shop();
    pruned(&project);
    let tree: Vec<_> = project
        .tree(".out/us/storefront-unified-nextjs/.deploy")
        .into_keys()
        .collect();
    assert_eq!(
        tree,
        [
            ".next/static/chunk.js",
            "node_modules/next/package.json",
            "public/logo.svg",
            "server.js"
        ]
    );
}

#[test]
fn env_files_are_kept_when_the_project_says_so() {
    let project = Project::shop();
    let config =
        project
            .read("alokai.config.json")
            .replacen('{', r#"{ "prune": { "keepEnv": true },"#, 1);
    let project = project.config(&config);
    pruned(&project);
    assert!(project.exists(".out/us/storefront-unified-nextjs/.deploy/.env.production"));
}

/// What a deployed app prints when Node starts this file of it.
fn started(folder: &Path, entry: &str) -> String {
    output_of(Command::new("node").arg(entry).current_dir(folder))
}

/// A standalone output in which the app and the root have different versions of a package, with a
/// link between two folders whose relative path changes.
const CONFLICT: &str = r"
const fs = require('fs'), path = require('path');
const app = path.join('.next/standalone', path.relative(path.resolve('../../..'), process.cwd()));
const write = (file, text) => { fs.mkdirSync(path.dirname(file), { recursive: true }); fs.writeFileSync(file, text); };
write(path.join(app, 'server.js'), 'console.log(require(`shared`), require(`user`), require(`theme`))');
write(path.join(app, 'node_modules/shared/index.js'), 'module.exports = `the app\'s`');
write(path.join(app, 'node_modules/shared/package.json'), '{`name`:`shared`}'.replaceAll('`', '\x22'));
const root = '.next/standalone/node_modules';
write(root + '/shared/index.js', 'module.exports = `the root\'s`');
write(root + '/shared/package.json', '{`name`:`shared`}'.replaceAll('`', '\x22'));
write(root + '/user/index.js', 'module.exports = require(`shared`)');
write(root + '/user/package.json', '{`name`:`user`,`dependencies`:{`shared`:`1`}}'.replaceAll('`', '\x22'));
write('.next/standalone/packages/theme/index.js', 'module.exports = `linked`');
fs.rmSync(root + '/theme', { force: true });
fs.symlinkSync('../packages/theme', root + '/theme');
";

#[test]
fn next_keeps_each_packages_own_version_and_links_when_it_is_flattened() {
    let project = Project::shop().build_script("storefront-unified-nextjs", CONFLICT);
    project.commit();
    pruned(&project);
    let deploy = project.path(".out/us/storefront-unified-nextjs/.deploy");
    let elsewhere = tempfile::tempdir().unwrap();
    output_of(
        Command::new("cp")
            .arg("-a")
            .arg(&deploy)
            .arg(elsewhere.path()),
    );
    assert_eq!(
        started(&elsewhere.path().join(".deploy"), "server.js"),
        "the app's the root's linked\n"
    );
}

/// A shop with a Nuxt app that this script builds.
fn nuxt(script: &str) -> Project {
    let project = Project::shop()
        .config(r#"{ "stores": { "us": { "deployment": { "projectName": "a", "cloudRegion": "r", "framework": "nuxt" } } } }"#)
        .app("storefront-unified-nuxt", r#""build": "node build.js""#)
        .build_script("storefront-unified-nuxt", script);
    project.commit();
    project
}

#[test]
fn nuxt_is_taken_as_nitro_made_it() {
    let build = "const fs = require('fs'); fs.mkdirSync('.output/server', { recursive: true }); fs.mkdirSync('.output/public', { recursive: true }); fs.writeFileSync('.output/server/index.mjs', ''); fs.writeFileSync('.output/public/a.css', '')";
    let project = nuxt(build);
    pruned(&project);
    let tree: Vec<_> = project
        .tree(".out/us/storefront-unified-nuxt/.deploy")
        .into_keys()
        .collect();
    assert_eq!(tree, ["public/a.css", "server/index.mjs"]);
}

#[test]
fn a_server_has_the_closure_of_its_production_dependencies() {
    let package = |name: &str, version: &str, dependencies: &str| {
        format!(
            r#"{{ "name": "{name}", "version": "{version}", "main": "index.js", "dependencies": {{ {dependencies} }} }}"#
        )
    };
    let says = |version: &str| format!("module.exports = '{version}'");
    let project = Project::shop()
        .file(
            "apps/storefront-middleware/package.json",
            r#"{ "name": "m", "scripts": { "build": "node build.js", "start": "node lib/index.js" },
                 "dependencies": { "a": "1", "@acme/tools": "*" }, "devDependencies": { "dev": "1" },
                 "optionalDependencies": { "not-for-this-system": "1" } }"#,
        )
        .file("apps/storefront-middleware/src/index.js", "console.log(require('a'), require('b'), require('@acme/tools'))")
        // This lock file cannot be used, so installed packages are not in a key.
        .file("package-lock.json", "{}")
        .file("node_modules/a/package.json", &package("a", "1", r#""b": "2""#))
        .file("node_modules/a/index.js", "module.exports = require('b')")
        .file("node_modules/a/node_modules/b/package.json", &package("b", "2", ""))
        .file("node_modules/a/node_modules/b/index.js", &says("b 2"))
        .file("node_modules/b/package.json", &package("b", "1", ""))
        .file("node_modules/b/index.js", &says("b 1"))
        .file("node_modules/dev/package.json", &package("dev", "1", ""))
        .file("packages/tools/package.json", r#"{ "name": "@acme/tools", "main": "dist/index.js", "files": ["dist"], "dependencies": { "b": "1" } }"#)
        .file("packages/tools/dist/index.js", "module.exports = 'tools with ' + require('b')")
        .file("packages/tools/src/index.ts", "source")
        .link("node_modules/@acme/tools", "../../packages/tools");
    project.commit();
    pruned(&project);
    let tree: Vec<_> = project
        .tree(".out/us/storefront-middleware/.deploy")
        .into_keys()
        .collect();
    assert_eq!(
        tree,
        [
            "lib/index.js",
            "node_modules/@acme/tools/dist/index.js",
            "node_modules/@acme/tools/package.json",
            "node_modules/a/index.js",
            "node_modules/a/node_modules/b/index.js",
            "node_modules/a/node_modules/b/package.json",
            "node_modules/a/package.json",
            "node_modules/b/index.js",
            "node_modules/b/package.json",
            "package.json",
        ]
    );
    assert_eq!(
        started(
            &project.path(".out/us/storefront-middleware/.deploy"),
            "lib/index.js"
        ),
        "b 2 b 1 tools with b 1\n"
    );

    std::fs::remove_dir_all(project.path("node_modules/a")).unwrap();
    let run = project.alokai(UNTIL_PRUNE).fails_with(1);
    run.stderr_contains("a dependency is not installed: `a` (needed by `storefront-middleware-");
}

#[test]
fn output_of_a_removed_source_is_not_shipped() {
    let build = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); \
        for (const name of fs.readdirSync('src')) fs.copyFileSync('src/' + name, 'lib/' + name)";
    let project = Project::shop()
        .build_script("storefront-middleware", build)
        .file("apps/storefront-middleware/src/extra.js", "");
    project.commit();
    pruned(&project);
    assert!(project.exists(".out/us/storefront-middleware/.deploy/lib/extra.js"));
    project.remove("apps/storefront-middleware/src/extra.js");
    project.commit();
    pruned(&project);
    assert!(!project.exists(".out/us/storefront-middleware/.deploy/lib/extra.js"));
}

/// Adds a `prune` section to the config.
fn with_prune(project: Project, prune: &str) -> Project {
    let config = project.read("alokai.config.json");
    let first = format!("{{ \"prune\": {prune},");
    let project = project.config(&config.replacen('{', &first, 1));
    project.commit();
    project
}

/// A middleware with packages that a careless drop list breaks.
fn with_odd_packages() -> Project {
    let package = |name: &str, rest: &str| format!(r#"{{ "name": "{name}", {rest} }}"#);
    Project::shop()
        .file(
            "apps/storefront-middleware/package.json",
            r#"{ "name": "m", "scripts": { "build": "node build.js", "start": "node lib/index.js" },
                 "dependencies": { "plain": "1", "main-in-test": "1", "exports-docs": "1",
                                   "reads-examples": "1", "deep": "1", "typescript": "1" } }"#,
        )
        .file(
            "apps/storefront-middleware/src/index.js",
            "for (const name of ['plain', 'main-in-test', 'exports-docs/chapter', 'reads-examples', 'deep/examples/loader'])
               console.log(name, require(name))",
        )
        .file("node_modules/plain/package.json", &package("plain", r#""types": "index.d.ts", "exports": { "types": "./index.d.ts", "default": "./index.js" }"#))
        .file("node_modules/plain/index.js", "module.exports = require('./lib/docs')")
        .file("node_modules/plain/index.js.map", "")
        .file("node_modules/plain/index.d.ts", "")
        .file("node_modules/plain/README.md", "")
        .file("node_modules/plain/LICENSE.md", "")
        .file("node_modules/plain/test/index.js", "")
        .file("node_modules/plain/test/NOTICE", "")
        .file("node_modules/plain/docs/guide.html", "")
        .file("node_modules/plain/.github/workflows/ci.yml", "")
        .file("node_modules/plain/lib/docs/index.js", "module.exports = 'docs that are code'")
        .file("node_modules/plain/dist/node_modules/tslib/tslib.js", "")
        .file("node_modules/plain/prebuilds/linux-x64/plain.node", "")
        .file("node_modules/plain/test/fixture.so.1", "")
        .file("node_modules/main-in-test/package.json", &package("main-in-test", r#""main": "./test""#))
        .file("node_modules/main-in-test/test/index.js", "module.exports = require('./helper')")
        .file("node_modules/main-in-test/test/helper.js", "module.exports = 'helped'")
        .file("node_modules/main-in-test/test/helper.d.ts", "")
        .file("node_modules/main-in-test/docs/index.js", "")
        .file("node_modules/exports-docs/package.json", &package("exports-docs", r#""exports": { "./*": { "types": "./docs/*.d.ts", "default": "./docs/*.js" } }"#))
        .file("node_modules/exports-docs/docs/chapter.js", "module.exports = 'chapter'")
        .file("node_modules/exports-docs/docs/chapter.d.ts", "")
        .file("node_modules/exports-docs/example/a.js", "")
        .file("node_modules/reads-examples/package.json", &package("reads-examples", r#""main": "lib/index.js""#))
        .file("node_modules/reads-examples/lib/index.js", "module.exports = require('../examples/data.json').text + require('fs').readFileSync(require('path').join(__dirname, '..', 'docs', 'text.txt'))")
        .file("node_modules/reads-examples/examples/data.json", r#"{ "text": "data" }"#)
        .file("node_modules/reads-examples/docs/text.txt", " and text")
        .file("node_modules/reads-examples/test/index.js", "require('../examples/data.json')")
        .file("node_modules/deep/package.json", &package("deep", r#""main": "index.js""#))
        .file("node_modules/deep/index.js", "")
        .file("node_modules/deep/examples/loader.js", "module.exports = 'loaded' + require('../tests/shared')")
        .file("node_modules/deep/tests/shared.js", "module.exports = ' with what it needs'")
        .file("node_modules/deep/test/index.js", "")
        .file("node_modules/typescript/package.json", &package("typescript", r#""main": "lib/typescript.js""#))
        .file("node_modules/typescript/lib/typescript.js", "")
        .file("node_modules/typescript/lib/typescript.d.ts", "")
        .file("node_modules/typescript/lib/lib.es2023.d.ts", "")
}

fn middleware(project: &Project) -> Vec<String> {
    let tree = project.tree(".out/us/storefront-middleware/.deploy");
    tree.into_keys().collect()
}

#[test]
fn files_on_the_drop_list_that_nothing_needs_are_removed_from_dependencies() {
    let project = with_odd_packages();
    project.commit();
    pruned(&project);
    insta::assert_snapshot!(middleware(&project).join("\n"));
    let (_elsewhere, copy) = copy_of(&project.path(".out/us/storefront-middleware/.deploy"));
    let output = started(&copy, "lib/index.js");
    insta::assert_snapshot!(output, @"
    plain docs that are code
    main-in-test helped
    exports-docs/chapter chapter
    reads-examples data and text
    deep/examples/loader loaded with what it needs
    ");
}

#[test]
fn a_list_in_the_config_takes_the_place_of_the_default_one() {
    let project = with_prune(with_odd_packages(), r#"{ "drop": [] }"#);
    pruned(&project);
    let whole = middleware(&project);
    let plain: Vec<_> = project.tree("node_modules/plain").into_keys().collect();
    for path in &plain {
        let path = format!("node_modules/plain/{path}");
        assert!(whole.contains(&path), "{path}");
    }
    let list = r#"{ "drop": ["**/*.html", "*.md", "!README.md", "**/docs/"] }"#;
    let project = with_prune(with_odd_packages(), list);
    pruned(&project);
    let rest = middleware(&project);
    let gone = whole.iter().filter(|path| !rest.contains(path));
    insta::assert_snapshot!(gone.cloned().collect::<Vec<_>>().join("\n"), @"
    node_modules/main-in-test/docs/index.js
    node_modules/plain/docs/guide.html
    ");
}

#[test]
fn a_package_that_several_need_in_a_second_version_is_there_once() {
    let package = |name: &str, version: &str, dependencies: &str| {
        format!(
            r#"{{ "name": "{name}", "version": "{version}", "main": "index.js", "dependencies": {{ {dependencies} }} }}"#
        )
    };
    // The layout of pnpm: each package once, with its dependencies as links beside it.
    let mut project = Project::shop()
        .file(
            "apps/storefront-middleware/package.json",
            r#"{ "name": "m", "scripts": { "build": "node build.js", "start": "node lib/index.js" },
                 "dependencies": { "shared": "1", "a": "1", "b": "1" } }"#,
        )
        .file("apps/storefront-middleware/src/index.js", "console.log(require('shared').version, require('a') === require('b'), require('a').inner)");
    for (name, version, dependencies) in [
        ("shared", "1", ""),
        ("shared", "2", r#""inner": "1""#),
        ("inner", "1", ""),
        ("a", "1", r#""shared": "2""#),
        ("b", "1", r#""shared": "2""#),
    ] {
        let folder = format!("node_modules/.pnpm/{name}@{version}/node_modules/{name}");
        let code = match (name, version) {
            ("a" | "b", _) => "module.exports = require('shared')".into(),
            ("shared", "2") => "module.exports = { version: 2, inner: require('inner') }".into(),
            _ => format!("module.exports = {{ version: {version} }}"),
        };
        project = project
            .file(
                &format!("{folder}/package.json"),
                &package(name, version, dependencies),
            )
            .file(&format!("{folder}/index.js"), &code);
    }
    for (user, name, version) in [
        ("a@1", "shared", "2"),
        ("b@1", "shared", "2"),
        ("shared@2", "inner", "1"),
    ] {
        let link = format!("node_modules/.pnpm/{user}/node_modules/{name}");
        project = project.link(
            &link,
            &format!("../../{name}@{version}/node_modules/{name}"),
        );
    }
    for name in ["shared", "a", "b"] {
        let link = format!("apps/storefront-middleware/node_modules/{name}");
        project = project.link(
            &link,
            &format!("../../../node_modules/.pnpm/{name}@1/node_modules/{name}"),
        );
    }
    project.commit();
    pruned(&project);
    let tree = project.tree(".out/us/storefront-middleware/.deploy");
    assert_eq!(
        tree.get("node_modules/b/node_modules/shared")
            .map(String::as_str),
        Some("-> ../../a/node_modules/shared"),
        "{tree:#?}"
    );
    let (_elsewhere, copy) = copy_of(&project.path(".out/us/storefront-middleware/.deploy"));
    let output = started(&copy, "lib/index.js");
    assert_eq!(output, "1 true { version: 1 }\n");
}

#[test]
fn next_is_its_standalone_output_less_what_is_listed() {
    let build = r"
fs.mkdirSync('.next/standalone/node_modules/@s/a/docs', { recursive: true });
for (const file of ['package.json', 'index.js', 'index.js.map', 'index.d.ts', 'README.md', 'LICENSE.md', 'docs/loaded.js'])
  fs.writeFileSync('.next/standalone/node_modules/@s/a/' + file, file === 'package.json' ? '{}' : file);
fs.mkdirSync(path.join(app, '.next/server'), { recursive: true });
fs.writeFileSync(path.join(app, '.next/server/page.js.map'), 'the app\'s own');
";
    let project = Project::shop();
    let own = project.read("apps/storefront-unified-nextjs/build.js");
    let project = project.build_script("storefront-unified-nextjs", &(own + build));
    project.commit();
    pruned(&project);
    // `.env.production`, a source map, types and a read-me are dropped.
    let counted = next_is_whole(&project.path(".out/us/storefront-unified-nextjs"));
    assert_eq!(counted, (9, 4));
}

#[test]
fn nitros_packages_are_pruned_and_its_own_files_are_not() {
    let build = r"const fs = require('fs');
const write = (path, text) => { path = '.output/' + path; fs.mkdirSync(require('path').dirname(path), { recursive: true }); fs.writeFileSync(path, text); };
write('server/index.mjs', ''); write('server/index.mjs.map', ''); write('public/guide.md', '');
for (const file of ['package.json', 'index.mjs', 'index.mjs.map', 'docs/loaded.mjs'])
  write('server/node_modules/.nitro/@s/a@1.0.0/' + file, '{}');
write('server/node_modules/a/package.json', '{}'); write('server/node_modules/a/README.md', '');
";
    let project = nuxt(build);
    pruned(&project);
    let tree = project.tree(".out/us/storefront-unified-nuxt/.deploy");
    insta::assert_snapshot!(tree.into_keys().collect::<Vec<_>>().join("\n"), @"
    public/guide.md
    server/index.mjs
    server/index.mjs.map
    server/node_modules/.nitro/@s/a@1.0.0/docs/loaded.mjs
    server/node_modules/.nitro/@s/a@1.0.0/index.mjs
    server/node_modules/.nitro/@s/a@1.0.0/package.json
    server/node_modules/a/package.json
    ");
}

/// The middleware with two dependencies of these sizes, and a budget.
fn budgeted(project: Project, small: usize, large: usize) -> Project {
    project
        .file(
            "apps/storefront-middleware/package.json",
            r#"{ "name": "m", "scripts": { "build": "node build.js", "start": "node lib/index.js" },
                 "dependencies": { "@acme/large": "1", "small": "1" } }"#,
        )
        .file("node_modules/small/package.json", "{}")
        .file("node_modules/small/index.js", &" ".repeat(small))
        .file("node_modules/@acme/large/package.json", "{}")
        .file("node_modules/@acme/large/index.js", &" ".repeat(large))
}

/// The lines of a run about the middleware's dependencies.
fn about_sizes(lines: &str) -> String {
    let from = lines
        .lines()
        .skip_while(|line| !line.starts_with("   us/storefront-middleware: "));
    // The next lines may be about another unit, since units are pruned at the same time.
    let own = from.enumerate();
    let own = own.take_while(|(number, line)| *number == 0 || line.starts_with("     "));
    own.map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

#[test]
fn growth_above_the_budget_is_an_error_that_names_the_packages() {
    let budget = r#"{ "maxSize": { "*": "1 GB", "storefront-middleware": "20 kB" } }"#;
    let project = with_prune(budgeted(Project::shop(), 1000, 5000), budget);
    let run = project.alokai("store deploy --store us --until prune");
    let lines = run.succeeds().stderr;
    insta::assert_snapshot!(about_sizes(&lines));
    let deploy = ".out/us/storefront-middleware/.deploy";
    let before = project.tree(deploy);
    let remembered = project.tree(".alokai/sizes");
    assert!(
        remembered.contains_key("us/storefront-middleware.json"),
        "{remembered:?}"
    );

    let project = budgeted(project, 1500, 18_000)
        .file("node_modules/fresh/package.json", "{}")
        .file("node_modules/fresh/index.js", &" ".repeat(4000));
    let package = project.read("apps/storefront-middleware/package.json");
    let package = package.replace("{ \"@acme", "{ \"fresh\": \"1\", \"@acme");
    let project = project.file("apps/storefront-middleware/package.json", &package);
    project.commit();
    let run = project
        .alokai("store deploy --store us --until prune")
        .fails_with(1);
    insta::assert_snapshot!(run.diagnostic(&project));
    assert_eq!(project.tree(deploy), before);
    assert_eq!(project.tree(".alokai/sizes"), remembered);

    // Without an earlier size, the largest packages are named.
    project.alokai("store clean").succeeds();
    assert!(!project.exists(".alokai/sizes"));
    let run = project
        .alokai("store deploy --store us --until prune")
        .fails_with(1);
    insta::assert_snapshot!(run.diagnostic(&project));
    assert!(!project.exists(deploy));

    // The budget of `*` applies to apps without their own budget.
    let config = project
        .read("alokai.config.json")
        .replace(r#""*": "1 GB", "storefront-middleware""#, r#""*""#);
    let project = project.config(&config);
    project.commit();
    let run = project
        .alokai("store deploy --store us --until prune")
        .fails_with(1);
    run.stderr_contains("raise `prune.maxSize.*`");
}

#[test]
fn sizes_of_all_dependencies_are_an_event() {
    let project = budgeted(Project::shop(), 1000, 5000)
        .file("node_modules/small/node_modules/nested/package.json", "{}")
        .file(
            "node_modules/small/package.json",
            r#"{ "dependencies": { "nested": "1" } }"#,
        )
        .file("node_modules/nested/package.json", r#"{ "version": "2" }"#);
    project.commit();
    let run = project
        .alokai("store deploy --store us --until prune --json")
        .succeeds();
    let events = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let sizes = events
        .filter(|event| event["event"] == "sizes" && event["name"] == "storefront-middleware");
    insta::assert_json_snapshot!(sizes.collect::<Vec<_>>());
}

#[test]
fn wrong_sizes_globs_and_apps_come_with_their_place() {
    let wrong = r#"{
    "drop": ["**/*.map", "[", ""],
    "maxSize": { "*": "much", "storefront-midleware": "1 MB" }
  }"#;
    let project = with_prune(Project::shop(), wrong);
    let run = project.alokai("store list").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}

#[test]
fn the_default_list_can_be_read() {
    let list = DropList::default();
    assert!(list.drops("lib/a.d.ts".as_ref(), |_| false));
    assert!(!list.drops("lib/a.js".as_ref(), |_| true));
}
