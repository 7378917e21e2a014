//! Stores that run: their output, pages for maintenance, their data, releases that are removed, and the wait
//! for the console.

mod console;
mod data;
mod logs;
mod maintenance;
mod prune;

pub use data::keeping;

use serde_json::json;

use crate::support::{MIDDLEWARE, Project, base_layout};

/// A value of a `.env` file, which the middleware prints.
const SECRET: &str = "a-very-secret-value";

const PRINTING: &str = r"
console.log('key ' + process.env.COMMERCE_KEY);
require('http').createServer((_, answer) => answer.end('middleware\n')).listen(process.env.API_PORT);
";

/// The file whose text is the page of the store `us`.
const TEXTS: &str = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";

/// A shop that is deployed to this machine.
fn local_shop() -> Option<Project> {
    let base = base_layout()?;
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting(
            "deploy",
            &json!({ "target": "local", "watch": 0, "drain": 1 }),
        )
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), PRINTING)
        .file(
            &format!("apps/{MIDDLEWARE}/.env"),
            &format!("COMMERCE_KEY={SECRET}\n"),
        );
    project.commit();
    Some(project)
}
