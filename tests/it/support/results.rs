//! What a build says of its results, and where they lie.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Project, Run};

pub const MIDDLEWARE: &str = "storefront-middleware";
pub const FRONTEND: &str = "storefront-unified-nextjs";

/// Events of a run with `--json`.
pub fn events(run: &Run) -> Vec<Value> {
    let lines = run.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("one event a line"))
        .collect()
}

/// Stages that a run with `--json` has begun.
pub fn begun(run: &Run) -> Vec<String> {
    let events = events(run).into_iter();
    let begun = events.filter(|event| event["event"] == "stage-started");
    begun
        .map(|event| event["stage"].as_str().expect("text").to_owned())
        .collect()
}

/// Rows of the summary, by unit.
pub fn rows(run: &Run) -> BTreeMap<String, Value> {
    let events = events(run);
    let summary = events
        .iter()
        .find(|event| event["event"] == "summary")
        .expect("a summary");
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().expect("text");
        (format!("{}/{}", text("storeId"), text("app")), row.clone())
    };
    let units = summary["units"].as_array().expect("rows");
    units.iter().map(row).collect()
}

/// `miss`, `hit` or `reused from …`, by unit.
pub fn results(run: &Run) -> BTreeMap<String, String> {
    let rows = rows(run).into_iter();
    rows.map(|(unit, row)| (unit, row["cache"].as_str().unwrap_or("none").to_owned()))
        .collect()
}

/// Builds stores, with events.
pub fn build(project: &Project, more: &[&str]) -> Run {
    let arguments = [&["store", "build", "--json"], more].concat();
    project.alokai(&arguments).succeeds()
}

/// Forgets what is in place, so that only the cache knows.
pub fn forget(project: &Project) {
    for folder in [".out", ".alokai/results", ".alokai/manifests"] {
        std::fs::remove_dir_all(project.path(folder)).expect("it is there");
    }
}

/// The entry of a unit's build, as it lies in the cache.
pub fn entry_of(project: &Project, maker: &str) -> (PathBuf, Value) {
    let folder = project.path(".alokai/cache/entries");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if entry["maker"] == maker {
            return (path, entry);
        }
    }
    panic!("{maker} has no entry");
}

/// Stores that differ only in the frontend's texts.
pub fn many(stores: usize) -> Project {
    let mut project = Project::shop();
    let mut config = json!({ "stores": {} });
    for number in 1..=stores {
        let id = format!("shop-{number:02}");
        config["stores"][&id] = json!({ "deployment": {
            "projectName": format!("acme-{id}"), "cloudRegion": "europe-west1", "framework": "nextjs",
        }});
        let texts = format!("apps/stores/{id}/{FRONTEND}/texts.txt");
        project = project.file(&texts, &format!("texts of {id}\n"));
    }
    let project = project.config(&config.to_string());
    project.commit();
    project
}
