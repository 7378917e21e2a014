//! What a composed app finds beside and above itself: packages, the store's own apps, the top of the
//! project; and that no script changes a source through it.

use std::path::Path;

use crate::support::Project;

const MIDDLEWARE: &str = "storefront-middleware";
const NEXT: &str = "storefront-unified-nextjs";

/// A shop whose packages are installed as npm and yarn do it, with an own package of the frontend.
fn shop() -> Project {
    let own = format!("apps/{NEXT}/node_modules");
    Project::shop()
        .file(
            "package.json",
            r#"{ "name": "shop", "workspaces": ["apps/*", "packages/*"] }"#,
        )
        .file(
            "node_modules/react/package.json",
            r#"{ "name": "react", "version": "19.0.0" }"#,
        )
        .file("node_modules/react/index.js", "module.exports = 19;\n")
        .file("node_modules/next/index.js", "module.exports = 'next';\n")
        .link(
            &format!("node_modules/{MIDDLEWARE}"),
            &format!("../apps/{MIDDLEWARE}"),
        )
        .file(
            &format!("{own}/react/package.json"),
            r#"{ "name": "react", "version": "18.0.0" }"#,
        )
        .file(&format!("{own}/react/index.js"), "module.exports = 18;\n")
        .file(
            &format!("apps/{MIDDLEWARE}/types.js"),
            "module.exports = 'base';\n",
        )
        .file(
            &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/types.js"),
            "module.exports = 'us';\n",
        )
}

/// All files below the sources and installed packages of a project, with their content.
fn sources(project: &Project) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(project.root()).sort_by_file_name() {
        let entry = entry.unwrap();
        let inside = entry.path().strip_prefix(project.root()).unwrap();
        let is_ours = [".out", ".alokai", ".git"]
            .iter()
            .any(|own| inside.starts_with(own));
        if entry.file_type().is_file() && !is_ours {
            found.push((
                inside.display().to_string(),
                std::fs::read(entry.path()).unwrap(),
            ));
        }
    }
    found
}

#[test]
fn a_script_that_writes_everywhere_in_its_app_changes_no_source() {
    // Follows every link below its folder, as a tool does that copies files to computed paths.
    let writes = r"
const fs = require('fs'), path = require('path');
const seen = new Set();
function walk(folder) {
  const real = fs.realpathSync(folder);
  if (seen.has(real)) return;
  seen.add(real);
  for (const name of fs.readdirSync(folder)) {
    const at = path.join(folder, name);
    if (fs.statSync(at).isDirectory()) walk(at);
    else if (name !== 'build.js' && name !== 'package.json') fs.appendFileSync(at, '// written');
  }
  fs.writeFileSync(path.join(folder, 'written.txt'), 'x');
}
walk('.');
// Next.js copies traced files of packages above its tracing root to this place.
for (const name of ['next', 'react']) {
  fs.mkdirSync(`.next/standalone/../../node_modules/${name}`, { recursive: true });
  fs.writeFileSync(`.next/standalone/../../node_modules/${name}/index.js`, 'module.exports = 0;');
}
fs.mkdirSync('.next/standalone', { recursive: true });
fs.writeFileSync('.next/standalone/server.js', String(require('react')));
";
    let project = shop().file(
        &format!("apps/{NEXT}/build.js"),
        &format!("require('fs').mkdirSync('.next/standalone', {{ recursive: true }});{writes}"),
    );
    project.commit();
    let before = sources(&project);
    for _ in 0..2 {
        project
            .alokai("store build --store us,eu --force")
            .succeeds();
        assert!(sources(&project) == before, "a script has changed a source");
        let own = project.path(&format!(".out/us/{NEXT}/node_modules"));
        let link = std::fs::read_link(own.join("react")).unwrap();
        assert_eq!(
            link,
            Path::new(&format!("../../../../apps/{NEXT}/node_modules/react"))
        );
        assert!(
            !own.join("next").exists(),
            "a copy would hide the installed package"
        );
    }
    // The result is cached, and is put in place without the copies.
    std::fs::remove_dir_all(project.path(".out")).unwrap();
    project
        .alokai("store build --store us")
        .succeeds()
        .stdout_contains("2 cache hits");
    assert!(!project.exists(&format!(".out/us/{NEXT}/node_modules/next")));
}

#[test]
fn copies_that_a_killed_script_has_left_are_replaced() {
    let project = shop();
    project.alokai("store compose --store us").succeeds();
    let own = project.path(&format!(".out/us/{NEXT}/node_modules"));
    std::fs::remove_file(own.join("react")).unwrap();
    for name in ["react", "next", "of-the-script"] {
        std::fs::create_dir_all(own.join(name)).unwrap();
        std::fs::write(own.join(name).join("index.js"), "0").unwrap();
    }
    project.alokai("store compose --store us").succeeds();
    assert!(own.join("react").is_symlink());
    assert!(!own.join("next").exists());
    assert!(
        own.join("of-the-script").exists(),
        "output of a build stays"
    );
}

#[test]
fn a_script_that_writes_to_a_source_by_its_path_is_named() {
    let project = shop()
        .file("packages/ui/package.json", r#"{ "name": "@acme/ui" }"#)
        .file("packages/ui/index.js", "1\n")
        .dependency(NEXT, "@acme/ui", "*")
        .link("node_modules/@acme/ui", "../../packages/ui")
        .build_script(
            NEXT,
            "require('fs').writeFileSync('../../packages/ui/index.js', '2');",
        );
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("`packages/ui/index.js` changed while the script ran");
    // A source of an app was composed before, so the result is right, and the change is named.
    let source = format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/types.js");
    let project = shop().build_script(
        NEXT,
        &format!("require('fs').appendFileSync('../../../{source}', '// written');"),
    );
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains(&format!(
        "us/{NEXT}: the source `{source}` changed while the script ran"
    ));
}

#[test]
fn a_new_file_in_a_listed_folder_at_the_top_counts() {
    let project = shop()
        .file(
            "config/a/one.json",
            "1
",
        )
        .build_script(
            NEXT,
            "console.log(require('fs').readdirSync('../../config/a'));",
        );
    project.alokai("store build --store us").succeeds();
    let run = project.alokai("store build --store us").succeeds();
    run.stdout_contains("2 cache hits");
    project.write("config/a/two.json", "2\n");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("two.json");
}

#[test]
fn the_top_of_the_project_lies_beside_the_stores() {
    let project = shop()
        .file("tailwind.preset.js", "module.exports = 'preset';\n")
        .file("config/colors.json", "\"red\"\n")
        .file(".env", "SECRET=1\n")
        .file(".npmrc", "//registry/:_authToken=1\n")
        .file("server.pem", "key\n")
        .file("package-lock.json", "{}")
        .file(".eslintrc.js", "");
    project.alokai("store compose --store us").succeeds();
    let links = |project: &Project| {
        let entries = std::fs::read_dir(project.path(".out")).unwrap().flatten();
        let links = entries.filter(|entry| entry.file_type().unwrap().is_symlink());
        let mut names: Vec<_> = links
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        links(&project),
        [
            ".eslintrc.js",
            "alokai.config.json",
            "config",
            "node_modules",
            "package.json",
            "tailwind.preset.js"
        ]
    );
    project
        .alokai("store compose --store us --check")
        .succeeds();
    std::fs::remove_dir_all(project.path("config")).unwrap();
    project.write("docs/a.md", "");
    let check = project
        .alokai("store compose --store us --check")
        .fails_with(1);
    check
        .stdout_contains(".out/docs")
        .stdout_contains(".out/config");
    project.alokai("store compose --store us").succeeds();
    assert!(
        links(&project).contains(&"docs".into()) && !links(&project).contains(&"config".into())
    );
    // A build finds there what it finds from its base app, and a change is noticed.
    let project = project
        .file("config/colors.json", "\"red\"\n")
        .build_script(
            NEXT,
            "console.log(require('../../config/colors.json'), require('../../tailwind.preset.js'));",
        );
    project
        .alokai("store build --store us")
        .succeeds()
        .stderr_contains("red");
    project
        .alokai("store build --store us")
        .succeeds()
        .stdout_contains("2 cache hits");
    project.write("config/colors.json", "\"blue\"\n");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("config/colors.json")
        .stderr_contains("blue");
}

#[test]
fn a_name_at_the_top_of_the_project_is_not_a_store_id() {
    let project = shop().file("us/readme.txt", "").file("eu", "");
    let run = project.alokai("store compose --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
    // `apps` would hide the base apps from `../../apps` of all other stores.
    let stores = r#"{ "stores": { "apps": { "deployment": { "projectName": "acme-apps", "cloudRegion": "x" } } } }"#;
    let run = Project::shop().config(stores).alokai("store compose --all");
    run.fails_with(2)
        .stderr_contains("`apps` is not a valid store id");
}

#[test]
fn an_app_of_the_store_is_found_by_its_package_name() {
    let print = format!("console.log('types of ' + require('{MIDDLEWARE}/types'))");
    let project = shop()
        .build_script(NEXT, &print)
        .file(
            "apps/search/package.json",
            r#"{ "name": "@acme/search", "scripts": {} }"#,
        )
        .file("apps/search/index.js", "module.exports = 'search';\n");
    let run = project
        .alokai("store build --store us,eu --filter storefront-unified-nextjs-*")
        .succeeds();
    run.stderr_contains("storefront-unified-nextjs-us:build: types of us");
    run.stderr_contains("storefront-unified-nextjs-eu:build: types of base");
    let link = std::fs::read_link(project.path(".out/us/node_modules/@acme/search")).unwrap();
    assert_eq!(link, Path::new("../../search"));
    // An edit of the override counts, and an edit of the file that it hides does not.
    project.write(
        &format!("apps/{MIDDLEWARE}/types.js"),
        "module.exports = 'new';\n",
    );
    let us = "store build --store us";
    let explained = project.alokai(us).succeeds();
    explained.stdout_contains("2 cache hits");
    let types = format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/types.js");
    project.write(&types, "module.exports = 'newer';\n");
    project
        .alokai(us)
        .succeeds()
        .stderr_contains("types of newer");
}

#[test]
fn a_link_of_a_workspace_to_an_app_leads_to_the_app_of_the_store() {
    // As pnpm installs a dependency on an app of the workspace.
    let project = shop().link(
        &format!("apps/{NEXT}/node_modules/{MIDDLEWARE}"),
        &format!("../../{MIDDLEWARE}"),
    );
    project.alokai("store compose --all").succeeds();
    let link = project.path(&format!(".out/us/{NEXT}/node_modules/{MIDDLEWARE}"));
    assert_eq!(
        std::fs::read_link(&link).unwrap(),
        Path::new(&format!("../../{MIDDLEWARE}"))
    );
    assert_eq!(
        std::fs::read_to_string(link.join("types.js")).unwrap(),
        "module.exports = 'us';\n"
    );
}

#[test]
fn next_is_asked_for_standalone_output_and_other_apps_are_not() {
    let print = "console.log('standalone: ' + process.env.NEXT_PRIVATE_STANDALONE)";
    let project = shop()
        .build_script(NEXT, print)
        .build_script(MIDDLEWARE, print);
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains(&format!("{NEXT}-us:build: standalone: 1"));
    run.stderr_contains(&format!("{MIDDLEWARE}-us:build: standalone: undefined"));
}

#[test]
fn without_a_lock_file_an_apps_own_packages_count() {
    for is_linked in [false, true] {
        let real = if is_linked {
            "node_modules/.pnpm/pinia@1/node_modules/pinia".to_owned()
        } else {
            format!("apps/{NEXT}/node_modules/pinia")
        };
        let mut project = shop().file(&format!("{real}/package.json"), r#"{ "version": "1" }"#);
        if is_linked {
            let link = format!("apps/{NEXT}/node_modules/pinia");
            project = project.link(&link, &format!("../../../{real}"));
        }
        project.alokai("store build --store us").succeeds();
        let run = project.alokai("store build --store us").succeeds();
        run.stdout_contains("2 cache hits");
        project.write(&format!("{real}/package.json"), r#"{ "version": "2" }"#);
        let run = project.alokai("store build --store us").succeeds();
        run.stderr_contains("pinia");
        run.stdout_contains("1 built, 1 cache hit");
    }
}
