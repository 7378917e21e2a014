//! `override`: overrides are made, reverted and moved up, and no store gets another file by accident.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use crate::support::{Project, Random, RandomProject, Run, filtered};

const NEXT: &str = "storefront-unified-nextjs";

fn base(path: &str) -> String {
    format!("apps/{NEXT}/{path}")
}

fn fashion(path: &str) -> String {
    format!("apps/stores/fashion/{NEXT}/{path}")
}

fn child(store: &str, path: &str) -> String {
    format!("apps/stores/fashion/stores/{store}/{NEXT}/{path}")
}

fn run(project: &Project, words: &[&str]) -> Run {
    project.alokai(&[&["store", "override"], words].concat())
}

/// Runs the command with `--yes`.
fn make(project: &Project, words: &[&str]) -> Run {
    run(project, &[words, &["--yes"]].concat())
}

fn shop() -> Project {
    let project = Project::shop()
        .file(&base("header.tsx"), "header of base\n")
        .file(&base("bin/run.sh"), "run\n");
    project.make_executable(&base("bin/run.sh"));
    project.commit();
    project
}

/// The files of `apps`, with the mode of each, and what git has staged.
fn state(project: &Project) -> (BTreeMap<String, (String, u32)>, String) {
    let tree = project.tree("apps").into_iter().map(|(path, content)| {
        let file = project.path(&format!("apps/{path}"));
        let mode = file.symlink_metadata().unwrap().permissions().mode();
        (path, (content, mode))
    });
    (tree.collect(), project.git("ls-files --stage"))
}

#[test]
fn an_override_is_a_copy_of_what_is_inherited_now() {
    let project = shop();
    let header = format!("{NEXT}/header.tsx");
    let shown = run(&project, &["us", &header, "--dry-run"]).succeeds();
    insta::assert_snapshot!(shown.stdout);
    assert!(!project.exists(&child("us", "header.tsx")));
    let json = run(&project, &["us", &header, "--dry-run", "--json"])
        .succeeds()
        .json();
    assert_eq!(
        json["files"],
        json!([{ "action": "copy", "file": child("us", "header.tsx"), "from": "fashion",
                 "original": fashion("header.tsx") }])
    );
    let unconfirmed = run(&project, &["us", &header]).fails_with(2);
    unconfirmed.stderr_contains("`--yes`");
    assert!(!project.exists(&child("us", "header.tsx")));

    make(&project, &["us", &header]).succeeds();
    assert_eq!(
        project.read(&child("us", "header.tsx")),
        "header of fashion\n"
    );
    assert!(project.git("diff --cached --name-only").is_empty());
    project.remove(&child("us", "header.tsx"));
    make(&project, &["us", &header, "--from", "base"]).succeeds();
    assert_eq!(project.read(&child("us", "header.tsx")), "header of base\n");

    // Several files, the executable bit, a template, and paths as a shell completes them.
    let run_sh = base("bin/run.sh");
    let page = base("app/[locale]/page.tsx");
    make(&project, &["fashion", &run_sh, &page]).succeeds();
    let mode = project
        .path(&fashion("bin/run.sh"))
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111);
    assert_eq!(
        project.read(&fashion("app/[locale]/page.tsx")),
        "base page\n"
    );
    let out = format!(".out/eu/{NEXT}/texts.txt");
    let there = make(&project, &["eu", &out]).fails_with(2);
    there.stderr_contains("`eu` already has");
    let logo = format!("{NEXT}/public/logo.svg");
    let other = make(&project, &["eu", &logo, "--from", "us"]).fails_with(2);
    other.stderr_contains("layers with this file: base");
    let text = format!("{NEXT}/texts.txt");
    make(&project, &["fashion", &text, "--from", "us"]).succeeds();
    assert_eq!(project.read(&fashion("texts.txt")), "texts of us\n");
}

#[test]
fn what_cannot_be_overridden_is_refused_with_the_reason() {
    let project = shop().config(
        r#"{ "stores": {
            "us": { "ignorePaths": ["*.svg"], "deployment": { "projectName": "a", "cloudRegion": "r" } },
            "eu": { "deployment": { "projectName": "b", "cloudRegion": "r" } } } }"#,
    );
    project.write(&child("us", ".gitignore"), "header.tsx\n");
    let before = state(&project);
    let mut shown = String::new();
    for (store, path) in [
        ("us", "package.json"),
        ("us", "public/logo.svg"),
        ("us", "app"),
        ("us", "haeder.tsx"),
        ("us", "texts.txt"),
        ("us", "header.tsx"),
        ("usa", "header.tsx"),
        ("us", "../../x"),
    ] {
        let refused = make(&project, &[store, &format!("{NEXT}/{path}")]).fails_with(2);
        let _ = writeln!(shown, "{store} {path}\n{}", refused.diagnostic(&project));
    }
    let refused = make(&project, &["us", "web/x.tsx"]).fails_with(2);
    let _ = writeln!(shown, "{}", refused.diagnostic(&project));
    insta::assert_snapshot!(shown);
    assert_eq!(state(&project), before);
    run(&project, &["us"]).fails_with(2);
    run(&project, &["us", "x", "--up", "--revert"]).fails_with(2);
}

#[test]
fn the_editor_gets_the_new_files() {
    let project = shop();
    let header = format!("{NEXT}/header.tsx");
    let words = ["us", &header, "--open"];
    make(&project, &words)
        .fails_with(2)
        .stderr_contains("`EDITOR`");
    assert!(!project.exists(&child("us", "header.tsx")));
    let project = project
        .env("EDITOR", "false")
        .env("VISUAL", "sh -c 'echo edited by $0 >> \"$1\"' visual");
    make(&project, &words).succeeds();
    let edited = project.read(&child("us", "header.tsx"));
    assert_eq!(edited, "header of fashion\nedited by visual\n");
    let project = project.env("VISUAL", "false");
    let failed = make(&project, &["eu", &header, "--open"]).fails_with(1);
    failed.stderr_contains("the editor `false` failed");
    assert!(project.exists(&child("eu", "header.tsx")));
}

#[test]
fn needless_overrides_are_reverted_and_others_stay() {
    let project = shop()
        .file(&child("us", "header.tsx"), "header of fashion\n")
        .file(&child("us", "deep/er/copy.tsx"), "copy\n")
        .file(&base("deep/er/copy.tsx"), "copy\n")
        .file(&child("us", "bin/run.sh"), "run\n")
        .file(&child("us", "only-us.tsx"), "added\n");
    project.commit();
    insta::assert_snapshot!(
        run(&project, &["us", "--revert", "--dry-run"])
            .succeeds()
            .stdout
    );
    let text = format!("{NEXT}/texts.txt");
    let differs = make(&project, &["us", "--revert", &text]).fails_with(2);
    differs.stderr_contains("(+1 -1)");
    let added = make(
        &project,
        &["us", "--revert", &format!("{NEXT}/only-us.tsx")],
    )
    .fails_with(2);
    added.stderr_contains("hides no file");
    let missing = make(&project, &["us", "--revert", &format!("{NEXT}/text.txt")]).fails_with(2);
    missing.stderr_contains("texts.txt`");

    make(&project, &["us", "--revert"]).succeeds();
    assert!(!project.exists(&child("us", "header.tsx")));
    assert!(!project.exists(&child("us", "deep")));
    assert!(
        project.exists(&child("us", "bin/run.sh")),
        "it is not executable"
    );
    assert!(project.exists(&child("us", "texts.txt")));
    let staged = project.git("diff --cached --name-status --no-renames");
    let header = child("us", "header.tsx");
    let copy = child("us", "deep/er/copy.tsx");
    assert_eq!(staged, format!("D\t{copy}\nD\t{header}"));
    let again = make(&project, &["us", "--revert"]).succeeds();
    again.stdout_contains("Nothing to change.");
}

#[test]
fn a_folder_is_refused_also_that_of_an_app() {
    let project = shop();
    let app = format!("apps/{NEXT}");
    for path in [&*app, &format!("{app}/"), NEXT, &format!("{NEXT}/")] {
        let refused = make(&project, &["us", path]).fails_with(2);
        refused.stderr_contains(&format!("`{NEXT}` is a folder with "));
        refused.stderr_contains("name its files");
        let refused = make(&project, &["us", path, "--revert"]).fails_with(2);
        refused.stderr_contains(&format!("`{NEXT}` is a folder, in which `us` has "));
    }
    let why = project.alokai(&["store", "why", "us", &app]).fails_with(2);
    why.stderr_contains(&format!("`{NEXT}` is a folder with "));
}

#[test]
fn an_edit_of_overrides_ends_with_what_to_do_next() {
    let project = shop().file(&child("us", "only-us.tsx"), "added\n");
    project.commit();
    let header = format!("{NEXT}/header.tsx");
    let made = make(&project, &["us", &header]).succeeds();
    made.stderr_contains("next: edit the new file");
    let again = make(&project, &["us", &header]).fails_with(2);
    again.stderr_contains(&format!("it overrides `{}`", fashion("header.tsx")));
    let own = make(&project, &["us", &format!("{NEXT}/only-us.tsx")]).fails_with(2);
    own.stderr_contains("it overrides no file");
    let reverted = make(&project, &["us", "--revert"]).succeeds();
    reverted.stderr_contains("next: commit the change");
    project.write(&child("us", "header.tsx"), "new\n");
    project.write(&child("eu", "header.tsx"), "new\n");
    let raised = make(&project, &["us", &header, "--up"]).succeeds();
    raised.stderr_contains(&format!("next: `git add` `{}`", fashion("header.tsx")));
}

#[test]
fn a_store_whose_last_override_is_reverted_keeps_its_parent() {
    let project = Project::shop();
    project.write(&child("us", "texts.txt"), "texts of the base\n");
    make(&project, &["us", "--revert"]).succeeds();
    project.commit();
    project.git("clean --quiet -fd");
    assert!(!project.exists(&child("us", "")));
    let list = project.alokai("store list --json").succeeds().json();
    let us = list["stores"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["storeId"] == "us");
    assert_eq!(us.unwrap()["parent"], "fashion");
}

#[test]
fn an_override_moves_up_where_all_stores_keep_their_files() {
    let project = shop()
        .file(&child("us", "header.tsx"), "new header\n")
        .file(&child("eu", "header.tsx"), "new header\n");
    project.commit();
    project.alokai("store compose --all").succeeds();
    let out = project.tree(".out");
    let header = format!("{NEXT}/header.tsx");
    let words = ["--up", "us", &header];
    insta::assert_snapshot!(
        run(&project, &[&words[..], &["--dry-run"]].concat())
            .succeeds()
            .stdout
    );
    make(&project, &words).succeeds();
    assert_eq!(project.read(&fashion("header.tsx")), "new header\n");
    assert!(
        !project.exists(&child("us", "header.tsx")) && !project.exists(&child("eu", "header.tsx"))
    );
    project.alokai("store compose --all --check").succeeds();
    assert_eq!(project.tree(".out"), out);
    let staged = project.git("diff --cached --name-status --no-renames");
    assert_eq!(
        staged,
        format!(
            "D\t{}\nD\t{}",
            child("eu", "header.tsx"),
            child("us", "header.tsx")
        )
    );
    // From a store of root it goes into the base app, with its place in git's index.
    project.commit();
    make(&project, &["--up", "fashion", &header]).succeeds();
    assert_eq!(project.read(&base("header.tsx")), "new header\n");
    assert!(!project.exists(&fashion("header.tsx")));
    project.alokai("store compose --all --check").succeeds();
    let moved = format!("{NEXT}/only.tsx");
    project.write(&fashion("only.tsx"), "only\n");
    project.git("add --all");
    make(&project, &["--up", "fashion", &moved]).succeeds();
    assert!(project.git("ls-files --stage").contains(&base("only.tsx")));
}

#[test]
fn an_override_stays_where_another_store_would_get_its_file() {
    let project = shop().file(&child("us", "header.tsx"), "header of us\n");
    let before = state(&project);
    let header = format!("{NEXT}/header.tsx");
    let refused = make(&project, &["--up", "us", &header]).fails_with(2);
    insta::assert_snapshot!(filtered(&refused.diagnostic(&project), &project));
    assert_eq!(state(&project), before);
    // A sibling without a deployment counts too: stores will inherit from it.
    let project = project.file(&child("outlet", "x.tsx"), "x\n");
    project.write(&child("eu", "header.tsx"), "header of eu\n");
    let refused = make(&project, &["--up", "us", &header]).fails_with(2);
    refused.stderr_contains("the store outlet gets another file");
    project.write(&child("outlet", "header.tsx"), "header of outlet\n");
    make(&project, &["--up", "us", &header]).succeeds();
    assert_eq!(project.read(&fashion("header.tsx")), "header of us\n");
    project.commit();
    // A file that no layer below has is new to the stores.
    project.write(&child("us", "only-us.txt"), "only\n");
    project.write(&child("us", "header.tsx"), "next header of us\n");
    let only = format!("{NEXT}/only-us.txt");
    for paths in [&[&*only][..], &[&header, &only]] {
        let words = [&["--up", "us"], paths].concat();
        let refused = make(&project, &words).fails_with(2);
        refused.stderr_contains("the stores eu, outlet get a new file");
        refused.stderr_contains("only-us.txt` to `ignorePaths`");
    }
    // A needless override has nothing to move.
    project.write(&child("us", "header.tsx"), "header of us\n");
    let needless = make(&project, &["--up", "us", &header]).fails_with(2);
    needless.stderr_contains("--revert");
}

/// A random project that can be composed, with its stores.
fn random_project(random: &mut Random) -> Option<(Project, Vec<String>)> {
    let project = Project::new();
    RandomProject::new(random).write(project.root(), &BTreeMap::new());
    project.commit();
    if project.alokai("store compose --all").code != 0 {
        return None;
    }
    let list = project.alokai("store list --json").succeeds().json();
    let stores = list["stores"].as_array().unwrap().iter();
    let ids = stores.map(|store| store["storeId"].as_str().unwrap().to_owned());
    Some((project, ids.collect()))
}

/// What all deployable stores are composed of, from nothing.
fn composed(project: &Project) -> BTreeMap<String, String> {
    for folder in [".out", ".alokai"] {
        let _ = std::fs::remove_dir_all(project.path(folder));
    }
    project.alokai("store compose --all").succeeds();
    project.tree(".out")
}

const PATHS: [&str; 4] = ["a.ts", "b.ts", "app/page.tsx", "lib/c.js"];

/// Each path of each app for each store.
fn all_paths(stores: &[String]) -> Vec<(&String, String)> {
    let apps = || ["web", "shop", "server"].into_iter();
    let paths = || apps().flat_map(|app| PATHS.map(|path| format!("{app}/{path}")));
    let stores = stores.iter();
    stores
        .flat_map(|store| paths().map(move |path| (store, path)))
        .collect()
}

#[test]
fn an_override_that_is_reverted_leaves_no_trace() {
    let random = &mut Random::new(21);
    let mut made = 0;
    for _ in 0..5 {
        let Some((project, stores)) = random_project(random) else {
            continue;
        };
        for (store, path) in all_paths(&stores) {
            let before = state(&project);
            let run = make(&project, &[store, &path]);
            if run.code != 0 {
                assert_eq!((run.code, &state(&project)), (2, &before), "{}", run.stderr);
                continue;
            }
            made += 1;
            assert_ne!(state(&project), before);
            project.alokai("store compose --all --check").succeeds();
            make(&project, &["--revert", store, &path]).succeeds();
            assert_eq!(state(&project), before, "{store} {path}");
        }
    }
    assert!(made >= 8, "only {made} overrides were made");
}

const LAYERS: [(&str, &str); 6] = [
    ("base", "apps"),
    ("t", "apps/stores/t"),
    ("u", "apps/stores/t/stores/u"),
    ("v", "apps/stores/t/stores/v"),
    ("w", "apps/stores/t/stores/w"),
    ("x", "apps/stores/t/stores/w/stores/x"),
];

/// Stores whose layers often have the same files.
fn agreeing_project(random: &mut Random) -> Project {
    let deployment = |id| {
        format!(r#""{id}": {{ "deployment": {{ "projectName": "{id}", "cloudRegion": "r" }} }}"#)
    };
    let stores: Vec<_> = ["u", "v", "x"].map(deployment).into();
    let mut project = Project::new()
        .config(&format!("{{ \"stores\": {{ {} }} }}", stores.join(", ")))
        .app("web", "");
    for (_, folder) in LAYERS {
        for number in 0..6 {
            let path = format!("{folder}/web/{number}.ts");
            if !random.once_in(2) {
                project = project.file(&path, random.pick(&["1\n", "2\n"]));
            }
            if random.once_in(12) && project.exists(&path) {
                project.make_executable(&path);
            }
        }
        project = project.file(&format!("{folder}/web/kept.ts"), "kept\n");
    }
    project.commit();
    project
}

#[test]
fn moving_up_changes_no_composition() {
    let random = &mut Random::new(22);
    let (mut moved, mut refused) = (0, 0);
    for _ in 0..4 {
        let project = agreeing_project(random);
        let before = composed(&project);
        for number in 0..6 {
            for (store, _) in LAYERS[1..].iter().rev() {
                let path = format!("web/{number}.ts");
                let tree = state(&project);
                let run = make(&project, &["--up", store, &path]);
                if run.code == 0 {
                    moved += 1;
                    assert_eq!(composed(&project), before, "{store} {path}\n{}", run.stdout);
                } else {
                    assert_eq!((run.code, &state(&project)), (2, &tree), "{}", run.stderr);
                    refused += usize::from(run.stderr.contains("another file"));
                }
            }
        }
    }
    assert!(
        moved >= 8 && refused >= 8,
        "{moved} moved, {refused} refused"
    );
}

/// After a kill at any moment, the next command finds the tree as it was or as it should be.
#[test]
fn a_killed_command_changes_all_or_nothing() {
    let fresh = || {
        let mut project = shop();
        for number in 0..20 {
            let path = format!("part-{number}.tsx");
            project = project
                .file(&base(&path), "base\n")
                .file(&child("us", &path), "ours\n")
                .file(&child("eu", &path), "ours\n");
        }
        project.commit();
        project
    };
    let parts: Vec<_> = (0..20)
        .map(|number| format!("{NEXT}/part-{number}.tsx"))
        .collect();
    let mut words = vec!["store", "override", "--yes", "--up", "us"];
    words.extend(parts.iter().map(String::as_str));
    let project = fresh();
    let old = state(&project);
    let begin = std::time::Instant::now();
    project.alokai(&words).succeeds();
    let usual = begin.elapsed();
    let new = state(&project);
    assert_ne!(old, new);
    let random = &mut Random::new(23);
    for _ in 0..10 {
        let project = fresh();
        let mut child = project.start(&words);
        let share = u32::try_from(random.below(1_200)).unwrap();
        std::thread::sleep(usual * share / 1_000 + Duration::from_millis(1));
        let _ = child.kill();
        child.wait().unwrap();
        project.alokai("store list").succeeds();
        let now = state(&project);
        assert!(now == old || now == new, "{now:#?}");
    }
}
