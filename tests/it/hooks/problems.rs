//! Hooks of the config that cannot be used. All problems are reported at once, each with its place.

use serde_json::json;

use crate::support::{FRONTEND, Project};

#[test]
fn every_problem_of_a_hook_has_its_place() {
    let project = Project::shop().setting(
        "hooks",
        &json!([
            { "when": "before", "stage": "compose", "command": [] },
            { "when": "after", "stage": "build", "command": ["true"], "stores": ["us", "su", "fashion"] },
            { "when": "after", "stage": "image", "command": ["true"], "in": "image" },
            { "when": "after", "stage": "push", "command": ["true"], "in": "image", "app": "playwright" },
            { "when": "before", "stage": "release", "command": ["true"], "app": FRONTEND },
            { "when": "before", "stage": "release", "command": ["true"], "timeout": 0,
              "env": { "A-B": "", "ALOKAI_STORE": "x", "C": "${D", "E": "${F G}" } },
        ]),
    );
    let run = project.alokai("store list").fails_with(2);
    for message in [
        "has 11 problems",
        "the hook has no program to run",
        "there is no store `su`",
        "did you mean `us`?",
        "`fashion` is a template, which is never deployed",
        "the image does not exist after the stage `image`",
        "`playwright` is not an app with an image",
        "`app` is not used by a hook on this machine",
        "`0` is not a valid time limit",
        "`A-B` is not a valid name of an environment variable",
        "`ALOKAI_STORE` cannot be set, because `ALOKAI_*` is reserved",
        "`${D` has a `${` without a `}`",
        "`F G` is not a valid name of an environment variable",
    ] {
        run.stderr_contains(message);
    }
    // Each problem shows its line.
    assert_eq!(run.stderr.matches("`-- here").count(), 11, "{}", run.stderr);
}

#[test]
fn unknown_words_are_reported_with_the_known_ones() {
    let project = Project::shop().setting(
        "hooks",
        &json!([
            { "when": "during", "stage": "compose", "command": ["true"] },
            { "when": "before", "stage": "deploy", "command": ["true"] },
            { "when": "before", "stage": "build", "command": "true" },
            { "when": "before", "stage": "build", "command": ["true"], "onfailure": "fail" },
            { "stage": "build", "command": ["true"], "in": "container" },
        ]),
    );
    let run = project.alokai("store list").fails_with(2);
    for message in [
        "`during`",
        "`deploy`",
        "push, stage, release, rollback",
        "`onfailure`",
        "`onFailure`",
        "`container`",
        "`when`",
    ] {
        run.stderr_contains(message);
    }
}

#[test]
fn the_image_of_a_hook_has_to_be_known() {
    // Two frontends of one framework and no middleware.
    let project = Project::new()
        .config(
            r#"{ "stores": { "us": { "deployment": { "projectName": "acme-us", "cloudRegion": "us-east1", "framework": "nextjs" } } } }"#,
        )
        .app("api", r#""build": "true", "start": "node index.js""#)
        .app(FRONTEND, r#""build": "true""#)
        .setting(
            "hooks",
            &json!([{ "when": "after", "stage": "push", "command": ["true"], "in": "image" }]),
        );
    let run = project.alokai("store list").fails_with(2);
    run.stderr_contains("`us` has several apps and no middleware");
    let named = project.setting(
        "hooks",
        &json!([{ "when": "after", "stage": "push", "command": ["true"], "in": "image", "app": "api" }]),
    );
    named.alokai("store list").succeeds();
}
