//! Dry runs: selection, tags, and the plan as text and as JSON.

use serde_json::Value;

use crate::support::{Project, Run, filtered};

/// One field of every object in a list of the plan.
fn column(plan: &Value, list: &str, field: &str) -> Vec<String> {
    let objects = plan[list].as_array().unwrap().iter();
    objects
        .map(|object| object[field].as_str().unwrap().to_owned())
        .collect()
}

/// The diagnostics of two runs, one below the other.
fn diagnostics(project: &Project, runs: [&Run; 2]) -> String {
    runs.map(|run| run.diagnostic(project)).join("\n")
}

#[test]
fn a_dry_run_prints_everything_and_changes_nothing() {
    let project = Project::shop();
    let run = project
        .alokai("store deploy --store us,eu --dry-run")
        .succeeds();
    insta::assert_snapshot!(filtered(&run.stdout, &project));
    assert!(!project.exists(".out") && !project.exists(".alokai"));
}

#[test]
fn a_dry_run_as_json_is_one_document() {
    let project = Project::shop();
    let run = project
        .alokai("store deploy --store us --dry-run --json")
        .succeeds();
    insta::assert_snapshot!(filtered(&run.stdout, &project));
}

#[test]
fn stores_are_chosen_in_every_way_that_the_spec_names() {
    let project = Project::shop();
    let chosen = |arguments: &str| {
        let plan = format!("store deploy --dry-run --json {arguments}");
        column(
            &project.alokai(&plan).succeeds().json(),
            "stores",
            "storeId",
        )
    };
    for arguments in ["--store us,eu", "-s us -s eu", "--store-id us eu"] {
        assert_eq!(chosen(arguments), ["us", "eu"], "{arguments}");
    }
    let spaced = [
        "store",
        "deploy",
        "--dry-run",
        "--json",
        "--store",
        "us, eu",
    ];
    let plan = project.alokai(&spaced).succeeds().json();
    assert_eq!(column(&plan, "stores", "storeId"), ["us", "eu"]);
    assert_eq!(chosen("--all"), ["eu", "us"]);
    assert_eq!(chosen("-a"), ["eu", "us"]);
}

#[test]
fn a_choice_that_is_not_possible_says_what_is() {
    let project = Project::shop();
    let none = project.alokai("store build").fails_with(2);
    let wrong = project
        .alokai("store build --store uss,fashion")
        .fails_with(2);
    insta::assert_snapshot!(diagnostics(&project, [&none, &wrong]));
}

#[test]
fn a_filter_leaves_units_and_what_they_read() {
    let project = Project::shop();
    let tasks = |filter: &str| {
        let plan = format!("store build --all --dry-run --json {filter}");
        column(&project.alokai(&plan).succeeds().json(), "tasks", "id")
    };
    assert_eq!(
        tasks("--filter storefront-middleware-*"),
        ["eu/storefront-middleware", "us/storefront-middleware"]
    );
    assert_eq!(
        tasks("--filter *-us --filter !playwright-*"),
        ["us/storefront-middleware", "us/storefront-unified-nextjs"]
    );
    assert_eq!(
        tasks("--filter *nextjs-us"),
        ["us/storefront-middleware", "us/storefront-unified-nextjs"],
        "a frontend needs its middleware's types"
    );
    let deploy = "store deploy --all --dry-run --filter storefront-middleware-*";
    let partial = project.alokai(deploy).fails_with(2);
    let nothing = project
        .alokai("store build --all --filter nothing-*")
        .fails_with(2);
    insta::assert_snapshot!(diagnostics(&project, [&partial, &nothing]));
}

#[test]
fn a_dirty_tree_is_refused_unless_the_tag_may_say_so() {
    let project = Project::shop();
    for name in ["a", "b", "c", "d", "e", "f"] {
        project.write(&format!("apps/playwright/{name}.ts"), b"new\n");
    }
    project.remove("apps/storefront-unified-nextjs/texts.txt");
    let refused = project.alokai("store deploy --all --dry-run").fails_with(2);
    insta::assert_snapshot!(refused.diagnostic(&project));

    let arguments = "store deploy --all --allow-dirty --dry-run --json";
    let tag = || {
        project.alokai(arguments).succeeds().json()["tag"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = tag();
    let (sha, content) = first.split_once("-dirty-").unwrap();
    assert_eq!((sha, content.len()), (project.sha().as_str(), 8));
    assert_eq!(first, tag(), "the same content has the same tag");
    project.write("apps/playwright/a.ts", b"other\n");
    assert_ne!(first, tag());
}

#[test]
fn files_that_this_program_writes_do_not_make_the_tree_dirty() {
    let project = Project::shop().file(".gitignore", "node_modules\nlib\n.next\n");
    project.commit();
    project.alokai("store compose --all").succeeds();
    project.alokai("store deploy --all --dry-run").succeeds();
    assert!(
        project.git("status --porcelain").contains(".out"),
        "`.out` must not be ignored in this test"
    );
}

#[test]
fn a_missing_or_empty_repository_says_what_mends_it() {
    let empty = Project::shop();
    std::fs::remove_dir_all(empty.path(".git")).unwrap();
    let missing = empty.alokai("store deploy --all --dry-run").fails_with(3);
    empty.git("init --quiet");
    let none = empty.alokai("store deploy --all --dry-run").fails_with(3);
    insta::assert_snapshot!(diagnostics(&empty, [&missing, &none]));
}

#[test]
fn frontends_and_middleware_must_have_a_build_script() {
    let project = Project::shop()
        .app("storefront-middleware", "")
        .app("storefront-unified-nextjs", r#""dev": "next dev""#);
    let run = project.alokai("store build --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
    assert!(!project.exists(".out"));
}

#[test]
fn dependencies_that_are_not_installed_are_named_with_their_command() {
    let package =
        r#"{ "name": "m", "scripts": { "build": "tsc" }, "dependencies": { "left-pad": "1" } }"#;
    let project = Project::shop().file("apps/storefront-middleware/package.json", package);
    let run = project.alokai("store build --all").fails_with(3);
    insta::assert_snapshot!(run.diagnostic(&project));
    let project = project.file("package.json", r#"{ "packageManager": "pnpm@9.0.0" }"#);
    let run = project.alokai("store build --all").fails_with(3);
    run.stderr_contains("pnpm install --frozen-lockfile");
}

#[test]
fn packages_that_apps_depend_on_come_first_once_and_without_circles() {
    let with = |dependency: &str| {
        format!(
            r#"{{ "name": "app", "scripts": {{ "build": "true" }}, "dependencies": {{ "{dependency}": "*" }} }}"#
        )
    };
    let project = Project::shop()
        .file("node_modules/.package-lock.json", "{}")
        .file("apps/storefront-unified-nextjs/package.json", &with("@acme/theme"))
        .file("packages/theme/package.json", r#"{ "name": "@acme/theme", "scripts": { "build": "true" }, "dependencies": { "@acme/tokens": "*" } }"#)
        .file("packages/tokens/package.json", r#"{ "name": "@acme/tokens", "scripts": { "build": "true" } }"#)
        .file("packages/unused/package.json", r#"{ "name": "@acme/unused", "scripts": { "build": "true" } }"#);
    let plan = project
        .alokai("store build --all --dry-run --json")
        .succeeds()
        .json();
    let tasks = column(&plan, "tasks", "id");
    assert_eq!(
        tasks,
        [
            "@acme/tokens",
            "@acme/theme",
            "eu/storefront-middleware",
            "us/storefront-middleware",
            "eu/storefront-unified-nextjs",
            "us/storefront-unified-nextjs"
        ]
    );
    let frontend = &plan["tasks"][4]["needs"];
    assert_eq!(
        *frontend,
        serde_json::json!(["@acme/theme", "eu/storefront-middleware"])
    );

    let circle = project.file("packages/tokens/package.json", r#"{ "name": "@acme/tokens", "scripts": { "build": "true" }, "dependencies": { "@acme/theme": "*" } }"#);
    let run = circle.alokai("store build --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&circle));
}

#[test]
fn other_apps_are_imaged_and_announced_when_they_have_a_build_script() {
    let project = Project::shop()
        .file(
            "apps/search/package.json",
            r#"{ "name": "search", "main": "dist/main.js", "scripts": { "build": "true" } }"#,
        )
        .app("docs", r#""lint": "true""#);
    project.commit();
    let plan = project
        .alokai("store deploy --store us --dry-run --json")
        .succeeds()
        .json();
    let images = column(&plan, "images", "reference");
    assert_eq!(images.len(), 3, "{images:?}");
    let additional = &plan["releases"][0]["body"]["additionalApps"]["apps"]["search"];
    insta::assert_snapshot!(filtered(&format!("{additional:#}"), &project));
}

#[test]
fn the_entry_of_a_server_is_what_its_start_script_starts() {
    for (package, entry) in [
        (
            r#""scripts": { "build": "true", "start": "node -r dotenv/config --env-file .env ./dist/main.js --port 1" }"#,
            Some("dist/main.js"),
        ),
        (
            r#""main": "./dist/main.js", "scripts": { "build": "true", "start": "node ." }"#,
            Some("dist/main.js"),
        ),
        (
            r#""main": "dist/main", "scripts": { "build": "true", "start": "nodemon x" }"#,
            Some("dist/main"),
        ),
        (
            r#""main": "/etc/passwd", "scripts": { "build": "true" }"#,
            None,
        ),
        (
            r#""main": "../other/x.js", "scripts": { "build": "true" }"#,
            None,
        ),
        (r#""scripts": { "build": "true" }"#, None),
    ] {
        let project = Project::shop().file("apps/search/package.json", &format!("{{ {package} }}"));
        project.commit();
        let run = project.alokai("store deploy --store us --dry-run --json");
        match entry {
            Some(entry) => assert_eq!(
                run.succeeds().json()["images"][0]["entry"],
                entry,
                "{package}"
            ),
            None => assert!(
                run.fails_with(2)
                    .stderr
                    .contains("cannot find the entry file of `search`"),
                "{package}"
            ),
        }
    }
}

#[test]
fn a_project_without_base_apps_is_an_error() {
    let config =
        r#"{ "stores": { "us": { "deployment": { "projectName": "a", "cloudRegion": "r" } } } }"#;
    let project = Project::new().config(config);
    let run = project.alokai("store build --all").fails_with(2);
    run.stderr_contains("no base app");
}

#[test]
fn probable_mistakes_are_notes() {
    let config = r#"{ "stores": {
        "fashion": { "ignorePaths": ["*.txt"] },
        "su": { "deployment": { "projectName": "a", "cloudRegion": "r" } },
        "eu": { "deployment": { "projectName": "b", "cloudRegion": "r" } }
    } }"#;
    let project = Project::shop()
        .config(config)
        .file("apps/leftover/README.md", "");
    let run = project.alokai("store compose --all").succeeds();
    let notes: Vec<_> = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("note: "))
        .collect();
    insta::assert_snapshot!(notes.join("\n"));
}

#[test]
fn a_dirty_env_file_is_better_ignored_than_committed() {
    let project = Project::shop().file(".gitignore", "node_modules\n.out\n");
    project.commit();
    project.write(".env", b"CLI_CLOUD_PASSWORD=x\n");
    let run = project.alokai("store deploy --all --dry-run").fails_with(2);
    run.stderr_contains("add `.env` to `.gitignore`");
}

#[test]
fn a_project_without_deployable_stores_is_an_error() {
    let project = Project::shop().config(r#"{ "stores": {} }"#);
    let run = project.alokai("store deploy --all").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}
