//! `builds prune`: what it removes, what it keeps, and what a registry does not allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{LOCAL, builds, shop};
use crate::deploy::unique;
use crate::support::{Before, FRONTEND, Project, Turn, base_layout, base_reference, registry};

/// Deploys three commits, and returns the ids of their builds, the oldest first.
fn three_builds(project: &Project, deploy: &str) -> Vec<String> {
    for number in 0..3 {
        let texts = format!("apps/{FRONTEND}/app/text-{number}.txt");
        project.write(&texts, number.to_string());
        project.commit();
        project.alokai(deploy).succeeds();
    }
    let mut ids = builds(project, "");
    ids.reverse();
    let ids = ids
        .iter()
        .map(|build| build["id"].as_str().unwrap().to_owned());
    ids.collect()
}

fn statuses(project: &Project) -> Vec<String> {
    let list = builds(project, "").into_iter().rev();
    list.map(|build| build["status"].as_str().unwrap().to_owned())
        .collect()
}

fn blobs(project: &Project) -> usize {
    let blobs = std::fs::read_dir(project.path(".alokai/registry/blobs/sha256"));
    blobs.unwrap().count()
}

#[test]
fn old_images_of_a_layout_are_removed_with_their_blobs() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    let ids = three_builds(&project, LOCAL);
    project
        .alokai("store builds prune")
        .fails_with(2)
        .stderr_contains("no rule says which builds to remove");
    let (before, tree) = (blobs(&project), project.tree(".alokai/registry"));
    let dry = project
        .alokai("store builds prune --keep 1 --dry-run")
        .succeeds();
    dry.stderr_contains("the images of 2 builds would be removed");
    assert_eq!(project.tree(".alokai/registry"), tree);
    project
        .alokai("store builds prune --older-than 1h --keep 1")
        .succeeds();
    assert_eq!(statuses(&project), ["complete"; 3]);

    let logs = || {
        let logs = std::fs::read_dir(project.path(".alokai/ledger/logs"));
        logs.unwrap().count()
    };
    assert_eq!(logs(), 3);
    // Blobs that were used in the last hour stay: another command may be about to add them to the index.
    let layout = project.path(".alokai/registry/blobs/sha256");
    for blob in std::fs::read_dir(&layout).unwrap() {
        let blob = std::fs::File::options()
            .append(true)
            .open(blob.unwrap().path());
        let used = std::time::SystemTime::now() - std::time::Duration::from_hours(2);
        blob.unwrap().set_modified(used).unwrap();
    }
    let young = layout.join("0".repeat(64));
    std::fs::write(&young, "a page that is not in the index yet").unwrap();
    let run = project
        .alokai("store builds prune --keep 1 --json")
        .succeeds();
    assert!(young.exists());
    std::fs::remove_file(&young).unwrap();
    let removed = run.json()["removed"].clone();
    let removed = removed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].as_str().unwrap());
    assert_eq!(removed.collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert_eq!(logs(), 1);
    assert_eq!(statuses(&project), ["gone", "gone", "complete"]);
    assert!(blobs(&project) < before, "{} of {before}", blobs(&project));
    // What is left is whole: the newest build can be exported, and the next deploy finds its image.
    let whole = project.alokai(&["store", "builds", "export", &ids[2]]);
    assert_eq!(whole.code, 0, "{}", whole.stderr);
    project.alokai(LOCAL).succeeds();
    let newest = builds(&project, "--limit 1")[0]["id"].clone();
    let info = project.alokai(&[
        "store",
        "builds",
        "info",
        newest.as_str().unwrap(),
        "--json",
    ]);
    assert_eq!(info.succeeds().json()["apps"][FRONTEND]["cache"], "present");
    let gone = project
        .alokai(&["store", "builds", "export", &ids[0]])
        .fails_with(1);
    gone.stderr_contains("does not exist any more");
    // Their output is read again from the layout, which keeps it; the records stay.
    project
        .alokai(&["store", "builds", "logs", &ids[0]])
        .succeeds();
    project
        .alokai(&["store", "builds", "info", &ids[0]])
        .succeeds();
    assert_eq!(builds(&project, "--status gone").len(), 2);
}

#[test]
fn a_live_build_and_one_that_a_rollback_needs_stay() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base).setting("deploy", &json!({ "keep": 1 }));
    project.commit();
    let ids = three_builds(&project, LOCAL);
    // The records of two releases: the first build is live, the second one was live before.
    let actor = json!({ "user": "a", "host": "b" });
    for (number, build) in [(1, &ids[1]), (2, &ids[0])] {
        let release = format!("R00000000000000{number}A");
        let record = json!({
            "kind": "release", "schemaVersion": 1, "id": release, "store": "us",
            "target": "console", "build": build, "reason": "deploy", "actor": actor,
        });
        project.write(
            &format!(".alokai/ledger/releases/{release}.json"),
            record.to_string(),
        );
        let event = format!("E00000000000000{number}A");
        let record = json!({
            "kind": "event", "schemaVersion": 1, "id": event, "store": "us", "target": "console",
            "release": release, "what": "released", "actor": actor,
        });
        project.write(
            &format!(".alokai/ledger/events/{event}.json"),
            record.to_string(),
        );
    }
    let list = builds(&project, "");
    assert_eq!(list[2]["release"], "R000000000000002A");
    let run = project
        .alokai("store builds prune --keep 0 --json")
        .succeeds()
        .json();
    assert_eq!(run["removed"], json!([]));
    let because = |id: &str| {
        let kept = run["kept"].as_array().unwrap().iter();
        let of: Vec<&Value> = kept.filter(|it| it["id"] == id).collect();
        of[0]["because"].as_str().unwrap().to_owned()
    };
    assert_eq!(because(&ids[0]), "live");
    assert_eq!(because(&ids[1]), "a rollback may need it");
    assert_eq!(because(&ids[2]), "the newest build");
}

#[test]
fn a_registry_that_removes_nothing_or_too_much_is_told() {
    let Some(registry) = registry() else { return };
    let name = unique("pruned");
    let is_wiped = Arc::new(AtomicBool::new(false));
    let wiped = Arc::clone(&is_wiped);
    let habits = Before::new(&registry.address, move |seen| {
        if seen.method == "DELETE" {
            Turn::error(405, "UNSUPPORTED")
        } else if wiped.load(Ordering::Relaxed) && seen.is("GET", "/tags/list") {
            // The retention has removed all tags.
            Turn::error(404, "NAME_UNKNOWN")
        } else {
            Turn::Pass
        }
    });
    let base = base_reference()
        .unwrap()
        .replace(&registry.address, &habits.address);
    let project = Project::shop_named(&name).setting("image", &json!({ "base": base }));
    let project = registry
        .at(&habits.address)
        .used_by(project, "http://127.0.0.1:9");
    three_builds(&project, "store deploy --store us --until push");
    let run = project.alokai("store builds prune --keep 1").succeeds();
    run.stderr_contains("does not remove images for this account");
    run.stderr_contains("no build is removed");
    assert_eq!(statuses(&project), ["complete"; 3]);

    is_wiped.store(true, Ordering::Relaxed);
    assert_eq!(statuses(&project), ["gone"; 3]);
    is_wiped.store(false, Ordering::Relaxed);
    // A wiped registry that is read again has every page once more.
    project
        .alokai("store history --push")
        .succeeds()
        .stdout_contains("us: 0 records sent");
    assert_eq!(statuses(&project), ["complete"; 3]);
}
