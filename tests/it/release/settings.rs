//! Settings, and what the target says about stores.

use serde_json::{Value, json};

use super::Shop;

const SECRET: &str = "correct-horse-battery-staple";

/// Runs the program with a text on standard input.
fn with_input(shop: &Shop, arguments: &str, input: &str) -> crate::support::Run {
    use std::io::Write;
    let mut command = shop.project.command(arguments);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

fn settings_of(shop: &Shop) -> Value {
    let state = shop.state("us");
    let active = state["active"].as_str().unwrap().to_owned();
    let version = state["releases"][&active]["settings"].as_str();
    version.map_or(Value::Null, |version| state["settings"][version].clone())
}

#[test]
fn settings_become_live_without_a_build_and_come_back_with_a_rollback() {
    let Some(shop) = Shop::new() else { return };
    let set = "store settings set --store us";
    let early = shop.run(&format!("{set} MODE=live"));
    early.fails_with(2).stderr_contains("has no complete build");
    shop.deploy().succeeds();
    let first = shop.active().unwrap();

    let port = shop.run(&format!("{set} PORT=1")).fails_with(2);
    port.stderr_contains("`PORT` cannot be a setting");
    let run = with_input(
        &shop,
        &format!("{set} MODE=live --secret API_KEY"),
        &format!("{SECRET}\n"),
    );
    let run = run.succeeds();
    let id = run.stdout.trim().to_owned();
    assert!(id.starts_with('R'), "{id}");
    run.stderr_contains("alokai store deploy --settings --store us");
    // Nothing runs yet, and the target alone has the values.
    assert_eq!(shop.active().as_ref(), Some(&first));
    assert_eq!(shop.state("us")["settings"][&id]["API_KEY"], SECRET);
    let list = shop.run("store settings list --store us").succeeds();
    assert_eq!(
        list.stdout,
        format!(
            "us  command  version {id}\n  API_KEY\n  MODE\n  not live; `alokai store deploy --settings --store us` makes them live\n"
        )
    );
    let diff = shop.run("store settings diff --store us").succeeds();
    diff.stdout_contains("  + API_KEY\n  + MODE\n");
    let status = shop.run("store status --store us").succeeds();
    status.stdout_contains(&format!("alokai store release {}", &id[..11]));

    let builds = shop.records("builds").len();
    let deploy = "store deploy --settings --store us";
    shop.run(&format!("{deploy} --dry-run"))
        .succeeds()
        .stdout_contains("API_KEY, MODE");
    assert_eq!(shop.active().as_ref(), Some(&first));
    shop.run(deploy)
        .succeeds()
        .stdout_contains(&format!("us: {id} is live"));
    assert_eq!(shop.active().as_ref(), Some(&id));
    assert_eq!(shop.records("builds").len(), builds);
    assert_eq!(
        settings_of(&shop),
        json!({ "API_KEY": SECRET, "MODE": "live" })
    );
    shop.run(deploy)
        .succeeds()
        .stderr_contains("are live already");
    assert_eq!(shop.active().as_ref(), Some(&id));

    // The same values are no change, one other value is one.
    let count = shop.records("releases").len();
    shop.run(&format!("{set} MODE=live"))
        .succeeds()
        .stderr_contains("the settings are unchanged");
    assert_eq!(shop.records("releases").len(), count);
    shop.run(&format!("{set} MODE=test")).succeeds();
    let diff = shop.run("store settings diff --store us").succeeds();
    assert!(diff.stdout.ends_with("  ~ MODE\n"), "{}", diff.stdout);
    let diff = format!("store settings diff --store us {first} {id} --json");
    let diff = shop.run(&diff).succeeds().json();
    assert_eq!(
        diff["stores"][0]["settings"],
        json!({ "API_KEY": "added", "MODE": "added" })
    );
    let unset = "store settings unset --store us";
    shop.run(&format!("{unset} NONE"))
        .fails_with(2)
        .stderr_contains("the setting `NONE` of `us` is not set");
    shop.run(&format!("{unset} API_KEY")).succeeds();
    // A deploy has the newest settings.
    shop.commit("second");
    shop.deploy().succeeds();
    assert_eq!(settings_of(&shop), json!({ "MODE": "test" }));

    shop.run("store rollback --store us").succeeds();
    assert_eq!(
        settings_of(&shop),
        json!({ "API_KEY": SECRET, "MODE": "live" })
    );
    shop.run("store unpin --store us").succeeds();
    shop.run(&format!("{unset} --all")).succeeds();
    shop.run(deploy).succeeds();
    assert_eq!(settings_of(&shop), Value::Null);

    let history = shop.run("store history --store us --limit 50").succeeds();
    for operation in [
        "settings set",
        "settings unset",
        "deploy --settings",
        "rollback",
        "unpin",
    ] {
        history.stdout_contains(operation);
    }
    for (file, content) in shop.project.tree(".alokai") {
        let is_target = file.starts_with("target/");
        assert!(is_target || !content.contains(SECRET), "{file}");
    }
}

#[test]
fn a_wrong_setting_is_refused_without_its_value() {
    let Some(shop) = Shop::new() else { return };
    let set = "store settings set --store us";
    for (arguments, reason) in [
        (
            format!("{set} {SECRET}"),
            "an argument of `settings set` is not `KEY=VALUE`",
        ),
        (
            format!("{set} 1A={SECRET}"),
            "`1A` is not a valid name of a setting",
        ),
        (
            format!("{set} --secret KEY"),
            "`--secret KEY` is given, but standard input has no text",
        ),
        ("store settings set A=1".to_owned(), "--store <ID>"),
    ] {
        let run = shop.run(&arguments).fails_with(2);
        run.stderr_contains(reason);
        run.stderr_lacks(SECRET);
    }
    // The target has lost the values.
    shop.deploy().succeeds();
    shop.run(&format!("{set} A=1")).succeeds();
    let mut state = shop.state("us");
    state["settings"] = json!({});
    shop.project
        .write(".alokai/target/us.json", state.to_string());
    let run = shop.run(&format!("{set} B=2")).fails_with(1);
    run.stderr_contains("does not have version");
    run.stderr_contains("unset --all --store us");
    shop.run("store settings unset --all --store us").succeeds();
    shop.run(&format!("{set} B=2")).succeeds();
}

#[test]
fn the_target_tells_what_is_live_and_drift_is_shown() {
    let Some(shop) = Shop::new() else { return };
    shop.run("store deploy --all").succeeds();
    let first = shop.active().unwrap();
    let status = || shop.run("store status --json").succeeds().json();
    let now = status();
    let us = &now["stores"][1];
    assert_eq!(
        (&us["storeId"], &us["source"]),
        (&json!("us"), &json!("target"))
    );
    assert_eq!(us["active"]["release"], first.as_str());
    assert_eq!(us["active"]["commit"]["sha"], shop.project.sha());
    assert_eq!(us["addresses"], json!(["http://us.example"]));
    assert_eq!(us["drift"], json!([]));

    // Somebody has changed the target by other means.
    shop.commit("second");
    shop.run("store deploy --store us --no-release").succeeds();
    let staged = shop.records("releases").pop().unwrap();
    let staged = staged["id"].as_str().unwrap();
    let mut state = shop.state("us");
    state["active"] = staged.into();
    shop.project
        .write(".alokai/target/us.json", state.to_string());
    let now = status();
    let drift = now["stores"][1]["drift"].to_string();
    assert!(
        drift.contains(&format!(
            "the target runs {staged}, and the records say {first}"
        )),
        "{drift}"
    );
    let text = shop.run("store status").succeeds();
    text.stdout_contains("  drift       the target runs ");

    // A release that the records call staged and that does not run.
    let mut state = shop.state("us");
    state["active"] = first.as_str().into();
    state["releases"].as_object_mut().unwrap().remove(staged);
    shop.project
        .write(".alokai/target/us.json", state.to_string());
    let drift = status()["stores"][1]["drift"].to_string();
    assert!(drift.contains("is staged, and it does not run"), "{drift}");
    shop.run("store unstage --store us")
        .succeeds()
        .stdout_contains(staged);
    assert_eq!(status()["stores"][1]["drift"], json!([]));

    // A lock of a run that does not exist any more.
    let claim = json!({
        "holder": "other", "who": "eva on laptop", "operation": "deploy",
        "since": "2026-01-01T00:00:00Z", "lease": 4_000_000_000_u64,
    });
    let lock = json!({ "claim": claim, "at": 1 });
    shop.project
        .write(".alokai/target/us.lock", lock.to_string());
    shop.run("store lock status")
        .succeeds()
        .stdout_contains("eva on laptop");
    // What a run under way has staged is recorded later.
    let idle = shop.state("us");
    let mut state = idle.clone();
    state["releases"][staged] = json!({ "mood": "well", "apps": [] });
    shop.project
        .write(".alokai/target/us.json", state.to_string());
    assert_eq!(status()["stores"][1]["drift"], json!([]));
    shop.project.remove(".alokai/target/us.lock");
    let drift = status()["stores"][1]["drift"].to_string();
    assert!(
        drift.contains("is staged, and the records do not say so"),
        "{drift}"
    );
    shop.project
        .write(".alokai/target/us.json", idle.to_string());
    shop.project
        .write(".alokai/target/us.lock", lock.to_string());
    let locked = shop.run("store settings set --store us A=1").fails_with(1);
    locked.stderr_contains("`us` is locked");
    locked.stderr_contains("alokai store lock release --store us");
    // Only the lock that was shown is removed, and not that of a run that has taken it meanwhile.
    let next = json!({ "holder": "next", "who": "ben", "operation": "deploy",
        "since": "2026-01-01T00:00:00Z", "lease": 4_000_000_000_u64 });
    shop.set("nextHolder", next);
    shop.run("store lock release --store us").succeeds();
    assert!(shop.project.exists(".alokai/target/us.lock"));
    shop.set("nextHolder", json!(null));
    shop.project
        .write(".alokai/target/us.lock", lock.to_string());
    let removed = shop.run("store lock release --store us").succeeds();
    removed.stdout_contains("removed the lock of eva on laptop for deploy");
    assert!(!shop.project.exists(".alokai/target/us.lock"));
    shop.run("store lock release --store us")
        .succeeds()
        .stderr_contains("is not locked");
    shop.run("store history")
        .succeeds()
        .stdout_contains("lock release");
}

#[test]
fn a_target_that_does_not_answer_hides_no_other_store() {
    let Some(shop) = Shop::new() else { return };
    shop.run("store deploy --all").succeeds();
    // The state of one store is damaged.
    let program = shop.project.read("target.js");
    let broken = "if (store === 'eu' && verb === 'observe') fail('the engine is out of reach');\n";
    let at = program.find("const lockFile").unwrap();
    let program = format!("{}{broken}{}", &program[..at], &program[at..]);
    shop.project.write("target.js", program);
    let status = shop.run("store status --json").succeeds().json();
    let (eu, us) = (&status["stores"][0], &status["stores"][1]);
    assert!(
        eu["error"]
            .to_string()
            .contains("the engine is out of reach"),
        "{eu}"
    );
    assert_eq!(eu["source"], "records");
    assert!(eu["active"]["release"].is_string(), "{eu}");
    assert_eq!(us["source"], "target");
    let text = shop.run("store status").succeeds();
    text.stdout_contains("  no answer ");
}

#[test]
fn no_image_is_removed_of_a_store_whose_live_release_is_not_known() {
    let Some(shop) = Shop::new() else { return };
    for text in ["first", "second", "third"] {
        shop.commit(text);
        shop.deploy().succeeds();
    }
    let prune = || {
        shop.run("store builds prune --keep 0 --dry-run --json")
            .succeeds()
    };
    let removed = |run: &crate::support::Run| run.json()["removed"].as_array().unwrap().len();
    let known = prune();
    assert_eq!(removed(&known), 1);
    known.stderr_lacks("no image of");
    // Another machine has released, and its records are not here.
    let state = shop.state("us");
    let mut other = state.clone();
    other["active"] = "R000000000000001A".into();
    other["releases"]["R000000000000001A"] = json!({ "apps": [] });
    let file = ".alokai/target/us.json";
    shop.project.write(file, other.to_string());
    let unknown = prune();
    assert_eq!(removed(&unknown), 0);
    unknown.stderr_contains(
        "no image of `us` is removed: no record has the release R000000000000001A, which the target has",
    );
    shop.project.write(file, state.to_string());
    assert_eq!(removed(&prune()), 1);
    // A target that does not answer.
    let program = shop.project.read("target.js");
    let broken = "if (verb === 'observe') fail('the engine is out of reach');\n";
    let at = program.find("const lockFile").unwrap();
    let program = format!("{}{broken}{}", &program[..at], &program[at..]);
    shop.project.write("target.js", program);
    let unknown = prune();
    assert_eq!(removed(&unknown), 0);
    unknown.stderr_contains("no image of `us` is removed: its target does not say what is live");
}

#[test]
fn a_failed_deploy_is_continued_with_the_stores_that_are_missing() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "refuses");
    let run = shop.run("store deploy --all --keep-going").fails_with(1);
    run.stderr_contains("no room for another release");
    let eu = shop.state("eu")["active"].clone();
    assert!(eu.is_string());
    let history = shop.run("store history --json").succeeds().json();
    let ends: Vec<_> = history["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            (
                it["storeId"].as_str().unwrap(),
                it["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(
        ends.contains(&("us", "failed")) && ends.contains(&("eu", "complete")),
        "{ends:?}"
    );

    // Only the missing store is deployed; the exit code is that of this run.
    let run = shop.run("store deploy --all --resume").fails_with(1);
    run.stderr_contains("done by an earlier run of this plan: eu; missing: us");
    shop.mood("us", "well");
    let run = shop.run("store deploy --retry-failed").succeeds();
    run.stderr_contains("the last deploy has failed: us");
    assert!(shop.active().is_some());
    assert_eq!(shop.state("eu")["active"], eu);
    let run = shop.run("store deploy --all --resume").succeeds();
    run.stderr_contains("all stores of this plan are done: eu, us");
    let run = shop.run("store deploy --retry-failed").succeeds();
    run.stderr_contains("nothing to retry: the last deploy of each selected store succeeded");

    // Another commit is another plan, and a rollback ends what a plan has done.
    shop.commit("second");
    shop.run("store deploy --all --resume").succeeds();
    assert_ne!(shop.state("eu")["active"], eu);
    shop.run("store rollback --store us").succeeds();
    shop.run("store unpin --store us").succeeds();
    let run = shop.run("store deploy --all --resume").succeeds();
    run.stderr_contains("missing: us");
}

#[test]
fn a_store_that_was_skipped_is_not_done() {
    let Some(shop) = Shop::new() else { return };
    // `eu` fails, and `us` is in a later wave.
    shop.mood("eu", "refuses");
    let run = shop.run("store deploy --all --wave 50%").fails_with(1);
    run.stderr_contains("these stores are unchanged: us");
    let failed = shop.run("store history --json --status failed").succeeds();
    let failed = failed.json();
    assert_eq!(
        failed["operations"].as_array().unwrap().len(),
        2,
        "{failed:#}"
    );
    shop.mood("eu", "well");
    let run = shop.run("store deploy --all --resume").succeeds();
    run.stderr_contains("no store of this plan is done");
    assert!(shop.active().is_some());
}
