//! Hooks: commands before and after the stages of a store, and the callbacks of apps.

mod callbacks;
mod entrypoint;
mod failing;
mod image;
mod places;
mod problems;
mod releases;

use serde_json::{Value, json};

use crate::support::Project;

/// A shop with hooks, whose images go to a folder.
fn shop(hooks: &Value, base: &str) -> Project {
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting("hooks", hooks);
    project.commit();
    project
}

/// A hook that appends a line to a file beside the project.
fn noting(when: &str, stage: &str, text: &str) -> Value {
    let script = format!("echo \"{text}\" >> ../noted.txt");
    json!({ "when": when, "stage": stage, "command": ["sh", "-c", script] })
}

/// What hooks have noted, line by line.
fn noted(project: &Project) -> Vec<String> {
    let path = project.root().with_file_name("noted.txt");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The records of hooks, oldest first.
fn hook_records(project: &Project) -> Vec<Value> {
    let folder = project.path(".alokai/ledger/events");
    let files = walkdir::WalkDir::new(folder).sort_by_file_name();
    let files = files.into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_type().is_file());
    let records = files.filter_map(|entry| {
        let text = std::fs::read(entry.path()).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    });
    records.filter(|record| record["what"] == "hook").collect()
}
