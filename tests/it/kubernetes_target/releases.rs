//! Staging, switching and retiring; locks, settings, and what other programs change.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use alokai::target::{Drained, Error, LockAnswer, LockClaim, ReleaseSpec, Settings, Target};
use jiff::Timestamp;
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{HOST, LIMIT, World, release, us};

const APPS: &str = "apis/apps/v1";
const CORE: &str = "api/v1";
const NETWORK: &str = "apis/networking.k8s.io/v1";

fn versions(objects: &[Value]) -> Vec<(String, String)> {
    let text = |it: &Value, key: &str| it["metadata"][key].as_str().unwrap().to_owned();
    let all = objects.iter();
    all.map(|it| (text(it, "name"), text(it, "resourceVersion")))
        .collect()
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_release_is_staged_gets_the_traffic_and_gives_it_back() {
    let section =
        json!({ "probe": "readiness", "replicas": { "*": 2 }, "ingress": { "class": "nginx" } });
    let Some(world) = World::with("switching", &section) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    world.wait(target.preflight()).unwrap();
    let (first, second) = (release(), release());

    let staged = world.stage(&target, &first);
    assert_eq!(staged.replicas.len(), 3);
    let host = format!("{}.{HOST}", first.id.as_str().to_lowercase());
    assert_eq!(staged.address, Some(format!("http://{host}")));
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, None);
    assert_eq!(observed.staged[0].release, first.id);
    assert_eq!(observed.staged[0].address, staged.address);
    assert_eq!(world.public()["code"], 404);

    world.switch(&target, &first);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, Some(first.id.clone()));
    assert!(observed.since.is_some() && observed.staged.is_empty());
    assert_eq!(observed.addresses, [format!("http://{HOST}")]);

    // A second release, with one app less.
    let mut second = second;
    second.apps.retain(|app| app.app.as_str() != "back_office");
    world.stage(&target, &second);
    let before = world.wait(target.observe(&us())).unwrap();
    world.switch(&target, &second);
    let service = world.public();
    assert_eq!(
        service["spec"]["selector"]["alokai.com/release"],
        second.id.as_str()
    );
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 2);
    // The token is that of the traffic before.
    let late = world.wait(target.switch(&first, &before.token));
    assert!(matches!(late, Err(Error::OutOfSequence { .. })), "{late:?}");
    assert_eq!(
        world.public()["spec"]["selector"],
        service["spec"]["selector"]
    );
    // The route to the app that the second release does not have is gone.
    let public = format!("{}-us-us", world.namespace);
    let routes: Vec<String> = world.names(NETWORK, "ingresses");
    let routes: Vec<_> = routes.iter().filter(|it| it.starts_with(&public)).collect();
    assert_eq!(routes.len(), 2, "{routes:?}");

    // Back, with the id alone.
    let known = ReleaseSpec::without_apps(first.id.clone(), us());
    world.switch(&target, &known);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, Some(first.id.clone()));
    assert_eq!(observed.addresses, [format!("http://{HOST}")]);
    assert_eq!(world.public()["spec"]["ports"].as_array().unwrap().len(), 3);
    let drained = world.wait(target.drained(&us(), &second.id)).unwrap();
    assert_eq!(drained, Drained::Unknown);
}

/// The kind of the Gateway API, without its schema.
fn http_routes() -> Value {
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let names = json!({ "plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute" });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "unapproved, for tests" },
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": names,
            "scope": "Namespaced",
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

#[test]
fn a_gateway_gets_a_route_for_the_store_and_one_for_each_release() {
    let section = json!({ "probe": "readiness", "gateway": { "name": "public" } });
    let Some(world) = World::with("gateway", &section) else {
        return;
    };
    let definitions = "apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, answer) = world.ask(Method::POST, definitions, Some(&http_routes()));
    assert!([201, 409].contains(&status), "{answer}");
    let group = "apis/gateway.networking.k8s.io/v1";
    until("the kind is served", || {
        world
            .ask(Method::GET, &world.path(group, "httproutes"), None)
            .0
            == 200
    });
    let (target, _kubelet) = (world.target(), world.kubelet());
    world.wait(target.preflight()).unwrap();
    let (first, second) = (release(), release());
    for spec in [&first, &second] {
        world.stage(&target, spec);
        world.switch(&target, spec);
    }
    assert_eq!(world.names(group, "httproutes").len(), 3);
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    let routes = world.objects(group, "httproutes");
    let hosts: Vec<_> = routes
        .iter()
        .map(|it| it["spec"]["hostnames"][0].as_str())
        .collect();
    let staged = format!("{}.{HOST}", second.id.as_str().to_lowercase());
    assert_eq!(hosts.len(), 2, "{hosts:?}");
    assert!(
        hosts.contains(&Some(HOST)) && hosts.contains(&Some(staged.as_str())),
        "{hosts:?}"
    );
}

#[test]
fn a_second_apply_changes_nothing() {
    let section = json!({ "probe": "readiness", "ingress": {}, "resources": { "*": { "limits": { "memory": "512Mi" } } } });
    let Some(world) = World::with("twice", &section) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let mut spec = release();
    let settings: Settings = [("PRICE".to_owned(), "7".to_owned().into())].into();
    world
        .wait(target.store_settings(&us(), "R1", &settings))
        .unwrap();
    spec.settings = Some("R1".into());
    world.stage(&target, &spec);
    world.switch(&target, &spec);
    let all = || {
        let kinds = [
            (APPS, "deployments"),
            (CORE, "services"),
            (CORE, "secrets"),
            (NETWORK, "ingresses"),
        ];
        kinds.map(|(group, kind)| versions(&world.objects(group, kind)))
    };
    // The controllers write the last status of the Deployments.
    let mut before = all();
    until("the status of the Deployments changes all the time", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = all();
        std::mem::replace(&mut before, now.clone()) == now
    });
    assert!(before.iter().all(|kind| !kind.is_empty()), "{before:?}");
    world.stage(&target, &spec);
    world.switch(&target, &spec);
    assert_eq!(all(), before);
}

#[test]
fn a_field_of_another_program_is_not_overwritten_and_the_program_is_named() {
    let Some(world) = World::new("conflicts") else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let (first, second) = (release(), release());
    for spec in [&first, &second] {
        world.stage(&target, spec);
    }
    world.switch(&target, &first);
    let name = world.public()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!(
        "{}/{name}?fieldManager=other-tool",
        world.path(CORE, "services")
    );
    let change = json!({ "spec": { "selector": { "alokai.com/release": second.id.as_str() } } });
    assert_eq!(world.ask(Method::PATCH, &path, Some(&change)).0, 200);

    let token = world.wait(target.observe(&us())).unwrap().token;
    let error = world.wait(target.switch(&first, &token)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("other-tool") && text.contains(".spec.selector"),
        "{text}"
    );
    assert_eq!(
        world.public()["spec"]["selector"]["alokai.com/release"],
        second.id.as_str()
    );

    // The same for an app that somebody has scaled.
    let deployment = world.names(APPS, "deployments").remove(0);
    let path = format!(
        "{}/{deployment}?fieldManager=scaler",
        world.path(APPS, "deployments")
    );
    let change = json!({ "spec": { "replicas": 3 } });
    assert_eq!(world.ask(Method::PATCH, &path, Some(&change)).0, 200);
    let error = world.wait(target.stage(&first)).unwrap_err().to_string();
    assert!(
        error.contains("scaler") && error.contains(".spec.replicas"),
        "{error}"
    );
}

#[test]
fn a_stopped_release_is_kept_or_removed_with_all_that_it_has() {
    let section = json!({ "probe": "readiness", "ingress": {} });
    let Some(world) = World::with("retiring", &section) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let (first, second) = (release(), release());
    world.stage(&target, &first);
    world.switch(&target, &first);
    let live = world.wait(target.retire(&us(), &first.id, false));
    assert!(live.unwrap_err().to_string().contains("gets the traffic"));

    world.stage(&target, &second);
    world.switch(&target, &second);
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.kept, std::slice::from_ref(&first.id));
    assert!(observed.staged.is_empty());
    let stopped = world.wait(target.switch(&first, &observed.token));
    assert!(stopped.unwrap_err().to_string().contains("does not run"));
    // Staged again, although it was scaled down by another kind of request.
    world.stage(&target, &first);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.staged[0].release, first.id);

    world.wait(target.retire(&us(), &first.id, false)).unwrap();
    let of_first = |names: Vec<String>| {
        let id = first.id.as_str().to_lowercase();
        names.into_iter().any(|name| name.contains(&id))
    };
    for (group, kind) in [
        (APPS, "deployments"),
        (CORE, "services"),
        (CORE, "secrets"),
        (NETWORK, "ingresses"),
        (CORE, "pods"),
    ] {
        until(kind, || !of_first(world.names(group, kind)));
    }
    let observed = world.wait(target.observe(&us())).unwrap();
    assert!(observed.kept.is_empty() && observed.staged.is_empty());
    assert_eq!(observed.active, Some(second.id.clone()));
    // The same id once more: its Secret is made again.
    world.stage(&target, &first);
    let secrets = || world.names(CORE, "secrets");
    until("the Secret of the release", || of_first(secrets()));
    world.wait(target.retire(&us(), &first.id, false)).unwrap();
}

#[test]
fn what_a_killed_run_leaves_is_seen_and_removed() {
    let Some(world) = World::new("leftovers") else {
        return;
    };
    let target = world.target();
    let spec = release();
    world.wait(target.stage(&spec)).unwrap();
    for name in world.names(APPS, "deployments") {
        let path = format!("{}/{name}", world.path(APPS, "deployments"));
        world.ask(Method::DELETE, &path, None);
    }
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.staged[0].release, spec.id);
    world.wait(target.retire(&us(), &spec.id, false)).unwrap();
    assert!(world.names(CORE, "services").is_empty());
}

#[test]
fn an_app_that_ends_says_how() {
    let Some(world) = World::new("failing") else {
        return;
    };
    let (target, kubelet) = (world.target(), world.kubelet());
    let spec = release();
    world.stage(&target, &spec);
    let states = || world.wait(target.health(&us(), &spec.id)).unwrap();
    assert!(
        states()
            .iter()
            .all(|app| app.running && app.ended.is_none())
    );
    kubelet.failing.store(3, Ordering::SeqCst);
    until("the apps end", || states().iter().all(|app| !app.running));
    assert_eq!(states()[0].ended.as_deref(), Some("exited with code 3"));
    until("the readiness is told", || {
        states()[0].tail.first().map(String::as_str) == Some("0 of 1 pods are ready")
    });
    let address = world.wait(target.stage(&spec)).unwrap().replicas[0]
        .address
        .clone();
    until("the probe fails", || world.status(&address) == 503);
    assert!(world.answer(&address).1.contains("0 of 1 pods are ready"));
}

#[test]
fn a_probe_goes_through_the_service_of_the_release() {
    let Some(world) = World::with("probing", &json!({})) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let spec = release();
    let staged = world.wait(target.stage(&spec)).unwrap();
    // The pods are ready and have no address, since there is no network, so the API server knows the port of
    // the Service and finds nobody behind it.
    for replica in &staged.replicas {
        let mut last = String::new();
        until("the API server is asked", || {
            last = world.answer(&replica.address).1;
            last.contains("no endpoints available")
        });
    }
}

fn claim(holder: &str, lease: u64) -> LockClaim {
    LockClaim {
        holder: holder.into(),
        who: format!("{holder}@host"),
        operation: "deploy".into(),
        since: Timestamp::now(),
        lease,
    }
}

#[test]
fn one_of_eight_machines_gets_the_lock_and_an_ended_lease_is_taken_over() {
    let Some(world) = World::new("locks") else {
        return;
    };
    let target = world.target();
    let answers: Vec<LockAnswer> = std::thread::scope(|scope| {
        let machines = (0..8).map(|number| {
            let world = &world;
            scope.spawn(move || {
                let target = world.target();
                let claim = claim(&format!("machine {number}"), 600);
                world.wait(target.lock(&us(), &claim)).unwrap()
            })
        });
        let machines: Vec<_> = machines.collect();
        machines.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let taken = LockAnswer::Taken { from: None };
    let holder = || world.wait(target.lock_holder(&us())).unwrap();
    assert_eq!(
        answers.iter().filter(|it| **it == taken).count(),
        1,
        "{answers:?}"
    );
    let winner = holder().unwrap();
    for answer in answers.iter().filter(|it| **it != taken) {
        assert_eq!(*answer, LockAnswer::Held(winner.clone()));
    }
    // The lock of another holder stays.
    world.wait(target.unlock(&us(), "nobody")).unwrap();
    assert_eq!(holder().as_ref(), Some(&winner));
    world.wait(target.unlock(&us(), &winner.holder)).unwrap();
    assert_eq!(holder(), None);

    let short = claim("short", 2);
    let take = |claim: &LockClaim| world.wait(target.lock(&us(), claim)).unwrap();
    assert_eq!(take(&short), taken);
    assert!(matches!(take(&claim("other", 2)), LockAnswer::Held(_)));
    let mut last = LockAnswer::Held(short.clone());
    until("the lease ends", || {
        last = take(&claim("other", 600));
        !matches!(last, LockAnswer::Held(_))
    });
    assert_eq!(
        last,
        LockAnswer::Taken {
            from: Some(short.clone())
        }
    );
    // The first holder learns that it has lost the lock.
    assert!(matches!(take(&short), LockAnswer::Held(it) if it.holder == "other"));
    // A renewal moves the end.
    assert_eq!(take(&claim("other", 600)), taken);
    world.wait(target.unlock(&us(), "other")).unwrap();
    assert_eq!(holder(), None);
}

#[test]
fn settings_never_change_and_are_nowhere_but_in_their_secret() {
    let Some(world) = World::new("settings") else {
        return;
    };
    let target = world.target();
    let settings =
        |value: &str| -> Settings { [("KEY".to_owned(), value.to_owned().into())].into() };
    let store = |version: &str, value: &str| {
        world.wait(target.store_settings(&us(), version, &settings(value)))
    };
    store("R1", "hidden-one").unwrap();
    store("R1", "hidden-one").unwrap();
    let other = store("R1", "hidden-two").unwrap_err().to_string();
    assert!(
        other.contains("other values") && !other.contains("hidden"),
        "{other}"
    );
    store("R2", "hidden-two").unwrap();
    let read = world.wait(target.settings(&us(), "R1")).unwrap().unwrap();
    assert_eq!(read["KEY"].expose_secret(), "hidden-one");
    assert!(world.wait(target.settings(&us(), "R3")).unwrap().is_none());
    let secret = world.names(CORE, "secrets").remove(0);
    let path = format!("{}/{secret}", world.path(CORE, "secrets"));
    let change = json!({ "stringData": { "KEY": "changed" } });
    assert_eq!(world.ask(Method::PATCH, &path, Some(&change)).0, 422);

    let mut spec = release();
    spec.settings = Some("R3".into());
    let missing = world.wait(target.stage(&spec)).unwrap_err().to_string();
    assert!(missing.contains("R3"), "{missing}");
    assert!(world.names(APPS, "deployments").is_empty());
    spec.settings = Some("R1".into());
    world.wait(target.stage(&spec)).unwrap();
    for (group, kind) in [(APPS, "deployments"), (CORE, "services"), (CORE, "pods")] {
        let objects = world.objects(group, kind);
        let text = json!(objects).to_string();
        assert!(
            !text.contains("hidden") && !text.contains("s3cret"),
            "{kind}"
        );
    }
}

#[test]
fn a_missing_namespace_and_an_object_of_somebody_else_are_named() {
    let Some(world) = World::new("foreign") else {
        return;
    };
    let target = world.target();
    let spec = release();
    let name = format!("{}-us-us", world.namespace);
    let service = json!({
        "metadata": { "name": name },
        "spec": { "ports": [{ "port": 80 }], "selector": { "app": "other" } },
    });
    let path = world.path(CORE, "services");
    assert_eq!(world.ask(Method::POST, &path, Some(&service)).0, 201);
    let error = world.wait(target.observe(&us())).unwrap_err().to_string();
    assert!(
        error.contains(&name) && error.contains("does not belong"),
        "{error}"
    );
    assert!(world.wait(target.retire(&us(), &spec.id, false)).is_err());
    assert_eq!(world.public()["spec"]["selector"]["app"], "other");

    let project = std::fs::read_to_string(world.project.path("alokai.config.json")).unwrap();
    let missing = format!("\"namespace\": \"{}\"", world.namespace);
    let text = project.replace(&missing, "\"namespace\": \"nowhere\"");
    assert_ne!(text, project);
    world.project.write("alokai.config.json", text);
    let error = world.wait(world.target().preflight()).unwrap_err();
    assert!(
        error.to_string().contains("`nowhere` does not exist"),
        "{error}"
    );
}
