//! The background process: its end, its replacement, and two projects side by side.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use alokai::pipeline::lives;
use alokai::store::StoreId;
use alokai::target::{LockAnswer, LockClaim};
use jiff::Timestamp;
use rustix::process::{Signal, kill_process};

use super::support::{LocalStores, Project, copy, files, folder, get, page, released, staged, us};
use crate::docker_target::curl;

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_next_command_starts_the_same_again() {
    let stores = LocalStores::new();
    let target = stores.target();
    let first = stores.release("one");
    released(&*target, &first).await;
    let second = stores.release("two");
    let before = released(&*target, &second).await;
    let address = &before.addresses[0];
    assert_eq!(page(address).await, "two two");
    let old: i32 = page(&format!("{address}/process")).await.parse().unwrap();
    kill_process(stores.process(), Signal::KILL).unwrap();

    let mut after = stores.target().observe(&us()).await.unwrap();
    let address = &after.addresses[0].clone();
    if after.addresses != before.addresses {
        // A process of another test took the port while it was free.
        let port = before.addresses[0]
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let port: u16 = port.unwrap_or(80);
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_err());
        after.addresses.clone_from(&before.addresses);
    }
    assert_eq!(after, before);
    assert_eq!(page(address).await, "two two");
    let new: i32 = page(&format!("{address}/process")).await.parse().unwrap();
    assert_ne!(new, old);
    let old = rustix::process::Pid::from_raw(old).unwrap();
    assert!(!lives(Some(old)));
    // The release before can still be staged, from its folder.
    let back = copy(&first);
    released(&*target, &back).await;
    assert_eq!(page(address).await, "one one");
}

#[tokio::test(flavor = "multi_thread")]
async fn unpacked_files_that_are_gone_are_unpacked_again() {
    let stores = LocalStores::new();
    let target = stores.target();
    let before = released(&*target, &stores.release("one")).await;
    let address = &before.addresses[0];
    let unpacked = page(&format!("{address}/folder")).await;
    let folder = std::path::Path::new(&unpacked).ancestors().nth(2).unwrap();
    // A program that removes old temporary files asks for a lock of its own.
    let lock = std::fs::File::open(folder).unwrap();
    assert!(lock.try_lock().is_err(), "the folder is not locked");
    kill_process(stores.process(), Signal::KILL).unwrap();
    assert!(
        folder
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("alokai-")
    );
    std::fs::remove_dir_all(folder).unwrap();
    let after = stores.target().observe(&us()).await.unwrap();
    assert_eq!(after.active, before.active);
    // A process of another test may have taken the port.
    let address = &after.addresses[0];
    assert_eq!(page(address).await, "one one");
    assert_ne!(page(&format!("{address}/folder")).await, unpacked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_version_is_replaced_when_something_changes() {
    let stores = LocalStores::new();
    let target = stores.target();
    let spec = stores.release("one");
    let before = released(&*target, &spec).await;
    let process = stores.process();
    kill_process(process, Signal::TERM).unwrap();
    while lives(Some(process)) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let socket = stores.folder().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if line.contains(r#""request":"quit""#) {
                drop(listener);
                std::fs::remove_file(&socket).unwrap();
                (&stream).write_all(b"\"done\"\n").unwrap();
                return;
            }
            (&stream)
                .write_all(b"{\"otherVersion\":\"0.0.1\"}\n")
                .unwrap();
        }
    });
    // A question leaves it running: its end would stop the apps of all stores.
    let after = stores.target().observe(&us()).await.unwrap();
    assert_eq!(after, before);
    assert!(!other.is_finished());
    stores.target().stage(&spec).await.unwrap();
    other.join().unwrap();
    let after = stores.target().observe(&us()).await.unwrap();
    assert_eq!(after.active, before.active);
    assert_eq!(page(&after.addresses[0]).await, "one one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_moves_to_the_store_that_has_it_in_the_config() {
    let stores = LocalStores::new();
    let give = |domain: &str, id: &str| {
        let config = stores.project.read("alokai.config.json");
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        config["stores"][id]["localDomain"] = domain.into();
        stores
            .project
            .write("alokai.config.json", config.to_string());
    };
    give("shop.example", "eu");
    let mut first = stores.release("first");
    first.store = StoreId::new("eu").unwrap();
    let before = released(&*stores.target(), &first).await;
    assert_eq!(before.addresses.len(), 2);
    let shown = || {
        let proxy = before.addresses[0].replace("eu.localhost", "127.0.0.1");
        curl(&proxy, "/", &["--header", "Host: shop.example"]).unwrap()
    };
    assert_eq!(shown(), "first first");

    let zero = stores.release("zero");
    released(&*stores.target(), &zero).await;
    give("other.example", "eu");
    give("Shop.example", "us");
    let target = stores.target();
    let second = stores.release("second");
    staged(&*target, &second).await;
    for (spec, page) in [(&second, "second second"), (&zero, "first first")] {
        let now = target.observe(&us()).await.unwrap();
        target.switch(spec, &now.token).await.unwrap();
        assert_eq!(shown(), page);
    }
    // The switch back has returned the names of both stores.
    let back = target.observe(&first.store).await.unwrap();
    assert_eq!(back.addresses, before.addresses);
    let back = target.observe(&us()).await.unwrap();
    assert_eq!(back.addresses.len(), 1);

    let after = released(&*target, &second).await;
    assert!(after.addresses[1].starts_with("http://shop.example"));
    assert_eq!(shown(), "second second");
    let left = target.observe(&first.store).await.unwrap();
    assert_eq!(left.addresses, before.addresses[..1]);

    // One domain for two stores is refused before the build.
    give("shop.example", "eu");
    stores.project.commit();
    let deploy = "store deploy --local --store eu";
    let run = stores.project.alokai(deploy).fails_with(2);
    run.stderr_contains("`shop.example` belongs to `us`");
    assert!(!stores.project.path(".out/eu").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projects_run_at_once() {
    let stores = [LocalStores::new(), LocalStores::new()];
    let mut addresses = Vec::new();
    for (stores, version) in stores.iter().zip(["one", "two"]) {
        let observed = released(&*stores.target(), &stores.release(version)).await;
        addresses.push(observed.addresses[0].clone());
    }
    assert_ne!(addresses[0], addresses[1]);
    assert_eq!(page(&addresses[0]).await, "one one");
    assert_eq!(page(&addresses[1]).await, "two two");
    let run = stores[0].project.alokai("store stop").succeeds();
    assert_eq!(run.stdout, "stopped us\n");
    assert!(get(&addresses[0]).await.is_err());
    assert_eq!(page(&addresses[1]).await, "two two");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_the_process_and_leaves_no_folder() {
    let stores = LocalStores::new();
    let target = stores.target();
    let one = stores.release("one");
    released(&*target, &one).await;
    let two = stores.release("two");
    let live = released(&*target, &two).await;
    assert_eq!(live.kept, std::slice::from_ref(&one.id));
    let unpacked = page(&format!("{}/folder", live.addresses[0])).await;
    let process = stores.process();
    stores.project.alokai("store stop --store us").succeeds();
    assert!(!std::path::Path::new(&unpacked).exists());
    let began = std::time::Instant::now();
    while lives(Some(process)) {
        assert!(began.elapsed() < super::support::LONG);
    }
    let observed = target.observe(&us()).await.unwrap();
    assert_eq!(observed.active, None);
    assert_eq!((observed.staged.len(), observed.kept.len()), (0, 0));
    assert!(!stores.folder().join("socket").exists());
    let run = stores.project.alokai("store stop").succeeds();
    assert_eq!(run.stdout, "none of these stores runs on this machine\n");
    // A release can be staged again, from its image.
    let back = copy(&one);
    let again = released(&*target, &back).await;
    assert_eq!(page(&again.addresses[0]).await, "one one");
}

/// As after `git clean`, or when somebody removes a clone in which stores run.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_folder_is_removed_ends() {
    let stores = LocalStores::new();
    released(&*stores.target(), &stores.release("one")).await;
    let process = stores.process();
    std::fs::remove_dir_all(stores.folder()).unwrap();
    // The next command starts a new process, which the old one does not disturb.
    let again = stores.release("two");
    let next = released(&*stores.target(), &again).await;
    let began = std::time::Instant::now();
    while lives(Some(process)) {
        assert!(began.elapsed() < super::support::LONG);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(page(&next.addresses[0]).await, "two two");
    assert!(stores.folder().join("socket").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_project_has_a_socket() {
    let root = folder();
    let deep = root.path().join("a-long-name-of-a-folder/".repeat(6));
    std::fs::create_dir_all(&deep).unwrap();
    let project = Project::at(deep.canonicalize().unwrap());
    let project = project.config(r#"{ "stores": {} }"#);
    let stores = LocalStores::of(project);
    let live = released(&*stores.target(), &stores.release("one")).await;
    assert_eq!(page(&live.addresses[0]).await, "one one");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_read_what_is_remembered() {
    let stores = LocalStores::new();
    let target = stores.target();
    released(&*target, &stores.release("one")).await;
    let remembered = files(&stores.folder());
    assert!(remembered.len() > 4, "{remembered:?}");
    for path in remembered {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    let mode = stores.folder().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_with_an_old_observation_fails_and_traffic_is_never_stopped() {
    let stores = LocalStores::new();
    let target = stores.target();
    let (one, two) = (stores.release("one"), stores.release("two"));
    released(&*target, &one).await;
    let old = target.observe(&us()).await.unwrap().token;
    released(&*target, &two).await;
    staged(&*target, &one).await;
    let error = target.switch(&one, &old).await.unwrap_err();
    assert!(
        error.to_string().contains("switched by another run"),
        "{error}"
    );
    let error = target.retire(&us(), &two.id, false).await.unwrap_err();
    assert!(error.to_string().contains("gets the traffic"), "{error}");
    let missing = stores.release("three");
    let token = target.observe(&us()).await.unwrap().token;
    let error = target.switch(&missing, &token).await.unwrap_err();
    assert!(error.to_string().contains("it is not staged"), "{error}");
    let live = target.observe(&us()).await.unwrap();
    assert_eq!(live.active, Some(two.id));
    assert_eq!(page(&live.addresses[0]).await, "two two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_needs_no_running_store() {
    let stores = LocalStores::new();
    let target = stores.target();
    let claim = |holder: &str| LockClaim {
        holder: holder.into(),
        who: "somebody".into(),
        operation: "deploy".into(),
        since: Timestamp::now(),
        lease: 60,
    };
    let taken = target.lock(&us(), &claim("a")).await.unwrap();
    assert_eq!(taken, LockAnswer::Taken { from: None });
    let held = stores.target().lock(&us(), &claim("b")).await.unwrap();
    assert!(matches!(held, LockAnswer::Held(claim) if claim.holder == "a"));
    assert!(!stores.folder().join("socket").exists());
}
