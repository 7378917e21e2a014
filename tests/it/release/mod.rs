//! Making builds live at a target: the flow, and the commands without a build. The target is a small
//! program, so that a run takes less than a second.

mod commands;
mod killed;
mod machines;
mod memory;
mod model;
mod order;
mod settings;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Project, Run, base_layout};

/// A shop whose stores run at the target of `target.js`.
pub struct Shop {
    pub project: Project,
    setup: std::cell::RefCell<Value>,
}

/// A server that answers every request with this status.
fn server(status: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

impl Shop {
    pub fn new() -> Option<Self> {
        Self::with(&json!({}))
    }

    /// With these keys of `deploy`.
    pub fn with(deploy: &Value) -> Option<Self> {
        let base = base_layout()?;
        let mut settings = json!({
            "target": "command", "command": ["node", "target.js"],
            "keep": 1, "drain": 1, "watch": 1,
            "health": { "*": { "interval": 0, "timeout": 1, "deadline": 2, "consecutive": 1 } },
        });
        for (key, value) in deploy.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let project = Project::shop()
            .setting("image", &json!({ "base": base }))
            .setting("registry", &json!({ "url": "oci:.alokai/registry" }))
            .setting("deploy", &settings)
            .file("target.js", include_str!("target.js"));
        project.commit_as("Add a shop");
        let shop = Self {
            project,
            setup: std::cell::RefCell::new(json!({
                "good": server("200 OK"), "bad": server("503 Service Unavailable"), "moods": {},
            })),
        };
        shop.write_setup();
        Some(shop)
    }

    fn write_setup(&self) {
        let setup = self.setup.borrow().to_string();
        self.project.write(".alokai/target/setup.json", setup);
    }

    /// How the next releases of a store behave.
    pub fn mood(&self, store: &str, mood: &str) {
        self.setup.borrow_mut()["moods"][store] = mood.into();
        self.write_setup();
    }

    pub fn set(&self, key: &str, value: Value) {
        self.setup.borrow_mut()[key] = value;
        self.write_setup();
    }

    pub fn run(&self, arguments: &str) -> Run {
        self.project.alokai(arguments)
    }

    pub fn deploy(&self) -> Run {
        self.run("store deploy --store us")
    }

    /// A commit that changes the pages.
    pub fn commit(&self, text: &str) {
        let texts = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";
        self.project.write(texts, text);
        self.project.commit_as(text);
    }

    /// The state of a store at the target.
    pub fn state(&self, store: &str) -> Value {
        let file = format!(".alokai/target/{store}.json");
        if !self.project.exists(&file) {
            return json!({ "active": null, "releases": {}, "kept": [] });
        }
        serde_json::from_str(&self.project.read(&file)).unwrap()
    }

    pub fn active(&self) -> Option<String> {
        self.state("us")["active"].as_str().map(str::to_owned)
    }

    /// The releases that run, and those that are kept.
    pub fn releases(&self) -> (Vec<String>, Vec<String>) {
        let state = self.state("us");
        let running = state["releases"].as_object().unwrap().keys().cloned();
        let kept = state["kept"].as_array().unwrap().iter();
        let kept = kept.map(|id| id.as_str().unwrap().to_owned());
        (running.collect(), kept.collect())
    }

    /// The verbs of one store since the last call, without questions.
    pub fn verbs(&self) -> Vec<String> {
        let file = self.project.path(".alokai/target/us.log");
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(&file);
        let words = log.lines().map(|line| line.split(' ').next().unwrap());
        let is_step = |verb: &&str| !["observe", "health", "drained", "lock-holder"].contains(verb);
        words.filter(is_step).map(str::to_owned).collect()
    }

    /// The records of one kind, the oldest first.
    pub fn records(&self, kind: &str) -> Vec<Value> {
        let folder = format!(".alokai/ledger/{kind}");
        let files: BTreeMap<_, _> = self.project.tree(&folder);
        let records = files.values();
        records
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    }

    /// What happened to a release, the oldest first, without the ends of runs.
    pub fn happenings(&self, release: &str) -> Vec<String> {
        let events = self.records("events");
        let is_step = |it: &&Value| it["release"] == release && it["what"] != "ended";
        let own = events.iter().filter(is_step);
        own.map(|it| it["what"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn a_release_is_staged_probed_switched_and_replaces_the_earlier_one() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy()
        .succeeds()
        .stdout_contains("http://us.example");
    let first = shop.active().unwrap();
    assert_eq!(shop.verbs(), ["lock", "stage", "switch", "unlock"]);
    assert_eq!(shop.happenings(&first), ["staged", "healthy", "released"]);

    shop.commit("second");
    shop.deploy().succeeds();
    let second = shop.active().unwrap();
    assert_ne!(first, second);
    assert_eq!(
        shop.verbs(),
        ["lock", "stage", "switch", "retire", "unlock"]
    );
    assert_eq!(shop.happenings(&first)[3..], ["drained", "retired"]);
    let releases = shop.records("releases");
    assert_eq!(releases[1]["previous"], first.as_str());
    assert_eq!(releases[1]["target"], "command");
    assert_eq!(shop.releases(), (vec![second.clone()], vec![first.clone()]));

    // One earlier release is kept.
    shop.commit("third");
    shop.deploy().succeeds();
    assert_eq!(
        shop.releases(),
        (vec![shop.active().unwrap()], vec![second])
    );
    assert_eq!(shop.happenings(&first).last().unwrap(), "retired");
}

#[test]
fn a_release_that_is_not_healthy_gets_no_traffic_and_says_why() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let first = shop.active();
    for (mood, reason) in [
        ("unhealthy", "status 503"),
        ("ends", "exited with code 3"),
        ("refuses", "no room for another release"),
        ("loses", "was switched by another run meanwhile"),
    ] {
        shop.commit(mood);
        if mood == "ends" {
            // Its address does not answer either.
            let good = shop.setup.borrow()["bad"].clone();
            shop.set("good", good);
        }
        shop.mood("us", mood);
        let run = shop.deploy().fails_with(1);
        run.stderr_contains(reason);
        if ["unhealthy", "ends"].contains(&mood) {
            run.stderr_contains("line 50 of the app");
            run.stderr_contains("line 11 of the app");
            run.stderr_lacks("line 10 of the app");
        }
        assert_eq!(shop.active(), first, "{mood}");
        assert_eq!(shop.releases().0.len(), 1, "{mood}");
        let failed = shop.records("releases").pop().unwrap();
        let failed = shop.happenings(failed["id"].as_str().unwrap());
        assert_eq!(failed.last().unwrap(), "failed", "{mood}");
        if mood == "ends" {
            shop.set("good", server("200 OK").into());
        }
    }
}

#[test]
fn a_release_that_fails_after_the_switch_loses_the_traffic_again() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "dies");
    // Nothing was live before.
    let run = shop.deploy().fails_with(1);
    run.stderr_contains("stays live, because there is no earlier release");
    assert!(shop.active().is_some());
    shop.mood("us", "well");
    shop.commit("healthy");
    shop.deploy().succeeds();
    let healthy = shop.active().unwrap();
    for mood in ["dies", "restarts"] {
        shop.verbs();
        shop.mood("us", mood);
        shop.commit(mood);
        let run = shop.deploy().fails_with(1);
        run.stderr_contains(&format!("{healthy} gets the traffic again"));
        run.stderr_contains("line 50 of the app");
        assert_eq!(shop.active().as_ref(), Some(&healthy));
        assert_eq!(shop.releases().0, std::slice::from_ref(&healthy));
        let failed = shop.records("releases").pop().unwrap();
        let failed = shop.happenings(failed["id"].as_str().unwrap());
        assert_eq!(failed, ["staged", "healthy", "released", "switched-back"]);
        assert_eq!(
            shop.verbs(),
            ["lock", "stage", "switch", "switch", "retire", "unlock"]
        );
    }
    // The failed ones are no candidates for a rollback.
    shop.run("store rollback --store us")
        .fails_with(2)
        .stderr_contains("has no earlier release to go back to");
    let failed = shop.records("releases").pop().unwrap();
    let failed = failed["id"].as_str().unwrap();
    shop.run(&format!("store rollback {failed} --store us"))
        .fails_with(2)
        .stderr_contains(&format!("{failed} did not become or stay healthy"));
}

#[test]
fn a_switch_whose_answer_was_lost_is_found_out() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "silent");
    shop.deploy().succeeds();
    let active = shop.active().unwrap();
    assert_eq!(shop.happenings(&active), ["staged", "healthy", "released"]);
}

#[test]
fn a_busy_release_is_left_after_the_time_to_drain() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "busy");
    shop.deploy().succeeds();
    let first = shop.active().unwrap();
    shop.mood("us", "well");
    shop.commit("second");
    let run = shop.deploy().succeeds();
    run.stderr_contains(&format!("3 requests of {first} were still open after 1 s"));
    let happened = shop.happenings(&first);
    assert_eq!(happened[3..], ["retired"]);
}

#[test]
fn stores_are_released_together_and_fail_alone() {
    let Some(shop) = Shop::new() else { return };
    shop.mood("us", "unhealthy");
    let run = shop.run("store deploy --all --keep-going").fails_with(1);
    run.stderr_contains("status 503");
    assert_eq!(shop.active(), None);
    assert!(shop.state("eu")["active"].is_string());
    // The build is complete although the release failed.
    for build in shop.records("builds") {
        assert_eq!(build["status"], "complete");
    }
    let ends = shop.records("events");
    let ends = ends.iter().filter(|it| it["what"] == "ended");
    let ends: BTreeMap<_, _> = ends
        .map(|it| (it["store"].as_str().unwrap(), it["succeeded"].clone()))
        .collect();
    assert_eq!(ends, [("eu", json!(true)), ("us", json!(false))].into());
}

#[test]
fn a_wave_with_a_failure_is_the_last_one() {
    let Some(shop) = Shop::with(&json!({ "waves": { "canary": ["us"] } })) else {
        return;
    };
    shop.mood("us", "unhealthy");
    let run = shop
        .run("store deploy --all --keep-going --wave canary,rest")
        .fails_with(1);
    run.stderr_contains("these stores are unchanged: eu");
    assert!(!shop.project.exists(".alokai/target/eu.json"));
    shop.mood("us", "well");
    shop.run("store deploy --all --wave 50%").succeeds();
    assert!(shop.active().is_some() && shop.state("eu")["active"].is_string());
    // Wrong input is no deploy that has failed.
    let recorded = (shop.records("builds").len(), shop.records("events").len());
    let wrong = shop.run("store deploy --all --wave canari").fails_with(2);
    wrong.stderr_contains("did you mean `canary`?");
    let now = (shop.records("builds").len(), shop.records("events").len());
    assert_eq!(now, recorded);
}

#[test]
fn a_wave_with_a_store_that_cannot_be_built_is_the_last_one() {
    let Some(shop) = Shop::with(&json!({ "waves": { "canary": ["us"] } })) else {
        return;
    };
    let build = "apps/stores/fashion/stores/us/storefront-unified-nextjs/build.js";
    shop.project.write(build, "process.exit(3);");
    shop.project.commit_as("a broken build");
    let run = shop
        .run("store deploy --all --keep-going --wave canary,rest")
        .fails_with(1);
    run.stderr_contains("these stores are unchanged: eu");
    assert!(!shop.project.exists(".alokai/target/eu.json"));
}

#[test]
fn apps_without_an_address_are_watched_by_their_state() {
    let Some(shop) = Shop::new() else { return };
    shop.set("addressless", true.into());
    shop.deploy().succeeds();
    let healthy = shop.active().unwrap();
    for mood in ["ends", "dies", "restarts"] {
        shop.mood("us", mood);
        shop.commit(mood);
        let run = shop.deploy().fails_with(1);
        run.stderr_contains("line 50 of the app");
        assert_eq!(shop.active().as_ref(), Some(&healthy), "{mood}");
    }
}

#[test]
fn a_target_without_staging_is_watched_too() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let healthy = shop.active().unwrap();
    // The program still has to run something, so `switch` stages by itself.
    shop.set("capabilities", json!({ "staging": false }));
    shop.mood("us", "dies");
    shop.commit("dies");
    let run = shop.deploy().fails_with(1);
    run.stderr_contains(&format!("{healthy} gets the traffic again"));
    assert_eq!(shop.active().as_ref(), Some(&healthy));
}

#[test]
fn a_removed_lock_ends_the_run_before_its_switch() {
    let Some(shop) = Shop::with(&json!({ "health": { "*": { "deadline": 25, "interval": 1 } } }))
    else {
        return;
    };
    shop.deploy().succeeds();
    let live = shop.active();
    shop.mood("us", "unhealthy");
    shop.commit("second");
    let run = shop.project.start("store deploy --store us");
    let lock = shop.project.path(".alokai/target/us.lock");
    while !lock.exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    shop.run("store lock release --store us").succeeds();
    let ended: Run = run.wait_with_output().unwrap().into();
    ended
        .fails_with(1)
        .stderr_contains("the lock of `us` was lost: it has ended or was removed");
    assert_eq!(shop.active(), live);
}

#[test]
fn the_target_is_checked_before_the_first_build() {
    let Some(shop) = Shop::new() else { return };
    shop.set("preflight", "the cluster is closed".into());
    let run = shop.deploy().fails_with(3);
    run.stderr_contains("the cluster is closed");
    assert!(!shop.project.exists(".out/us"));
    let none = Shop::with(&json!({ "command": [] })).unwrap();
    let run = none.deploy().fails_with(2);
    run.stderr_contains("set `deploy.command`");
    let missing = Shop::with(&json!({ "command": ["./no-such-program"] })).unwrap();
    missing
        .deploy()
        .fails_with(3)
        .stderr_contains("no-such-program` cannot be started");
}

#[test]
fn a_dry_run_lists_the_steps_and_what_the_target_cannot_do() {
    let Some(shop) = Shop::new() else { return };
    let run = shop.run("store deploy --store us --dry-run").succeeds();
    run.stdout_contains("Steps at the target `command`");
    run.stdout_contains("watch the release for 1 s");
    run.stdout_lacks("The target cannot");
    shop.set(
        "capabilities",
        json!({ "staging": false, "observes": false }),
    );
    let run = shop.run("store deploy --store us --dry-run").succeeds();
    run.stdout_contains("The target cannot run a release before it gets traffic");
    let json = shop
        .run("store deploy --store us --dry-run --json")
        .succeeds();
    assert_eq!(json.json()["releaseSteps"][0]["target"], "command");
    assert_eq!(json.json()["releases"][0]["storeId"], "us");
    assert_eq!(shop.active(), None);
}
