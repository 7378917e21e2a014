//! Releases that fail, locks, settings, and what is left behind.

use std::time::{Duration, Instant};

use alokai::store::TargetKind;
use alokai::target::{
    Drained, Error, LockAnswer, LockClaim, LogQuery, Settings, SpecVariable, SwitchToken,
};
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::{LIMIT, World, docker, us};
use crate::support::{FRONTEND, MIDDLEWARE};

pub fn claim(holder: &str, lease: u64) -> LockClaim {
    LockClaim {
        holder: holder.into(),
        who: format!("{holder}@host"),
        operation: "deploy".into(),
        since: Timestamp::now(),
        lease,
    }
}

#[test]
fn one_of_two_machines_gets_the_lock_and_the_other_one_learns_the_holder() {
    if let Some(world) = World::new("locks") {
        lock(&world);
    }
}

pub fn lock(world: &World) {
    let target = world.target();
    let take = |holder: &str, lease| {
        world
            .wait(target.lock(&us(), &claim(holder, lease)))
            .unwrap()
    };
    let holder = || world.wait(target.lock_holder(&us())).unwrap();

    // Each machine has a target of its own.
    let answers: Vec<LockAnswer> = std::thread::scope(|scope| {
        let machines = (0..8).map(|number| {
            scope.spawn(move || {
                let target = world.target();
                let claim = claim(&format!("machine {number}"), 600);
                world.wait(target.lock(&us(), &claim)).unwrap()
            })
        });
        let machines: Vec<_> = machines.collect();
        machines.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let winner = holder().unwrap().holder;
    let taken = LockAnswer::Taken { from: None };
    assert_eq!(answers.iter().filter(|answer| **answer == taken).count(), 1);
    for answer in answers.iter().filter(|answer| **answer != taken) {
        let LockAnswer::Held(claim) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(claim.holder, winner);
    }

    // The lock of another holder stays.
    world.wait(target.unlock(&us(), "nobody")).unwrap();
    assert_eq!(holder().unwrap().holder, winner);
    world.wait(target.unlock(&us(), &winner)).unwrap();
    assert_eq!(holder(), None);
    assert_eq!(world.objects(), Vec::<String>::new());

    // A lease that has ended is taken over. Renewing prevents it.
    assert_eq!(take("first", 8), taken);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(take("first", 8), taken);
    std::thread::sleep(Duration::from_secs(5));
    assert!(matches!(take("second", 8), LockAnswer::Held(claim) if claim.holder == "first"));
    let start = Instant::now();
    let from = loop {
        match take("second", 600) {
            LockAnswer::Taken { from } => break from,
            LockAnswer::Held(_) => assert!(start.elapsed() < LIMIT),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(from.unwrap().holder, "first");
    world.wait(target.unlock(&us(), "second")).unwrap();
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[test]
fn a_release_that_fails_gets_no_traffic_and_leaves_nothing_behind() {
    if let Some(world) = World::new("failing") {
        fail(&world);
    }
}

pub fn fail(world: &World) {
    let target = world.target();
    let good = world.release("good");
    world.stage(&*target, &good);
    world.switch(&*target, &good);
    let good_objects = world.objects();

    // An app that ends: the engine tells how, and its last lines.
    let dying = world.release_in("dying", "dies");
    world.wait(target.stage(&dying)).unwrap();
    let start = Instant::now();
    let state = loop {
        let states = world.wait(target.health(&us(), &dying.id)).unwrap();
        assert_eq!(states.len(), 2);
        let state = states.into_iter().find(|it| it.app.as_str() == MIDDLEWARE);
        let state = state.unwrap();
        if !state.running {
            break state;
        }
        assert!(start.elapsed() < LIMIT, "{state:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(state.ended.as_deref(), Some("exited with code 3"));
    // Swarm starts it again before the switch too.
    assert!(state.restarts == 0 || world.kind == TargetKind::Swarm);
    assert!(
        state.tail.contains(&"the database is gone".to_owned()),
        "{state:?}"
    );

    // An app on another port runs, and its published port does not answer.
    let wrong = world.release_in("wrong", "wrong port");
    let staged = world.wait(target.stage(&wrong)).unwrap();
    assert_eq!(super::curl(&staged.replicas[0].address, "/", &[]), None);
    let states = world.wait(target.health(&us(), &wrong.id)).unwrap();
    assert!(states.iter().all(|state| state.running), "{states:?}");

    // An image that the registry does not have.
    let mut missing = world.release("missing");
    missing.apps[1].digest = format!("sha256:{}", "0".repeat(64));
    let error = world.wait(target.stage(&missing)).unwrap_err().to_string();
    assert!(error.contains("cannot be pulled"), "{error}");
    assert!(error.contains(&missing.apps[1].digest), "{error}");
    // A release that is not staged cannot get the traffic.
    let token = world.wait(target.observe(&us())).unwrap().token;
    let error = world.wait(target.switch(&missing, &token)).unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");

    // An entrypoint that does not exist is a start that fails.
    for spec in [&dying, &wrong, &missing] {
        world.wait(target.retire(&us(), &spec.id, false)).unwrap();
    }
    assert_eq!(world.page("/page"), "good /page with good /\n200");
    assert_eq!(world.objects(), good_objects);
    let table = world.project.read(".alokai/proxy/table.json");
    assert!(!table.contains(dying.id.as_str()), "{table}");
}

#[test]
fn an_app_with_traffic_is_started_again_on_the_same_port() {
    if let Some(world) = World::new("restarts") {
        restart(&world);
    }
}

pub fn restart(world: &World) {
    let target = world.target();
    let spec = world.release("v1");
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    world.page("/api/crash");
    let start = Instant::now();
    while world.page("/page") != "v1 /page with v1 /\n200" {
        assert!(start.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(50));
    }
    let states = world.wait(target.health(&us(), &spec.id)).unwrap();
    let restarts: u32 = states.iter().map(|state| state.restarts).sum();
    assert_eq!(restarts, 1);
}

#[test]
fn only_the_containers_of_the_store_are_stopped_and_a_stale_switch_is_refused() {
    let Some(world) = World::new("foreign") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    // Somebody else has a container with the name that the release needs.
    let name = format!("us-{MIDDLEWARE}-{}", first.id);
    docker(&[
        "create",
        "--name",
        &name,
        "--label",
        "com.alokai.store=us",
        "alokai-docker-target:1",
    ]);
    let error = world.wait(target.stage(&first)).unwrap_err().to_string();
    assert!(
        error.contains(&name) && error.contains("does not belong"),
        "{error}"
    );
    world.wait(target.retire(&us(), &first.id, false)).unwrap();
    assert_eq!(
        docker(&["inspect", "--format", "{{.State.Status}}", &name]),
        "created"
    );
    docker(&["rm", &name]);

    world.stage(&*target, &first);
    world.stage(&*target, &second);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.staged.len(), 2);
    assert_eq!(observed.active, None);
    assert_eq!(world.page("/page"), "this store has no live release\n503");
    // The whole store can be tried at the address of a staged release.
    let address = observed.staged[0].address.clone().unwrap();
    let host = address.strip_prefix("http://").unwrap();
    assert_eq!(
        world.page_of(host, "/page"),
        "first /page with first /\n200"
    );
    assert_eq!(
        world.page_of(host, "/api/x?y=/api/"),
        "first /x?y=/api/\n200"
    );
    assert_eq!(
        world.page_of(host, "/apix"),
        "first /apix with first /\n200"
    );

    world.wait(target.switch(&first, &observed.token)).unwrap();
    let stale = world.wait(target.switch(&second, &observed.token));
    assert!(
        matches!(stale, Err(Error::OutOfSequence { .. })),
        "{stale:?}"
    );
    assert_eq!(world.page("/page"), "first /page with first /\n200");
    let unknown = world.wait(target.switch(&second, &SwitchToken("R1".into())));
    assert!(
        matches!(unknown, Err(Error::OutOfSequence { .. })),
        "{unknown:?}"
    );
    // Staged again, nothing changes.
    let before = world.containers();
    world.stage(&*target, &first);
    assert_eq!(world.containers(), before);
    assert_eq!(
        world.wait(target.drained(&us(), &second.id)).unwrap(),
        Drained::Yes
    );
    assert_eq!(
        world.page("/browser"),
        format!("http://us.localhost:{}/api\n200", world.port())
    );
}

#[test]
fn a_container_that_was_never_started_is_not_kept_and_the_next_release_removes_it() {
    let Some(world) = World::new("never") else {
        return;
    };
    let target = world.target();
    let (first, second) = (world.release("first"), world.release("second"));
    world.stage(&*target, &first);
    let running = world.containers();
    let image = docker(&["inspect", "--format", "{{.Image}}", &running[0]]);
    let labels = [
        format!("com.alokai.project={}-us", world.name),
        "com.alokai.store=us".to_owned(),
        format!("com.alokai.app={MIDDLEWARE}"),
        format!("com.alokai.release={}", second.id),
        "com.alokai.port=29999".to_owned(),
    ];
    let mut arguments = vec!["create"];
    for label in &labels {
        arguments.extend(["--label", label]);
    }
    arguments.push(image.trim());
    docker(&arguments);
    assert_eq!(world.containers().len(), running.len() + 1);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.kept, []);
    world.stage(&*target, &first);
    assert_eq!(world.containers(), running);
}

#[test]
fn settings_belong_to_a_release_and_are_in_no_label_and_no_argument() {
    let Some(world) = World::new("settings") else {
        return;
    };
    let target = world.target();
    let settings = |secret: &str| -> Settings { [("SECRET".to_owned(), secret.into())].into() };
    let store = |version: &str, secret: &str| {
        world.wait(target.store_settings(&us(), version, &settings(secret)))
    };
    store("R1", "first-secret-value").unwrap();
    store("R1", "first-secret-value").unwrap();
    store("R2", "second-secret-value").unwrap();
    let changed = store("R1", "another-value").unwrap_err();
    assert!(
        matches!(changed, Error::SettingsExist { .. }),
        "{changed:?}"
    );
    let changed = changed.to_string();
    assert!(changed.contains("exists with other values"), "{changed}");
    assert!(
        !changed.contains("value`") && !changed.contains("secret"),
        "{changed}"
    );
    let known = world.wait(target.settings(&us(), "R1")).unwrap().unwrap();
    assert_eq!(known["SECRET"].expose_secret(), "first-secret-value");
    assert!(world.wait(target.settings(&us(), "R3")).unwrap().is_none());
    assert!(
        world
            .wait(target.settings(&us(), "../R1"))
            .unwrap()
            .is_none()
    );
    assert_eq!(world.containers(), Vec::<String>::new());

    let with = |version: &str, settings: &str| {
        let mut spec = world.release(version);
        spec.settings = Some(settings.to_owned());
        spec
    };
    let (first, second) = (with("first", "R1"), with("second", "R2"));
    for (spec, secret) in [(&first, "first"), (&second, "second"), (&first, "first")] {
        world.stage(&*target, spec);
        world.switch(&*target, spec);
        assert_eq!(world.page("/secret"), format!("{secret}-secret-value\n200"));
        assert_eq!(
            world.page("/api/secret"),
            format!("{secret}-secret-value\n200")
        );
    }
    let lost = world.wait(target.stage(&with("lost", "R3"))).unwrap_err();
    assert!(lost.to_string().contains("version R3"), "{lost}");

    let owner = format!("label=com.alokai.project={}-us", world.name);
    for name in world.containers() {
        let shown = docker(&[
            "inspect",
            "--format",
            "{{json .Config.Labels}} {{json .Args}} {{json .Config.Cmd}} {{json .HostConfig}} {{json .Config.Image}}",
            &name,
        ]);
        assert!(!shown.contains("secret-value"), "{shown}");
    }
    let volumes = docker(&["volume", "ls", "--quiet", "--filter", &owner]);
    assert!(volumes.contains(&format!("alokai-{}-us-us-settings", world.name)));
    for volume in volumes.lines() {
        let inspected = docker(&["volume", "inspect", volume]);
        assert!(!inspected.contains("secret-value"), "{inspected}");
    }
    for file in ["table.json", "haproxy.cfg", "haproxy.log"] {
        let text = world.project.read(&format!(".alokai/proxy/{file}"));
        assert!(!text.contains("secret-value"), "{file}");
    }
}

#[test]
fn the_output_of_apps_can_be_read() {
    if let Some(world) = World::new("output") {
        print(&world);
    }
}

pub fn print(world: &World) {
    let target = world.target();
    let mut spec = world.release("printed");
    // The middleware prints its version, which is a secret.
    let secret = SpecVariable::Secret("a-secret-version".to_owned().into());
    spec.apps[0].variables.insert("VERSION".into(), secret);
    let before = Timestamp::now();
    world.stage(&*target, &spec);
    world.switch(&*target, &spec);
    let read = |app: Option<&str>, since: Option<Timestamp>| {
        let (sender, mut lines) = tokio::sync::mpsc::channel(100);
        let wanted = LogQuery {
            store: us(),
            release: None,
            app: app.map(|app| alokai::store::AppName::new(app).unwrap()),
            follow: false,
            since,
            lines: sender,
        };
        world.wait(target.logs(&wanted)).unwrap();
        drop(wanted);
        let mut seen = Vec::new();
        while let Ok(line) = lines.try_recv() {
            assert!(line.at.unwrap() > before, "{line:?}");
            assert_eq!(line.replica, 1);
            seen.push(format!("{}: {}", line.app, line.line));
        }
        seen.sort();
        seen
    };
    let middleware = format!("{MIDDLEWARE}: listening, version ***");
    assert_eq!(
        read(Some(MIDDLEWARE), Some(before)),
        std::slice::from_ref(&middleware)
    );
    let both = read(None, None);
    let frontend = format!("{FRONTEND}: listening, version printed");
    assert_eq!(both, [middleware, frontend]);
    assert_eq!(read(None, Some(Timestamp::now())), Vec::<String>::new());
}
