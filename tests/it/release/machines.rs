//! Two clones with one layout of images, one target and no other memory: what one of them has done rules
//! the other one.

use super::Shop;
use crate::support::Project;

/// A shop and a clone of it, which has the whole history. They share the images and the target.
fn two_machines() -> Option<(Shop, Project)> {
    let shop = Shop::new()?;
    shop.deploy().succeeds();
    shop.commit("second");
    shop.deploy().succeeds();
    let clone = clone_of(&shop, "100");
    Some((shop, clone))
}

fn clone_of(shop: &Shop, depth: &str) -> Project {
    let clone = shop.project.shallow_clone(depth);
    std::fs::create_dir_all(clone.path(".alokai")).unwrap();
    for shared in ["registry", "target"] {
        let shared = format!(".alokai/{shared}");
        std::os::unix::fs::symlink(shop.project.path(&shared), clone.path(&shared)).unwrap();
    }
    clone
}

#[test]
fn a_rollback_and_the_removal_of_its_pin_rule_other_machines() {
    let Some((shop, clone)) = two_machines() else {
        return;
    };
    clone.alokai("store rollback --store us").succeeds();
    let back = shop.active();
    shop.commit("third");
    let run = shop.deploy().succeeds();
    run.stderr_contains("the store is pinned");
    assert_eq!(shop.active(), back);

    shop.run("store unpin --store us").succeeds();
    let fresh = clone_of(&shop, "100");
    // This clone has not been told that the pin is removed.
    for machine in [&clone, &fresh] {
        let before = shop.active();
        let text = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";
        machine.write(text, machine.sha());
        machine.commit_as("later");
        machine
            .alokai("store deploy --store us --allow-older")
            .succeeds()
            .stderr_lacks("pinned");
        assert_ne!(shop.active(), before);
    }
}

#[test]
fn settings_of_another_machine_are_in_the_release_of_a_fresh_clone() {
    let Some((shop, clone)) = two_machines() else {
        return;
    };
    shop.run("store settings set --store us COLOR=red")
        .succeeds();
    clone.alokai("store deploy --store us").succeeds();
    let active = shop.active().unwrap();
    let state = shop.state("us");
    let version = state["releases"][&active]["settings"].as_str().unwrap();
    assert_eq!(state["settings"][version]["COLOR"], "red", "{state}");
}

#[test]
fn an_older_commit_of_a_clone_without_records_is_refused() {
    let Some((shop, clone)) = two_machines() else {
        return;
    };
    let live = shop.active();
    clone.git("checkout --quiet HEAD~1");
    let run = clone.alokai("store deploy --store us").fails_with(2);
    run.stderr_contains("is an ancestor of");
    assert_eq!(shop.active(), live);
    assert!(!clone.exists(".out/us"));

    // Without the history, a job that is run again is as old as its first run.
    let old = clone.sha();
    let shallow = clone_of(&shop, "1");
    shallow.git(&["fetch", "--quiet", "--depth", "1", "origin", &old]);
    shallow.git(&["checkout", "--quiet", &old]);
    let run = shallow.alokai("store deploy --store us").fails_with(1);
    run.stderr_contains("cannot be compared in this clone, and the first build of");
    assert_eq!(shop.active(), live);
}

#[test]
fn resume_deploys_a_store_that_its_target_has_lost() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    let run = shop.run("store deploy --store us --resume").succeeds();
    run.stderr_contains("all stores of this plan are done: us");
    std::fs::remove_file(shop.project.path(".alokai/target/us.json")).unwrap();
    let run = shop.run("store deploy --store us --resume").succeeds();
    run.stderr_contains("no store of this plan is done");
    assert!(shop.active().is_some());
}
