//! The target `swarm`: a real Docker Swarm of one node, and a real HAProxy. What the target does as the
//! target `docker` is tested by the same functions.

mod killed;
mod services;

use std::process::Command;
use std::time::{Duration, Instant};

use alokai::store::TargetKind;
use serde_json::json;

use crate::docker_target::{World, commands, copies, free_port, releases, switching};
use crate::support::{MIDDLEWARE, docker};

/// A shop at a swarm, or None if the test is skipped.
fn world(name: &str) -> Option<World> {
    let bind = format!("127.0.0.1:{}", free_port());
    let world = World::at(
        TargetKind::Swarm,
        &format!("swarm-{name}"),
        &json!({ "proxy": { "bind": [bind] } }),
    )?;
    is_manager().then_some(world)
}

fn is_manager() -> bool {
    let is_manager = docker(&["info", "--format", "{{.Swarm.ControlAvailable}}"]) == "true";
    if !is_manager {
        let required = std::env::var("ALOKAI_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "ALOKAI_REQUIRE_DOCKER=1, and the engine is not a swarm manager"
        );
        println!("skipped: the engine is not a swarm manager; `scripts/services up` makes it one");
    }
    is_manager
}

/// Removes what a swarm has with a label.
pub fn clean(label: &str) {
    let run = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // As the target does it: a service is removed after its tasks, because Docker 20.10 crashes otherwise.
    let services = run(&["service", "ls", "--quiet", "--filter", label]);
    for service in services.lines() {
        run(&["service", "scale", "--detach", &format!("{service}=0")]);
    }
    let start = Instant::now();
    for service in services.lines() {
        let desired = ["service", "ps", "--format", "{{.DesiredState}}", service];
        while run(&desired).lines().any(|state| state != "Shutdown")
            && start.elapsed() < Duration::from_secs(30)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    for kind in ["service", "secret", "config"] {
        for id in run(&[kind, "ls", "--quiet", "--filter", label]).lines() {
            run(&[kind, "rm", id]);
        }
    }
}

/// The services of the store, which have the release in lower case at the end of their names.
fn services(world: &World) -> Vec<String> {
    let all = world.objects().into_iter();
    all.filter_map(|name| Some(name.strip_prefix("service ")?.to_owned()))
        .collect()
}

/// The services of the store that are asked to run.
pub fn running(world: &World) -> Vec<String> {
    let owner = format!("label=com.alokai.project={}-us", world.name);
    let format = "{{.Replicas}} {{.Name}}";
    let list = docker(&["service", "ls", "--filter", &owner, "--format", format]);
    let wanted = list.lines().filter_map(|line| {
        let (replicas, name) = line.split_once(' ')?;
        (!replicas.ends_with("/0")).then(|| name.to_owned())
    });
    wanted.collect()
}

/// The service of the middleware of a release.
fn middleware(world: &World, release: &alokai::ledger::RecordId) -> String {
    let end = release.as_str().to_ascii_lowercase();
    let mut all = services(world).into_iter();
    all.find(|name| name.ends_with(&end) && name.contains(MIDDLEWARE))
        .unwrap()
}

/// Gives a service this many tasks, as a person does.
fn scale(service: &str, count: u32) {
    docker(&["service", "scale", &format!("{service}={count}")]);
}

#[test]
fn releases_and_rollbacks_lose_no_request() {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    if let Some(world) = world("switching") {
        let counts = if is_long { (10, 5) } else { (3, 2) };
        switching::release_and_roll_back(&world, counts);
    }
}

#[test]
fn a_release_that_is_stopped_before_the_switch_loses_requests() {
    if let Some(world) = world("broken-order") {
        switching::stop_before_the_switch(&world, |release| {
            let end = release.to_ascii_lowercase();
            for service in services(&world) {
                if service.ends_with(&end) {
                    scale(&service, 0);
                }
            }
        });
    }
}

#[test]
fn a_copy_has_the_values_of_env_files_of_its_original() {
    if let Some(world) = world("copies") {
        copies::copy(&world);
    }
}

#[test]
fn one_of_two_machines_gets_the_lock_and_the_other_one_learns_the_holder() {
    if let Some(world) = world("locks") {
        releases::lock(&world);
    }
}

#[test]
fn a_release_that_fails_gets_no_traffic_and_leaves_nothing_behind() {
    if let Some(world) = world("failing") {
        releases::fail(&world);
    }
}

#[test]
fn an_app_with_traffic_is_started_again_on_the_same_port() {
    if let Some(world) = world("restarts") {
        releases::restart(&world);
    }
}

#[test]
fn the_output_of_apps_can_be_read() {
    if let Some(world) = world("output") {
        releases::print(&world);
    }
}

#[test]
fn a_store_is_deployed_and_rolled_back_and_a_bad_release_is_refused() {
    if let Some(world) = world("commands") {
        commands::deploy_and_roll_back(&world);
    }
}

#[test]
fn of_two_clones_that_release_at_once_one_wins_and_the_other_one_names_it() {
    if is_manager() {
        commands::release_two_clones_at_once(TargetKind::Swarm);
    }
}

#[test]
fn data_outlives_releases_rollbacks_and_a_prune() {
    if let Some(world) = world("data") {
        commands::keep_data(&world, || assert_eq!(running(&world).len(), 2));
    }
}
