//! The data of a store, which outlives its releases. The target `docker` has a test of its own.

use serde_json::json;

use super::TEXTS;
use crate::local_target::page;
use crate::support::{MIDDLEWARE, Project, base_layout};

/// A middleware that adds a word to a file at `/write`, and returns the file.
pub fn keeping(word: &str) -> String {
    format!(
        r"
const fs = require('fs'), file = process.env.DATA_DIR + '/visits';
require('http').createServer((request, answer) => {{
  if (request.url === '/write') fs.appendFileSync(file, '{word} ');
  answer.end(fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : 'nothing');
}}).listen(process.env.API_PORT || process.env.PORT || 4000);
"
    )
}

#[test]
fn data_of_a_release_is_read_by_the_next_after_a_rollback_and_after_a_stop() {
    let Some(base) = base_layout() else { return };
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting(
            "deploy",
            &json!({ "target": "local", "watch": 0, "drain": 1, "keep": 0 }),
        );
    let source = format!("apps/{MIDDLEWARE}/src/index.js");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let get = |path: &str| {
        let status = project.alokai("store status --store us --json").succeeds();
        let status = status.json();
        let address = status["stores"][0]["addresses"][0].as_str().unwrap();
        runtime.block_on(page(&format!("{address}/api/{path}")))
    };
    let release = |word: &str| {
        project.write(&source, keeping(word));
        project.write(TEXTS, format!("{word}\n"));
        project.commit();
        project.alokai("store deploy --store us").succeeds();
    };
    release("one");
    assert_eq!(get(""), "nothing");
    assert_eq!(get("write"), "one ");
    release("two");
    assert_eq!(get(""), "one ");
    assert_eq!(get("write"), "one two ");
    project.alokai("store rollback --store us").succeeds();
    assert_eq!(get("write"), "one two one ");
    project.alokai("store stop").succeeds();
    project.alokai("store clean").succeeds();
    project.alokai("store unpin --store us").succeeds();
    release("three");
    assert_eq!(get(""), "one two one ");
    let file = project.read(".alokai/local/data/us/visits");
    assert_eq!(file, "one two one ");
}
