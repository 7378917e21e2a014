//! `store test`: arguments, environment and failures. The example's tests with a real browser are in
//! `example.rs`.

use serde_json::Value;

use super::{built_shop, free_ports};
use crate::support::{FRONTEND, MIDDLEWARE, Project};

/// A script in the place of Playwright, which records its arguments, variables, and the page.
const RECORD: &str = r"
const { BASE_URL, MIDDLEWARE_URL } = process.env;
fetch(BASE_URL).then((it) => it.text()).then((page) => {
  const seen = { arguments: process.argv.slice(2), page, environment: process.env };
  require('fs').writeFileSync('seen.json', JSON.stringify(seen));
  if (process.argv.includes('--fail')) { console.error('no browser'); process.exit(4); }
});
";

fn tested_shop(ports: [u16; 4]) -> Project {
    let project = built_shop(ports)
        .app("playwright", r#""test": "node record.js""#)
        .file("apps/playwright/record.js", RECORD);
    project.commit();
    project
}

fn seen(project: &Project, store: &str) -> Value {
    serde_json::from_str(&project.read(&format!(".out/{store}/playwright/seen.json"))).unwrap()
}

#[test]
fn stores_are_tested_side_by_side_on_ports_of_their_own() {
    let ports = free_ports();
    let project = tested_shop(ports)
        .env("BASE_URL", "http://of-the-shell.invalid")
        .env("CI", "1");
    let run = project
        .alokai(&[
            "store",
            "test",
            "--all",
            "--",
            "--grep",
            "a b",
            "--shard=1/3",
        ])
        .succeeds();
    run.stdout_contains("us     playwright  0       0");
    let all = ["us", "eu"].map(|store| seen(&project, store));
    let mut used = Vec::new();
    for (seen, store) in all.iter().zip(["us", "eu"]) {
        let variables = &seen["environment"];
        assert_eq!(
            seen["arguments"],
            serde_json::json!(["--grep", "a b", "--shard=1/3"])
        );
        let middleware = variables["MIDDLEWARE_URL"].as_str().unwrap();
        let port = middleware.rsplit(':').next().unwrap();
        assert_eq!(seen["page"], format!("page with products of {port}"));
        assert_eq!(variables["BASE_URL"], variables["PLAYWRIGHT_BASE_URL"]);
        assert_eq!(variables["BASE_URL"], variables["PLAYWRIGHT_TEST_BASE_URL"]);
        assert_eq!(variables["ALOKAI_STORE_ID"], store);
        assert_eq!(variables["CI"], "1");
        used.extend([variables["BASE_URL"].clone(), middleware.into()]);
    }
    let configured = ports.map(|port| Value::from(format!("http://localhost:{port}")));
    assert!(!configured.iter().any(|it| used.contains(it)), "{used:?}");
    used.sort_by_key(ToString::to_string);
    used.dedup();
    assert_eq!(used.len(), 4, "each app has a port of its own");
}

#[test]
fn a_failing_command_fails_the_run_with_its_last_lines() {
    let project = tested_shop(free_ports());
    let run = project
        .alokai(&[
            "store",
            "test",
            "--all",
            "--concurrency",
            "1",
            "--",
            "--fail",
        ])
        .fails_with(1);
    run.stderr_contains("the tests of 2 stores failed")
        .stderr_contains("exited with code 4")
        .stderr_contains("│ no browser");
    // An app that does not start fails its store, and the other store is tested.
    let path = format!(".out/us/{MIDDLEWARE}/.deploy/lib/index.js");
    project.write(&path, "throw new Error('broken')");
    project.remove(".out/eu/playwright/seen.json");
    let run = project.alokai("store test --all").fails_with(1);
    run.stderr_contains("the tests of 1 store failed")
        .stderr_contains("Error: broken");
    seen(&project, "eu");
}

#[test]
fn stores_are_chosen_by_a_change_and_the_user_interface_is_for_one_store() {
    let project = tested_shop(free_ports());
    let run = project.alokai("store test --all --ui").fails_with(2);
    run.stderr_contains("`--ui` opens the tests of one store");
    project.alokai("store test --store us --ui").succeeds();
    assert_eq!(
        seen(&project, "us")["arguments"],
        serde_json::json!(["--ui"])
    );

    project.remove(".out/us/playwright/seen.json");
    let path = format!("apps/stores/fashion/stores/eu/{FRONTEND}/texts.txt");
    project.write(&path, "other texts of eu\n");
    project.commit();
    let run = project
        .alokai("store test --since HEAD~1 --to HEAD")
        .succeeds();
    run.stderr_contains("changed since `HEAD~1`: eu");
    seen(&project, "eu");
    assert!(!project.exists(".out/us/playwright/seen.json"));
    let run = project.alokai("store test --since HEAD").succeeds();
    run.stderr_contains("no store has changed since `HEAD`");
}

#[test]
fn the_vendors_scripts_win_over_test() {
    let project = built_shop(free_ports())
        .app(
            "playwright",
            r#""test": "exit 1", "test:integration:pw": "node record.js pw", "test:integration:ui": "node record.js ui""#,
        )
        .file("apps/playwright/record.js", RECORD);
    project.commit();
    project.alokai("store test --store us").succeeds();
    assert_eq!(seen(&project, "us")["arguments"], serde_json::json!(["pw"]));
    project.alokai("store test --store us --ui").succeeds();
    assert_eq!(seen(&project, "us")["arguments"], serde_json::json!(["ui"]));
    // Without a script, the installed program is run.
    let project = project.app("playwright", r#""lint": "true""#).file(
        "node_modules/.bin/playwright",
        "#!/bin/sh\nexec node record.js \"$@\"\n",
    );
    project.make_executable("node_modules/.bin/playwright");
    project.commit();
    project.alokai("store test --store us").succeeds();
    assert_eq!(
        seen(&project, "us")["arguments"],
        serde_json::json!(["test"])
    );
    std::fs::remove_dir_all(project.path("apps/playwright")).unwrap();
    project.commit();
    let run = project.alokai("store test --store us").fails_with(2);
    run.stderr_contains("the project has no Playwright tests");
}
