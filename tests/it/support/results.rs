//! Results of builds: in events, in the summary and in the cache.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Arguments, Project, Run};

pub const MIDDLEWARE: &str = "storefront-middleware";
pub const FRONTEND: &str = "storefront-unified-nextjs";

/// The events of a run with `--json`.
pub fn events(run: &Run) -> Vec<Value> {
    let lines = run.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("one event a line"))
        .collect()
}

/// The stages that a run with `--json` started.
pub fn begun(run: &Run) -> Vec<String> {
    let events = events(run).into_iter();
    let begun = events.filter(|event| event["event"] == "stage-started");
    begun
        .map(|event| event["stage"].as_str().expect("text").to_owned())
        .collect()
}

/// The rows of the summary by unit.
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

/// The result of each unit: `miss`, `hit` or `reused from …`.
pub fn results(run: &Run) -> BTreeMap<String, String> {
    let rows = rows(run).into_iter();
    rows.map(|(unit, row)| (unit, row["cache"].as_str().unwrap_or("none").to_owned()))
        .collect()
}

/// Builds with `--json`. Fails unless the build succeeds.
#[track_caller]
pub fn build(project: &Project, more: impl Arguments) -> Run {
    let arguments = [&["store", "build", "--json"], &*more.words()].concat();
    project.alokai(&arguments).succeeds()
}

/// The result of one unit of a build (`<store>/<app>`): `miss`, `hit` or `reused from …`.
#[track_caller]
pub fn result_of(run: &Run, unit: &str) -> String {
    results(run)[unit].clone()
}

/// Builds the store `us` and returns the result of its middleware.
#[track_caller]
pub fn build_middleware(project: &Project) -> String {
    let run = build(project, "--store us");
    result_of(&run, &format!("us/{MIDDLEWARE}"))
}

/// A shop whose middleware is built from a JavaScript expression: `lib/index.js` holds its value.
/// The expression can use `fs`, `path` and `read(file)`.
pub fn middleware_of(expression: &str) -> Project {
    let script = format!(
        "const fs = require('fs'); const path = require('path'); \
         const read = (file) => fs.readFileSync(file, 'utf8'); \
         fs.mkdirSync('lib', {{ recursive: true }}); const value = {expression}; \
         fs.writeFileSync('lib/index.js', String(value))"
    );
    Project::shop().build_script(MIDDLEWARE, &script)
}

/// The file that [`middleware_of`] builds, in the store `us`.
#[track_caller]
pub fn built_value(project: &Project) -> String {
    project.read(&format!(".out/us/{MIDDLEWARE}/lib/index.js"))
}

/// Removes composed files and results, so that only the cache is left.
pub fn forget(project: &Project) {
    for folder in [".out", ".alokai/results", ".alokai/manifests"] {
        std::fs::remove_dir_all(project.path(folder)).expect("it is there");
    }
}

/// The entry of a unit's build in the cache.
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
