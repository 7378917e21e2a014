//! `changed`: which stores a change touches, in the forms that people and CI want.

use serde_json::json;

use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";

fn changed(project: &Project, arguments: &str) -> serde_json::Value {
    let all = format!("store changed {arguments}");
    project.alokai(&all).succeeds().json()
}

#[test]
fn reasons_say_what_was_touched() {
    let project = Project::shop();
    assert_eq!(changed(&project, "--since HEAD"), json!([]));

    project.write(
        &format!("apps/stores/fashion/stores/us/{NEXT}/new.tsx"),
        b"untracked\n",
    );
    assert_eq!(
        changed(&project, "--since HEAD"),
        json!([{ "storeId": "us", "reasons": ["STORE_CHANGED"] }])
    );
    project.commit();

    // `us` and `eu` override the texts of the base.
    project.write(&format!("apps/{NEXT}/texts.txt"), b"other\n");
    assert_eq!(changed(&project, "--since HEAD"), json!([]));
    project.write(&format!("apps/{NEXT}/public/logo.svg"), b"other\n");
    let both = json!([
        { "storeId": "eu", "reasons": ["ANCESTOR_CHANGED"] },
        { "storeId": "us", "reasons": ["ANCESTOR_CHANGED"] },
    ]);
    assert_eq!(changed(&project, "--since HEAD"), both);
    project.commit();
    assert_eq!(changed(&project, ""), both, "HEAD~1 is the default");
    assert_eq!(
        changed(&project, "--since HEAD~2 --to HEAD~1")[0]["storeId"],
        "us"
    );

    project.write("package-lock.json", b"{}\n");
    project.write("config/brand.json", b"{}\n");
    let lists = changed(&project, "--since HEAD --global-dependencies config");
    let reasons = json!(["PACKAGE_LOCK_CHANGED", "GLOBAL_DEPENDENCIES_CHANGED"]);
    assert_eq!(lists[0]["reasons"], reasons);
}

#[test]
fn json_lists_files_with_their_layers_before_and_after() {
    let project = Project::shop();
    let texts = format!("apps/stores/fashion/stores/us/{NEXT}/texts.txt");
    project.remove(&texts);
    let list = changed(&project, "--since HEAD --json");
    assert_eq!(
        list,
        json!([{
            "storeId": "us",
            "reasons": ["STORE_CHANGED"],
            "files": [{ "app": NEXT, "path": "texts.txt", "old": "us", "new": "base" }],
            "dependencies": [],
        }])
    );
}

#[test]
fn a_workspace_package_counts_for_the_stores_whose_apps_depend_on_it() {
    let project = Project::shop()
        .file("packages/theme/package.json", r#"{ "name": "theme", "dependencies": { "colors": "*" } }"#)
        .file("packages/colors/package.json", r#"{ "name": "colors" }"#)
        .file("packages/unused/package.json", r#"{ "name": "unused" }"#)
        .file(
            &format!("apps/{NEXT}/package.json"),
            r#"{ "name": "x", "scripts": { "build": "true" }, "devDependencies": { "theme": "*" } }"#,
        );
    project.commit();
    project.write("packages/unused/index.js", b"");
    assert_eq!(changed(&project, "--since HEAD --condensed"), json!([]));
    project.write("packages/colors/index.js", b"");
    let list = changed(&project, "--since HEAD --json");
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["reasons"], json!(["GLOBAL_DEPENDENCIES_CHANGED"]));
    assert_eq!(list[0]["dependencies"], json!(["packages/colors/index.js"]));
    project.commit();
    // A removed file is a changed file.
    std::fs::remove_dir_all(project.path("packages/colors")).unwrap();
    let ids = changed(&project, "--since HEAD --condensed");
    assert_eq!(ids, json!(["eu", "us"]));
    project.commit();
    let ids = changed(&project, "--since HEAD~1 --to HEAD --condensed");
    assert_eq!(ids, json!(["eu", "us"]));
}

#[test]
fn settings_count_as_far_as_they_change_the_composition() {
    let project = Project::shop();
    let config = project.read("alokai.config.json");
    let other = config.replace(r#""us": {"#, r#""us": { "ignorePaths": ["public/"],"#);
    project.write("alokai.config.json", other.as_bytes());
    let list = changed(&project, "--since HEAD");
    assert_eq!(
        list,
        json!([{ "storeId": "us", "reasons": ["STORE_CHANGED"] }])
    );
    let other = config.replace("europe-west1", "europe-west4");
    assert_ne!(other, config);
    project.write("alokai.config.json", other.as_bytes());
    assert_eq!(
        changed(&project, "--since HEAD"),
        json!([]),
        "a region is not composed"
    );
}

#[test]
fn a_matrix_is_what_ci_takes_and_shards_are_those_of_a_build() {
    let project = Project::shop();
    project.write(&format!("apps/{NEXT}/public/logo.svg"), b"other\n");
    let with = |more: &str| changed(&project, &format!("--since HEAD {more}"));
    assert_eq!(with("--condensed"), json!(["eu", "us"]));
    assert_eq!(
        with("--matrix github"),
        json!({ "include": [{ "storeId": "eu" }, { "storeId": "us" }] })
    );
    assert_eq!(
        with("--matrix gitlab"),
        json!({ ".alokai-stores": { "parallel": { "matrix": [{ "STORE_ID": ["eu", "us"] }] } } })
    );
    assert_eq!(with("--condensed --shard 1/2"), json!(["eu"]));
    assert_eq!(with("--condensed --shard 2/2"), json!(["us"]));
    assert_eq!(with("--condensed --shard 3/3"), json!([]));
    let wrong = project.alokai("store changed --shard 3/2").fails_with(2);
    wrong.stderr_contains("1 ≤ i ≤ n");
    // With one changed store, both commands have it in the first shard.
    project.commit();
    let texts = format!("apps/stores/fashion/stores/us/{NEXT}/texts.txt");
    project.write(&texts, b"other\n");
    for (shard, stores) in [("1/2", json!(["us"])), ("2/2", json!([]))] {
        assert_eq!(with(&format!("--condensed --shard {shard}")), stores);
        let line = format!("store build --changed --since HEAD --shard {shard} --dry-run --json");
        let plan = project.alokai(&line).succeeds().json();
        let built = plan["stores"].as_array().unwrap().iter();
        let built: Vec<_> = built.map(|store| store["storeId"].clone()).collect();
        assert_eq!(json!(built), stores);
    }
}

#[test]
fn a_missing_revision_says_how_to_get_it() {
    let project = Project::shop();
    let run = project
        .alokai("store changed --since no-such")
        .fails_with(2);
    run.stderr_contains("no commit `no-such`");

    project.write("more", b"");
    project.commit();
    let run = project
        .shallow_clone("1")
        .alokai("store changed")
        .fails_with(3);
    run.stderr_contains("git fetch --deepen");
    assert_eq!(run.stdout, "");
}

#[test]
fn commands_take_the_changed_stores() {
    let project = Project::shop();
    let run = project
        .alokai("store compose --changed --since HEAD")
        .succeeds();
    run.stderr_contains("no store has changed");
    assert!(!project.exists(".out"));
    project.write(
        &format!("apps/stores/fashion/stores/us/{NEXT}/new.tsx"),
        b"new\n",
    );
    project
        .alokai("store compose --changed --since HEAD")
        .succeeds();
    assert!(project.exists(".out/us") && !project.exists(".out/eu"));
}

#[test]
fn a_revision_without_a_project_makes_everything_new() {
    let project = Project::new();
    project.remove("alokai.config.json");
    let project = project.file("README.md", "before\n");
    project.commit();
    let shop = Project::shop();
    for (path, content) in shop.tree(".") {
        if !path.starts_with(".git/") {
            project.write(&path, content.as_bytes());
        }
    }
    let run = project
        .alokai("store changed --since HEAD --condensed")
        .succeeds();
    assert_eq!(run.json(), json!(["eu", "us"]));
    run.stderr_contains("`HEAD` does not contain a valid project");
}
