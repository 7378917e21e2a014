//! `overlays`: which paths are overridden, by whom, how often, and by how many lines.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Project, Random};

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

/// A shop with every kind of override.
fn shop() -> Project {
    let project = Project::shop()
        .file(&base("header.tsx"), "one\ntwo\nthree\n")
        .file(&fashion("header.tsx"), "one\n2\nthree\n")
        .file(&child("us", "header.tsx"), "one\n2\nthree\nfour\n")
        .file(&child("eu", "header.tsx"), "one\n2\nthree\n")
        .file(&base("run.sh"), "run\n")
        .file(&child("us", "run.sh"), "run\n")
        .file(&base("logo.png"), "\0old")
        .file(&child("eu", "logo.png"), "\0new")
        .file(&base("to.txt"), "to\n")
        .link(&child("eu", "to.txt"), "texts.txt")
        .file(&child("us", "package.json"), "{}")
        .file(&child("us", "only-us.tsx"), "added\n");
    project.make_executable(&child("us", "run.sh"));
    project
}

fn paths(project: &Project, options: &str) -> Vec<Value> {
    let command = format!("store overlays --json {options}");
    let json = project.alokai(&command).succeeds().json();
    assert_eq!(json["schemaVersion"], 1);
    json["paths"].as_array().unwrap().clone()
}

#[test]
fn the_most_overridden_path_comes_first_and_each_override_has_its_distance() {
    let project = shop();
    insta::assert_snapshot!(project.alokai("store overlays").succeeds().stdout);
    let found = paths(&project, "");
    assert_eq!(found[0]["path"], "header.tsx");
    assert_eq!(found[0]["versions"], 2);
    assert_eq!(
        (&found[0]["added"], &found[0]["removed"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        found[0]["overrides"][2],
        json!({
            "storeId": "us",
            "file": child("us", "header.tsx"),
            "hides": "fashion",
            "hiddenFile": fashion("header.tsx"),
            "difference": "lines",
            "added": 1,
            "removed": 0,
        })
    );
    let names: BTreeSet<_> = found
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    let expected = ["header.tsx", "logo.png", "run.sh", "texts.txt", "to.txt"];
    assert_eq!(names, expected.into());
}

#[test]
fn csv_has_a_record_for_each_override_and_quotes_by_rfc_4180() {
    let project = Project::shop()
        .file(&base("a,\"b\"\nc.tsx"), "1\n")
        .file(&child("us", "a,\"b\"\nc.tsx"), "2\n");
    let csv = project.alokai("store overlays --csv").succeeds().stdout;
    insta::assert_snapshot!(csv.replace("\r\n", "⏎\n"));
    assert!(csv.ends_with("\r\n") && csv.starts_with("app,path,overrides,store,"));
}

#[test]
fn stores_apps_and_the_number_of_paths_can_be_limited() {
    let project = shop();
    let stores = |options: &str| -> BTreeSet<String> {
        let all = paths(&project, options);
        let overrides = all
            .iter()
            .flat_map(|path| path["overrides"].as_array().unwrap());
        overrides
            .map(|one| one["storeId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(stores("--store fashion"), ["fashion".to_owned()].into());
    assert_eq!(
        stores("--store-id us,eu"),
        ["eu".to_owned(), "us".to_owned()].into()
    );
    assert!(stores("--app playwright").is_empty());
    let limited = project.alokai("store overlays --limit 1").succeeds();
    limited.stdout_contains("1 of 5 paths are shown; `--limit 0` shows all");
    limited.stdout_lacks("texts.txt");
    let all = project.alokai("store overlays --limit 0").succeeds();
    all.stdout_contains("to.txt").stdout_lacks("are shown");
    let none = project.alokai("store overlays --app playwright").succeeds();
    assert_eq!(none.stdout, "no store overrides a file of `playwright`\n");
    let project = project.file("apps/stores/outlet/.gitkeep", "");
    let none = project.alokai("store overlays --store outlet").succeeds();
    assert_eq!(none.stdout, "`outlet` overrides no file\n");

    let wrong = project
        .alokai("store overlays --store fashon")
        .fails_with(2);
    wrong.stderr_contains("did you mean `fashion`?");
    let wrong = project.alokai("store overlays --app nextjs").fails_with(2);
    wrong.stderr_contains("there is no app `nextjs`");
}

/// A file of a random project.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    File(String, bool),
    Link(&'static str),
}

const PATHS: [&str; 6] = [
    "a.ts",
    "lib/b.ts",
    "app/[id]/page.tsx",
    "package.json",
    "logo.png",
    "it's, \"c\".ts",
];
const LAYERS: [&str; 6] = [
    "apps",
    "apps/stores/t",
    "apps/stores/t/stores/u",
    "apps/stores/t/stores/u/stores/v",
    "apps/stores/t/stores/w",
    "apps/stores/x",
];
const APPS: [&str; 2] = ["web", "api"];
const LINES: [&str; 5] = ["a\n", "b\n", "c\r\n", "\n", "d"];

fn random_files(random: &mut Random) -> BTreeMap<(usize, &'static str, &'static str), Thing> {
    let mut files = BTreeMap::new();
    for layer in 0..LAYERS.len() {
        for app in APPS {
            for path in PATHS {
                if random.once_in(3) && !(layer == 0 && path == "package.json") {
                    continue;
                }
                let thing = if path == "package.json" {
                    Thing::File("{}\n".into(), false)
                } else if random.once_in(12) {
                    Thing::Link(random.pick(&["a.ts", "lib/b.ts"]))
                } else {
                    let lines = (0..random.below(9)).map(|_| random.pick(&LINES));
                    let mut content: String = lines.collect();
                    if random.once_in(9) {
                        content.push('\0');
                    }
                    Thing::File(content, random.once_in(6))
                };
                files.insert((layer, app, path), thing);
            }
        }
    }
    files
}

/// Lines added and removed, as git counts them; `None` for binary files.
fn numstat(project: &Project, old: &str, new: &str) -> Option<(u64, u64)> {
    let output = Command::new("git")
        .args([
            "diff",
            "--no-index",
            "--numstat",
            "--minimal",
            "--no-renames",
            "--",
            old,
            new,
        ])
        .current_dir(project.root())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut columns = text.split('\t');
    let (added, removed) = (columns.next().unwrap(), columns.next().unwrap_or("-"));
    if text.is_empty() {
        return Some((0, 0));
    }
    (added != "-").then(|| (added.parse().unwrap(), removed.parse().unwrap()))
}

fn expected(
    project: &Project,
    files: &BTreeMap<(usize, &'static str, &'static str), Thing>,
) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for ((layer, app, path), own) in files {
        // The nearest layer above whose folder contains this layer's folder.
        let above = (0..LAYERS.len()).rev().filter(|other| {
            let folder = format!("{}/", LAYERS[*other]);
            LAYERS[*layer].starts_with(&folder)
        });
        let hidden = above
            .filter_map(|other| Some((other, files.get(&(other, *app, *path))?)))
            .max_by_key(|(other, _)| LAYERS[*other].len());
        let Some((other, hidden)) = hidden.filter(|_| *path != "package.json") else {
            continue;
        };
        let name = |layer: usize| match layer {
            0 => "base",
            _ => LAYERS[layer].rsplit('/').next().unwrap(),
        };
        let file = |layer: usize| format!("{}/{app}/{path}", LAYERS[layer]);
        let difference = match (own, hidden) {
            _ if own == hidden => json!({ "difference": "identical" }),
            (Thing::File(own, _), Thing::File(hidden, _)) if own == hidden => {
                json!({ "difference": "mode" })
            }
            (Thing::File(..), Thing::File(..)) => {
                match numstat(project, &file(other), &file(*layer)) {
                    Some((added, removed)) => {
                        json!({ "difference": "lines", "added": added, "removed": removed })
                    }
                    None => json!({ "difference": "binary" }),
                }
            }
            _ => json!({ "difference": "link" }),
        };
        let mut row = json!({
            "app": app,
            "path": path,
            "storeId": name(*layer),
            "file": file(*layer),
            "hides": name(other),
            "hiddenFile": file(other),
        });
        row.as_object_mut()
            .unwrap()
            .extend(difference.as_object().unwrap().clone());
        rows.insert(row.to_string());
    }
    rows
}

fn write(root: &Path, path: &str, thing: &Thing) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    match thing {
        Thing::Link(target) => std::os::unix::fs::symlink(target, path).unwrap(),
        Thing::File(content, executable) => {
            std::fs::write(&path, content).unwrap();
            let mode = if *executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// The slow way: look into each folder, and let git count the lines of each pair.
#[test]
fn random_trees_have_the_overrides_and_distances_that_git_counts() {
    let random = &mut Random::new(11);
    for round in 0..12 {
        let project = Project::new().config(
            r#"{ "stores": { "v": { "deployment": { "projectName": "v", "cloudRegion": "r" } },
                 "u": { "ignorePaths": ["lib"] } } }"#,
        );
        let files = random_files(random);
        for ((layer, app, path), thing) in &files {
            write(
                project.root(),
                &format!("{}/{app}/{path}", LAYERS[*layer]),
                thing,
            );
        }
        if round % 2 == 0 {
            project.commit();
        }
        let found = paths(&project, "");
        let mut rows = BTreeSet::new();
        for path in &found {
            let overrides = path["overrides"].as_array().unwrap();
            for one in overrides {
                let mut row = json!({ "app": path["app"], "path": path["path"] });
                let all = row.as_object_mut().unwrap();
                all.extend(one.as_object().unwrap().clone());
                rows.insert(row.to_string());
            }
            let contents: BTreeSet<_> = overrides
                .iter()
                .map(|one| {
                    let file = one["file"].as_str().unwrap();
                    let stat = std::fs::symlink_metadata(project.path(file)).unwrap();
                    if let Ok(target) = std::fs::read_link(project.path(file)) {
                        (target.into_os_string().into_encoded_bytes(), 0)
                    } else {
                        let content = std::fs::read(project.path(file)).unwrap();
                        (content, stat.permissions().mode())
                    }
                })
                .collect();
            assert_eq!(path["versions"], contents.len(), "{path}");
        }
        let expected = expected(&project, &files);
        let differing: Vec<_> = rows.symmetric_difference(&expected).collect();
        assert!(differing.is_empty(), "round {round}: {differing:#?}");
        let counts: Vec<_> = found
            .iter()
            .map(|path| path["overrides"].as_array().unwrap().len())
            .collect();
        assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    }
}

/// `why` names the same file and the same hidden file.
#[test]
fn overlays_and_why_agree() {
    let project = shop();
    for path in paths(&project, "--store us,eu") {
        let name = format!("{NEXT}/{}", path["path"].as_str().unwrap());
        for one in path["overrides"].as_array().unwrap() {
            let store = one["storeId"].as_str().unwrap();
            let run = project.alokai(&["store", "why", store, &name, "--json"]);
            let why = run.succeeds().json();
            assert_eq!(why["winner"]["file"], one["file"]);
            assert_eq!(why["hidden"][0]["file"], one["hiddenFile"]);
            assert_eq!(why["hidden"][0]["layer"], one["hides"]);
        }
    }
}
