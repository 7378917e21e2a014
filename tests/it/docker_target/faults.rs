//! Releases that fail for reasons outside of them: the disk is full, the image is gone, or the engine goes
//! away. The target `local` uses some of these functions.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::commands::{TEXTS, change, running};
use super::killed::everything;
use super::load::Load;
use super::{World, docker, free_port, us};
use crate::support::{
    Before, EngineRelay, FRONTEND, MIDDLEWARE, Project, Run, Turn, await_event, build_of,
    configure, engine_socket, happened,
};

/// The image of the frontend of a build.
fn reference(project: &Project, build: &str) -> String {
    let info = project.alokai(&["store", "builds", "info", build, "--json"]);
    let info = info.succeeds().json();
    let reference = info["apps"][FRONTEND]["reference"].as_str();
    reference.unwrap().to_owned()
}

/// Removes an image that the engine has built itself, so that it has to be pulled.
fn forget(image: &str) {
    let mut inspect = Command::new("docker");
    let inspect = inspect.args(["image", "inspect", "--format", "{{.Id}}", image]);
    let id = String::from_utf8(inspect.output().unwrap().stdout).unwrap();
    if !id.trim().is_empty() {
        docker(&["rmi", "--force", id.trim()]);
    }
}

/// A shop whose engine has this address.
fn world_at(name: &str, host: &str) -> Option<World> {
    let bind = format!("127.0.0.1:{}", free_port());
    let section = json!({ "proxy": { "bind": [bind] }, "host": host });
    World::with(name, &section)
}

/// Deploys an app that listens on another port than the one it is asked for. Another release is live.
pub fn listen_on_another_port(project: &Project) {
    let health = json!({ "*": { "interval": 0, "consecutive": 1, "deadline": 3 } });
    configure(project, &json!({ "health": health }));
    let server = format!(
        "require('http').createServer((_, answer) => answer.end()).listen({});",
        free_port()
    );
    change(project, &format!("apps/{MIDDLEWARE}/src/index.js"), &server);
    let run = project.alokai("store deploy --store us").fails_with(1);
    run.stderr_contains("alokai::release::unhealthy");
    run.stderr_contains(&format!("`{MIDDLEWARE}` of the release R"));
    run.stderr_contains("is not healthy within 3 s");
    // The address that was asked.
    run.stderr_contains("  http://");
}

#[test]
fn an_app_that_listens_on_another_port_gets_no_traffic() {
    let Some(world) = World::new("other-port") else {
        return;
    };
    world.project.alokai("store deploy --store us").succeeds();
    let (before, containers) = (running(&world), world.containers());
    listen_on_another_port(&world.project);
    assert_eq!(world.page("/api/x"), "middleware\n\n200");
    assert_eq!(running(&world), before);
    assert_eq!(world.containers(), containers);
}

#[test]
fn an_image_that_was_deleted_from_the_registry_is_named() {
    let Some(world) = World::new("deleted") else {
        return;
    };
    let project = &world.project;
    project.alokai("store deploy --store us").succeeds();
    let before = world.containers();
    change(project, TEXTS, "new texts\n");
    let build = build_of(project);
    let image = format!("docker://{}", reference(project, &build));
    let deleted = world
        .registry
        .skopeo(&["delete", "--tls-verify=false", &image]);
    assert!(deleted.is_some());
    let release = format!("store release {build} --store us");
    let run = project.alokai(&release).fails_with(1);
    run.stderr_contains("do not exist any more: `storefront-unified-nextjs`");
    run.stderr_contains("builds them again");
    assert_eq!(world.page("/"), "texts of us\n\n200");
    assert_eq!(world.containers(), before);
}

/// What the double of the engine answers.
const FAULTS: [&str; 4] = [
    "none",
    "full disk at a pull",
    "full disk at a start",
    "no image",
];

#[test]
fn a_full_disk_and_a_missing_image_of_the_engine_are_told_apart() {
    let Some(socket) = engine_socket() else {
        return;
    };
    let fault = Arc::new(AtomicUsize::new(0));
    let at = Arc::clone(&fault);
    let full = "write /var/lib/docker/tmp/x: no space left on device";
    let error = |status: u16, message: &str| {
        let body = json!({ "message": message }).to_string();
        Turn::Answer(status, Vec::new(), body)
    };
    // A double of the engine, with the responses that the engine documents.
    let double = Before::engine(&socket, move |seen| {
        let pulls = seen.is("POST", "/images/create?") && seen.target.contains("fromImage=");
        let creates = seen.is("POST", "/containers/create?") && seen.target.contains("name=us-");
        match FAULTS[at.load(Ordering::SeqCst)] {
            // A failure of a pull that has begun is a part of its output.
            "full disk at a pull" if pulls => {
                let detail = json!({ "errorDetail": { "message": full }, "error": full });
                Turn::Answer(200, Vec::new(), format!("{detail}\n"))
            }
            "full disk at a start" if creates => error(500, full),
            "no image" if pulls => error(404, "manifest unknown: manifest unknown"),
            _ => Turn::Pass,
        }
    });
    let Some(world) = world_at("full", &format!("tcp://{}", double.address)) else {
        return;
    };
    let project = &world.project;
    project.alokai("store deploy --store us").succeeds();
    let before = world.containers();
    for (number, name) in FAULTS.iter().enumerate().skip(1) {
        fault.store(number, Ordering::SeqCst);
        change(project, TEXTS, name);
        let build = build_of(project);
        forget(&reference(project, &build));
        let release = format!("store release {build} --store us");
        let run = project.alokai(&release).fails_with(1);
        if *name == "no image" {
            run.stderr_contains("alokai::docker::image_missing");
            run.stderr_contains("cannot be pulled: manifest unknown");
        } else {
            run.stderr_contains("alokai::docker::disk_full");
            run.stderr_contains(full);
            run.stderr_contains("docker system prune");
        }
        assert_eq!(world.page("/"), "texts of us\n\n200", "{}", *name);
        assert_eq!(world.containers(), before, "{}", *name);
    }
    fault.store(0, Ordering::SeqCst);
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "no image\n200");
    assert_eq!(running(&world).lines().count(), 2);
}

#[test]
fn an_engine_that_goes_away_leaves_the_traffic_and_the_next_run_cleans() {
    let Some(socket) = engine_socket() else {
        return;
    };
    let relay = EngineRelay::new(&socket);
    let Some(world) = world_at("away", &relay.address()) else {
        return;
    };
    let project = &world.project;
    // There is a moment between the start of the apps and the switch.
    let health = json!({ "*": { "interval": 1, "consecutive": 4 } });
    configure(
        project,
        &json!({ "watch": 3, "keep": 1, "drain": 1, "health": health }),
    );
    project.alokai("store deploy --store us").succeeds();
    let load = Load::calm(world.port());
    let lose_engine = |texts: &str, after: &str| -> Run {
        change(project, TEXTS, texts);
        let before = happened(project, after);
        let run = project.start("store deploy --store us");
        await_event(project, after, before);
        relay.close();
        let run = run.wait_with_output().unwrap().into();
        relay.open();
        // The lease ends by itself; the test does not wait for it.
        project.alokai("store lock release --store us").succeeds();
        run
    };

    let run = lose_engine("second texts\n", "staged").fails_with(1);
    run.stderr_contains("alokai::docker::lost");
    run.stderr_contains(&format!(
        "the Docker engine at `{}` stopped",
        relay.address()
    ));
    run.stderr_contains("run the same command again");
    run.stderr_contains("the next release of the store stops it");
    assert_eq!(world.page("/"), "texts of us\n\n200");
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "second texts\n\n200");
    assert_eq!(running(&world).lines().count(), 2);

    // After the switch the release that was asked for is live and healthy: the run succeeds, and says what
    // is left.
    let run = lose_engine("third texts\n", "released").succeeds();
    run.stderr_contains("could not be stopped; the next release of the store stops it");
    run.stderr_contains(&relay.address());
    assert_eq!(world.page("/"), "third texts\n\n200");
    assert_eq!(running(&world).lines().count(), 4);
    change(project, TEXTS, "fourth texts\n");
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "fourth texts\n\n200");
    assert_eq!(running(&world).lines().count(), 2);
    let left = everything(&world);
    let containers = left.iter().filter(|it| it.starts_with("container")).count();
    assert_eq!(containers, 4, "{left:?}");
    let result = load.end();
    assert_eq!(result.failures, Vec::<String>::new());
    assert!(result.requests > 0);
}

#[test]
fn leftovers_of_a_run_killed_between_two_requests_are_removed_by_the_next_run() {
    let Some(world) = World::new("rests") else {
        return;
    };
    let target = world.target();
    let claim = super::releases::claim("killed", 600);
    for _ in 0..2 {
        world.wait(target.lock(&us(), &claim)).unwrap();
    }
    // The lock is given back, and its renewal is left.
    docker(&["rm", &format!("alokai-lock-{}-us-us", world.name)]);
    assert_eq!(world.containers().len(), 1);
    let own = super::releases::claim("own", 600);
    for _ in 0..2 {
        world.wait(target.lock(&us(), &own)).unwrap();
    }
    // Containers for access to settings, of a process that has ended and of this one.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let started = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    for process in [ended.id(), std::process::id()] {
        let opened_by = format!(
            "com.alokai.opened-by={} {} {process}",
            started.trim(),
            namespace.display()
        );
        let labels = [
            format!("com.alokai.project={}-us", world.name),
            "com.alokai.store=us".to_owned(),
            opened_by,
        ];
        let name = format!("alokai-{}-us-us-settings-{process}-1", world.name);
        let mut arguments = vec!["create", "--name", &name];
        arguments.extend(labels.iter().flat_map(|label| ["--label", label]));
        arguments.extend(["alokai-empty:1", "settings"]);
        docker(&arguments);
    }
    let spec = world.release("v1");
    world.stage(&*target, &spec);
    let mut left = world.containers();
    left.retain(|name| !name.contains("-storefront-"));
    left.sort();
    let lock = format!("alokai-lock-{}-us-us", world.name);
    let access = format!(
        "alokai-{}-us-us-settings-{}-1",
        world.name,
        std::process::id()
    );
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&lock) && left.contains(&access), "{left:?}");
    assert!(
        left.iter()
            .any(|name| name.starts_with(&format!("{lock}-renewed-")))
    );
    // The lock and its renewal are still valid.
    let holder = world.wait(target.lock_holder(&us())).unwrap();
    assert_eq!(holder.unwrap().holder, "own");
}
