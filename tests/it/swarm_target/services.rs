//! What a swarm has for a store: services, secrets, configs; and what people do to them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use alokai::store::TargetKind;
use alokai::target::{Error, Settings};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{middleware, scale, services, world};
use crate::docker_target::{LIMIT, World, free_port, us};
use crate::support::{MIDDLEWARE, docker};

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        // An update and its rollback take Swarm a long time.
        assert!(start.elapsed() < 3 * LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn settings_are_secrets_of_the_swarm_and_a_rollback_brings_them_back() {
    let Some(world) = world("settings") else {
        return;
    };
    let target = world.target();
    let settings = |secret: &str| -> Settings {
        let quoted = format!("{secret} 'with quotes' $HOME `id`\nand lines");
        [("SECRET".to_owned(), quoted.into())].into()
    };
    let store = |version: &str, secret: &str| {
        world.wait(target.store_settings(&us(), version, &settings(secret)))
    };
    store("R1", "first-secret-value").unwrap();
    store("R1", "first-secret-value").unwrap();
    store("R2", "second-secret-value").unwrap();
    let changed = store("R1", "another-value").unwrap_err().to_string();
    assert!(changed.contains("exists with other values"), "{changed}");
    assert!(!changed.contains("another-value"), "{changed}");
    let read = world.wait(target.settings(&us(), "R1")).unwrap().unwrap();
    assert!(read["SECRET"].expose_secret().starts_with("first-secret"));
    assert!(world.wait(target.settings(&us(), "R9")).unwrap().is_none());

    let with = |version: &str, settings: &str| {
        let mut spec = world.release(version);
        spec.settings = Some(settings.to_owned());
        spec
    };
    let (first, second) = (with("first", "R1"), with("second", "R2"));
    for (spec, secret) in [(&first, "first"), (&second, "second"), (&first, "first")] {
        world.stage(&*target, spec);
        world.switch(&*target, spec);
        let said = format!("{secret}-secret-value 'with quotes' $HOME `id`\nand lines\n200");
        assert_eq!(world.page("/secret"), said);
        assert_eq!(world.page("/api/secret"), said);
    }
    let lost = world.wait(target.stage(&with("lost", "R3"))).unwrap_err();
    assert!(lost.to_string().contains("version R3"), "{lost}");

    // No object of the engine and no environment of a container shows a value, not even in base 64.
    let owner = format!("label=com.alokai.project={}-us", world.name);
    let mut shown = String::new();
    let encoded = ["first-sec", "second-se"].map(|text| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    });
    for kind in ["service", "secret", "config", "container"] {
        let ids = docker(&[kind, "ls", "--quiet", "--filter", &owner]);
        assert!(!ids.is_empty(), "{kind}");
        for id in ids.lines() {
            shown += &docker(&[kind, "inspect", id]);
        }
    }
    for text in ["secret-value", &encoded[0], &encoded[1]] {
        assert!(!shown.contains(text), "{text}");
    }
    for file in ["table.json", "haproxy.cfg", "settings.key"] {
        let text = std::fs::read(world.project.path(&format!(".alokai/proxy/{file}"))).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("secret-value"));
    }

    // The secrets of a release end with it.
    let release = second.id.as_str().to_ascii_lowercase();
    let of_second = |it: &&String| it.contains(&release);
    assert_eq!(world.objects().iter().filter(of_second).count(), 4);
    world.wait(target.retire(&us(), &second.id, true)).unwrap();
    assert_eq!(world.objects().iter().filter(of_second).count(), 4);
    world.wait(target.retire(&us(), &second.id, false)).unwrap();
    assert_eq!(world.objects().iter().filter(of_second).count(), 0);

    // With another key nothing can be read, and the error names the key.
    world
        .project
        .write(".alokai/proxy/settings.key", "x".repeat(32));
    let error = world.wait(target.settings(&us(), "R1")).unwrap_err();
    assert!(error.to_string().contains("settings.key"), "{error}");
}

#[test]
fn a_stopped_store_leaves_its_data_and_frees_its_names() {
    if let Some(world) = world("stop") {
        crate::docker_target::proxy::stop_a_store(&world);
    }
}

#[test]
fn changes_of_a_service_by_other_programs_are_detected() {
    let Some(world) = world("others") else {
        return;
    };
    let target = world.target();
    let (live, next) = (world.release("live"), world.release("next"));
    world.stage(&*target, &live);
    world.switch(&*target, &live);
    let is_well = || {
        let states = world.wait(target.health(&us(), &live.id)).unwrap();
        states.iter().all(|state| state.running)
    };
    assert!(is_well());

    // Another port, as after a move to another node: the next run follows.
    let service = middleware(&world, &live.id);
    let port = free_port();
    let publish = format!("mode=host,target=4000,published={port}");
    docker(&[
        "service",
        "update",
        "--publish-rm",
        "4000",
        "--publish-add",
        &publish,
        &service,
    ]);
    assert_ne!(world.page("/api/x"), "live /x\n200");
    // The rollback fails, because there is no earlier release. Before that, it reads the new port.
    let rollback = "store rollback --store us";
    world.project.alokai(rollback).fails_with(2);
    until("the app is reached at its new port", || {
        world.page("/api/x") == "live /x\n200"
    });
    assert!(is_well());

    // An update that fails: Docker's client reports success, and the state of the app does not.
    docker(&[
        "service",
        "update",
        "--update-failure-action",
        "rollback",
        "--update-monitor",
        "1s",
        "--rollback-monitor",
        "1s",
        "--args",
        "/nothing",
        "--env-add",
        "VERSION=broken",
        "--health-cmd",
        "false",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        "--detach",
        &service,
    ]);
    until("the failed update is told", || {
        let states = world.wait(target.health(&us(), &live.id)).unwrap();
        let state = states.iter().find(|it| it.app.as_str() == MIDDLEWARE);
        let ended = state.unwrap().ended.clone().unwrap_or_default();
        ended.contains("did not finish the update")
    });
    until("Swarm has rolled back", || {
        let format = "{{.UpdateStatus.State}}";
        docker(&["service", "inspect", "--format", format, &service]) == "rollback_completed"
    });
    until("what was asked for runs again", is_well);

    // A service that was stopped gets no traffic.
    world.stage(&*target, &next);
    let stopped = middleware(&world, &next.id);
    scale(&stopped, 0);
    let token = world.wait(target.observe(&us())).unwrap().token;
    let error = world.wait(target.switch(&next, &token)).unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");
    // Staged again, it runs again.
    world.stage(&*target, &next);
    let stale = alokai::target::SwitchToken("R1".into());
    let error = world.wait(target.switch(&next, &stale)).unwrap_err();
    assert!(matches!(error, Error::OutOfSequence { .. }), "{error}");
    world.switch(&*target, &next);
    assert_eq!(world.page("/page"), "next /page with next /\n200");
}

#[test]
fn a_port_of_another_program_is_not_used_and_only_services_of_the_store_are_stopped() {
    let Some(world) = world("foreign") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    world.stage(&*target, &first);
    // A kept release whose port another program has meanwhile gets another port.
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    let service = middleware(&world, &first.id);
    let label = "{{index .Spec.Labels \"com.alokai.port\"}}";
    let port = || docker(&["service", "inspect", "--format", label, &service]);
    let before = port();
    // Its task ends a moment later.
    let bind = || TcpListener::bind(("0.0.0.0", before.parse().unwrap()));
    until("the port is free", || bind().is_ok());
    let taken = bind().unwrap();
    world.stage(&*target, &first);
    assert_ne!(port(), before);
    drop(taken);
    world.switch(&*target, &first);
    assert_eq!(world.page("/page"), "first /page with first /\n200");

    // Somebody else has the name that a release needs.
    let name = service.replace(
        &first.id.as_str().to_ascii_lowercase(),
        &second.id.as_str().to_ascii_lowercase(),
    );
    let create = ["service", "create", "--detach", "--replicas", "0", "--name"];
    docker(&[&create[..], &[name.as_str(), "alokai-docker-target:1"]].concat());
    let error = world.wait(target.stage(&second)).unwrap_err().to_string();
    world.wait(target.retire(&us(), &second.id, false)).unwrap();
    let found = docker(&["service", "inspect", "--format", "{{.Spec.Name}}", &name]);
    docker(&["service", "rm", &name]);
    assert!(
        error.contains(&name) && error.contains("does not belong"),
        "{error}"
    );
    assert_eq!(found, name);
    assert_eq!(services(&world).len(), 2);
}

#[test]
fn an_engine_that_manages_no_swarm_is_an_error_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let body = if request.contains("/version") {
                r#"{"ApiVersion":"1.41","Version":"20.10.24"}"#
            } else {
                r#"{"Swarm":{"LocalNodeState":"inactive","ControlAvailable":false}}"#
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let bind = format!("127.0.0.1:{}", free_port());
    let section = json!({ "host": host, "proxy": { "bind": [bind] } });
    let Some(world) = World::at(TargetKind::Swarm, "no-swarm", &section) else {
        return;
    };
    let run = world.project.alokai("store deploy --store us");
    let run = run.fails_with(3);
    let wanted = format!("`{host}` is not a swarm manager: it is not in a swarm");
    assert!(run.stderr.contains(&wanted), "{}", run.stderr);
    assert!(run.stderr.contains("docker swarm init"), "{}", run.stderr);
    // Before the first build.
    assert!(!world.project.path(".out").exists());
}
