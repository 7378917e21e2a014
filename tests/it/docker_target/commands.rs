//! The commands of releases at the target `docker`.

use std::time::Instant;

use alokai::store::TargetKind;
use serde_json::{Value, json};

use super::{World, docker, free_port};
use crate::live::keeping;
use crate::support::{MIDDLEWARE, Project, second_registry};

pub const TEXTS: &str = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";

/// A middleware that ends after some milliseconds.
fn ending(after: u32) -> String {
    format!(
        "require('http').createServer((_, answer) => answer.end('new\\n')).listen(4000);
setTimeout(() => {{ console.error('the backend is gone'); process.exit(3); }}, {after});"
    )
}

pub fn change(project: &Project, path: &str, content: &str) {
    project.write(path, content);
    project.commit();
}

#[test]
fn a_store_is_deployed_and_rolled_back_and_a_bad_release_is_refused() {
    if let Some(world) = World::new("commands") {
        deploy_and_roll_back(&world);
    }
}

pub fn deploy_and_roll_back(world: &World) {
    let project = &world.project;
    let source = format!("apps/{MIDDLEWARE}/src/index.js");
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "texts of us\n\n200");
    assert_eq!(world.page("/api/x"), "middleware\n\n200");

    change(project, TEXTS, "second texts\n");
    project.alokai("store deploy --store us").succeeds();
    assert_eq!(world.page("/"), "second texts\n\n200");
    let start = Instant::now();
    project.alokai("store rollback --store us").succeeds();
    println!("rolled back in {:?}", start.elapsed());
    assert_eq!(world.page("/"), "texts of us\n\n200");
    project.alokai("store unpin --store us").succeeds();
    let before = running(world);

    // It ends before it is healthy.
    change(project, &source, &ending(0));
    let run = project.alokai("store deploy --store us").fails_with(1);
    assert!(run.stderr.contains("the backend is gone"), "{}", run.stderr);
    assert!(run.stderr.contains("code 3"), "{}", run.stderr);
    assert_eq!(running(world), before);

    // It ends after it got the traffic, and the earlier release gets the traffic again.
    let config = project.read("alokai.config.json");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["deploy"]["watch"] = 20.into();
    project.write("alokai.config.json", format!("{config:#}"));
    change(project, &source, &ending(8000));
    let run = project.alokai("store deploy --store us").fails_with(1);
    assert!(run.stderr.contains("the backend is gone"), "{}", run.stderr);
    assert_eq!(running(world), before);
    assert_eq!(world.page("/api/x"), "middleware\n\n200");
}

/// The containers that run, or the services that a swarm is asked to run.
pub fn running(world: &World) -> String {
    if world.kind == TargetKind::Swarm {
        return crate::swarm_target::running(world).join("\n");
    }
    let owner = format!("label=com.alokai.project={}-us", world.name);
    docker(&["ps", "--filter", &owner, "--format", "{{.Names}}"])
}

#[test]
fn of_two_clones_that_release_at_once_one_wins_and_the_other_one_names_it() {
    release_two_clones_at_once(TargetKind::Docker);
}

pub fn release_two_clones_at_once(kind: TargetKind) {
    let folder = tempfile::tempdir().unwrap();
    let proxy = json!({
        "bind": [format!("127.0.0.1:{}", free_port())],
        "folder": folder.path(),
    });
    let Some(world) = World::at(kind, "clones", &json!({ "proxy": proxy })) else {
        return;
    };
    let clone = world.project.shallow_clone("10");
    let clone = world.registry.used_by(clone, "http://127.0.0.1:9");
    change(&clone, TEXTS, "texts of the clone\n");
    // Each release is watched for a while, so the runs overlap.
    let runs = [&world.project, &clone].map(|it| it.start("store deploy --store us --allow-older"));
    let ends = runs.map(|run| run.wait_with_output().unwrap());
    let failed: Vec<_> = ends.iter().filter(|end| !end.status.success()).collect();
    let text = |end: &std::process::Output| String::from_utf8_lossy(&end.stderr).into_owned();
    let all: Vec<String> = ends.iter().map(text).collect();
    assert_eq!(failed.len(), 1, "{all:?}");
    assert_eq!(failed[0].status.code(), Some(1));
    assert!(text(failed[0]).contains('@'), "{all:?}");
    let winner = ["texts of us\n", "texts of the clone\n"];
    let won = usize::from(ends[1].status.success());
    assert_eq!(world.page("/"), format!("{}\n200", winner[won]));
    assert_eq!(running(&world).lines().count(), 2);
    let left = world.objects();
    assert!(left.iter().all(|name| !name.contains("lock")), "{left:?}");
}

#[test]
fn an_exported_build_runs_in_another_store_from_another_registry() {
    let (Some(world), Some(second)) = (World::new("transfer"), second_registry()) else {
        return;
    };
    let project = &world.project;
    let push = "store deploy --store us --until push";
    project.alokai(push).succeeds();
    let list = project.alokai("store builds --store us --json").succeeds();
    let id = list.json()["builds"][0]["id"].as_str().unwrap().to_owned();

    let elsewhere = project.shallow_clone("10");
    let elsewhere = second.used_by(elsewhere, "http://127.0.0.1:9");
    let mut export = project
        .command(&["store", "builds", "export", &id])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let import = elsewhere
        .command("store builds import --store eu")
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    let errors = String::from_utf8_lossy(&import.stderr);
    assert!(import.status.success(), "{errors}");
    let imported = String::from_utf8_lossy(&import.stdout).trim().to_owned();
    elsewhere
        .alokai(&["store", "release", &imported, "--store", "eu"])
        .succeeds();
    let proxied = World::page_at(world.port(), "eu.localhost", "/");
    assert_eq!(proxied, "texts of us\n\n200");

    let digests = |project: &Project, id: &str| -> Vec<String> {
        let info = project.alokai(&["store", "builds", "info", id, "--json"]);
        let info = info.succeeds().json();
        let apps = info["apps"].as_object().unwrap().values();
        apps.map(|app| app["digest"].as_str().unwrap().to_owned())
            .collect()
    };
    let own = digests(project, &id);
    assert_eq!(own.len(), 2);
    assert_eq!(digests(&elsewhere, &imported), own);
    // The engine runs the image of this digest.
    let owner = format!("label=com.alokai.project={}-eu", world.name);
    let ids = docker(&["ps", "--filter", &owner, "--quiet"]);
    let inspect = ["inspect", "--format", "{{.Config.Image}}"];
    let images = docker(&inspect.into_iter().chain(ids.lines()).collect::<Vec<_>>());
    for digest in own {
        assert!(images.contains(&digest), "{images}");
    }
}

#[test]
fn data_outlives_releases_rollbacks_and_a_prune() {
    let Some(world) = World::new("data") else {
        return;
    };
    keep_data(&world, || {
        assert_eq!(running(&world).lines().count(), 2);
        assert_eq!(world.containers().len(), 2);
    });
    let volume = format!("alokai-{}-us-us-data", world.name);
    let owner = docker(&["volume", "inspect", "--format", "{{.Labels}}", &volume]);
    assert!(owner.contains(&format!("{}-us", world.name)), "{owner}");

    // A folder of the machine, at another path.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("us");
    std::fs::create_dir(&own).unwrap();
    for open in [folder.path(), &own] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(open, mode).unwrap();
    }
    let project = &world.project;
    let config = project.read("alokai.config.json");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["deploy"]["data"] = json!({ "path": "/var/shop", "source": folder.path() });
    project.write("alokai.config.json", format!("{config:#}"));
    release_keeping(&world, "four");
    assert_eq!(world.page("/api/write"), "four \n200");
    let visits = own.join("visits");
    assert_eq!(std::fs::read_to_string(&visits).unwrap(), "four ");
    std::fs::remove_file(visits).unwrap();
}

/// Deploys a middleware that appends this mark to a file in `/data`.
fn release_keeping(world: &World, mark: &str) {
    let source = format!("apps/{MIDDLEWARE}/src/index.js");
    change(&world.project, &source, &keeping(mark));
    world.project.alokai("store deploy --store us").succeeds();
}

/// Deploys, rolls back and prunes: what one release has written is there in the next one.
pub fn keep_data(world: &World, check_pruned: impl Fn()) {
    let project = &world.project;
    let says = |path: &str, text: &str| {
        assert_eq!(world.page(&format!("/api/{path}")), format!("{text}\n200"));
    };
    release_keeping(world, "one");
    says("", "nothing");
    says("write", "one ");
    release_keeping(world, "two");
    says("", "one ");
    says("write", "one two ");
    project.alokai("store rollback --store us").succeeds();
    says("write", "one two one ");
    let prune = "store releases prune --store us --keep 0";
    project.alokai(prune).succeeds();
    check_pruned();
    project.alokai("store unpin --store us").succeeds();
    release_keeping(world, "three");
    says("", "one two one ");
}
