//! `alokai.config.json`: all problems at once, each with its position and its remedy.

use crate::support::Project;

fn diagnostic(config: &str) -> String {
    let project = Project::shop().config(config);
    let run = project.alokai("store list").fails_with(2);
    run.diagnostic(&project)
}

#[test]
fn every_problem_comes_at_once_with_its_place() {
    insta::assert_snapshot!(diagnostic(
        r#"{
  // comments and trailing commas are fine
  "store": {},
  "x-ours": { "anything": [1, 2] },
  "stores": {
    "us": { "deployment": { "projectNam": "acme-us", "cloudRegion": 7, "framework": "next" } },
    "eu": { "localPorts": { "nextjs": 70000 }, "ignorePaths": "all" },
  },
}
"#
    ));
}

#[test]
fn contradictions_are_found_in_all_stores() {
    insta::assert_snapshot!(diagnostic(
        r#"{ "stores": {
  "us": { "deployment": { "projectName": "acme-us", "region": "a", "cloudRegion": "b" } },
  "eu": { "deployment": { "projectName": "Acme EU", "region": "a", "frontend": "nuxt" } },
  "de": { "deployment": { "projectName": "acme-de" } }
} }
"#
    ));
}

#[test]
fn syntax_errors_have_their_place() {
    insta::assert_snapshot!(diagnostic("{ \"stores\": { \"us\" } }\n"));
}

#[test]
fn older_spellings_are_the_same() {
    let project = Project::shop().config(
        r#"{ "stores": { "us": { "deployment":
            { "projectName": "acme-us", "region": "r1", "cloudRegion": "r1", "frontend": "nextjs" } } } }"#,
    );
    let list = project.alokai("store list --json").succeeds().json();
    let stores = list["stores"].as_array().unwrap();
    let us = stores
        .iter()
        .find(|store| store["storeId"] == "us")
        .unwrap();
    assert_eq!(us["deployment"]["cloudRegion"], "r1");
    assert_eq!(us["deployment"]["framework"], "nextjs");
}

/// A shop with one deployable store, which does not name its framework.
fn shop_with(store: &str) -> Project {
    Project::shop().config(&format!(
        r#"{{ "stores": {{ "{store}": {{ "deployment": {{ "projectName": "a", "cloudRegion": "r" }} }} }} }}"#
    ))
}

#[test]
fn framework_may_be_left_out_only_where_there_is_one_frontend() {
    let project = shop_with("us");
    project.alokai("store list").succeeds();
    let project = project.app("storefront-unified-nuxt", r#""build": "true""#);
    let run = project.alokai("store list").fails_with(2);
    run.stderr_contains("has no `framework`");
}

#[test]
fn ids_are_unique_although_folders_nest() {
    let project = Project::shop().file("apps/stores/us/storefront-unified-nextjs/x", "");
    let run = project.alokai("store list").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}

#[test]
fn a_deployable_store_without_a_folder_is_a_store_of_root() {
    let project = shop_with("mx");
    project.alokai("store compose --store mx").succeeds();
    assert_eq!(
        project.read(".out/mx/storefront-unified-nextjs/texts.txt"),
        "texts of the base\n"
    );
}

#[test]
fn no_project_says_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Project::at(folder.path().canonicalize().unwrap());
    let run = empty.alokai("store list").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&empty));
}

#[test]
fn duplicate_and_missing_keys_are_named() {
    insta::assert_snapshot!(diagnostic("{}\n"));
    insta::assert_snapshot!(diagnostic(
        r#"{ "stores": { "us": {}, "us": { "localDomain": "a", "localDomain": "b" } } }"#
    ));
}

#[test]
fn host_names_and_addresses_are_checked() {
    insta::assert_snapshot!(diagnostic(
        r#"{ "stores": {
  "a": { "localDomain": "shop us" },
  "b": { "localDomain": "shop.example:8080" },
  "c": { "localDomain": "https://shop.example" },
  "d": { "localDomain": "us_en.localhost" },
  "e": { "localDomain": "-shop..example" },
  "f": { "localDomain": "Shop-1.Example" }
}, "deploy": { "docker": { "address": "localhost:80" } } }
"#
    ));
}

#[test]
fn two_stores_of_one_project_would_overwrite_each_other() {
    insta::assert_snapshot!(diagnostic(
        r#"{ "stores": {
  "us": { "deployment": { "projectName": "acme", "cloudRegion": "a" } },
  "eu": { "deployment": { "projectName": "acme", "cloudRegion": "b" } }
} }
"#
    ));
}

#[test]
fn broken_packages_and_links_in_place_of_folders_come_at_once() {
    let project = Project::shop()
        .file("apps/storefront-middleware/package.json", "{")
        .file("apps/playwright/package.json", "[")
        .link("apps/stores/linked", "fashion");
    let run = project.alokai("store list").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}
