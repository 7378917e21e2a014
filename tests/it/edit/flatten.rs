//! `flatten`: a store's apps become ordinary apps that build as before.

use crate::support::{MIDDLEWARE, Project};

const NEXT: &str = "storefront-unified-nextjs";

fn shop() -> Project {
    let project = Project::shop()
        .file("tsconfig.base.json", "{}\n")
        .file(
            &format!("apps/{NEXT}/tsconfig.json"),
            "{ \"extends\": \"../../tsconfig.base.json\" } // base\n",
        )
        .file(&format!("apps/{NEXT}/.env.local"), "SECRET=1\n")
        .link(&format!("apps/{NEXT}/link.tsx"), "header.tsx")
        .dependency(NEXT, MIDDLEWARE, "*");
    project.make_executable("apps/storefront-middleware/build.js");
    project.commit();
    project
}

#[test]
fn a_flattened_store_has_the_composed_files_and_builds_the_same() {
    let project = shop();
    let shown = project
        .alokai("store flatten us --to shop-us --dry-run")
        .succeeds();
    insta::assert_snapshot!(shown.stdout);
    assert!(!project.exists("shop-us"));
    project
        .alokai("store flatten us --to shop-us")
        .fails_with(2);
    project
        .alokai("store flatten us --to shop-us --yes")
        .succeeds();
    project.alokai("store compose --store us").succeeds();
    for app in [NEXT, MIDDLEWARE, "playwright"] {
        let mut composed = project.tree(&format!(".out/us/{app}"));
        let mut flat = project.tree(&format!("shop-us/{app}"));
        // It is at the depth of a base app, and not one folder deeper.
        let tsconfig = flat.remove("tsconfig.json");
        assert_eq!(
            composed.remove("tsconfig.json").is_some(),
            tsconfig.is_some()
        );
        assert_eq!(flat, composed, "{app}");
        if let Some(tsconfig) = tsconfig {
            assert_eq!(tsconfig, project.read(&format!("apps/{app}/tsconfig.json")));
        }
    }
    project
        .alokai("store build --store us --filter storefront-middleware-*")
        .succeeds();
    let folder = format!("shop-us/{MIDDLEWARE}");
    let built = std::process::Command::new("node")
        .arg("build.js")
        .current_dir(project.path(&folder))
        .status();
    assert!(built.unwrap().success());
    assert_eq!(
        project.tree(&format!("{folder}/lib")),
        project.tree(&format!(".out/us/{MIDDLEWARE}/lib"))
    );
    // The store stays until it is removed, and the project is as valid as before.
    project.alokai("store remove us --yes").succeeds();
    project.alokai("store compose --all").succeeds();
    assert!(project.exists(&folder));
}

#[test]
fn a_folder_with_another_meaning_is_refused() {
    let project = shop();
    for (to, reason) in [
        ("a/b", "directly in the project"),
        ("../x", "directly in the project"),
        (".", "directly in the project"),
        ("apps", "another meaning"),
        ("EU", "the id of a store"),
        ("tsconfig.base.json", "already exists"),
    ] {
        let words = ["store", "flatten", "us", "--to", to, "--yes"];
        project.alokai(&words).fails_with(2).stderr_contains(reason);
    }
    let template = project
        .alokai("store flatten fashion --to x --yes")
        .fails_with(2);
    template.stderr_contains("is a template");
    let unknown = project
        .alokai("store flatten usa --to x --yes")
        .fails_with(2);
    unknown.stderr_contains("did you mean `us`?");
}
