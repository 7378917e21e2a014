//! Composition on disk: SPEC §3 rule by rule, and a second compose.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Project, Random};

fn composed(project: &Project) -> &Project {
    project.alokai("store compose --all").succeeds();
    project
}

const NEXT: &str = "storefront-unified-nextjs";

/// A project with one store in two layers.
fn two_layers() -> Project {
    Project::shop()
}

#[test]
fn rule_1_the_nearest_layer_wins_and_additions_are_there() {
    let project = two_layers()
        .file(
            "apps/storefront-unified-nextjs/header.tsx",
            "header of base\n",
        )
        .file(
            "apps/stores/fashion/stores/us/storefront-unified-nextjs/only/us.tsx",
            "added\n",
        );
    composed(&project);
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/texts.txt"),
        "texts of us\n"
    );
    assert_eq!(
        project.read(".out/eu/storefront-unified-nextjs/texts.txt"),
        "texts of eu\n"
    );
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/header.tsx"),
        "header of fashion\n"
    );
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/only/us.tsx"),
        "added\n"
    );
    assert!(!project.exists(".out/eu/storefront-unified-nextjs/only"));
    assert!(
        !project.exists(".out/fashion"),
        "a template is not composed"
    );
}

#[test]
fn rule_2_a_store_has_every_base_app_but_frontends_of_another_framework() {
    let project = two_layers()
        .app("storefront-unified-nuxt", r#""build": "node build.js""#)
        .app("search", r#""lint": "true""#);
    composed(&project);
    let apps: Vec<_> = std::fs::read_dir(project.path(".out/us"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "node_modules")
        .collect();
    assert_eq!(apps.len(), 4, "{apps:?}");
    assert!(!apps.contains(&"storefront-unified-nuxt".to_owned()));
}

#[test]
fn rule_3_an_edit_under_out_reaches_no_source_and_no_other_store() {
    let project = two_layers();
    composed(&project);
    project.write(".out/us/storefront-unified-nextjs/header.tsx", b"edited\n");
    assert_eq!(
        project.read("apps/stores/fashion/storefront-unified-nextjs/header.tsx"),
        "header of fashion\n"
    );
    assert_eq!(
        project.read(".out/eu/storefront-unified-nextjs/header.tsx"),
        "header of fashion\n"
    );
}

#[test]
fn rule_4_sibling_apps_are_siblings() {
    let project = two_layers();
    composed(&project);
    let sibling = ".out/us/storefront-unified-nextjs/../storefront-middleware/src/index.js";
    assert!(project.exists(sibling));
}

#[test]
fn rule_5_a_layer_holds_what_git_would_not_ignore_and_env_files() {
    let project = two_layers()
        .file(
            "apps/storefront-unified-nextjs/.gitignore",
            "*.log\n!keep.log\n/generated\n",
        )
        .file("apps/storefront-unified-nextjs/debug.log", "")
        .file("apps/storefront-unified-nextjs/keep.log", "")
        .file("apps/storefront-unified-nextjs/generated/a.ts", "")
        .file("apps/storefront-unified-nextjs/deep/.gitignore", "secret\n")
        .file("apps/storefront-unified-nextjs/deep/secret", "")
        .file("apps/storefront-unified-nextjs/deep/plain", "")
        .file("apps/storefront-unified-nextjs/.env", "A=1\n")
        .file("apps/storefront-unified-nextjs/.env.production", "A=2\n")
        .file("apps/storefront-unified-nextjs/node_modules/.cache/x", "")
        .file("apps/storefront-unified-nextjs/tracked.log", "tracked\n");
    project.git("add --force apps/storefront-unified-nextjs/tracked.log");
    composed(&project);
    let tree = project.tree(".out/us/storefront-unified-nextjs");
    let has = |path: &str| tree.contains_key(path);
    assert!(!has("debug.log") && !has("generated/a.ts") && !has("deep/secret"));
    assert!(has("keep.log") && has("deep/plain") && has(".env") && has(".env.production"));
    assert!(has("tracked.log"), "a tracked file is not ignored");
    assert!(
        !tree
            .keys()
            .any(|path| path.contains("node_modules") || path.contains(".git/"))
    );
}

#[test]
fn rule_6_package_json_is_the_base_apps_under_the_units_name() {
    let text = "{\n\t\"version\": \"1.2.3\",\n\t\"name\":   \"whatever\",\n\t\"scripts\": { \"build\": \"node build.js\" }\n}\n";
    let project = two_layers()
        .file("apps/storefront-unified-nextjs/package.json", text)
        .file(
            "apps/stores/fashion/stores/us/storefront-unified-nextjs/package.json",
            r#"{"name":"own"}"#,
        );
    let run = project.alokai("store compose --all").succeeds();
    let wanted = text.replace("\"whatever\"", "\"storefront-unified-nextjs-us\"");
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/package.json"),
        wanted
    );
    run.stderr_contains("`package.json` of `us`");
    run.stderr_contains("is ignored");
}

#[test]
fn rule_7_tsconfig_paths_that_leave_apps_gain_a_folder() {
    let text = r#"{
  // what the apps share
  "extends": "../../tsconfig.base.json",
  "compilerOptions": { "paths": { "mw/*": ["../storefront-middleware/lib/*"], "t": ["../../packages/t"] } },
}
"#;
    let project = two_layers().file("apps/storefront-unified-nextjs/tsconfig.json", text);
    composed(&project);
    let wanted = text.replace("\"../../", "\"../../../");
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/tsconfig.json"),
        wanted
    );
}

#[test]
fn rule_8_ignore_paths_of_ancestors_come_first_and_the_last_match_wins() {
    let config = r#"{ "stores": {
        "fashion": { "ignorePaths": ["app/[locale]/page.tsx", "*.svg", "package.json"] },
        "us": { "ignorePaths": ["!public/logo.svg"], "deployment": { "projectName": "a", "cloudRegion": "r" } },
        "eu": { "deployment": { "projectName": "b", "cloudRegion": "r" } }
    } }"#;
    let project = two_layers().config(config).file(
        "apps/storefront-unified-nextjs/app/l/page.tsx",
        "no character class\n",
    );
    composed(&project);
    let us = project.tree(".out/us/storefront-unified-nextjs");
    let eu = project.tree(".out/eu/storefront-unified-nextjs");
    assert!(!us.contains_key("app/[locale]/page.tsx"));
    assert!(us.contains_key("app/l/page.tsx"), "brackets are literal");
    assert!(us.contains_key("public/logo.svg") && !eu.contains_key("public/logo.svg"));
    assert!(
        eu.contains_key("package.json"),
        "`package.json` cannot be dropped"
    );
}

#[test]
fn rule_9_an_own_node_modules_is_a_folder_with_a_link_for_each_package() {
    let modules = "apps/storefront-middleware/node_modules";
    let project = two_layers()
        .file(
            &format!("{modules}/left-pad/package.json"),
            r#"{"name":"left-pad"}"#,
        )
        .file(&format!("{modules}/@acme/tool/cli.js"), "")
        .link(&format!("{modules}/.bin/tool"), "../@acme/tool/cli.js")
        .link(
            &format!("{modules}/.bin/root"),
            "../../../../node_modules/.bin/root",
        )
        .link(
            &format!("{modules}/stored"),
            "../../../node_modules/.pnpm/stored@1/node_modules/stored",
        )
        .file(
            "node_modules/.pnpm/stored@1/node_modules/stored/package.json",
            "{}",
        )
        .file("node_modules/.bin/root", "")
        .file(&format!("{modules}/.cache/x"), "")
        .file(&format!("{modules}/.package-lock.json"), "{}")
        .file("apps/storefront-unified-nextjs/node_modules/.cache/x", "");
    composed(&project);
    let own = project.path(".out/us/storefront-middleware/node_modules");
    assert!(!own.is_symlink());
    let link = |name: &str| {
        std::fs::read_link(own.join(name))
            .unwrap()
            .display()
            .to_string()
    };
    assert_eq!(link("left-pad"), format!("../../../../{modules}/left-pad"));
    assert_eq!(
        link("@acme/tool"),
        format!("../../../../../{modules}/@acme/tool")
    );
    assert_eq!(link(".bin/tool"), "../@acme/tool/cli.js");
    assert_eq!(link(".bin/root"), "../../../../../node_modules/.bin/root");
    assert_eq!(
        link("stored"),
        "../../../../node_modules/.pnpm/stored@1/node_modules/stored"
    );
    for name in ["left-pad", "@acme/tool", ".bin/tool", ".bin/root", "stored"] {
        assert!(own.join(name).exists(), "{name} leads somewhere");
    }
    assert!(!own.join(".cache").exists() && !own.join(".package-lock.json").exists());
    assert!(!project.exists(".out/us/storefront-unified-nextjs/node_modules"));
    project.alokai("store compose --all --check").succeeds();
    // Links are removed together with the packages of the base app.
    std::fs::remove_dir_all(project.path(&format!("{modules}/@acme"))).unwrap();
    project.alokai("store compose --all --check").fails_with(1);
    composed(&project);
    assert!(own.join("@acme/tool").symlink_metadata().is_err() && own.join("left-pad").exists());
    std::fs::remove_dir_all(project.path(modules)).unwrap();
    composed(&project);
    assert_eq!(installed_in(&own), Vec::<String>::new());
}

fn installed_in(modules: &std::path::Path) -> Vec<String> {
    let walk = walkdir::WalkDir::new(modules).into_iter().flatten();
    let links = walk.filter(|entry| !entry.file_type().is_dir());
    links
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[test]
fn rule_10_links_are_kept_followed_or_refused_by_where_they_lead() {
    let project = two_layers()
        .file("shared/note.txt", "shared\n")
        .file("shared/icons/a.svg", "a\n")
        .file("shared/icons/deep/b.svg", "b\n")
        .file("shared/icons/.gitignore", "*.tmp\n")
        .file("shared/icons/ignored.tmp", "")
        .link("apps/storefront-unified-nextjs/inside", "texts.txt")
        .link(
            "apps/storefront-unified-nextjs/elsewhere.txt",
            "../../shared/note.txt",
        )
        .link("apps/storefront-unified-nextjs/icons", "../../shared/icons");
    project.write("apps/storefront-unified-nextjs/run.sh", b"#!/bin/sh\n");
    project.make_executable("apps/storefront-unified-nextjs/run.sh");
    composed(&project);
    let tree = project.tree(".out/us/storefront-unified-nextjs");
    assert_eq!(tree["inside"], "-> texts.txt");
    assert_eq!(tree["elsewhere.txt"], "shared\n");
    assert!(
        !tree.contains_key("icons/ignored.tmp"),
        "git ignores the file there"
    );
    assert_eq!(
        (
            tree["icons/a.svg"].as_str(),
            tree["icons/deep/b.svg"].as_str()
        ),
        ("a\n", "b\n")
    );
    let mode = project
        .path(".out/us/storefront-unified-nextjs/run.sh")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111, "executable bits are kept");

    let outside = project
        .link("apps/storefront-unified-nextjs/out", "/etc/hostname")
        .link("apps/storefront-unified-nextjs/none", "../../shared/none")
        .link("apps/storefront-unified-nextjs/loop", "../../apps");
    let run = outside.alokai("store compose --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&outside));
}

#[test]
fn rule_11_all_clashes_of_file_and_folder_come_at_once() {
    let project = two_layers()
        .file("apps/storefront-unified-nextjs/header.tsx/inner.ts", "")
        .file(
            "apps/stores/fashion/stores/us/storefront-unified-nextjs/public",
            "a file\n",
        );
    let run = project.alokai("store compose --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
    assert!(!project.exists(".out"), "nothing is written");
}

#[test]
fn a_second_compose_writes_nothing_and_a_change_only_itself() {
    let project = two_layers();
    composed(&project);
    let times = || {
        let files = project.tree(".out").into_keys();
        let modified = |path: &String| {
            project
                .path(&format!(".out/{path}"))
                .symlink_metadata()
                .unwrap()
                .modified()
                .unwrap()
        };
        files
            .map(|path| (modified(&path), path))
            .collect::<Vec<_>>()
    };
    let before = times();
    composed(&project);
    assert_eq!(before, times());
    project.alokai("store compose --all --check").succeeds();

    project.write(
        "apps/stores/fashion/storefront-unified-nextjs/header.tsx",
        b"changed\n",
    );
    project.remove("apps/storefront-unified-nextjs/public/logo.svg");
    let check = project.alokai("store compose --all --check").fails_with(1);
    insta::assert_snapshot!(check.stdout, @r"
    write .out/eu/storefront-unified-nextjs/header.tsx
    write .out/us/storefront-unified-nextjs/header.tsx
    remove .out/eu/storefront-unified-nextjs/public/logo.svg
    remove .out/us/storefront-unified-nextjs/public/logo.svg
    ");
    assert_eq!(before, times(), "a check writes nothing");
    composed(&project);
    let after = times();
    let untouched = before.iter().filter(|file| after.contains(file)).count();
    assert_eq!(untouched, before.len() - 4);
    assert!(
        !project.exists(".out/us/storefront-unified-nextjs/public"),
        "empty folders are removed too"
    );
}

#[test]
fn composed_content_wins_over_hand_edits_and_build_products_stay() {
    let project = two_layers();
    composed(&project);
    project.write(".out/us/storefront-unified-nextjs/header.tsx", b"by hand\n");
    project.write(
        ".out/us/storefront-unified-nextjs/.next/cache/x",
        b"product\n",
    );
    project.remove(".out/us/storefront-unified-nextjs/texts.txt");
    composed(&project);
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/header.tsx"),
        "header of fashion\n"
    );
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/.next/cache/x"),
        "product\n"
    );
    assert!(project.exists(".out/us/storefront-unified-nextjs/texts.txt"));
}

#[test]
fn nothing_is_written_through_a_link_that_leads_out_of_out() {
    let project = two_layers();
    composed(&project);
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = project.path(&format!(".out/us/{NEXT}/app"));
    std::fs::remove_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &folder).unwrap();
    composed(&project);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/app/[locale]/page.tsx"),
        "base page\n"
    );
}

#[test]
fn a_project_below_the_repositorys_root_composes_the_same() {
    let project = Project::shop();
    let inner = project.path("shop");
    std::fs::create_dir(&inner).unwrap();
    for name in ["apps", "alokai.config.json"] {
        std::fs::rename(project.path(name), inner.join(name)).unwrap();
    }
    project.commit();
    let inner = Project::at(inner);
    composed(&inner);
    assert_eq!(
        inner.read(".out/us/storefront-unified-nextjs/texts.txt"),
        "texts of us\n"
    );
    let plan = inner
        .alokai("store deploy --all --dry-run --json")
        .succeeds()
        .json();
    assert_eq!(plan["revision"], project.sha());
    project.write("elsewhere.txt", b"not of the project\n");
    inner.alokai("store deploy --all --dry-run").succeeds();
}

#[test]
fn without_a_repository_gitignore_files_still_count() {
    let project = Project::shop().file("apps/storefront-unified-nextjs/lib/x.js", "");
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    composed(&project);
    assert!(!project.exists(".out/us/storefront-unified-nextjs/lib"));
    assert!(project.exists(".out/us/storefront-unified-nextjs/texts.txt"));
}

#[test]
fn a_linked_store_folder_under_out_is_replaced_and_never_followed() {
    let project = Project::shop();
    composed(&project);
    let source = project.tree("apps/stores");
    std::fs::remove_dir_all(project.path(".out/us")).unwrap();
    let project = project.link(".out/us", "../apps/stores/fashion/stores/us");
    project.remove("apps/storefront-unified-nextjs/public/logo.svg");
    project.alokai("store compose --all --check").fails_with(1);
    composed(&project);
    assert_eq!(
        source,
        project.tree("apps/stores"),
        "no source was written or removed"
    );
    assert!(project.path(".out/us").symlink_metadata().unwrap().is_dir());

    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::remove_dir_all(project.path(".out")).unwrap();
    let project = project.link(".out", elsewhere.path().to_str().unwrap());
    let run = project.alokai("store compose --all").fails_with(1);
    run.stderr_contains("it is a symbolic link");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_manifest_cannot_name_files_outside_of_out() {
    let project = Project::shop().file("precious", "kept\n");
    composed(&project);
    let manifest = project.read(".alokai/manifests/us.json");
    let files = r#""files":{"playwright/../../../precious":{"content":"x","size":1,"modified":1,"mode":1},"#;
    project.write(
        ".alokai/manifests/us.json",
        manifest.replacen(r#""files":{"#, files, 1).as_bytes(),
    );
    composed(&project);
    assert_eq!(project.read("precious"), "kept\n");
    // Without a manifest, files of removed sources cannot be recognised, so the folder is composed
    // anew.
    for broken in [Some(&b"no JSON"[..]), None] {
        project.write("apps/playwright/gone.ts", b"");
        composed(&project);
        assert!(project.exists(".out/us/playwright/gone.ts"));
        project.remove("apps/playwright/gone.ts");
        match broken {
            Some(text) => project.write(".alokai/manifests/us.json", text),
            None => std::fs::remove_dir_all(project.path(".alokai")).unwrap(),
        }
        composed(&project);
        assert!(!project.exists(".out/us/playwright/gone.ts"));
    }
}

#[test]
fn what_a_build_wrote_over_a_composed_file_stays_until_that_file_changes() {
    let build = "require('fs').appendFileSync('tsconfig.json', '// by the build\\n')";
    let project = Project::shop()
        .build_script("storefront-middleware", build)
        .file("apps/storefront-middleware/tsconfig.json", "{}\n");
    let middleware = ["--store", "us", "--filter", "storefront-middleware-*"];
    project
        .alokai(&[&["store", "build"], &middleware[..]].concat())
        .succeeds();
    project
        .alokai(&[&["store", "compose", "--check"], &middleware[..]].concat())
        .succeeds();
    composed(&project);
    assert_eq!(
        project.read(".out/us/storefront-middleware/tsconfig.json"),
        "{}\n// by the build\n"
    );
    project.write("apps/storefront-middleware/tsconfig.json", b"{ }\n");
    composed(&project);
    assert_eq!(
        project.read(".out/us/storefront-middleware/tsconfig.json"),
        "{ }\n"
    );
}

#[test]
fn a_problem_in_one_store_stops_all_stores_unless_keep_going_is_set() {
    let project = Project::shop();
    composed(&project);
    project.write("apps/storefront-unified-nextjs/new.ts", b"new\n");
    // The manifest of one store cannot be read.
    project.remove(".alokai/manifests/us.json");
    project.write(".alokai/manifests/us.json/file", b"");
    let before = project.tree(".out");
    let run = project.alokai("store build --all").fails_with(1);
    assert_eq!(before, project.tree(".out"));
    run.stderr_contains("skipped compose eu because of us");

    project
        .alokai("store build --all --keep-going")
        .fails_with(1);
    assert!(project.exists(".out/eu/storefront-unified-nextjs/new.ts"));
    assert!(
        project.exists(".out/eu/storefront-unified-nextjs/.next"),
        "`eu` is built"
    );
    assert!(!project.exists(".out/us/storefront-unified-nextjs/.next"));
}

#[test]
fn equal_files_are_not_written_again_and_restored_times_are_noticed() {
    let project = two_layers();
    composed(&project);
    let out = ".out/us/storefront-unified-nextjs/texts.txt";
    project.write(out, b"texts of us\n");
    let check = "store compose --all --check";
    project.alokai(check).succeeds();
    let before = project.path(out).metadata().unwrap().modified().unwrap();
    composed(&project);
    assert_eq!(
        project.path(out).metadata().unwrap().modified().unwrap(),
        before
    );

    // The file keeps its size and its time.
    let source = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";
    let time = project.path(source).metadata().unwrap().modified().unwrap();
    project.write(source, b"TEXTS of us\n");
    let file = std::fs::File::options()
        .write(true)
        .open(project.path(source))
        .unwrap();
    file.set_modified(time).unwrap();
    project.alokai(check).fails_with(1);
    composed(&project);
    assert_eq!(project.read(out), "TEXTS of us\n");
}

/// How often a compose is killed, at random moments, with `ALOKAI_LONG=1`. A usual run takes a fifth.
const KILLS: usize = 300;

#[test]
fn a_killed_compose_is_repaired_by_the_next() {
    let project = Project::shop();
    for number in 0..300 {
        let content = format!("{number}\n");
        project.write(
            &format!("apps/playwright/tests/{number}.ts"),
            content.as_bytes(),
        );
    }
    let started = std::time::Instant::now();
    composed(&project);
    let usual = started.elapsed();
    let wanted = project.tree(".out");
    let (tests, moved) = (
        project.path("apps/playwright/tests"),
        project.path("apps/playwright/moved"),
    );
    let random = &mut Random::new(3);
    let mut torn = 0;
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    let kills = if is_long { KILLS } else { KILLS / 5 };
    for kill in 0..kills {
        // Of every three runs, one composes a store anew and two replace every file; then the
        // change is undone.
        if kill % 3 == 0 {
            std::fs::remove_dir_all(project.path(".out")).unwrap();
        } else {
            std::fs::rename(&tests, &moved).unwrap();
        }
        let mut child = project.start("store compose --all");
        let moment = usual.mul_f64(f64::from(u32::try_from(random.below(1_000)).unwrap()) / 800.0);
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        if kill % 3 != 0 {
            std::fs::rename(&moved, &tests).unwrap();
        }
        torn += usize::from(project.exists(".out/.tmp"));
        composed(&project);
        assert_eq!(
            wanted,
            project.tree(".out"),
            "kill {kill}, after {moment:?}"
        );
    }
    assert!(torn > kills / 30, "only {torn} kills came in the middle");
}
