//! Runs that are killed at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::world;
use crate::docker_target::commands::{TEXTS, change, running};
use crate::docker_target::{World, us};

/// How many runs are killed.
fn rounds() -> u64 {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        100
    } else {
        10
    }
}

/// Asks for pages until it is told to end. Returns the number of requests and the bad answers.
fn ask(port: u16, ends: &AtomicBool) -> (usize, Vec<String>) {
    let (mut count, mut bad) = (0, Vec::new());
    while !ends.load(Ordering::SeqCst) {
        for (path, wanted) in [("/", "texts"), ("/api/x", "middleware")] {
            let page = World::page_at(port, "us.localhost", path);
            count += 1;
            if !page.contains(wanted) || !page.ends_with("\n200") {
                bad.push(page);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (count, bad)
}

#[test]
fn a_killed_run_loses_no_request_and_the_next_one_cleans() {
    let Some(world) = world("killed") else {
        return;
    };
    let project = &world.project;
    let mut config: Value = serde_json::from_str(&project.read("alokai.config.json")).unwrap();
    let deploy = &mut config["deploy"];
    deploy["keep"] = 1.into();
    deploy["drain"] = 2.into();
    deploy["health"] = json!({ "*": { "interval": 0, "consecutive": 1 } });
    change(project, "alokai.config.json", &format!("{config:#}"));
    project.alokai("store deploy --store us").succeeds();
    let set = "store settings set --store us SECRET_SETTING=very-secret-value";
    project.alokai(set).succeeds();
    change(project, TEXTS, "other texts\n");
    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let list = project.alokai("store builds --store us --json").succeeds();
    let builds: Vec<String> = list.json()["builds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|build| build["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(builds.len(), 2);

    let (ends, port) = (Arc::new(AtomicBool::new(false)), world.port());
    let seen = Arc::clone(&ends);
    let client = std::thread::spawn(move || ask(port, &seen));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..rounds() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let build = &builds[usize::try_from(round % 2).unwrap()];
        let release = format!("store release {build} --store us --allow-older");
        let mut run = project.start(&*release);
        std::thread::sleep(Duration::from_millis(random % 4500));
        let _ = run.kill();
        let _ = run.wait();
        // The lease of a killed run ends by itself; the test does not wait for it.
        project.alokai("store lock release --store us").succeeds();
    }
    let newest = format!("store release {} --store us --allow-older", builds[0]);
    project.alokai(&*newest).succeeds();
    ends.store(true, Ordering::SeqCst);
    let (count, bad) = client.join().unwrap();
    println!("{count} requests");
    assert!(bad.is_empty(), "{} of {count}: {:?}", bad.len(), bad[0]);

    // The live release runs and at most one other is kept, each with its secrets, and no lock is left.
    let observed = world.wait(world.target().observe(&us())).unwrap();
    let live = observed.active.unwrap().as_str().to_ascii_lowercase();
    let objects = world.objects();
    let of = |kind: &str| -> Vec<&String> {
        let all = objects.iter();
        all.filter(|name| name.starts_with(kind)).collect()
    };
    let (services, secrets) = (of("service "), of("secret "));
    let own = services.iter().filter(|name| name.ends_with(&*live));
    assert_eq!(own.count(), 2, "{live}: {objects:?}");
    assert!(services.len() <= 4, "{objects:?}");
    assert_eq!(secrets.len(), services.len(), "{objects:?}");
    for secret in &secrets {
        let release = secret.rsplit('-').nth(1).unwrap();
        let mut known = services.iter();
        assert!(known.any(|name| name.ends_with(release)), "{objects:?}");
    }
    assert!(of("config alokai-lock").is_empty(), "{objects:?}");
    assert_eq!(running(&world).lines().count(), 2);
}
