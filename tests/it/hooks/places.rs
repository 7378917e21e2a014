//! Hooks run in order at their places, and not where their stage is skipped.

use serde_json::{Value, json};

use super::{hook_records, noted, noting, shop};
use crate::support::{MIDDLEWARE, Project, base_layout, events};

const STAGES: [&str; 5] = ["compose", "build", "prune", "image", "push"];

fn everywhere() -> Value {
    let line = "$ALOKAI_STORE $ALOKAI_WHEN $ALOKAI_STAGE";
    let hooks = STAGES.iter().flat_map(|stage| {
        // In the file, the hook after a stage is the first one.
        ["after", "before"].map(|when| noting(when, stage, line))
    });
    hooks.collect()
}

fn expected(store: &str) -> Vec<String> {
    let places = STAGES.iter();
    let places = places.flat_map(|stage| ["before", "after"].map(|when| format!("{when} {stage}")));
    places.map(|place| format!("{store} {place}")).collect()
}

#[test]
fn hooks_run_around_each_stage_of_their_store() {
    let Some(base) = base_layout() else { return };
    let mut hooks = everywhere();
    hooks[0]["stores"] = json!(["eu"]);
    let project = shop(&hooks, &base);
    project
        .alokai("store deploy --all --until push --docker-registry-url oci:.alokai/images")
        .succeeds();
    let noted = noted(&project);
    for store in ["us", "eu"] {
        let mut expected = expected(store);
        expected.retain(|line| line != "us after compose");
        let own = noted.iter().filter(|line| line.starts_with(store));
        assert_eq!(own.cloned().collect::<Vec<_>>(), expected);
    }
    // Stage by stage over all stores.
    let first_build = noted.iter().position(|line| line.contains("before build"));
    let last_compose = noted.iter().rposition(|line| line.contains("compose"));
    assert!(last_compose < first_build, "{noted:?}");
    assert_eq!(hook_records(&project).len(), noted.len());
}

#[test]
fn a_skipped_stage_has_no_hooks() {
    let Some(base) = base_layout() else { return };
    let project = shop(&everywhere(), &base);
    let deploy = "store deploy --store us --docker-registry-url oci:.alokai/images --until";
    project.alokai(&format!("{deploy} prune")).succeeds();
    assert_eq!(noted(&project), expected("us")[..6]);
    project.alokai(&format!("{deploy} push")).succeeds();
    let before = noted(&project).len();
    // All images are present, so no stage has anything to do.
    project.alokai(&format!("{deploy} push")).succeeds();
    assert_eq!(noted(&project).len(), before);
    // Neither a dry run nor other commands run hooks.
    project
        .alokai(&format!("{deploy} push --dry-run --force"))
        .succeeds();
    project
        .alokai("store compose --store us --check")
        .succeeds();
    assert_eq!(noted(&project).len(), before);
    project.alokai("store compose --store us").succeeds();
    assert_eq!(noted(&project)[before..], expected("us")[..2]);
}

#[test]
fn hooks_get_ids_and_references_and_only_declared_variables() {
    let Some(base) = base_layout() else { return };
    let show = |place: &str| {
        json!({ "when": "after", "stage": place, "command": ["sh", "-c", "env | sort > ../env.txt"],
                "env": { "TOKEN": "${SECRET_TOKEN}", "URL": "https://u:${SECRET_TOKEN}@host/$x", "PLAIN": "a" } })
    };
    let project = shop(&json!([show("push")]), &base)
        .env("SECRET_TOKEN", "s3cr3t-value")
        .env("OTHER_TOKEN", "unseen-value")
        .env("CLI_CLOUD_PASSWORD", "hunter2-hunter2")
        .env("CLI_CLOUD_USERNAME", "user");
    project
        .alokai("store deploy --store us --until push --docker-registry-url oci:.alokai/images")
        .succeeds();
    let seen = std::fs::read_to_string(project.root().with_file_name("env.txt")).unwrap();
    let sha = project.sha();
    for line in [
        "ALOKAI_STAGE=push".to_owned(),
        "ALOKAI_STORE=us".to_owned(),
        "ALOKAI_WHEN=after".to_owned(),
        format!(
            "ALOKAI_IMAGE_STOREFRONT_MIDDLEWARE=oci:.alokai/images:acme-us-storefrontcloud-io/vue-storefront-middleware:{sha}"
        ),
        "PLAIN=a".to_owned(),
        "TOKEN=s3cr3t-value".to_owned(),
        "URL=https://u:s3cr3t-value@host/$x".to_owned(),
    ] {
        assert!(seen.lines().any(|it| it == line), "{line}:\n{seen}");
    }
    let build = seen
        .lines()
        .find_map(|line| line.strip_prefix("ALOKAI_BUILD="));
    let listed = project.alokai("store builds --json").succeeds().json();
    assert_eq!(listed["builds"][0]["id"].as_str(), build, "{listed}");
    for hidden in ["unseen-value", "hunter2", "SECRET_TOKEN", "ALOKAI_RELEASE"] {
        assert!(!seen.contains(hidden), "{hidden}:\n{seen}");
    }
}

#[test]
fn secrets_of_a_hook_are_replaced_wherever_its_output_goes() {
    let Some(base) = base_layout() else { return };
    let hooks = json!([{ "when": "before", "stage": "build", "command": ["sh", "-c", "echo the token is $TOKEN; exit 3"],
                         "env": { "TOKEN": "${SECRET_TOKEN}" } }]);
    let project = shop(&hooks, &base).env("SECRET_TOKEN", "s3cr3t-value");
    let deploy = "store deploy --store us --until push --docker-registry-url oci:.alokai/images";
    let run = project.alokai(deploy).fails_with(1);
    run.stderr_contains("us:hook before build: the token is ***")
        .stderr_lacks("s3cr3t");
    let json = project.alokai(&format!("{deploy} --json"));
    assert!(!json.stdout.contains("s3cr3t") && !json.stderr.contains("s3cr3t"));
    let plan = project.alokai(&format!("{deploy} --dry-run")).succeeds();
    assert!(!plan.stdout.contains("s3cr3t"));
    for (path, text) in project.tree(".alokai") {
        assert!(!text.contains("s3cr3t"), "{path}");
    }
    let records = hook_records(&project);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["code"], 3);
    assert_eq!(records[0]["store"], "us");
    assert_eq!(records[0]["detail"], "before build: exited with code 3");
    assert!(records[0]["log"]["digest"].is_string(), "{}", records[0]);
}

#[test]
fn a_secret_in_the_command_of_a_hook_is_replaced_in_messages_and_records() {
    let Some(base) = base_layout() else { return };
    let hooks = json!([{ "when": "before", "stage": "build", "command": ["sh", "-c", "exit 3 # s3cr3t-value"],
                         "env": { "TOKEN": "${SECRET_TOKEN}" } }]);
    let project = shop(&hooks, &base).env("SECRET_TOKEN", "s3cr3t-value");
    let deploy = "store deploy --store us --until push --docker-registry-url oci:.alokai/images";
    let run = project.alokai(deploy).fails_with(1);
    run.stderr_contains("exit 3 # ***").stderr_lacks("s3cr3t");
    for (path, text) in project.tree(".alokai/ledger") {
        assert!(!text.contains("s3cr3t"), "{path}");
    }
}

#[test]
fn the_plan_lists_hooks_in_place_and_runs_none() {
    let line = "ran";
    let mut hooks: Vec<Value> = everywhere().as_array().unwrap().clone();
    for (when, stage) in [
        ("after", "release"),
        ("before", "stage"),
        ("before", "rollback"),
    ] {
        hooks.push(noting(when, stage, line));
    }
    hooks.push(json!({ "when": "before", "stage": "release", "command": ["node", "migrate.js"], "in": "image",
                       "onFailure": "continue", "timeout": 7, "env": { "DATABASE": "${DATABASE_URL}" } }));
    let project = Project::shop().setting("hooks", &json!(hooks));
    project.commit();
    let plan = project
        .alokai("store deploy --store us --dry-run")
        .succeeds();
    let places: Vec<&str> = plan
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("hook us  ")?.split(':').next())
        .collect();
    let mut wanted: Vec<String> = expected("us");
    // The target `console` has no staging.
    wanted.extend(["us before release", "us after release"].map(str::to_owned));
    let wanted: Vec<_> = wanted
        .iter()
        .map(|line| line.trim_start_matches("us "))
        .collect();
    assert_eq!(places, wanted);
    plan.stdout_contains(&format!(
        "hook us  before release: node migrate.js, in the image of {MIDDLEWARE}; a failure is only reported"
    ));
    let plan = project
        .alokai("store deploy --store us --dry-run --json")
        .succeeds()
        .json();
    let last = plan["hooks"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        last,
        json!({ "storeId": "us", "number": 14, "when": "before", "stage": "release", "command": ["node", "migrate.js"],
                "in": "image", "app": MIDDLEWARE, "onFailure": "continue", "timeout": 7,
                "env": { "DATABASE": "${DATABASE_URL}" } })
    );
    let until = project
        .alokai("store deploy --store us --until prune --dry-run --json")
        .succeeds();
    assert_eq!(until.json()["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(noted(&project), [""; 0]);
}

#[test]
fn a_hook_is_an_event_with_its_output() {
    let hooks = json!([{ "when": "before", "stage": "compose", "command": ["sh", "-c", "echo one; echo two >&2"] }]);
    let project = Project::shop().setting("hooks", &hooks);
    project.commit();
    let run = project.alokai("store compose --store us --json").succeeds();
    let all = events(&run);
    let own: Vec<_> = all
        .iter()
        .filter(|event| event["hook"] == "before compose")
        .collect();
    let kinds: Vec<_> = own
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["started", "output", "output", "finished"]);
    assert!(
        own.iter()
            .all(|event| event["store"] == "us" && event["stage"] == "compose")
    );
    assert_eq!(own[3]["outcome"], "done");
}
