//! HAProxy's files and restarts, maintenance, and an engine without a proxy.

use alokai::target::{SpecVariable, SwitchToken};
use serde_json::json;

use super::{World, curl, docker, free_port, us};
use crate::support::{FRONTEND, MIDDLEWARE};

#[test]
fn a_restart_of_the_proxy_keeps_the_traffic_and_the_page_for_maintenance() {
    let Some(world) = World::new("restart") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    // Observing a store does not bind it to a proxy.
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, None);
    world
        .project
        .alokai("store rollback --dry-run --store us")
        .succeeds();
    assert!(!world.project.path(".alokai/proxy").exists());
    assert_eq!(volumes(&world), "");
    world.stage(&*target, &first);
    world.switch(&*target, &first);
    world.stage(&*target, &second);
    world.switch(&*target, &second);
    let since = world.wait(target.observe(&us())).unwrap().since;
    assert!(since.is_some());

    world.end_proxy();
    assert_eq!(world.page("/page"), "");
    world.wait(target.preflight()).unwrap();
    assert_eq!(world.page("/page"), "second /page with second /\n200");
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(
        (observed.active.as_ref(), observed.since),
        (Some(&second.id), since)
    );
    assert_eq!(
        observed.addresses,
        [format!("http://us.localhost:{}", world.port())]
    );

    let page = "<p>\nZurück um 5 %[date]\n</p>";
    world.wait(target.maintenance(&us(), Some(page))).unwrap();
    let shown = "<p> Zur&#252;ck um 5 %[date] </p>\n503";
    assert_eq!(world.page("/page"), shown);
    world.end_proxy();
    world.wait(target.preflight()).unwrap();
    assert_eq!(world.page("/api/x"), shown);
    assert!(world.wait(target.observe(&us())).unwrap().maintenance);
    // Releases are possible meanwhile.
    world.switch(&*target, &first);
    assert_eq!(world.page("/page"), shown);
    world.wait(target.maintenance(&us(), None)).unwrap();
    assert_eq!(world.page("/page"), "first /page with first /\n200");
    assert_eq!(
        world.page_of("eu.localhost", "/"),
        "no store has this host name\n404"
    );
    let large = "x".repeat(12_000);
    let error = world
        .wait(target.maintenance(&us(), Some(&large)))
        .unwrap_err();
    assert!(error.to_string().contains("12000 bytes"), "{error}");

    // The live release gets no traffic without HAProxy. A command for it starts HAProxy again.
    world.end_proxy();
    let error = world.wait(target.observe(&us())).unwrap_err();
    assert!(
        error.to_string().contains("HAProxy does not run"),
        "{error}"
    );
    world
        .project
        .alokai("store rollback --store us")
        .fails_with(2);
    assert_eq!(world.page("/page"), "first /page with first /\n200");
}

/// The volumes of the store.
fn volumes(world: &World) -> String {
    let owner = format!("label=com.alokai.project={}-us", world.name);
    docker(&["volume", "ls", "--quiet", "--filter", &owner])
}

#[test]
fn a_stopped_store_leaves_its_data_and_frees_its_names() {
    if let Some(world) = World::new("stop") {
        stop_a_store(&world);
    }
}

pub fn stop_a_store(world: &World) {
    let target = world.target();
    let mut spec = world.release("v1");
    // The value of an `.env` file is an object of its own in a swarm.
    let secret = SpecVariable::Secret("value of a file".to_owned().into());
    spec.apps[0].variables.insert("SECRET".to_owned(), secret);
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    assert_eq!(world.page("/page"), "v1 /page with v1 /\n200");

    // Another project name is another store, whose names this one has: known before the first build.
    let config = world.project.read("alokai.config.json");
    let renamed = config.replace(&format!("{}-us", world.name), &format!("{}-eu", world.name));
    let eu = format!("\"projectName\":\"{}-eu\"", world.name);
    let mut json: serde_json::Value = serde_json::from_str(&renamed).unwrap();
    json["stores"]["eu"]["deployment"]["projectName"] = "other".into();
    assert!(json.to_string().contains(&eu), "{json}");
    world.project.write("alokai.config.json", json.to_string());
    world.project.commit();
    let deploy = "store deploy --store us";
    let run = world.project.alokai(deploy).fails_with(2);
    let old = format!("{}-us/us", world.name);
    run.stderr_contains(&format!("`us.localhost` belongs to `{old}`"));
    assert!(!world.project.path(".out/us").exists(), "nothing is built");
    let stop = format!("store stop --target {} --store {old}", world.kind.name());
    // The terminal breaks the line of the help.
    run.stderr_contains("alokai store stop");

    let run = world.project.alokai(&stop).succeeds();
    run.stdout_contains(&format!("stopped {old}: {}\n", spec.id));
    assert_eq!(world.objects(), Vec::<String>::new());
    let data = format!("alokai-{}-us-us-data", world.name);
    assert_eq!(volumes(world), data);
    let table = world.project.read(".alokai/proxy/table.json");
    assert!(!table.contains(&old), "{table}");
    let run = world.project.alokai(&stop).succeeds();
    run.stdout_contains("has no release at the target");
    // The name is free.
    let target = world.target();
    let next = world.release("v2");
    world.stage(&*target, &next);
    world.switch(&*target, &next);
    assert_eq!(world.page("/page"), "v2 /page with v2 /\n200");
}

#[test]
fn a_store_whose_names_another_store_has_is_refused_before_the_first_build() {
    let Some(world) = World::new("names") else {
        return;
    };
    let volume = format!("alokai-{}-us-us-data", world.name);
    let project = format!("com.alokai.project={}", world.name);
    let labels = ["--label", &project, "--label", "com.alokai.store=us-us"];
    docker(&[&["volume", "create"], &labels[..], &[&volume]].concat());
    let run = world
        .project
        .alokai("store deploy --store us")
        .fails_with(2);
    docker(&["volume", "rm", &volume]);
    run.stderr_contains(&format!("belongs to the store `{}/us-us`", world.name));
    assert!(!world.project.path(".out/us").exists(), "nothing is built");
}

#[test]
fn what_the_running_proxy_does_wins_over_its_files() {
    let Some(world) = World::new("runtime") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    for spec in [&first, &second] {
        world.stage(&*target, spec);
    }
    world.switch(&*target, &first);
    // As a run that was killed between the switch and the writing of the files.
    let command = format!("set map active.map {}-us/us {}\n", world.name, second.id);
    let mut socket =
        std::os::unix::net::UnixStream::connect(world.project.path(".alokai/proxy/runtime.sock"))
            .unwrap();
    std::io::Write::write_all(&mut socket, command.as_bytes()).unwrap();
    std::io::Read::read_to_end(&mut socket, &mut Vec::new()).unwrap();
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active.as_ref(), Some(&second.id));
    // Another change of the table keeps the traffic, and repairs the files.
    world.wait(target.retire(&us(), &first.id, true)).unwrap();
    assert_eq!(world.page("/page"), "second /page with second /\n200");
    let file = world.project.read(".alokai/proxy/active.map");
    assert_eq!(file, format!("{}-us/us {}\n", world.name, second.id));
}

#[test]
fn a_release_without_routes_gets_no_traffic_and_the_error_names_it() {
    let Some(world) = World::new("routes") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    world.stage(&*target, &first);
    world.switch(&*target, &first);
    world.stage(&*target, &second);
    let file = ".alokai/proxy/table.json";
    let mut table: serde_json::Value = serde_json::from_str(&world.project.read(file)).unwrap();
    let releases = table["releases"].as_object_mut().unwrap();
    releases.remove(second.id.as_str()).unwrap();
    world.project.write(file, table.to_string());
    let token = world.wait(target.observe(&us())).unwrap().token;
    let error = world.wait(target.switch(&second, &token)).unwrap_err();
    let expected = format!("the proxy has no routes to release {} of `us`", second.id);
    assert_eq!(error.to_string(), expected);
    assert_eq!(world.page("/page"), "first /page with first /\n200");
}

#[test]
fn a_path_of_which_the_proxy_cannot_remove_all_segments_is_refused() {
    let Some(world) = World::new("segments") else {
        return;
    };
    let target = world.target();
    let mut spec = world.release("first");
    spec.apps[0].path_prefix = Some("/1/2/3/4/5/6/".into());
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    assert_eq!(world.page("/1/2/3/4/5/6/page"), "first /page\n200");
    let mut spec = world.release("second");
    spec.apps[0].path_prefix = Some("/1/2/3/4/5/6/7/".into());
    let error = world.wait(target.stage(&spec)).unwrap_err().to_string();
    assert!(
        error.contains("has 7 segments; HAProxy can remove 6"),
        "{error}"
    );
    // The app that sees the whole path has no limit.
    spec.apps[0].strips_prefix = false;
    world.stage(&*target, &spec);

    // A deploy is refused before its first build.
    let apps = serde_json::json!({ "playwright": { "path": "/1/2/3/4/5/6/7" } });
    let config = world.project.read("alokai.config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["console"]["apps"] = apps;
    world
        .project
        .write("alokai.config.json", config.to_string());
    world.project.commit();
    let run = world
        .project
        .alokai("store deploy --store us")
        .fails_with(2);
    run.stderr_contains("the path `/1/2/3/4/5/6/7` of the app `playwright` has 7 segments");
}

#[test]
fn a_changed_address_of_the_proxy_is_taken_over() {
    let Some(world) = World::new("rebind") else {
        return;
    };
    let target = world.target();
    let spec = world.release("v1");
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    let bind = format!("127.0.0.1:{}", free_port());
    let deploy = json!({ "target": "docker", "docker": { "proxy": { "bind": [bind] } } });
    let config = world.project.read("alokai.config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["deploy"] = deploy;
    world
        .project
        .write("alokai.config.json", config.to_string());
    assert_eq!(world.page("/page"), "");
    world.wait(world.target().preflight()).unwrap();
    assert_eq!(world.page("/page"), "v1 /page with v1 /\n200");
}

#[test]
fn a_bind_line_that_is_not_valid_is_an_error_with_the_words_of_haproxy() {
    let section = json!({ "proxy": { "bind": ["nowhere"] } });
    let Some(world) = World::with("wrong-bind", &section) else {
        return;
    };
    let error = world
        .wait(world.target().preflight())
        .unwrap_err()
        .to_string();
    assert!(error.contains("HAProxy cannot be started"), "{error}");
    assert!(error.contains("'nowhere'"), "{error}");
}

#[test]
fn a_store_behind_the_proxy_is_not_released_without_it() {
    let Some(world) = World::new("turned-off") else {
        return;
    };
    let target = world.target();
    let spec = world.release("v1");
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    let config = world.project.read("alokai.config.json");
    let mut without: serde_json::Value = serde_json::from_str(&config).unwrap();
    without["deploy"]["docker"]["proxy"] = serde_json::Value::Null;
    world
        .project
        .write("alokai.config.json", without.to_string());
    let alone = world.target();
    let next = world.release("v2");
    let token = SwitchToken(String::new());
    let refused = world.wait(alone.switch(&next, &token)).unwrap_err();
    assert!(
        refused.to_string().contains("HAProxy switches"),
        "{refused}"
    );
    let refused = world
        .wait(alone.retire(&us(), &spec.id, false))
        .unwrap_err();
    assert!(
        refused.to_string().contains("HAProxy switches"),
        "{refused}"
    );
    world.project.write("alokai.config.json", config);
    assert_eq!(world.page("/page"), "v1 /page with v1 /\n200");
}

#[test]
fn without_a_proxy_a_switch_recreates_the_containers_on_the_same_ports() {
    let Some(world) = World::with("recreate", &json!({ "proxy": null })) else {
        return;
    };
    let ports = [free_port(), free_port()];
    let config = world.project.read("alokai.config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["stores"]["us"]["localPorts"] = json!({ "middleware": ports[0], "nextjs": ports[1] });
    config["deploy"]["keep"] = 1.into();
    world
        .project
        .write("alokai.config.json", config.to_string());
    let target = world.target();
    let abilities = target.capabilities();
    assert!(!abilities.staging && !abilities.seamless && !abilities.maintenance);

    let url = format!("http://127.0.0.1:{}", ports[1]);
    let answers = |page: &str| {
        let start = std::time::Instant::now();
        while curl(&url, "/page", &[]).as_deref() != Some(page) {
            assert!(start.elapsed() < super::LIMIT, "{page}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let releases = ["v1", "v2", "v3"].map(|version| world.release(version));
    for (spec, version) in releases.iter().zip(["v1", "v2", "v3"]) {
        world.switch(&*target, spec);
        answers(&format!("{version} /page with {version} /"));
    }
    let middleware = format!("http://127.0.0.1:{}", ports[0]);
    assert_eq!(curl(&url, "/browser", &[]), Some(middleware));
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active.as_ref(), Some(&releases[2].id));
    // The target removes nothing by itself; `retire` removes what is not kept.
    assert_eq!(
        observed.kept,
        [releases[0].id.clone(), releases[1].id.clone()]
    );
    world
        .wait(target.retire(&us(), &releases[0].id, false))
        .unwrap();
    assert_eq!(observed.addresses, std::slice::from_ref(&url));
    let refused = world.wait(target.retire(&us(), &releases[2].id, true));
    assert!(refused.is_err());

    // A port that is taken: the earlier release runs again.
    let mut broken = world.release("broken");
    broken.apps.retain(|app| app.app.as_str() == MIDDLEWARE);
    broken.apps[0].reference.clear();
    assert!(world.wait(target.switch(&broken, &observed.token)).is_err());
    answers("v3 /page with v3 /");
    let running = docker(&["ps", "--format", "{{.Names}}"]);
    assert!(running.contains(&format!("us-{FRONTEND}-{}", releases[2].id)));
}

#[test]
fn a_store_behind_another_proxy_is_not_touched() {
    let Some(world) = World::new("two-proxies") else {
        return;
    };
    let target = world.target();
    let (live, next) = (world.release("live"), world.release("next"));
    world.stage(&*target, &live);
    world.switch(&*target, &live);
    // A clone of the project on the same engine, with a proxy of its own.
    let edit = |folder: Option<&str>, bind: String| {
        let config = world.project.read("alokai.config.json");
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let proxy = json!({ "folder": folder, "bind": [bind] });
        config["deploy"]["docker"]["proxy"] = proxy;
        world
            .project
            .write("alokai.config.json", config.to_string());
    };
    let port = world.port();
    edit(Some(".alokai/other"), format!("127.0.0.1:{port}"));
    let other = world.target();
    let error = world.wait(other.preflight()).unwrap_err().to_string();
    assert!(error.contains("another program listens"), "{error}");

    edit(Some(".alokai/other"), format!("127.0.0.1:{}", free_port()));
    let other = world.target();
    world.wait(other.preflight()).unwrap();
    let place = world.project.path(".alokai/proxy").display().to_string();
    let refused = |error: alokai::target::Error| {
        let error = error.to_string();
        assert!(error.contains(&place), "{error}");
    };
    refused(world.wait(other.observe(&us())).unwrap_err());
    refused(world.wait(other.stage(&next)).unwrap_err());
    refused(
        world
            .wait(other.switch(&live, &SwitchToken::default()))
            .unwrap_err(),
    );
    refused(
        world
            .wait(other.retire(&us(), &live.id, false))
            .unwrap_err(),
    );
    world.end_proxy();
    edit(None, format!("127.0.0.1:{port}"));
    assert_eq!(world.page("/page"), "live /page with live /\n200");
}
