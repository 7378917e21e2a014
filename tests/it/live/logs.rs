//! `store logs`, at the target `command` with a small program, and at the target `local`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{SECRET, local_shop};
use crate::release::Shop;
use crate::support::{FRONTEND, MIDDLEWARE, Project, Run};

/// A time limit that no step of these tests reaches.
const LONG: Duration = Duration::from_secs(30);

const KEY: &str = "value-of-a-setting";

/// A shop whose target has output of apps.
fn shop() -> Option<Shop> {
    let shop = Shop::new()?;
    shop.set("capabilities", json!({ "logs": true, "maintenance": true }));
    shop.set("token", SECRET.into());
    let env = format!("apps/{MIDDLEWARE}/.env");
    shop.project.write(&env, format!("TOKEN={SECRET}\n"));
    shop.commit("with a token");
    Some(shop)
}

#[test]
fn lines_have_app_replica_and_time_are_sorted_and_have_no_secrets() {
    let Some(shop) = shop() else { return };
    let none = shop.run("store logs --store us").fails_with(2);
    none.stderr_contains("no release of `us` is live at the target `command`");
    shop.deploy().succeeds();
    let set = format!("store settings set --store us KEY={KEY}");
    shop.run(set.as_str()).succeeds();
    shop.run("store deploy --settings --store us").succeeds();

    let run = shop.run("store logs --store us").succeeds();
    // A value of the `.env` of one app is no secret of another app.
    let expected = format!(
        "{MIDDLEWARE}-2      | 2026-01-02T03:04:08.000Z key *** token ***\n\
         {FRONTEND}-1  | 2026-01-02T03:04:09.000Z key *** token {SECRET}\n"
    );
    assert_eq!(run.stdout, expected);
    let since = "store logs --store us --since 2026-01-02T03:04:09Z";
    let lines = shop.run(since).succeeds().stdout;
    assert!(
        lines.starts_with(FRONTEND) && lines.lines().count() == 1,
        "{lines}"
    );
    let app = format!("store logs --store us --json --app {MIDDLEWARE}");
    let line = shop.run(app.as_str()).succeeds().json();
    let expected = json!({
        "storeId": "us", "release": shop.active(), "app": MIDDLEWARE, "replica": 1,
        "at": "2026-01-02T03:04:09Z", "line": "key *** token ***",
    });
    assert_eq!(line, expected);

    shop.run("store logs --store us --app storefront-middlewar")
        .fails_with(2)
        .stderr_contains(&format!("did you mean `{MIDDLEWARE}`?"));
    shop.run("store logs --store us --since yesterday")
        .fails_with(2)
        .stderr_contains("such as `10m`");
}

#[test]
fn another_release_can_be_read_and_a_program_that_fails_is_an_error() {
    let Some(shop) = shop() else { return };
    shop.deploy().succeeds();
    shop.mood("us", "silent");
    shop.commit("second");
    shop.run("store deploy --store us --no-release").succeeds();
    let staged = shop.records("releases").pop().unwrap();
    let staged = staged["id"].as_str().unwrap();
    let run = shop.run(&format!("store logs --store us --release {staged}"));
    let run = run.fails_with(1);
    run.stderr_contains("the output was lost");
    run.stdout_contains(MIDDLEWARE);
    shop.run(&format!("store logs --store eu --release {staged}"))
        .fails_with(2)
        .stderr_contains("is not a release of `eu` at the target `command`");

    shop.set("capabilities", json!({}));
    shop.run("store logs --store us")
        .fails_with(2)
        .stderr_contains("the target `command` of `us` does not support `store logs`");
    shop.set("capabilities", json!({ "logs": true, "settings": false }));
    shop.project.write("target.js", "process.exit(64)");
    shop.run("store logs --store us").fails_with(2);
}

/// Lines of a command that runs, until one of them fits.
fn until(lines: &mut impl Iterator<Item = std::io::Result<String>>, fits: impl Fn(&str) -> bool) {
    let start = Instant::now();
    for line in lines {
        if fits(&line.unwrap()) {
            return;
        }
        assert!(start.elapsed() < LONG);
    }
    panic!("the output has ended");
}

/// The processes of a shop's target that run.
fn verbs(project: &Project) -> Vec<String> {
    let folder = project.path(".alokai/target");
    let files = std::fs::read_dir(folder).unwrap();
    let names = files.map(|it| it.unwrap().file_name().into_string().unwrap());
    let running = names.filter_map(|name| Some(name.strip_prefix("running.")?.to_owned()));
    running
        .filter(|id| Path::new(&format!("/proc/{id}")).exists())
        .collect()
}

#[test]
fn followed_output_goes_on_with_the_next_release_and_ends_with_an_interrupt() {
    let Some(shop) = shop() else { return };
    shop.deploy().succeeds();
    let first = shop.active().unwrap();
    let mut run = shop.project.start("store logs --store us --follow");
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    until(&mut lines, |line| {
        line.contains(&format!("{first} goes on"))
    });
    shop.commit("second");
    shop.deploy().succeeds();
    let second = shop.active().unwrap();
    until(&mut lines, |line| {
        line.contains(&format!("{second} goes on"))
    });
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest = std::thread::spawn(move || lines.for_each(drop));
    let run: Run = run.wait_with_output().unwrap().into();
    rest.join().unwrap();
    let run = run.fails_with(130);
    assert_eq!(run.stderr, format!("note: {second} is live now\n"));
    let start = Instant::now();
    while !verbs(&shop.project).is_empty() {
        assert!(start.elapsed() < LONG, "the program of the target runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_output_of_a_store_on_this_machine_is_printed() {
    let Some(project) = local_shop() else { return };
    let logs = format!("store logs --store us --app {MIDDLEWARE} --json --since 10m");
    project
        .alokai("store logs --store us")
        .fails_with(2)
        .stderr_contains("`alokai store status --store us --local` shows");
    project.alokai("store deploy --store us").succeeds();
    let start = Instant::now();
    let printed = loop {
        let printed = project.alokai(logs.as_str()).succeeds().stdout;
        if !printed.is_empty() {
            break printed;
        }
        assert!(start.elapsed() < LONG);
    };
    let line: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(line["line"], "key ***");
    assert!(line["at"].is_string());
    let later = format!("store logs --store us --since {}", jiff::Timestamp::now());
    let run = project.alokai(later.as_str()).succeeds();
    assert_eq!(run.stdout, "");
}
