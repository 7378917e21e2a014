//! The command line: help, lists and wrong flags.

use crate::support::Project;

#[test]
fn list_draws_the_tree() {
    let project = Project::shop();
    insta::assert_snapshot!(project.alokai("store list").succeeds().stdout);
    let json = project.alokai("store list --json").succeeds().json();
    assert_eq!(json["schemaVersion"], 1);
    assert_eq!(
        json["stores"][1]["layers"]["storefront-unified-nextjs"],
        serde_json::json!({ "files": 1, "overrides": 1 })
    );
}

#[test]
fn settings_of_a_machine_are_no_overrides() {
    let us = "apps/stores/fashion/stores/us/storefront-unified-nextjs";
    let count = |project: &Project| {
        let json = project.alokai("store list --json").succeeds().json();
        let mut stores = json["stores"].as_array().unwrap().iter();
        let us = stores.find(|store| store["storeId"] == "us").unwrap();
        let counts = &us["layers"]["storefront-unified-nextjs"];
        (counts["files"].clone(), counts["overrides"].clone())
    };
    let project = Project::shop();
    let before = count(&project);
    let project = project
        .file("apps/storefront-unified-nextjs/.env", "A=base\n")
        .file(&format!("{us}/.env"), "A=us\n");
    assert_eq!(count(&project), before);
    // It is composed all the same.
    project.alokai("store compose --store us").succeeds();
    assert_eq!(
        project.read(".out/us/storefront-unified-nextjs/.env"),
        "A=us\n"
    );
    // A file that git tracks is a part of the store.
    project.git("add --force --all");
    let of_both = (
        before.0.as_u64().unwrap() + 1,
        before.1.as_u64().unwrap() + 1,
    );
    assert_eq!(count(&project), (of_both.0.into(), of_both.1.into()));
}

#[test]
fn help_names_the_exit_codes_and_every_variable() {
    let project = Project::shop();
    let help = project.alokai("--help").succeeds().stdout;
    for code in [
        "0 success",
        "1 failure",
        "2 invalid input",
        "3 external dependency",
        "130 interrupted",
    ] {
        assert!(help.contains(code), "{help}");
    }
    let deploy = project.alokai("store deploy --help").succeeds().stdout;
    for variable in [
        "CLI_CLOUD_USERNAME",
        "CLI_CLOUD_PASSWORD",
        "CLI_DOCKER_REGISTRY_URL",
        "CLI_CONSOLE_API_URL",
    ] {
        assert!(deploy.contains(variable), "{deploy}");
    }
}

#[test]
fn wrong_flags_are_wrong_input() {
    let project = Project::shop();
    for arguments in [
        "store build --al",
        "store build --all --store us",
        "store build --all --concurrency 0",
        "--cwd /nonexistent store list",
        "stores",
    ] {
        project.alokai(arguments).fails_with(2);
    }
}

#[test]
fn cwd_runs_in_another_project_and_from_below_it() {
    let project = Project::shop();
    let elsewhere = Project::new();
    let root = project.root().display().to_string();
    let list = elsewhere
        .alokai(&["--cwd", &root, "store", "list"])
        .succeeds()
        .stdout;
    assert!(list.contains("fashion"), "{list}");
    let below = format!("{root}/apps/stores/fashion");
    assert_eq!(
        list,
        elsewhere
            .alokai(&["store", "list", "--cwd", &below])
            .succeeds()
            .stdout
    );
}

#[test]
fn a_folder_that_belongs_to_no_app_is_pointed_at() {
    let project = Project::shop().file(
        "apps/stores/fashion/stores/us/storefront-unified-nexjs/x.tsx",
        "",
    );
    let run = project.alokai("store list").succeeds();
    run.stderr_contains("did you mean `storefront-unified-nextjs`?");
}
