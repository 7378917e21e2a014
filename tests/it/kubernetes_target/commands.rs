//! The commands of releases at the target `kubernetes`, with images in a real registry.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::World;
use crate::support::{Project, registry};

const TEXTS: &str = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";

fn change(project: &Project, content: &str) {
    project.write(TEXTS, content);
    project.commit();
}

#[test]
fn a_store_is_deployed_and_rolled_back_and_a_bad_release_is_refused() {
    let (Some(mut world), Some(registry)) = (World::new("commands"), registry()) else {
        return;
    };
    let placeholder = Project::new();
    let project = std::mem::replace(&mut world.project, placeholder);
    world.project = registry.used_by(project, "http://127.0.0.1:9");
    let (project, kubelet) = (&world.project, world.kubelet());
    let active = || {
        let service = world.public();
        let release = service["spec"]["selector"]["alokai.com/release"].as_str();
        release.unwrap_or_default().to_owned()
    };
    let run = project
        .alokai("store deploy --store us --dry-run")
        .succeeds();
    assert!(
        run.stdout.contains("does not know when open requests"),
        "{}",
        run.stdout
    );
    project.alokai("store deploy --store us").succeeds();
    let first = active();
    project.alokai("store maintenance on --store us").succeeds();
    let status = project.alokai("store status --store us --json").succeeds();
    assert!(
        status.stdout.contains("\"maintenance\": true"),
        "{}",
        status.stdout
    );
    assert_eq!(active(), "");
    change(project, "second texts\n");
    project
        .alokai("store settings set KEY=hidden --store us")
        .succeeds();
    project.alokai("store deploy --store us").succeeds();
    // The page is still shown.
    assert_eq!(active(), "");
    project
        .alokai("store maintenance off --store us")
        .succeeds();
    let second = active();
    assert!(first != second && !second.is_empty());
    let status = project.alokai("store status --store us --json").succeeds();
    assert!(status.stdout.contains(&second), "{}", status.stdout);
    project.alokai("store rollback --store us").succeeds();
    let back = active();
    assert!(back != first && back != second);
    project.alokai("store unpin --store us").succeeds();
    let lock = project
        .alokai("store lock status --store us --json")
        .succeeds();
    assert!(!lock.stdout.contains("holder\": \""), "{}", lock.stdout);

    // Its apps end before they are healthy.
    kubelet.failing.store(3, Ordering::SeqCst);
    change(project, "third texts\n");
    let run = project.alokai("store deploy --store us").fails_with(1);
    assert!(run.stderr.contains("exited with code 3"), "{}", run.stderr);
    assert_eq!(active(), back);

    // The objects of the newest build, for GitOps.
    let printed = project
        .alokai("store manifests --store us")
        .succeeds()
        .stdout;
    assert!(!printed.contains("hidden"), "{printed}");
    let json = project
        .alokai("store manifests --store us --json")
        .succeeds();
    let list: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(list["kind"], "List");
    let documents = printed.matches("\napiVersion: ").count();
    assert_eq!(
        documents,
        list["items"].as_array().unwrap().len(),
        "{printed}"
    );
    let again = project.alokai("store manifests --store us").succeeds();
    assert_eq!(again.stdout, printed);
}
