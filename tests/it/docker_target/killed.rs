//! Runs that are killed at any moment. The targets `swarm` and `local` use the same functions.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use super::commands::{TEXTS, change, running};
use super::load::Load;
use super::{World, docker};
use crate::support::{Project, build_of, configure, own_port};

/// How many runs are killed.
fn rounds() -> u64 {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        100
    } else {
        10
    }
}

/// Kills runs of the store `us` within this time in milliseconds, while clients ask for its pages. The next
/// run has to succeed, and no request may fail. One earlier release is kept.
pub fn kill_runs(project: &Project, longest: u64) {
    let health = json!({ "*": { "interval": 0, "consecutive": 1 } });
    configure(
        project,
        &json!({ "keep": 1, "drain": 2, "watch": 1, "health": health }),
    );
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    set_secret(project, "SECRET_SETTING", "very-secret-value");
    change(project, TEXTS, "other texts\n");
    let other = build_of(project);
    change(project, TEXTS, "texts of us\n");
    let builds = [build_of(project), other];
    assert_ne!(builds[0], builds[1]);

    let load = Load::calm(port);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut killed = 0;
    for round in 0..rounds() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let command = match round % 4 {
            2 => "store rollback --store us".to_owned(),
            3 => "store deploy --store us --allow-older".to_owned(),
            other => {
                let build = &builds[usize::try_from(other).unwrap()];
                format!("store release {build} --store us --allow-older")
            }
        };
        let mut run = project.start(&command);
        std::thread::sleep(Duration::from_millis(random % longest));
        let _ = run.kill();
        killed += usize::from(run.wait().unwrap().code().is_none());
        // The lease of a killed run ends by itself; the test does not wait for it.
        project.alokai("store lock release --store us").succeeds();
        if command.contains("rollback") {
            // What is deployed to a pinned store is only staged, and stays.
            project.alokai("store unpin --store us").succeeds();
        }
    }
    // A rollback to the first release leaves a store without settings.
    set_secret(project, "SECRET_SETTING", "very-secret-value");
    let build = &builds[1];
    let last = format!("store release {build} --store us --allow-older");
    let run = project.alokai(&last).succeeds();
    run.stdout_contains(" is live");
    let result = load.end();
    println!("{killed} runs killed, {} requests", result.requests);
    let failures = &result.failures;
    assert!(failures.is_empty(), "{}: {:?}", failures.len(), failures[0]);
    assert!(result.requests > 0 && killed > 0);
    let known = ["middleware\n", "other texts\n", "texts of us\n"];
    let pages = result.pages.iter();
    assert!(
        pages.clone().all(|page| known.contains(&&**page)),
        "{pages:?}"
    );
    let page = World::page_at(port, "us.localhost", "/");
    assert_eq!(page, "other texts\n\n200");
    let status = project.alokai("store status --store us").succeeds();
    status.stdout_lacks("drift");
}

/// Sets a setting, whose value is in no argument.
pub fn set_secret(project: &Project, name: &str, value: &str) {
    let mut command = project.command(&[
        "store", "settings", "set", "--store", "us", "--secret", name,
    ]);
    let mut run = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    stdin.write_all(value.as_bytes()).unwrap();
    drop(stdin);
    assert!(run.wait().unwrap().success());
}

/// What the engine has for the store, with the names of its kinds: networks and volumes too.
pub fn everything(world: &World) -> Vec<String> {
    let owner = format!("label=com.alokai.project={}-us", world.name);
    let mut all = Vec::new();
    for (kind, format) in [("network", "{{.Name}}"), ("volume", "{{.Name}}")] {
        let list = docker(&[kind, "ls", "--filter", &owner, "--format", format]);
        all.extend(list.lines().map(|name| format!("{kind} {name}")));
    }
    all.extend(
        world
            .containers()
            .iter()
            .map(|name| format!("container {name}")),
    );
    all
}

#[test]
fn a_killed_run_loses_no_request_and_the_next_one_cleans() {
    let Some(world) = World::new("killed") else {
        return;
    };
    kill_runs(&world.project, 3500);
    // The live release runs, and at most one other is kept. No lock and no access to settings is left.
    assert_eq!(running(&world).lines().count(), 2);
    let left = everything(&world);
    let count = |kind: &str| left.iter().filter(|it| it.starts_with(kind)).count();
    let apps = count("container us-storefront-");
    assert!(apps == 2 || apps == 4, "{left:?}");
    assert_eq!(count("container"), apps, "{left:?}");
    // The network of the store, its data and its settings, and the record of its proxy.
    assert_eq!((count("network"), count("volume")), (1, 3), "{left:?}");
    let table = world.project.read(".alokai/proxy/table.json");
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["releases"].as_object().unwrap().len(), 1, "{table}");
}
