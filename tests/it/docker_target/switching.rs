//! Requests and `WebSocket`s while releases come and go.

use std::time::Instant;

use serde_json::json;

use super::commands::{TEXTS, change};
use super::load::Load;
use super::{SERVER, World, docker, us};
use crate::support::{MIDDLEWARE, Project, await_event, configure, happened, own_port};

#[test]
fn ten_releases_and_five_rollbacks_lose_no_request() {
    if let Some(world) = World::new("switching") {
        release_and_roll_back(&world, (10, 5));
    }
}

/// Makes this many releases and rollbacks live under load.
pub fn release_and_roll_back(world: &World, (releases, rollbacks): (usize, usize)) {
    let target = world.target();
    let mut live = world.release("v0");
    world.stage(&*target, &live);
    world.switch(&*target, &live);
    let load = Load::start(world.port());
    load.goes_on();
    let mut earlier = Vec::new();
    for number in 1..=releases + rollbacks {
        let next = if number <= releases {
            world.release(&format!("v{number}"))
        } else {
            // The kept containers of a release are started again.
            earlier.pop().unwrap()
        };
        let start = Instant::now();
        world.stage(&*target, &next);
        world.switch(&*target, &next);
        println!("{number}: staged and switched in {:?}", start.elapsed());
        load.goes_on();
        load.leaves();
        world.leave(&*target, &live, true);
        if number <= releases {
            earlier.push(live);
        }
        live = next;
    }
    let result = load.end();
    println!("{} requests, {} echoes", result.requests, result.echoes);
    let failures = &result.failures;
    assert!(
        failures.is_empty(),
        "{}: {:?}",
        failures.len(),
        failures.first()
    );
    // Each frontend talks to the middleware of its own release.
    let pairs = (0..=releases).map(|number| format!("v{number} /page with v{number} /"));
    assert_eq!(result.pages, pairs.collect());
    assert!(result.echoes > 0);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, Some(live.id));
    assert_eq!(observed.staged, []);
    assert_eq!(observed.kept.len(), releases);
}

#[test]
fn a_release_that_is_stopped_before_the_switch_loses_requests() {
    if let Some(world) = World::new("broken-order") {
        stop_before_the_switch(&world, |release| {
            let all = world.containers();
            for container in all.iter().filter(|it| it.ends_with(release)) {
                docker(&["stop", container]);
            }
        });
    }
}

/// Stops the live release before the switch, which is the wrong order: the test has to see lost requests.
/// `stop` stops the containers of a release.
pub fn stop_before_the_switch(world: &World, stop: impl Fn(&str)) {
    let target = world.target();
    let (old, new) = (world.release("old"), world.release("new"));
    world.stage(&*target, &old);
    world.switch(&*target, &old);
    let load = Load::start(world.port());
    load.goes_on();
    world.stage(&*target, &new);
    // The target refuses this order, so the engine is asked directly.
    let refused = world.wait(target.retire(&us(), &old.id, true)).unwrap_err();
    assert!(
        refused.to_string().contains("gets the traffic"),
        "{refused}"
    );
    stop(old.id.as_str());
    load.goes_on();
    world.switch(&*target, &new);
    load.goes_on();
    let result = load.end();
    assert!(!result.failures.is_empty());
    assert!(result.pages.contains("new /page with new /"));
}

#[test]
fn commands_that_release_and_roll_back_lose_no_request() {
    if let Some(world) = World::new("under-load") {
        release_and_roll_back_by_commands(&world.project);
    }
}

/// Deploys and rolls back the store `us` by commands under load: three times, or fifteen times in a long
/// run.
pub fn release_and_roll_back_by_commands(project: &Project) {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    let (releases, rollbacks) = if is_long { (10, 5) } else { (2, 1) };
    let health = json!({ "*": { "interval": 0, "consecutive": 1 } });
    configure(
        project,
        &json!({ "watch": 1, "drain": 1, "health": health }),
    );
    change(project, &format!("apps/{MIDDLEWARE}/src/index.js"), SERVER);
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    let load = Load::start(port);
    load.goes_on();
    for number in 0..releases + rollbacks {
        let command = if number < releases {
            change(project, TEXTS, &format!("texts {number}\n"));
            "store deploy --store us"
        } else {
            "store rollback --store us"
        };
        let (start, before) = (Instant::now(), happened(project, "released"));
        let run = project.start(command);
        await_event(project, "released", before);
        println!("{command}: switched after {:?}", start.elapsed());
        // From now on the earlier release may end its WebSockets.
        load.leaves();
        let run: crate::support::Run = run.wait_with_output().unwrap().into();
        run.succeeds();
        println!("{command}: {:?}", start.elapsed());
        load.goes_on();
    }
    let result = load.end();
    println!("{} requests, {} echoes", result.requests, result.echoes);
    let failures = &result.failures;
    assert!(failures.is_empty(), "{}: {:?}", failures.len(), failures[0]);
    assert!(result.echoes > 0);
    assert_eq!(result.pages.len(), 1 + releases, "{:?}", result.pages);
}
