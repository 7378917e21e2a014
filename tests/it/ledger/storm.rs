//! Many machines deploy many stores at once, and some of them are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use alokai::ledger::{BuildStatus, RecordFolder, RecordSet, StoreEvent};
use serde_json::{Value, json};

use crate::deploy::unique;
use crate::support::{MIDDLEWARE, Project, Random, base_layout, registry};

const MACHINES: usize = 8;
const STORES: usize = 20;

/// A project with many stores whose only app has a script that does nothing, once for all of them.
fn project(name: &str, base: &str) -> Project {
    let store = |number: usize| {
        let deployment = json!({ "projectName": format!("{name}-s{number}"), "cloudRegion": "a" });
        (format!("s{number}"), json!({ "deployment": deployment }))
    };
    let stores: serde_json::Map<String, Value> = (0..STORES).map(store).collect();
    let shared = json!({ "shared": [MIDDLEWARE] });
    let config = json!({ "stores": stores, "image": { "base": base }, "build": shared });
    let project = Project::new()
        .config(&config.to_string())
        .app(MIDDLEWARE, r#""build": "true""#)
        .file("apps/storefront-middleware/lib/index.js", "0\n")
        .file(".gitignore", ".out\n.alokai\nnode_modules\n");
    project.commit();
    project
}

fn records(machine: &Project) -> RecordSet {
    let (records, damaged) = RecordFolder::of_project(machine.root()).read().unwrap();
    assert_eq!(damaged, []);
    std::sync::Arc::unwrap_or_clone(records)
}

/// The builds of two lists that are not equal.
fn differences(one: &Value, other: &Value) -> Vec<(Option<Value>, Option<Value>)> {
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let builds = list["builds"].as_array().unwrap().iter();
        builds
            .map(|build| (build["id"].to_string(), build.clone()))
            .collect()
    };
    let (one, other) = (by_id(one), by_id(other));
    let ids: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let pairs = ids.into_iter().map(|id| (one.get(id), other.get(id)));
    let unequal = pairs.filter(|(one, other)| one != other);
    unequal
        .map(|(one, other)| (one.cloned(), other.cloned()))
        .collect()
}

/// Every start has an end, and exactly one build.
fn check(records: &RecordSet) {
    let mut builds: BTreeMap<_, usize> = BTreeMap::new();
    for build in records.builds() {
        *builds.entry(build.start.clone().unwrap()).or_default() += 1;
        if build.status == BuildStatus::Complete {
            assert!(build.apps.values().all(|app| app.digest.is_some()));
        }
    }
    let mut started = 0;
    for event in records.events() {
        if let StoreEvent::Started { .. } = event.what {
            started += 1;
            assert_eq!(builds.get(&event.id), Some(&1), "{}", event.id);
        }
    }
    assert_eq!(builds.len(), started);
}

/// Five rounds, or 200 rounds in eight ledgers. A round gets slower as its ledger grows, so one ledger for all
/// of them would take hours.
#[test]
fn no_record_is_lost_when_machines_deploy_at_once_and_some_are_killed() {
    let (ledgers, rounds) = if std::env::var("ALOKAI_LONG").is_ok() {
        (8, 25)
    } else {
        (1, 5)
    };
    for number in 0..ledgers {
        deploy_at_once(20 + number, rounds);
    }
}

fn deploy_at_once(seed: u64, rounds: usize) {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let project = project(&unique(&format!("storm{seed}")), &base);
    let shared = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}/layout", shared.path().display());
    let machines: Vec<Project> = (0..MACHINES)
        .map(|number| {
            let machine = project.shallow_clone("1");
            let machine = registry.used_by(machine, "http://127.0.0.1:9");
            // Half of them share a registry, and half of them a folder.
            if number % 2 == 0 {
                machine
            } else {
                machine.env("CLI_DOCKER_REGISTRY_URL", &layout)
            }
        })
        .collect();
    let mut random = Random::new(seed);
    let (mut longest, mut killed) = (1000, 0);
    for round in 0..rounds {
        let mut runs = Vec::new();
        let began = Instant::now();
        for machine in &machines {
            machine.write(
                "apps/storefront-middleware/lib/index.js",
                format!("{}\n", round + 1),
            );
            machine.commit();
            let run = machine.start("store deploy --all --until push");
            // Three of eight are killed at some moment.
            let delay = Duration::from_millis(random.below(longest) as u64);
            let delay = (random.below(8) < 3).then_some(delay);
            runs.push((run, delay));
        }
        for (run, delay) in &mut runs {
            if let Some(delay) = delay {
                std::thread::sleep(delay.saturating_sub(began.elapsed()));
                run.kill().unwrap();
                killed += 1;
            }
        }
        for (run, delay) in runs {
            let output = run.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(delay.is_some() || output.status.success(), "{stderr}");
            assert!(!stderr.contains("only on this machine"), "{stderr}");
        }
        longest = usize::try_from(began.elapsed().as_millis()).unwrap();
    }
    // What killed runs have left is sent by the next run, or by hand.
    for machine in &machines {
        machine.alokai("store history --push").succeeds();
    }
    assert!(killed > rounds, "{killed} runs were killed");
    for group in [0, 1] {
        let machines: Vec<_> = machines.iter().skip(group).step_by(2).collect();
        let new = machines[0].shallow_clone("1");
        let new = registry.used_by(new, "http://127.0.0.1:9");
        let new = if group == 0 {
            new
        } else {
            new.env("CLI_DOCKER_REGISTRY_URL", &layout)
        };
        let list = "store builds --limit 1000000 --json";
        let lists = machines.iter().copied().chain([&new]).map(|machine| {
            let run = machine.alokai(list).succeeds();
            assert_eq!(run.stderr, "");
            run.json()
        });
        let lists: Vec<Value> = lists.collect();
        for (number, list) in lists.iter().enumerate() {
            assert_eq!(differences(&lists[0], list), [], "machine {number}");
            // Their order too.
            assert!(*list == lists[0], "machine {number}");
        }
        let sets: Vec<_> = machines
            .iter()
            .copied()
            .chain([&new])
            .map(records)
            .collect();
        assert!(sets.iter().all(|set| *set == sets[0]));
        check(&sets[0]);
        let statuses = lists[0]["builds"].as_array().unwrap().iter();
        let statuses: Vec<_> = statuses.map(|it| it["status"].as_str().unwrap()).collect();
        let count = |status| statuses.iter().filter(|it| **it == status).count();
        assert_eq!(count("running") + count("failed") + count("gone"), 0);
        assert!(count("interrupted") > 0 && count("complete") > rounds * STORES);
    }
}
