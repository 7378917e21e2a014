//! What each command shows, and the tree, the config and git's index afterwards.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Project, Run};

const NEXT: &str = "storefront-unified-nextjs";

/// A template with two stores, of which `us` has overrides and imports of every kind.
pub fn shop() -> Project {
    let project = Project::shop()
        .config(
            r#"// Our stores.
{
  "stores": {
    // The first one.
    "us": {
      "deployment": { "projectName": "acme-us", "cloudRegion": "us-east1", "framework": "nextjs" },
      "localPorts": { "middleware": 4000, "nextjs": 3000 }, // as in the readme
      "localDomain": "us.local",
    },
    "eu": { "deployment": { "projectName": "acme-eu", "cloudRegion": "us-east1", "framework": "nextjs" } },
  },
  "x-waves": [["us"], ["eu"]]
}
"#,
        )
        .file(
            ".github/workflows/deploy.yml",
            "run: alokai store deploy --store us\nother: --store usa\n",
        )
        .file(&format!("apps/{NEXT}/footer.tsx"), "footer\n")
        .file(
            &format!("apps/{NEXT}/tsconfig.json"),
            r#"{ "compilerOptions": { "paths": { "@/*": ["./*"] } } }"#,
        )
        .file(&format!("apps/stores/fashion/{NEXT}/footer.tsx"), "footer of fashion\n")
        .file(
            &format!("apps/stores/fashion/stores/us/{NEXT}/home.tsx"),
            "import a from './header';\nimport b from '@/header';\nimport c from './generated';\nimport './texts.txt';\n",
        )
        .file(&format!("apps/stores/fashion/stores/us/{NEXT}/footer.tsx"), "footer\n");
    project.commit();
    project
}

/// What a run prints on both streams, and the state of the project after it.
fn transcript(project: &Project, arguments: &str) -> String {
    let run = project.alokai(arguments).succeeds();
    let files = project.tree("apps/stores");
    let files: Vec<_> = files.into_keys().collect();
    let files = files.join("\n");
    format!(
        "{}\n--- stderr\n{}\n--- apps/stores\n{files}\n\n--- alokai.config.json\n{}\n--- git status\n{}\n",
        run.stdout,
        run.stderr,
        project.read("alokai.config.json"),
        project.git("status --short --untracked-files=all")
    )
}

#[test]
fn add_writes_a_folder_and_an_entry() {
    let project = shop();
    insta::assert_snapshot!(transcript(&project, "store add uk --parent fashion --yes"));
    let json = project.alokai("store list --json").succeeds().json();
    let ids = json["stores"].as_array().unwrap().iter();
    let uk = ids.clone().find(|store| store["storeId"] == "uk").unwrap();
    assert_eq!(uk["parent"], "fashion");
    project.alokai("store compose --store uk").succeeds();
    assert!(!project.exists(&format!(".out/uk/{NEXT}/.gitkeep")));
    let findings = project.alokai("store check").stdout;
    assert!(!findings.contains("uk"), "{findings}");
    // A clone has the store too, with its parent.
    project.commit();
    let clone = project.shallow_clone("1");
    let json = clone.alokai("store list --json").succeeds().json();
    let mut stores = json["stores"].as_array().unwrap().iter();
    let uk = stores.find(|store| store["storeId"] == "uk").unwrap();
    assert_eq!(uk["parent"], "fashion");
}

#[test]
fn add_takes_what_the_options_say() {
    let project = shop();
    project.alokai("store add b2b --template --yes").succeeds();
    assert!(project.exists("apps/stores/b2b/.gitkeep"));
    assert!(!project.read("alokai.config.json").contains("b2b"));
    project
        .alokai("store add b2b-us --parent b2b --framework nextjs --console-project-name trade --cloud-region asia-east1 --yes")
        .succeeds();
    let json = project.alokai("store list --json").succeeds().json();
    let mut stores = json["stores"].as_array().unwrap().iter();
    let added = stores.find(|it| it["storeId"] == "b2b-us").unwrap();
    assert_eq!(added["parent"], "b2b");
    assert_eq!(added["deployment"]["projectName"], "trade");
    assert_eq!(added["deployment"]["cloudRegion"], "asia-east1");
    let config = project.read("alokai.config.json");
    assert!(
        config.contains(r#""nextjs": 3001"#) && config.contains(r#""middleware": 4001"#),
        "{config}"
    );
}

#[test]
fn move_shows_what_stores_gain_and_lose() {
    let project = shop();
    let shown = project
        .alokai("store move us --parent root --dry-run")
        .succeeds();
    insta::assert_snapshot!("move_dry_run", shown.stdout);
    assert_eq!(project.git("status --short"), "");
    insta::assert_snapshot!(
        "move",
        transcript(&project, "store move us --parent root --yes")
    );
}

#[test]
fn several_stores_move_at_once_and_a_parent_with_its_child() {
    let project = shop();
    project
        .alokai("store move fashion us --parent root --yes")
        .succeeds()
        .stderr_contains("done");
    assert!(project.exists(&format!("apps/stores/us/{NEXT}/texts.txt")));
    project
        .alokai("store move us eu --parent root --yes")
        .succeeds();
    project.alokai("store add new --template --yes").succeeds();
    project
        .alokai("store move us eu fashion --parent new --yes")
        .succeeds();
    let json = project.alokai("store list --json").succeeds().json();
    for store in json["stores"].as_array().unwrap() {
        let expected = if store["storeId"] == "new" {
            Value::Null
        } else {
            "new".into()
        };
        assert_eq!(store["parent"], expected, "{store}");
    }
}

#[test]
fn remove_tells_what_only_the_store_has_and_what_stays_behind() {
    let project = shop();
    project.alokai("store compose --all").succeeds();
    insta::assert_snapshot!("remove", transcript(&project, "store remove us --yes"));
}

#[test]
fn remove_gives_children_another_parent() {
    let project = shop();
    project
        .alokai("store remove fashion --yes")
        .fails_with(2)
        .stderr_contains("--reparent");
    insta::assert_snapshot!(
        "remove_reparent",
        transcript(&project, "store remove fashion --reparent root --yes")
    );
}

#[test]
fn remove_keeps_files_that_no_commit_has() {
    let project = shop();
    let folder = format!("apps/stores/fashion/stores/us/{NEXT}");
    project.write(&format!("{folder}/.env"), "SECRET=1\n");
    project.write(&format!("{folder}/texts.txt"), "not committed\n");
    let run = project.alokai("store remove us --yes").succeeds();
    run.stdout_contains(".alokai/removed/us");
    run.stdout_contains(&format!("{folder}/.env"));
    let kept = |file: &str| project.read(&format!(".alokai/removed/us/{NEXT}/{file}"));
    assert_eq!(kept(".env"), "SECRET=1\n");
    assert_eq!(kept("texts.txt"), "not committed\n");
    // A second store with the same id does not replace what is kept.
    project.alokai("store add us --yes").succeeds();
    project.alokai("store remove us --yes").succeeds();
    assert!(project.exists(".alokai/removed/us-2/.gitkeep"));
    assert_eq!(kept(".env"), "SECRET=1\n");
}

#[test]
fn rename_follows_in_the_config_and_removes_the_old_composition() {
    let project = shop();
    project.alokai("store compose --all").succeeds();
    insta::assert_snapshot!("rename", transcript(&project, "store rename us usa --yes"));
    assert!(!project.exists(".out/us"));
    assert!(!project.exists(".alokai/manifests/us.json"));
    project.alokai("store compose --all").succeeds();
    assert!(project.exists(".out/usa"));
}

#[test]
fn drift_follows_the_history_over_a_rename_and_a_move() {
    let project = shop();
    let lines: Vec<_> = (0..30).map(|number| format!("line {number} ")).collect();
    let page = lines.join("\n");
    project.write(&format!("apps/{NEXT}/page.tsx"), &page);
    project.commit();
    let own = format!("apps/stores/fashion/stores/us/{NEXT}/page.tsx");
    project.write(&own, page.replace("line 3 ", "line 3 of us"));
    project.commit();
    project.write(
        &format!("apps/{NEXT}/page.tsx"),
        page.replace("line 20 ", "line 20 mended"),
    );
    project.commit_as("base: mend");
    project.alokai("store rename us usa --yes").succeeds();
    project.commit_as("rename");
    project
        .alokai("store move usa --parent root --yes")
        .succeeds();
    project.commit_as("move");
    let json = project.alokai("store drift --json").succeeds().json();
    let overrides = json["overrides"].as_array().unwrap();
    let file = format!("apps/stores/usa/{NEXT}/page.tsx");
    let one = overrides.iter().find(|one| one["file"] == *file).unwrap();
    assert_eq!(one["standing"], "behind", "{one}");
    assert_eq!(one["commits"][0]["subject"], "base: mend");
}

#[test]
fn json_is_one_document_with_the_impact() {
    let project = shop();
    let json = project
        .alokai("store move us --parent root --dry-run --json")
        .succeeds()
        .json();
    insta::assert_json_snapshot!(json);
    let done = project
        .alokai("store move us --parent root --yes --json")
        .succeeds()
        .json();
    assert_eq!(done["applied"], true);
    assert_eq!(done["impact"], json["impact"]);
}

#[test]
fn untracked_and_ignored_files_move_along() {
    let project = shop();
    let from = format!("apps/stores/fashion/stores/us/{NEXT}");
    for file in [".env", "untracked.txt", "node_modules/x/index.js"] {
        project.write(&format!("{from}/{file}"), file);
    }
    project
        .alokai("store move us --parent root --yes")
        .succeeds();
    for file in [".env", "untracked.txt", "node_modules/x/index.js"] {
        assert_eq!(project.read(&format!("apps/stores/us/{NEXT}/{file}")), file);
    }
}

#[test]
fn git_keeps_flags_modes_and_staged_content() {
    let project = shop();
    let us = format!("apps/stores/fashion/stores/us/{NEXT}");
    project.write(&format!("{us}/run.sh"), "#!/bin/sh\n");
    project.make_executable(&format!("{us}/run.sh"));
    project.commit();
    project.git("update-index --index-version 4");
    project.git(&[
        "update-index",
        "--assume-unchanged",
        &format!("{us}/texts.txt"),
    ]);
    project.git(&["update-index", "--skip-worktree", &format!("{us}/home.tsx")]);
    project.write(&format!("{us}/later.txt"), "later\n");
    project.git(&["add", "--intent-to-add", &format!("{us}/later.txt")]);
    let listed = |project: &Project| project.git("ls-files -v --stage");
    let before = listed(&project);
    project
        .alokai("store move us --parent root --yes")
        .succeeds();
    let moved = before.replace("apps/stores/fashion/stores/us/", "apps/stores/us/");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&listed(&project)), sorted(&moved));
    assert!(
        before.contains("h 100644") && before.contains("S 100644"),
        "{before}"
    );
    assert!(project.git("status --short").contains(" A apps/stores/us"));
    project.git("fsck");
    project
        .alokai("store move us --parent fashion --yes")
        .succeeds();
    assert_eq!(listed(&project), before);
}

#[test]
fn a_project_below_the_root_of_its_repository_is_edited_there() {
    let outer = Project::shop();
    outer.git(&["rm", "-r", "--quiet", "--cached", "."]);
    let project = Project::at(outer.path("shops/web"));
    std::fs::create_dir_all(project.root()).unwrap();
    for name in ["apps", "alokai.config.json"] {
        std::fs::rename(outer.path(name), project.path(name)).unwrap();
    }
    outer.commit();
    project
        .alokai("store move us --parent root --yes")
        .succeeds();
    assert_eq!(
        outer.git("status --short"),
        format!(
            "R  shops/web/apps/stores/fashion/stores/us/{NEXT}/texts.txt -> shops/web/apps/stores/us/{NEXT}/texts.txt"
        )
    );
}

#[test]
fn a_store_without_a_folder_gets_one_under_a_parent() {
    let project = shop();
    let config = project
        .read("alokai.config.json")
        .replace("\"x-waves\"", "\"x-old\": 1, \"x-waves\"");
    let config = config.replace(
        "    \"eu\":",
        "    \"bare\": { \"deployment\": { \"projectName\": \"bare\", \"cloudRegion\": \"r\", \"framework\": \"nextjs\" } },\n    \"eu\":",
    );
    let project = project.config(&config);
    project.commit();
    let shown = project
        .alokai("store move bare --parent fashion --yes")
        .succeeds();
    shown.stdout_contains("header.tsx");
    assert!(project.exists("apps/stores/fashion/stores/bare/.gitkeep"));
    project.alokai("store rename bare plain --yes").succeeds();
    project.alokai("store remove plain --yes").succeeds();
    project.alokai("store add bare2 --yes").succeeds();
    project.alokai("store list").succeeds();
}

#[test]
fn a_terminal_is_asked() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: the program `script` is not installed");
        return;
    }
    let project = shop();
    typed(&project, "store move us --parent root", "n\n").stdout_contains("Nothing was changed");
    assert_eq!(project.git("status --short"), "");
    typed(&project, "store add", "uk\nfashion\nd\n\neurope-west9\ny\n")
        .stdout_contains("done: alokai store add uk --parent fashion");
    let json = project.alokai("store list --json").succeeds().json();
    let mut stores = json["stores"].as_array().unwrap().iter();
    let uk = stores.find(|store| store["storeId"] == "uk").unwrap();
    assert_eq!(uk["parent"], "fashion");
    assert_eq!(uk["deployment"]["cloudRegion"], "europe-west9");
    assert_eq!(uk["deployment"]["projectName"], "acme-uk");
    let moved = typed(&project, "store move", "usa\nus eu\nrot\nroot\ny\n");
    moved.stdout_contains("there is no store `usa`");
    moved.stdout_contains("there is no store `rot`");
    moved.stdout_contains("New parent (root, ");
    moved.stdout_contains("done");
    assert!(project.exists("apps/stores/us") && project.exists("apps/stores/eu"));
}

#[test]
fn a_wrong_answer_is_explained_and_asked_again() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: the program `script` is not installed");
        return;
    }
    let project = shop();
    let answers = [
        "a/b", "us", "uk", "fashio", "fashion", "x", "d", "a/b", "acme-us", "trade", "a/b", "", "y",
    ];
    let run = typed(&project, "store add", &format!("{}\n", answers.join("\n")));
    for reason in [
        "is not a valid store id",
        "the store id `us` is in use",
        "did you mean `fashion`?",
        "`x` is not a valid answer",
        "Project name in the console [acme-uk]",
    ] {
        run.stdout_contains(reason);
    }
    assert_eq!(run.stdout.matches("Project name in the console").count(), 3);
    assert_eq!(run.stdout.matches("Cloud region [").count(), 2);
    run.stdout_contains("done: alokai store add uk --parent fashion --console-project-name trade");
    let json = project.alokai("store list --json").succeeds().json();
    let mut stores = json["stores"].as_array().unwrap().iter();
    let uk = stores.find(|store| store["storeId"] == "uk").unwrap();
    assert_eq!(uk["deployment"]["projectName"], "trade");
    // The end of the input ends the questions.
    let ended = typed(&project, "store add", "a/b\n");
    ended.stdout_contains("the id of the new store is missing");
    // What the command line says is checked before the first question.
    let wrong = typed(&project, "store add at --parent nobody", "d\n");
    wrong.stdout_contains("there is no store `nobody`");
    assert!(!wrong.stdout.contains("(d/t)"), "{}", wrong.stdout);
}

/// The command that is shown, with the words that a shell makes of it.
fn words_of_command(run: &Run) -> Vec<String> {
    let command = run.json()["command"].as_str().unwrap().to_owned();
    let printed = Command::new("sh")
        .arg("-c")
        .arg(format!("printf '%s\\n' {command}"))
        .output()
        .expect("sh runs");
    let printed = String::from_utf8(printed.stdout).expect("text");
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn the_command_that_is_shown_can_be_copied() {
    let project = shop().file(&format!("apps/{NEXT}/app/[id]/it's.tsx"), "page\n");
    let page = format!("{NEXT}/app/[id]/it's.tsx");
    let own = format!("apps/stores/fashion/stores/us/{page}");
    for words in [
        &["add", "tpl", "--parent", "root", "--template"][..],
        &[
            "add",
            "b2b",
            "--parent",
            "fashion",
            "--framework",
            "nextjs",
            "--console-project-name",
            "trade",
            "--cloud-region",
            "asia-east1",
        ],
        &["move", "us", "eu", "--parent", "root"],
        &["remove", "fashion", "--reparent", "root"],
        &["rename", "us", "usa"],
        &["override", "us", &page, "--from", "base"],
        &["flatten", "us", "--to", "our shop"],
    ] {
        let arguments = [&["store"], words, &["--dry-run", "--json"]].concat();
        let run = project.alokai(&arguments).succeeds();
        assert_eq!(
            words_of_command(&run),
            [&["alokai", "store"], words].concat()
        );
    }
    project.write(&own, "page\n");
    let words = ["override", "us", &page, "--revert"];
    let arguments = [&["store"], &words[..], &["--dry-run", "--json"]].concat();
    let run = project.alokai(&arguments).succeeds();
    assert_eq!(
        words_of_command(&run),
        [&["alokai", "store"], &words[..]].concat()
    );
    for (store, text) in [("us", "new\n"), ("eu", "new\n")] {
        project.write(&format!("apps/stores/fashion/stores/{store}/{page}"), text);
    }
    let words = ["override", "us", &page, "--up"];
    let arguments = [&["store"], &words[..], &["--dry-run", "--json"]].concat();
    let run = project.alokai(&arguments).succeeds();
    assert_eq!(
        words_of_command(&run),
        [&["alokai", "store"], &words[..]].concat()
    );
}

#[test]
fn only_what_exists_is_left_behind() {
    let project = shop();
    project.alokai("store build --store us").succeeds();
    project.alokai("store add tpl --template --yes").succeeds();
    let left = |id: &str| {
        let run = project.alokai(&["store", "remove", id, "--dry-run", "--json"]);
        run.succeeds().json()["leftBehind"].to_string()
    };
    assert_eq!(left("tpl"), "[]");
    assert!(left("us").contains("its results in `.alokai/cache`"));
    assert!(!left("eu").contains("its results"), "it was never built");
    assert!(!left("us").contains(".alokai/registry"));
    project.write(
        ".alokai/registry/index.json",
        r#"{ "manifests": [{ "annotations": { "org.opencontainers.image.ref.name": "acme-us-storefrontcloud-io/app:1" } }] }"#,
    );
    assert!(left("us").contains("`.alokai/registry`"));
    assert!(!left("eu").contains("`.alokai/registry`"));
}

/// Runs a command on a terminal, and types the answers.
fn typed(project: &Project, arguments: &str, answers: &str) -> Run {
    use std::io::Write as _;
    let program = env!("CARGO_BIN_EXE_alokai");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{program} {arguments}"))
        .arg("/dev/null")
        .current_dir(project.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(answers.as_bytes()).expect("it reads");
    drop(input);
    child.wait_with_output().expect("it ends").into()
}
