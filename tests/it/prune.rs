//! `.deploy`: what runs by itself, and nothing else.

use crate::support::Project;

const UNTIL_PRUNE: [&str; 5] = ["store", "deploy", "--all", "--until", "prune"];

fn pruned(project: &Project) -> &Project {
    project.alokai(&UNTIL_PRUNE).succeeds();
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

/// A standalone output in which app and root have different versions of one package, and a
/// link between two places that move against each other.
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
    let project = Project::shop().file("apps/storefront-unified-nextjs/build.js", CONFLICT);
    project.commit();
    pruned(&project);
    let deploy = project.path(".out/us/storefront-unified-nextjs/.deploy");
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = std::process::Command::new("cp")
        .arg("-a")
        .arg(&deploy)
        .arg(elsewhere.path())
        .status()
        .unwrap();
    assert!(copy.success());
    let output = std::process::Command::new("node")
        .arg("server.js")
        .current_dir(elsewhere.path().join(".deploy"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "the app's the root's linked\n",
        "{output:?}"
    );
}

#[test]
fn nuxt_is_taken_as_nitro_made_it() {
    let build = "const fs = require('fs'); fs.mkdirSync('.output/server', { recursive: true }); fs.mkdirSync('.output/public', { recursive: true }); fs.writeFileSync('.output/server/index.mjs', ''); fs.writeFileSync('.output/public/a.css', '')";
    let project = Project::shop()
        .config(r#"{ "stores": { "us": { "deployment": { "projectName": "a", "cloudRegion": "r", "framework": "nuxt" } } } }"#)
        .app("storefront-unified-nuxt", r#""build": "node build.js""#)
        .file("apps/storefront-unified-nuxt/build.js", build);
    project.commit();
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
    let output = std::process::Command::new("node")
        .arg("lib/index.js")
        .current_dir(project.path(".out/us/storefront-middleware/.deploy"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "b 2 b 1 tools with b 1\n",
        "{output:?}"
    );

    std::fs::remove_dir_all(project.path("node_modules/a")).unwrap();
    let run = project.alokai(&UNTIL_PRUNE).fails_with(1);
    assert!(
        run.stderr
            .contains("a dependency is not installed: `a` (needed by `storefront-middleware-"),
        "{}",
        run.stderr
    );
}

#[test]
fn what_an_earlier_build_left_of_a_source_that_is_gone_is_not_shipped() {
    let build = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); \
        for (const name of fs.readdirSync('src')) fs.copyFileSync('src/' + name, 'lib/' + name)";
    let project = Project::shop()
        .file("apps/storefront-middleware/build.js", build)
        .file("apps/storefront-middleware/src/extra.js", "");
    project.commit();
    pruned(&project);
    assert!(project.exists(".out/us/storefront-middleware/.deploy/lib/extra.js"));
    std::fs::remove_file(project.path("apps/storefront-middleware/src/extra.js")).unwrap();
    project.commit();
    pruned(&project);
    assert!(!project.exists(".out/us/storefront-middleware/.deploy/lib/extra.js"));
}
