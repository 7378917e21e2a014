//! Several machines build and push the stores of one commit, each one shard, and one machine releases them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::deploy::unique;
use crate::support::{Console, Project, RemoteCache, Run, base_layout, many, registry, rows};

const SHARDS: usize = 8;

/// Twelve stores with this prefix of their project names.
fn twelve_stores(name: &str, base: &str) -> Project {
    let store = |number: usize| {
        let id = format!("shop-{number:02}");
        let deployment = json!({ "projectName": format!("{name}-{id}"), "cloudRegion": "a" });
        (id, json!({ "deployment": deployment }))
    };
    let stores: serde_json::Map<String, Value> = (1..=12).map(store).collect();
    let project = many(12)
        .setting("stores", &stores.into())
        .setting("image", &json!({ "base": base }));
    project.commit();
    project
}

/// The digest of the image of each unit.
fn digests(run: &Run) -> BTreeMap<String, Value> {
    let rows = rows(run).into_iter();
    let images = rows.filter(|(_, row)| !row["reference"].is_null());
    images
        .map(|(unit, row)| (unit, row["digest"].clone()))
        .collect()
}

#[test]
fn eight_machines_make_the_same_images_as_one_and_one_machine_releases_them() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let cache = RemoteCache::start(None);
    let console = Console::start();
    let project = twelve_stores(&unique("shards"), &base);
    let machine = || {
        let clone = project.shallow_clone("1");
        registry
            .used_by(clone, &console.address)
            .env("TURBO_API", &cache.address)
            .env("TURBO_TOKEN", RemoteCache::TOKEN)
    };
    let machines: Vec<Project> = (0..SHARDS).map(|_| machine()).collect();
    let runs = machines.iter().enumerate().map(|(index, machine)| {
        let shard = format!("{}/{SHARDS}", index + 1);
        machine.start(&[
            "store", "deploy", "--all", "--json", "--until", "push", "--shard", &shard,
        ])
    });
    let runs: Vec<_> = runs.collect();
    let runs = runs.into_iter().map(|run| {
        let run: Run = run.wait_with_output().unwrap().into();
        run.succeeds()
    });
    let mut pushed = BTreeMap::new();
    for run in runs {
        let own = digests(&run);
        assert!(!own.is_empty(), "twelve stores are enough for each machine");
        for (unit, digest) in own {
            let earlier = pushed.insert(unit.clone(), digest);
            assert_eq!(earlier, None, "{unit} is in two shards");
        }
    }
    assert_eq!(console.requests().len(), 0, "nothing is released");

    // One machine without a cache makes the same images.
    let alone = project.shallow_clone("1");
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}/layout", folder.path().display());
    let alone = alone.env("CLI_DOCKER_REGISTRY_URL", &layout);
    let run = alone.alokai("store deploy --all --force --until push --json");
    assert_eq!(digests(&run.succeeds()), pushed);

    // The machine that releases builds nothing.
    let releasing = machine();
    let run = releasing.alokai("store deploy --all --json").succeeds();
    let rows = rows(&run);
    assert!(rows.values().all(|row| row["wasThere"] == true), "{rows:?}");
    assert_eq!(digests(&run), pushed);
    assert_eq!(console.requests().len(), 12);
}

#[test]
fn shards_are_disjoint_and_complete_whatever_the_order_and_the_number() {
    let project = many(12);
    let stores_of = |selected: &str, shard: &str| -> Vec<String> {
        let line = format!("store build {selected} --shard {shard} --dry-run --json");
        let plan = project.alokai(&line).succeeds().json();
        let stores = plan["stores"].as_array().unwrap().iter();
        stores
            .map(|store| store["storeId"].as_str().unwrap().to_owned())
            .collect()
    };
    for count in [1, 2, 5, 12, 13] {
        let mut all: Vec<String> = (1..=count)
            .flat_map(|index| stores_of("--all", &format!("{index}/{count}")))
            .collect();
        all.sort();
        let every: Vec<String> = (1..=12).map(|number| format!("shop-{number:02}")).collect();
        assert_eq!(all, every, "{count} shards");
    }
    assert_eq!(stores_of("--store shop-03,shop-01", "1/2"), ["shop-01"]);
    assert_eq!(stores_of("--store shop-01,shop-03", "1/2"), ["shop-01"]);
    let run = project.alokai("store build --store shop-01 --shard 2/2");
    run.succeeds()
        .stderr_contains("note: shard 2/2 has no stores");
    for wrong in ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"] {
        let run = project.alokai(&["store", "build", "--all", &format!("--shard={wrong}")]);
        run.fails_with(2).stderr_contains("such as 2/5");
    }
    let wrong = "store deploy --all --shard 1/2";
    for other in ["--resume", "--retry-failed", "--settings"] {
        let run = project.alokai(&format!("{wrong} {other}"));
        run.fails_with(2).stderr_contains("cannot be used with");
    }
    let run = project.alokai("store run build --all --shard 12/12 --dry-run --json");
    let plan = run.succeeds().json();
    assert_eq!(plan["stores"][0]["storeId"], "shop-12");
    assert_eq!(json!(1), json!(plan["stores"].as_array().unwrap().len()));
}
