//! `store maintenance`, at the target `local` with real pages, and at the target `command`.

use serde_json::json;

use super::{TEXTS, local_shop};
use crate::local_target::{page, response};
use crate::release::Shop;
use crate::support::Project;

/// The status, the header `Retry-After`, and the body.
fn shown(address: &str) -> (u16, Option<String>, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let response = response(address).await.unwrap();
        let again = response.headers().get("retry-after");
        let again = again.map(|it| it.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, again, response.text().await.unwrap())
    })
}

fn address(project: &Project) -> String {
    let status = project.alokai("store status --store us --json").succeeds();
    let status = status.json();
    status["stores"][0]["addresses"][0]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn visitors_see_a_page_while_releases_continue_and_status_shows_it() {
    let Some(project) = local_shop() else { return };
    let run = |arguments: &str| project.alokai(arguments);
    run("store maintenance on --store us")
        .fails_with(2)
        .stderr_contains("no release of `us` is live at the target `local`");
    run("store maintenance off --store us")
        .succeeds()
        .stdout_contains("us: maintenance is already off\n");
    run("store deploy --store us").succeeds();
    let address = address(&project);
    run("store maintenance on --store us").succeeds();
    for path in ["", "/api/"] {
        let (status, again, text) = shown(&format!("{address}{path}"));
        assert_eq!((status, again.as_deref()), (503, Some("60")));
        assert!(text.contains("We will be back soon"), "{text}");
    }
    let status = run("store status --store us").succeeds();
    status.stdout_contains("  maintenance on, ");
    status.stdout_lacks("drift");

    // The release becomes live, and visitors still see the page.
    project.write(TEXTS, "new texts\n");
    project.commit();
    run("store deploy --store us").succeeds();
    assert_eq!(shown(&address).0, 503);
    project.write("page.html", "<h1>Zurück um 5</h1>");
    run("store maintenance on --store us --page page.html")
        .succeeds()
        .stdout_contains("the page was replaced");
    assert_eq!(shown(&address).2, "<h1>Zurück um 5</h1>");
    for off in [
        "us: maintenance is off\n",
        "us: maintenance is already off\n",
    ] {
        let run = run("store maintenance off --store us").succeeds();
        assert_eq!(run.stdout, off);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(page(&address)), "new texts\n");
    let history = run("store history --store us").succeeds();
    assert_eq!(history.stdout.matches(" maintenance on ").count(), 2);
    assert_eq!(history.stdout.matches(" maintenance off ").count(), 1);

    // A stop ends the maintenance, and the records say so.
    run("store maintenance on --store us").succeeds();
    run("store stop --store us").succeeds();
    let status = run("store status --store us").succeeds();
    status.stdout_lacks("maintenance").stdout_lacks("drift");
}

#[test]
fn a_page_is_checked_and_a_target_without_pages_is_refused() {
    let Some(shop) = Shop::new() else { return };
    shop.deploy().succeeds();
    shop.run("store maintenance on --store us")
        .fails_with(2)
        .stderr_contains("the target `command` of `us` does not support a maintenance page");
    shop.set("capabilities", json!({ "maintenance": true }));
    shop.run("store maintenance on --store us --page missing.html")
        .fails_with(2)
        .stderr_contains("cannot read the page `missing.html`");
    shop.project.write("empty.html", " \n");
    shop.run("store maintenance on --store us --page empty.html")
        .fails_with(2)
        .stderr_contains("the page `empty.html` is empty");
    shop.run("store maintenance on").fails_with(2);
    assert_eq!(shop.state("us")["page"], json!(null));
    shop.run("store maintenance on --store us").succeeds();
    let page = shop.state("us")["page"].clone();
    assert!(page.as_str().unwrap().contains("<title>Maintenance"));
    let events = shop.records("events");
    let on: Vec<_> = events
        .iter()
        .filter(|it| it["what"] == "maintenance")
        .collect();
    assert_eq!((on.len(), &on[0]["on"]), (1, &json!(true)));
    shop.run("store maintenance off --store us").succeeds();
    assert_eq!(shop.state("us")["page"], json!(null));
}
