//! Runs that are killed or interrupted at any moment.

use std::time::Duration;

use super::Shop;
use crate::support::Run;

/// How many runs are killed.
fn rounds() -> u64 {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        100
    } else {
        10
    }
}

/// Waits until the verb of a killed run has ended: it is a process of its own.
fn wait_for_verbs(shop: &Shop) {
    let is_running = || {
        let files = std::fs::read_dir(shop.project.path(".alokai/target")).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with("running."))
    };
    while is_running() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_run_leaves_the_traffic_on_a_healthy_release_and_the_next_one_cleans() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    shop.commit("another");
    shop.run("store deploy --store us --until push").succeeds();
    let builds = shop.records("builds");
    let ids: Vec<_> = builds
        .iter()
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..rounds() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = &ids[usize::try_from(round % 2).unwrap()];
        let mut run = shop
            .project
            .start(&*format!("store release {id} --store us --allow-older"));
        std::thread::sleep(Duration::from_millis(random % 2500));
        let _ = run.kill();
        let _ = run.wait();
        wait_for_verbs(&shop);
        let state = shop.state("us");
        let active = state["active"].as_str().unwrap();
        assert!(
            state["releases"][active].is_object(),
            "round {round}: {state}"
        );
        // The lease of a killed run ends by itself; the test does not wait for it.
        let _ = std::fs::remove_file(shop.project.path(".alokai/target/us.lock"));
    }
    // The next run leaves what it was asked for, and nothing of the others.
    shop.run("store release latest --store us --allow-older")
        .succeeds();
    let active = shop.active().unwrap();
    let (running, kept) = shop.releases();
    assert_eq!(running, [active.as_str()]);
    assert!(kept.len() <= 1, "{kept:?}");
    // What got the traffic is what the records say.
    let status = shop.run("store status --json").succeeds().json();
    let of_us = status["stores"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["storeId"] == "us");
    assert!(of_us.unwrap().to_string().contains(&active), "{status}");
}

#[test]
fn an_interrupt_before_the_switch_changes_nothing() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let active = shop.active();
    shop.mood("us", "slow");
    shop.commit("second");
    let run = shop.project.start("store deploy --store us");
    let log = shop.project.path(".alokai/target/us.log");
    let is_staging = || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.matches("stage ").count() == 2
    };
    while !is_staging() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run: Run = run.wait_with_output().unwrap().into();
    run.fails_with(130).stderr_contains("interrupted");
    assert_eq!(shop.active(), active);
    assert_eq!(shop.releases().0.len(), 1);
    assert!(!shop.project.exists(".alokai/target/us.lock"));
}

#[test]
fn a_run_that_was_killed_while_it_staged_is_interrupted_and_not_failed() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "slow");
    let mut run = shop.project.start("store deploy --store us");
    let log = shop.project.path(".alokai/target/us.log");
    while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("stage ")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    shop.run("store history --push").succeeds();
    let history = shop.run("store history --json").succeeds().json();
    let operations = history["operations"].as_array().unwrap();
    let run = operations.iter().find(|it| it["operation"] == "deploy");
    assert_eq!(run.unwrap()["status"], "interrupted", "{history}");
    let events = shop.records("events");
    let end = events.iter().find(|it| it["what"] == "ended").unwrap();
    assert_eq!(end["interrupted"], true);
    assert!(end["seconds"].as_f64().is_some(), "{end}");
}

#[test]
fn a_run_that_fails_before_its_first_step_has_an_end_with_its_reason() {
    let broken = Shop::with(&serde_json::json!({ "command": ["false"] }));
    let Some(shop) = broken else { return };
    assert_ne!(shop.deploy().code, 0);
    let events = shop.records("events");
    let end = events.iter().find(|it| it["what"] == "ended").unwrap();
    let detail = end["detail"].as_str().unwrap();
    assert!(
        detail.contains("`false` failed at `capabilities`"),
        "{detail}"
    );
    // A later command finds no run that was killed.
    shop.run("store history --push").succeeds();
    assert_eq!(shop.records("events").len(), events.len());
    let history = shop.run("store history --json").succeeds().json();
    assert_eq!(history["operations"][0]["status"], "failed");
}

#[test]
fn a_rollback_is_pinned_before_the_switch_and_a_failed_one_is_not() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    shop.commit("another");
    shop.deploy().succeeds();
    let live = shop.active();
    shop.mood("us", "loses");
    shop.run("store rollback --store us").fails_with(1);
    assert_eq!(shop.active(), live);
    let unpinned = shop.run("store unpin --store us").succeeds();
    assert!(
        unpinned.stdout.contains("is not pinned"),
        "{}",
        unpinned.stdout
    );

    shop.mood("us", "hangs");
    let mut run = shop.project.start("store rollback --store us");
    while shop.active() == live {
        std::thread::sleep(Duration::from_millis(20));
    }
    let rollbacks = || {
        let history = shop.run("store history --json").succeeds().json();
        let operations = history["operations"].as_array().unwrap();
        let rollbacks = operations.iter().filter(|it| it["operation"] == "rollback");
        let statuses = rollbacks.map(|it| it["status"].as_str().unwrap().to_owned());
        statuses.collect::<Vec<_>>()
    };
    assert_eq!(rollbacks(), ["running", "failed"]);
    shop.run("store history --push").succeeds();
    assert_eq!(rollbacks(), ["running", "failed"]);
    let _ = run.kill();
    let _ = run.wait();
    assert_eq!(rollbacks(), ["interrupted", "failed"]);
    wait_for_verbs(&shop);
    let _ = std::fs::remove_file(shop.project.path(".alokai/target/us.lock"));
    shop.mood("us", "");
    let rolled_back = shop.active();
    shop.commit("a third one");
    let deployed = shop.deploy().succeeds();
    assert!(deployed.stderr.contains("is pinned"), "{}", deployed.stderr);
    assert_eq!(shop.active(), rolled_back);
    // The deploy has recorded the end, for other machines.
    let events = shop.records("events");
    let mut ends = events.iter().filter(|it| it["what"] == "ended");
    assert!(ends.any(|it| it["interrupted"] == true), "{events:?}");
    assert_eq!(rollbacks(), ["interrupted", "failed"]);
}
