//! `release`, `rollback`, `unpin`, `unstage`, locks, and the order of commits.

use serde_json::{Value, json};

use super::Shop;
use crate::support::{Run, events};

/// The last event of a run with `--json`, whose other lines are events too.
#[track_caller]
fn summary(run: &Run) -> Value {
    let events = events(run);
    assert!(
        events.iter().all(|it| it["event"].is_string()),
        "{events:?}"
    );
    let summary = events.last().expect("an event").clone();
    assert_eq!(summary["event"], "summary", "{summary}");
    summary
}

#[test]
fn commands_with_json_print_events_that_end_with_the_summary_or_one_document() {
    let Some(shop) = Shop::new() else { return };
    let made = |id: &str| {
        let address = "http://us.example";
        json!([{ "storeId": "us", "release": id, "target": "command", "address": address, "isLocal": false }])
    };
    shop.set("preflight", "the cluster is closed".into());
    let failed = summary(&shop.run("store deploy --store us --json").fails_with(3));
    assert_eq!(failed["ok"], false);
    let error = &failed["errors"][0];
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("the cluster is closed"), "{failed}");
    assert!(error["code"].as_str().unwrap().starts_with("alokai::"));
    shop.set("preflight", Value::Null);

    let ended = summary(&shop.run("store deploy --store us --json").succeeds());
    let first = shop.active().unwrap();
    assert_eq!(
        (&ended["deployed"], &ended["ok"]),
        (&made(&first), &json!(true))
    );
    assert_eq!(
        (&ended["errors"], &ended["notLive"]),
        (&Value::Null, &Value::Null)
    );
    shop.commit("second");
    shop.deploy().succeeds();

    let ended = summary(&shop.run("store rollback --store us --json").succeeds());
    let copy = shop.active().unwrap();
    assert_eq!(
        (&ended["deployed"], &ended["ok"]),
        (&made(&copy), &json!(true))
    );
    assert!(ended["seconds"].as_f64().unwrap() >= ended["ownSeconds"].as_f64().unwrap());
    let failed = summary(&shop.run("store rollback --store us --json").fails_with(2));
    assert_eq!(failed["errors"][0]["code"], "alokai::release::no_earlier");
    let list = shop.run("store rollback --store us --dry-run --json");
    assert_eq!(list.succeeds().json()["storeId"], "us");

    // The store is pinned.
    shop.commit("third");
    let ended = summary(&shop.run("store deploy --store us --json").succeeds());
    let staged = ended["notLive"][0]["release"].as_str().unwrap();
    assert_eq!(ended["deployed"], json!([]));
    let head = json!({ "schemaVersion": 1, "storeId": "us", "target": "command" });
    let document = |line: &str, key: &str, value: Value| {
        let mut expected = head.clone();
        expected[key] = value;
        if line.contains("prune") {
            expected["dryRun"] = line.contains("--dry-run").into();
        }
        assert_eq!(shop.run(line).succeeds().json(), expected, "{line}");
    };
    document("store unpin --store us --json", "wasPinned", true.into());
    document("store unpin --store us --json", "wasPinned", false.into());
    document(
        "store unstage --store us --json",
        "stopped",
        json!([staged]),
    );
    document("store unstage --store us --json", "stopped", json!([]));
    let kept = shop.releases().1;
    for line in ["--dry-run", ""] {
        let line = format!("store releases prune --store us --keep 0 --json {line}");
        document(&line, "removed", json!(kept));
    }
    for _ in 0..2 {
        let ended = summary(
            &shop
                .run("store release latest --store us --json")
                .succeeds(),
        );
        assert_eq!(ended["deployed"], made(&shop.active().unwrap()));
    }
    shop.run("store settings set --store us A=1").succeeds();
    let ended = summary(
        &shop
            .run("store deploy --settings --store us --json")
            .succeeds(),
    );
    assert_eq!(ended["deployed"], made(&shop.active().unwrap()));
}

#[test]
fn a_target_that_does_not_answer_delays_questions_only_for_a_moment() {
    let Some(shop) = Shop::new() else { return };
    shop.run("store deploy --all").succeeds();
    for store in ["us", "eu"] {
        shop.mood(store, "deaf");
    }
    let run = shop.run("store builds prune --keep 1").succeeds();
    for store in ["us", "eu"] {
        let note = "its target does not say what is live: no answer within 10 s";
        run.stderr_contains(&format!("no image of `{store}` is removed: {note}"));
    }
}

#[test]
fn a_release_without_traffic_waits_until_it_is_released() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let first = shop.active().unwrap();
    shop.commit("second");
    let run = shop.run("store deploy --store us --no-release").succeeds();
    run.stderr_contains("gets no traffic, because `--no-release` was given");
    assert_eq!(shop.active().as_ref(), Some(&first));
    let staged = shop.records("releases").pop().unwrap();
    assert_eq!(staged["stagedOnly"], true);
    let staged = staged["id"].as_str().unwrap().to_owned();
    run.stderr_contains(&format!("at http://{staged}.example"));
    assert!(shop.releases().0.contains(&staged));

    // A later one that is only staged replaces it; one that waits is no leftover.
    shop.commit("third");
    shop.run("store deploy --store us --no-release").succeeds();
    let third = shop.records("releases").pop().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(shop.releases().0, [first.clone(), third.clone()]);
    shop.run(&format!("store release {} --store us", &third[..15]))
        .succeeds();
    assert_eq!(shop.active().as_ref(), Some(&third));
    assert_eq!(shop.releases(), (vec![third.clone()], vec![first]));

    // A release that is live already is not made live again, and that is not an operation.
    shop.verbs();
    let operations = shop.records("events").len();
    shop.run("store release latest --store us")
        .succeeds()
        .stdout_contains("gets the traffic already")
        .stderr_lacks("does not run");
    // An app that has ended meanwhile is named.
    let state = shop.state("us");
    let mut ended = state.clone();
    ended["releases"][&third]["mood"] = "ends".into();
    let file = ".alokai/target/us.json";
    shop.project.write(file, ended.to_string());
    shop.run("store release latest --store us")
        .succeeds()
        .stderr_contains("does not run: exited with code 3");
    shop.project.write(file, state.to_string());
    assert_eq!(shop.verbs(), [] as [&str; 0]);
    assert_eq!(shop.records("events").len(), operations);

    shop.commit("fourth");
    shop.run("store deploy --store us --no-release").succeeds();
    let run = shop.run("store unstage --store us").succeeds();
    run.stdout_contains("is stopped");
    assert_eq!(shop.releases().0, [third]);
    shop.run("store unstage --store us")
        .succeeds()
        .stdout_contains("no matching release is staged");
}

#[test]
fn a_rollback_copies_forward_and_pins_the_store() {
    let Some(shop) = Shop::new() else { return };
    let none = shop.run("store rollback --store us").fails_with(2);
    none.stderr_contains("has no earlier release to go back to");
    none.stderr_lacks("listed");
    shop.run("store rollback --store eu,us")
        .fails_with(2)
        .stderr_contains("this command takes one store at a time");
    let mut live = Vec::new();
    for text in ["first", "second", "third"] {
        shop.commit(text);
        shop.deploy().succeeds();
        live.push(shop.active().unwrap());
    }
    let list = shop.run("store rollback --store us --dry-run").succeeds();
    list.stdout_contains(&format!("-> {}", &live[1][..11]));
    list.stdout_contains("second");
    assert_eq!(shop.active().as_ref(), live.last());

    let count = shop.records("releases").len();
    let run = shop.run("store rollback --store us").succeeds();
    run.stderr_contains(&format!("us: this is a copy of {}", live[1]))
        .stderr_contains("us is pinned: a deploy stages its release");
    // It was live before, so it is not watched like a new one.
    assert!(!run.stderr.contains("watching"), "{}", run.stderr);
    let copy = shop.records("releases").pop().unwrap();
    assert_eq!(shop.active().as_deref(), copy["id"].as_str());
    assert_eq!(shop.records("releases").len(), count + 1);
    assert_eq!(
        (copy["copyOf"].as_str(), copy["reason"].as_str()),
        (Some(&*live[1]), Some("rollback"))
    );
    assert_eq!(copy["previous"], live[2].as_str());

    // The pin and the release are of the same rollback.
    let status = shop.run("store status --store us").succeeds();
    status.stdout_contains("  pinned      ");
    status.stdout_lacks("became live after it");

    // A deploy is staged only, until the pin is removed.
    shop.commit("fourth");
    let run = shop.deploy().succeeds();
    run.stderr_contains("the store is pinned");
    run.stderr_contains("alokai store unpin --store us");
    assert_eq!(shop.active().as_deref(), copy["id"].as_str());

    // Repeated rollbacks go back to the first release, and not in a circle.
    shop.run("store rollback --store us").succeeds();
    let copy = shop.records("releases").pop().unwrap();
    assert_eq!(copy["copyOf"], live[0].as_str());
    let end = shop.run("store rollback --store us").fails_with(2);
    end.stderr_contains("has no earlier release to go back to");
    end.stderr_contains("name one of the listed releases");
    let live_now = shop.active().unwrap();
    shop.run(&format!("store rollback {live_now} --store us"))
        .fails_with(2)
        .stderr_contains(&format!("{live_now} is live"));
    end.stderr_contains(&live[2][..11]);
    shop.run(&format!("store rollback {} --store us", live[2]))
        .succeeds();

    shop.run("store unpin --store us").succeeds();
    shop.run("store unpin --store us")
        .succeeds()
        .stdout_contains("is not pinned");
    shop.commit("fifth");
    shop.deploy().succeeds();
    let fifth = shop.records("releases").pop().unwrap();
    assert_eq!(shop.active().as_deref(), fifth["id"].as_str());

    // `release` removes the pin too.
    shop.run("store rollback --store us").succeeds();
    shop.run(&format!(
        "store release {} --store us --allow-older",
        fifth["id"].as_str().unwrap()
    ))
    .succeeds();
    shop.commit("sixth");
    shop.deploy().succeeds();
    let sixth = shop.records("releases").pop().unwrap();
    assert_eq!(shop.active().as_deref(), sixth["id"].as_str());
}

#[test]
fn a_rollback_needs_the_images() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    shop.commit("second");
    shop.deploy().succeeds();
    let build = shop.records("builds").remove(0);
    let app = build["apps"].as_object().unwrap().values().next().unwrap();
    let digest = app["digest"].as_str().unwrap().replace(':', "/");
    shop.project
        .remove(&format!(".alokai/registry/blobs/{digest}"));
    let list = shop.run("store rollback --store us --dry-run").succeeds();
    list.stdout_contains("images are gone");
    let active = shop.active();
    let run = shop.run("store rollback --store us").fails_with(1);
    run.stderr_contains("do not exist any more");
    assert_eq!(shop.active(), active);
}

#[test]
fn an_older_commit_never_replaces_a_newer_one() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    shop.commit("second");
    shop.deploy().succeeds();
    let second = shop.active();
    shop.project.git("checkout --quiet HEAD~1");
    std::fs::remove_dir_all(shop.project.path(".out")).unwrap();
    let run = shop.deploy().fails_with(2);
    run.stderr_contains("is an ancestor of");
    run.stderr_contains("--allow-older");
    // It is refused before anything is built.
    assert!(!shop.project.exists(".out/us"));
    shop.run("store deploy --store us --no-release").succeeds();
    let staged = shop.records("releases").pop().unwrap();
    let id = staged["id"].as_str().unwrap();
    shop.run(&format!("store release {id} --store us"))
        .fails_with(1)
        .stderr_contains("is an ancestor of");
    assert_eq!(shop.active(), second);
    shop.run(&format!("store release {id} --store us --allow-older"))
        .succeeds();
    assert_eq!(shop.active().as_deref(), Some(id));
}

#[test]
fn a_lock_names_its_holder_and_ends_with_its_lease() {
    let Some(shop) = Shop::new() else { return };
    let now = 4_000_000_000_000_u64;
    let lock = |at: u64| {
        let claim = json!({
            "holder": "other", "who": "eva@laptop", "operation": "deploy",
            "since": "2026-01-02T03:04:05Z", "lease": 30,
        });
        let text = json!({ "claim": claim, "at": at }).to_string();
        shop.project.write(".alokai/target/us.lock", text);
    };
    lock(now);
    let run = shop.deploy().fails_with(1);
    run.stderr_contains("`us` is locked: `deploy` by eva@laptop since 2026-01-02 03:04:05 UTC");
    assert_eq!(shop.active(), None);
    lock(1000);
    let run = shop.deploy().succeeds();
    run.stderr_contains("the lock of `deploy` by eva@laptop");
    run.stderr_contains("was taken over");
    assert!(shop.active().is_some());
    assert!(!shop.project.exists(".alokai/target/us.lock"));
}

#[test]
fn of_two_machines_one_wins_and_the_other_names_it() {
    let Some(shop) = Shop::new() else { return };
    // Both have built, so that both come to the lock.
    shop.deploy().succeeds();
    shop.mood("us", "slow");
    let release = |text: &str| {
        shop.commit(text);
        shop.run("store deploy --store us --until push").succeeds();
        let build = shop.records("builds").pop().unwrap();
        build["id"].as_str().unwrap().to_owned()
    };
    let builds = [release("second"), release("third")];
    let runs = builds.map(|id| {
        shop.project
            .start(&*format!("store release {id} --store us --allow-older"))
    });
    let runs = runs.map(|run| crate::support::Run::from(run.wait_with_output().unwrap()));
    let won = runs.iter().filter(|run| run.code == 0).count();
    assert_eq!(won, 1, "{:?}", runs.map(|run| run.stderr));
    let lost = runs.iter().find(|run| run.code != 0).unwrap();
    lost.stderr_contains("is locked: `release` by ");
    assert_eq!(shop.releases().0, [shop.active().unwrap()]);
}

#[test]
fn verbs_that_a_program_need_not_know_stop_no_deploy() {
    let Some(shop) = Shop::new() else { return };
    let unknown = "if (['preflight', 'lock', 'unlock', 'lock-holder', 'drained', 'health'].includes(process.argv[2])) process.exit(64);\n";
    let program = format!("{unknown}{}", include_str!("target.js"));
    shop.project.write("target.js", program);
    for text in ["first", "second"] {
        shop.commit(text);
        shop.deploy().succeeds();
    }
    let (running, kept) = shop.releases();
    assert_eq!((running.len(), kept.len()), (1, 1));
    // A verb that every deploy needs is an error.
    let program = format!(
        "if (process.argv[2] === 'observe') process.exit(64);\n{}",
        include_str!("target.js")
    );
    shop.project.write("target.js", program);
    shop.commit("third");
    shop.deploy().fails_with(1).stderr_contains("observe");
}

#[test]
fn a_target_without_staging_runs_no_staged_release_and_names_its_idle_hooks() {
    let Some(shop) = Shop::new() else { return };
    let config = shop.project.read("alokai.config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["hooks"] = json!([{ "when": "before", "stage": "stage", "command": ["false"] }]);
    shop.project.write("alokai.config.json", config.to_string());
    shop.project.commit_as("a hook that cannot run");
    shop.set("capabilities", json!({ "staging": false }));
    let run = shop.run("store deploy --store us --no-release").succeeds();
    run.stderr_contains("is recorded and does not run, because `--no-release` was given");
    run.stderr_contains("the hooks of the stage `stage` do not run for `us`");
}
