//! What was and what is: releases, what was done, and what is live, from records that the tests write.

use alokai::ledger::{ReleaseReason, StoreEvent};
use serde_json::Value;

use super::memory::{Memory, started};
use crate::support::{FRONTEND, Project};

const RELEASED: StoreEvent = StoreEvent::Released { observed: false };
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A project with two commits, and stores with releases of every status.
fn shop() -> (Project, Memory) {
    let project = Project::shop();
    let first = project.sha();
    project.write(
        &format!("apps/{FRONTEND}/public/logo.svg"),
        "<svg version='2'/>\n",
    );
    project.write(
        "apps/stores/fashion/stores/us/storefront-unified-nextjs/new.txt",
        "new\n",
    );
    project.commit_as("Draw another logo");
    let second = project.sha();
    let mut memory = Memory::of(&project);
    let deploy = (ReleaseReason::Deploy, &["API_KEY"][..]);
    let us = |seconds| ("us", seconds);

    let start = memory.event("E-first", us(4 * HOUR + 90), started("deploy", None), None);
    let old = memory.build("B-old", us(4 * HOUR + 80), &first, '1');
    let one = memory.release("R-one", us(4 * HOUR + 70), &old, deploy);
    memory.event(
        "E-staged",
        us(4 * HOUR + 60),
        StoreEvent::Staged,
        Some(&one),
    );
    let hook = StoreEvent::Hook {
        command: "node migrate.js".into(),
        code: Some(0),
    };
    memory.event("E-hook", us(4 * HOUR + 50), hook, Some(&one));
    memory.event("E-one", us(4 * HOUR + 40), RELEASED, Some(&one));
    let succeeded = true;
    let ended = StoreEvent::Ended {
        start,
        succeeded,
        interrupted: false,
    };
    memory.event("E-first-end", us(4 * HOUR + 30), ended, Some(&one));

    let new = memory.build("B-new", us(3 * HOUR + 80), &second, '2');
    let two = memory.release("R-two", us(3 * HOUR + 70), &new, deploy);
    memory.event("E-two", us(3 * HOUR + 60), RELEASED, Some(&two));
    memory.event(
        "E-retired",
        us(3 * HOUR + 50),
        StoreEvent::Retired,
        Some(&one),
    );
    let bad = memory.release("R-bad", us(2 * HOUR + 70), &new, deploy);
    memory.event("E-bad", us(2 * HOUR + 60), StoreEvent::Failed, Some(&bad));
    memory.event(
        "E-bad-2",
        us(2 * HOUR + 50),
        StoreEvent::Retired,
        Some(&bad),
    );
    let back = memory.release(
        "R-back",
        us(HOUR + 70),
        &old,
        (ReleaseReason::Rollback, &["API_KEY", "MODE"]),
    );
    memory.event("E-back", us(HOUR + 60), RELEASED, Some(&back));
    memory.event_by(
        "eva",
        "E-pin",
        us(HOUR + 50),
        StoreEvent::Pinned,
        Some(&back),
    );
    let staged = memory.release("R-staged", us(3 * MINUTE + 9), &new, deploy);
    memory.event(
        "E-stage",
        us(3 * MINUTE + 8),
        StoreEvent::Staged,
        Some(&staged),
    );
    memory.release(
        "R-settings",
        us(2 * MINUTE + 9),
        &old,
        (ReleaseReason::Settings, &["API_KEY", "MODE"]),
    );
    memory.run(
        "E-failed",
        ("eu", 2 * HOUR + 9, 75),
        "deploy",
        (false, None),
    );
    let eu = ("eu", HOUR + 9);
    let start = started("deploy", None);
    memory.event("E-killed", eu, start, None);
    (project, memory)
}

fn shown((project, memory): &(Project, Memory), arguments: &str) -> String {
    let run = project.alokai(arguments).succeeds();
    // Only the last column, which is cut on a terminal, may be longer.
    let titles = run.stdout.lines().next().unwrap_or_default();
    assert!(titles.len() <= 80, "{titles}");
    let stderr = if run.stderr.is_empty() {
        String::new()
    } else {
        format!("--- stderr\n{}", run.stderr)
    };
    memory.shown(&format!("{}{stderr}", run.stdout), project)
}

#[test]
fn releases_have_the_status_that_follows_from_events() {
    let shop = shop();
    insta::assert_snapshot!(shown(&shop, "store releases"));
    insta::assert_snapshot!(shown(&shop, "store releases --store us --status failed"));
    insta::assert_snapshot!(shown(&shop, "store releases --limit 2"));
    let (project, memory) = &shop;
    let list = project.alokai("store releases --json --limit 3").succeeds();
    let list = list.json();
    let releases = list["releases"].as_array().unwrap();
    let statuses: Vec<_> = releases.iter().map(|it| &it["status"]).collect();
    assert_eq!(statuses, ["created", "staged", "active"]);
    assert_eq!(releases[2]["reason"], "rollback");
    let none = project.alokai("store releases --store eu").succeeds();
    none.stderr_contains("no recorded release matches");
    let unknown = project.alokai("store releases --store eus");
    unknown.fails_with(2).stderr_contains("did you mean `eu`?");

    let id = releases[2]["id"].as_str().unwrap();
    let info = project.alokai(&["store", "releases", "info", &id[..12]]);
    insta::assert_snapshot!(memory.shown(&info.succeeds().stdout, project));
    let build = releases[2]["build"].as_str().unwrap();
    project
        .alokai(&["store", "releases", "info", build])
        .fails_with(2)
        .stderr_contains(&format!("{build} is not a release"));
}

#[test]
fn a_difference_has_commits_composed_files_images_and_names_of_settings() {
    let (project, memory) = shop();
    let list = project.alokai("store releases --json").succeeds().json();
    let named = |reason: &str, status: &str| -> String {
        let releases = list["releases"].as_array().unwrap();
        let found = releases
            .iter()
            .find(|it| it["reason"] == reason && it["status"] == status);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (two, back) = (named("deploy", "replaced"), named("rollback", "active"));
    let diff = |a: &str, b: &str| {
        project
            .alokai(&["store", "releases", "diff", a, b])
            .succeeds()
    };
    insta::assert_snapshot!(memory.shown(&diff(&back, &two).stdout, &project));
    insta::assert_snapshot!(memory.shown(&diff(&two, &back).stdout, &project));
    let json = project.alokai(&["store", "releases", "diff", &back, &two, "--json"]);
    let json: Value = json.succeeds().json();
    assert_eq!(json["commits"]["addedCount"], 1);
    assert_eq!(json["files"].as_array().unwrap().len(), 2);
    assert_eq!(json["settings"]["removed"], serde_json::json!(["MODE"]));

    // A clone without the older commit says so, and compares the rest.
    let clone = project.shallow_clone("1");
    for (path, content) in project.tree(".alokai/ledger") {
        clone.write(&format!(".alokai/ledger/{path}"), content);
    }
    let run = clone.alokai(&["store", "releases", "diff", &back, &two]);
    let run = run.succeeds();
    run.stdout_contains("the commits cannot be compared");
    run.stdout_contains(" in both").stdout_contains("- MODE");
}

#[test]
fn every_operation_is_listed_with_its_end() {
    let shop = shop();
    insta::assert_snapshot!(shown(&shop, "store history"));
    insta::assert_snapshot!(shown(
        &shop,
        "store history --store eu --status interrupted"
    ));
    let (project, memory) = &shop;
    let list = project.alokai("store history --json").succeeds().json();
    let operations = list["operations"].as_array().unwrap();
    let first = operations.last().unwrap();
    assert_eq!(first["operation"], "deploy");
    assert_eq!(first["seconds"], 60.0);
    let id = first["id"].as_str().unwrap();
    let info = project.alokai(&["store", "history", "info", id]).succeeds();
    insta::assert_snapshot!(memory.shown(&info.stdout, project));
    // A step leads to its run.
    let json = project.alokai(&["store", "history", "info", id, "--json"]);
    let json = json.succeeds().json();
    let step = json["steps"][0]["id"].as_str().unwrap();
    let of_step = project.alokai(&["store", "history", "info", step]);
    assert_eq!(of_step.succeeds().stdout, info.stdout);
    let output = project.alokai(&["store", "history", "info", id, "--output"]);
    output.succeeds().stderr_contains("has no output");
}

#[test]
fn the_status_of_a_target_that_cannot_tell_comes_from_the_records() {
    let shop = shop();
    insta::assert_snapshot!(shown(&shop, "store status"));
    let (project, _) = &shop;
    let status = project.alokai("store status --json --store us").succeeds();
    let status = status.json();
    let us = &status["stores"][0];
    assert_eq!(us["source"], "records");
    assert_eq!(us["pin"]["actor"]["user"], "eva");
    assert_eq!(us["active"]["commit"]["subject"], "Build B-old");
    assert_eq!(us["staged"].as_array().unwrap().len(), 1);
    let template = project.alokai("store status --store fashion");
    template.fails_with(2).stderr_contains("is a template");
    let locks = project.alokai("store lock status").succeeds();
    locks.stdout_contains("the target has no locks");
    let release = project.alokai("store lock release --store us");
    release.fails_with(2).stderr_contains("has no locks");
    let set = project.alokai("store settings set --store us A=very-secret");
    let set = set.fails_with(2);
    set.stderr_contains("the target `console` of `us` does not store settings");
    set.stderr_lacks("very-secret");
}

#[test]
fn a_long_list_is_cut_and_one_release_is_active() {
    let project = Project::shop();
    let mut memory = Memory::of(&project);
    let build = memory.build("B", ("us", 20_000), &project.sha(), '1');
    for number in 0..300_u64 {
        let at = ("us", 19_000 - number);
        let deploy = (ReleaseReason::Deploy, &[][..]);
        let release = memory.release("R", at, &build, deploy);
        memory.event("E", at, RELEASED, Some(&release));
        memory.event("F", at, StoreEvent::Drained, Some(&release));
    }
    let list = project
        .alokai("store releases --json --status active")
        .succeeds();
    assert_eq!(list.json()["releases"].as_array().unwrap().len(), 1);
    let list = project.alokai("store releases --limit 2").succeeds();
    list.stderr_contains("298 more");
}
