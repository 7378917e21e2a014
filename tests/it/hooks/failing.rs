//! Hooks that fail, hang, or cannot be started.

use std::time::Duration;

use serde_json::{Value, json};

use super::{hook_records, noted, noting, shop};
use crate::support::{Project, base_layout};

fn hook(when: &str, stage: &str, script: &str) -> Value {
    json!({ "when": when, "stage": stage, "command": ["sh", "-c", script] })
}

const DEPLOY: &str = "store deploy --all --until push --docker-registry-url oci:.alokai/images";

/// Fails in `us` only.
const FAILS_IN_US: &str = "test $ALOKAI_STORE = eu || { echo no; exit 4; }";

#[test]
fn a_failing_hook_ends_the_run_before_the_next_stage() {
    let Some(base) = base_layout() else { return };
    for (when, stage, last) in [
        ("before", "compose", None),
        ("after", "compose", Some("compose")),
        ("before", "build", Some("compose")),
        ("after", "build", Some("build")),
        ("after", "prune", Some("prune")),
        ("before", "push", Some("image")),
        ("after", "push", Some("push")),
    ] {
        let project = shop(&json!([hook(when, stage, FAILS_IN_US)]), &base);
        let run = project.alokai(DEPLOY).fails_with(1);
        run.stderr_contains(&format!("us:hook {when} {stage}: no"))
            .stderr_contains("exited with code 4")
            .stderr_contains("alokai::hook::failed");
        let begun = run
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("== "));
        let begun = begun.filter_map(|line| line.split(' ').next()).next_back();
        assert_eq!(begun, last, "{when} {stage}:\n{}", run.stderr);
    }
}

#[test]
fn with_keep_going_only_the_store_of_the_failed_hook_drops_out() {
    let Some(base) = base_layout() else { return };
    for (when, stage) in [
        ("before", "compose"),
        ("after", "compose"),
        ("before", "build"),
        ("after", "build"),
        ("before", "prune"),
        ("after", "image"),
        ("before", "push"),
        ("after", "push"),
    ] {
        let hooks = json!([
            hook(when, stage, FAILS_IN_US),
            noting("after", "push", "$ALOKAI_STORE pushed"),
        ]);
        let project = shop(&hooks, &base);
        let run = project
            .alokai(&format!("{DEPLOY} --keep-going"))
            .fails_with(1);
        assert_eq!(
            noted(&project),
            ["eu pushed"],
            "{when} {stage}:\n{}",
            run.stderr
        );
        let builds = project.alokai("store builds --json").succeeds().json();
        let builds = builds["builds"].as_array().unwrap();
        for (store, status) in [("us", "failed"), ("eu", "complete")] {
            let build = builds.iter().find(|it| it["storeId"] == store).unwrap();
            assert_eq!(build["status"], status, "{when} {stage}: {build}");
        }
    }
}

#[test]
fn a_hook_that_may_fail_is_only_reported() {
    let Some(base) = base_layout() else { return };
    let mut failing = hook("before", "build", FAILS_IN_US);
    failing["onFailure"] = json!("continue");
    let mut missing = failing.clone();
    missing["command"] = json!(["no-such-program"]);
    let hooks = json!([failing, missing, noting("before", "build", "next")]);
    let project = shop(&hooks, &base);
    let run = project.alokai(DEPLOY).succeeds();
    run.stderr_contains("failed, and the store continues");
    assert_eq!(noted(&project), ["next", "next"]);
    let records = hook_records(&project);
    let codes: Vec<_> = records.iter().filter(|it| it["store"] == "us").collect();
    let codes: Vec<_> = codes.iter().map(|it| it["code"].clone()).collect();
    assert_eq!(codes, [json!(4), Value::Null, json!(0)]);
}

#[test]
fn a_hanging_hook_ends_with_its_children_at_its_time_limit() {
    let project = Project::shop().setting(
        "hooks",
        &json!([{ "when": "before", "stage": "compose", "timeout": 1,
                  "command": ["sh", "-c", "echo waiting; sleep 300 & echo $! > ../child; sleep 300"] }]),
    );
    project.commit();
    let run = project.alokai("store compose --store us").fails_with(1);
    run.stderr_contains("did not end within 1 s")
        .stderr_contains("│ waiting");
    let child = std::fs::read_to_string(project.root().with_file_name("child")).unwrap();
    assert!(!is_alive(child.trim()), "the child {child} still runs");
    assert!(!project.exists(".out/us"));
}

#[test]
fn a_hook_that_ignores_the_signal_is_killed_at_its_time_limit() {
    let project = Project::shop().setting(
        "hooks",
        &json!([{ "when": "before", "stage": "compose", "timeout": 1,
                  "command": ["sh", "-c", "trap '' TERM; echo $$ > ../pid; while :; do sleep 1; done"] }]),
    );
    project.commit();
    project
        .alokai("store compose --store us")
        .fails_with(1)
        .stderr_contains("did not end within 1 s");
    let pid = std::fs::read_to_string(project.root().with_file_name("pid")).unwrap();
    assert!(!is_alive(pid.trim()));
}

#[test]
fn an_interruption_ends_the_hook_and_the_run() {
    let project = Project::shop().setting(
        "hooks",
        &json!([
            { "when": "before", "stage": "compose", "onFailure": "continue",
              "command": ["sh", "-c", "echo $$ > ../pid; sleep 300"] },
            noting("before", "compose", "second"),
        ]),
    );
    project.commit();
    let child = project.start("store compose --store us");
    let file = project.root().with_file_name("pid");
    let pid = loop {
        match std::fs::read_to_string(&file) {
            Ok(pid) if pid.ends_with('\n') => break pid,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let own = i32::try_from(child.id()).unwrap();
    let own = rustix::process::Pid::from_raw(own).unwrap();
    rustix::process::kill_process(own, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(!is_alive(pid.trim()));
    assert_eq!(noted(&project), [""; 0]);
    assert!(!project.exists(".out/us"));
}

#[test]
fn what_a_hook_lacks_is_reported_before_the_first_one_runs() {
    let mut lacking = noting("after", "build", "second");
    lacking["env"] = json!({ "URL": "${DATABASE_URL}", "PASSWORD": "${CLI_CLOUD_PASSWORD}" });
    let project = Project::shop()
        .setting(
            "hooks",
            &json!([noting("before", "compose", "first"), lacking]),
        )
        .env("CLI_CLOUD_PASSWORD", "hunter2");
    project.commit();
    let run = project.alokai("store build --all").fails_with(3);
    run.stderr_contains("variables that are not set: `CLI_CLOUD_PASSWORD`, `DATABASE_URL`")
        .stderr_contains("alokai::hook::variable");
    assert_eq!(run.stderr.matches("alokai::hook::variable").count(), 1);
    assert_eq!(noted(&project), [""; 0]);
    // A run without the stage does not need the variables.
    project.alokai("store compose --all").succeeds();
}

#[test]
fn a_hook_in_an_image_needs_a_registry() {
    let Some(base) = base_layout() else { return };
    let hooks = json!([{ "when": "after", "stage": "push", "command": ["true"], "in": "image" }]);
    let project = shop(&hooks, &base);
    let run = project.alokai(DEPLOY).fails_with(2);
    run.stderr_contains("the images of this run are in the folder `oci:.alokai/images`")
        .stderr_contains("alokai::hook::folder");
    assert!(!project.exists(".out/us"));
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
