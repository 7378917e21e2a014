//! `store start --image` with the real engine.

use super::{PAGE, SERVER, Served, free_ports, stores};
use crate::deploy::unique;
use crate::support::{FRONTEND, MIDDLEWARE, Project, base_reference, docker, page, registry};

#[test]
fn images_of_a_store_share_a_network_and_are_removed_at_the_end() {
    let (Some(_), Some(base)) = (registry(), base_reference()) else {
        return;
    };
    let ports = free_ports();
    let name = unique("start");
    let page_server = PAGE.replace(
        "const child = require('child_process').spawn('sleep', ['300']);",
        "const child = {};",
    );
    let project = Project::shop()
        .setting("stores", &stores(&name.to_string(), ports))
        .setting("image", &serde_json::json!({ "base": base }))
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), SERVER)
        .file(&format!("apps/{FRONTEND}/page.js"), &page_server)
        .file(
            &format!("apps/{FRONTEND}/build.js"),
            r"
const fs = require('fs'), path = require('path');
const app = path.join('.next/standalone', path.relative(path.resolve('../../..'), process.cwd()));
fs.mkdirSync(app, { recursive: true });
fs.mkdirSync('.next/static', { recursive: true });
fs.mkdirSync('.next/standalone/node_modules/next', { recursive: true });
fs.writeFileSync('.next/standalone/node_modules/next/package.json', '{}');
fs.copyFileSync('page.js', path.join(app, 'server.js'));
",
        );
    project.commit();
    let run = project
        .alokai("store start --store us --image")
        .fails_with(3);
    run.stderr_contains("cannot be pulled");

    project
        .alokai("store deploy --store us --until image --builder docker")
        .succeeds();
    let container = format!("alokai-us-{MIDDLEWARE}");
    let mut served = Served::start(&project, "store start --store us --image");
    served.line(&format!("us     {FRONTEND}  http://localhost:{}", ports[1]));
    assert_eq!(
        page(ports[1], "/"),
        format!("page with products of {}", ports[0])
    );
    let names = docker(&["ps", "--format", "{{.Names}}"]);
    assert!(names.contains(&container), "{names}");
    served.line(&format!("us/{MIDDLEWARE} | middleware"));
    served.interrupt();
    let (code, lines) = served.end();
    assert_eq!(code, 130, "{lines}");
    let names = docker(&["ps", "--all", "--format", "{{.Names}}"]);
    assert!(!names.contains("alokai-us-"), "{names}");
    let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    for image in images.lines().filter(|it| it.contains(&name.to_string())) {
        docker(&["rmi", "--force", image]);
    }
}
