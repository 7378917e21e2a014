//! `store releases prune`.

use serde_json::json;

use crate::release::Shop;

#[test]
fn releases_without_traffic_are_removed_and_the_live_one_never() {
    let Some(shop) = Shop::with(&json!({ "keep": 3 })) else {
        return;
    };
    let nothing = "us: there are no releases to remove\n";
    for text in ["first", "second", "third"] {
        shop.commit(text);
        shop.deploy().succeeds();
    }
    shop.commit("fourth");
    shop.run("store deploy --store us --no-release").succeeds();
    let active = shop.active().unwrap();
    let releases = shop.records("releases");
    let ids: Vec<&str> = releases
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    let [first, second, third, staged] = ids[..] else {
        panic!("{ids:?}")
    };
    assert_eq!(active, third);
    // Three are kept, the staged one among them.
    let run = shop.run("store releases prune --store us").succeeds();
    assert_eq!(run.stdout, nothing);
    shop.verbs();
    let run = shop.run("store releases prune --store us --keep 1 --dry-run");
    let expected = format!(
        "us: {second} would be removed\nus: {first} would be removed\nDry run: nothing was changed.\n"
    );
    assert_eq!(run.succeeds().stdout, expected);
    assert_eq!(shop.verbs(), Vec::<String>::new());

    let run = shop
        .run("store releases prune --store us --keep 2")
        .succeeds();
    assert_eq!(run.stdout, format!("us: {first} is removed\n"));
    assert_eq!(shop.verbs(), ["lock", "retire", "unlock"]);
    assert_eq!(shop.happenings(first).last().unwrap(), "retired");
    let running = vec![third.to_owned(), staged.to_owned()];
    assert_eq!(shop.releases(), (running, vec![second.to_owned()]));

    shop.run("store releases prune --store us --keep 0")
        .succeeds();
    assert_eq!(shop.releases(), (vec![active.clone()], Vec::new()));
    assert_eq!(shop.active(), Some(active));
    let run = shop
        .run("store releases prune --store us --keep 0")
        .succeeds();
    assert_eq!(run.stdout, nothing);
    let status = shop.run("store status --store us").succeeds();
    status.stdout_lacks("drift");
    let history = shop.run("store history --store us").succeeds();
    assert_eq!(history.stdout.matches(" releases prune ").count(), 2);
}
