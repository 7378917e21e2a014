//! Stores that are deployed by commands: their config, their records, and their port.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Project, Run};

/// How long something is waited for.
const LIMIT: Duration = Duration::from_mins(1);

/// Sets keys of `deploy` in the config, and commits them.
pub fn configure(project: &Project, deploy: &Value) {
    let mut config: Value = serde_json::from_str(&project.read("alokai.config.json")).unwrap();
    for (key, value) in deploy.as_object().unwrap() {
        config["deploy"][key] = value.clone();
    }
    project.write("alokai.config.json", format!("{config:#}"));
    project.commit();
}

/// How often something has happened to releases of the project, by its records.
pub fn happened(project: &Project, what: &str) -> usize {
    let folder = project.path(".alokai/ledger/events");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read(file.path()).ok());
    let events = texts.filter_map(|text| serde_json::from_slice::<Value>(&text).ok());
    events.filter(|event| event["what"] == what).count()
}

/// Waits until something has happened more often than this.
pub fn await_event(project: &Project, what: &str, before: usize) {
    let start = Instant::now();
    while happened(project, what) <= before {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The port of the public address of the store `us`, as a deploy prints it.
pub fn own_port(deployed: &Run) -> u16 {
    let mut lines = deployed.stdout.lines();
    let address = lines.find_map(|line| line.strip_prefix("deployed us: "));
    let port = address.unwrap().rsplit(':').next().unwrap();
    port.parse().unwrap_or(80)
}

/// Builds the store `us` and pushes its images. Returns the id of the build.
pub fn build_of(project: &Project) -> String {
    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let list = project.alokai("store builds --store us --json").succeeds();
    list.json()["builds"][0]["id"].as_str().unwrap().to_owned()
}
