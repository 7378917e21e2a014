//! Hooks in a container of the new image, with the real engine and the real registry.

use std::time::Duration;

use serde_json::{Value, json};

use super::{hook_records, noted, noting};
use crate::deploy::{Unique, unique};
use crate::support::{
    Before, Console, FRONTEND, MIDDLEWARE, Project, Registry, Turn, base_reference, docker,
    registry,
};

/// A shop whose images are in the registry.
fn shop(name: &Unique, hooks: &Value) -> Option<(Registry, Console, Project)> {
    let (registry, base) = (registry()?, base_reference()?);
    let console = Console::start();
    let project = Project::shop_named(name)
        .setting("image", &json!({ "base": base }))
        .setting("hooks", hooks)
        .file(
            &format!("apps/{MIDDLEWARE}/build.js"),
            "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); fs.writeFileSync('lib/index.js', ''); fs.writeFileSync('lib/migrate.js', `console.log('migrating ' + process.env.ALOKAI_STORE + ' in ' + process.cwd(), process.env.DATABASE); process.exit(Number(process.env.CODE || 0));`);",
        );
    project.commit();
    let project = registry.used_by(project, &console.address);
    Some((registry, console, project))
}

/// The containers of hooks of a project.
fn containers(project: &Project) -> String {
    let label = format!("label=com.alokai.project={}", project.root().display());
    docker(&["ps", "--all", "--quiet", "--filter", &label])
}

#[test]
fn a_migration_runs_in_the_new_image_once_for_each_store() {
    let name = unique("migrate");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "command": ["node", "lib/migrate.js"],
          "env": { "DATABASE": "${DATABASE_URL}" } },
        noting("after", "push", "$ALOKAI_STORE $ALOKAI_IMAGE_STOREFRONT_MIDDLEWARE"),
    ]);
    let Some((registry, _console, project)) = shop(&name, &hooks) else {
        return;
    };
    let project = project.env("DATABASE_URL", "postgres://secret-place");
    let run = project.alokai("store deploy --all --until push").succeeds();
    for store in ["us", "eu"] {
        let line = format!("{store}:hook after push: migrating {store} in /var/www ***");
        assert_eq!(run.stderr.matches(&line).count(), 1, "{}", run.stderr);
    }
    run.stderr_lacks("secret-place");
    let noted = noted(&project);
    let image = format!(
        "{}/{name}-us-storefrontcloud-io/vue-storefront-middleware@sha256:",
        registry.address
    );
    assert!(
        noted
            .iter()
            .any(|line| line.starts_with(&format!("us {image}"))),
        "{noted:?}"
    );
    assert_eq!(containers(&project), "");
    let records = hook_records(&project);
    let codes: Vec<_> = records.iter().map(|it| it["code"].as_i64()).collect();
    assert_eq!(codes, [Some(0); 4]);
}

#[test]
fn a_failing_and_a_hanging_migration_fail_their_store() {
    let name = unique("migrate");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "command": ["node", "lib/migrate.js"],
          "stores": ["us"], "env": { "CODE": "7" } },
        { "when": "after", "stage": "push", "in": "image", "app": FRONTEND, "timeout": 2, "stores": ["eu"],
          "command": ["node", "-e", "console.log('waiting'); setInterval(() => {}, 1000)"] },
    ]);
    let Some((_registry, console, project)) = shop(&name, &hooks) else {
        return;
    };
    let run = project
        .alokai("store deploy --all --keep-going")
        .fails_with(1);
    run.stderr_contains("(after push of `us`) exited with code 7")
        .stderr_contains("│ migrating us in /var/www")
        .stderr_contains("(after push of `eu`) did not end within 2 s")
        .stderr_contains("│ waiting");
    assert_eq!(containers(&project), "");
    assert_eq!(console.requests().len(), 0);
}

#[test]
fn the_time_limit_of_a_hook_in_an_image_includes_the_pull() {
    let name = unique("pull");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "timeout": 2, "stores": ["us"],
          "command": ["node", "-e", "console.log('the hook runs')"] },
    ]);
    let Some((registry, console, project)) = shop(&name, &hooks) else {
        return;
    };
    let slow = Before::new(&registry.address, |seen| {
        // The engine pulls a layer slowly.
        if seen.is("GET", "/blobs/sha256:") {
            std::thread::sleep(Duration::from_secs(4));
        }
        Turn::Pass
    });
    let project = registry
        .at(&slow.address)
        .used_by(project, &console.address);
    let run = project
        .alokai("store deploy --store us --until push")
        .fails_with(1);
    run.stderr_contains("did not end within 2 s");
    assert_eq!(containers(&project), "");
}

#[test]
fn a_command_that_the_image_does_not_have_is_named() {
    let name = unique("migrate");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "command": ["no-such-program"], "stores": ["us"] },
    ]);
    let Some((_registry, _console, project)) = shop(&name, &hooks) else {
        return;
    };
    let run = project
        .alokai("store deploy --store us --until push")
        .fails_with(1);
    run.stderr_contains("the hook `no-such-program` (after push of `us`)")
        .stderr_contains("exited with code 127")
        .stderr_contains("no-such-program failed");
    assert_eq!(containers(&project), "");
}

#[test]
fn a_hook_in_an_image_runs_on_the_engine_of_the_target() {
    let name = unique("migrate");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "command": ["node", "lib/migrate.js"],
          "stores": ["us"] },
    ]);
    let Some((_registry, _console, project)) = shop(&name, &hooks) else {
        return;
    };
    let engine = std::env::var("DOCKER_HOST");
    let engine = engine.unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let deploy = json!({ "target": "docker", "docker": { "host": engine, "proxy": null } });
    let project = project
        .setting("deploy", &deploy)
        .env("DOCKER_HOST", "unix:///nonexistent");
    project.commit();
    let run = project
        .alokai("store deploy --store us --until push")
        .succeeds();
    run.stderr_contains("migrating us in /var/www");

    // The engine of the target is checked before the first build.
    let deploy =
        json!({ "target": "docker", "docker": { "host": "unix:///no-engine", "proxy": null } });
    let project = project
        .setting("deploy", &deploy)
        .env("DOCKER_HOST", &engine);
    project.commit();
    let run = project
        .alokai("store deploy --store us --until push")
        .fails_with(3);
    run.stderr_contains("unix:///no-engine")
        .stderr_lacks("ok build");
}

#[test]
fn without_an_engine_nothing_is_built() {
    let name = unique("migrate");
    let hooks = json!([
        { "when": "after", "stage": "push", "in": "image", "command": ["true"] },
    ]);
    let Some((_registry, _console, project)) = shop(&name, &hooks) else {
        return;
    };
    let project = project.env("DOCKER_HOST", "unix:///nonexistent");
    let run = project
        .alokai("store deploy --all --until push")
        .fails_with(3);
    run.stderr_contains("runs in an image")
        .stderr_contains("/nonexistent");
    assert!(!project.exists(".out/us"));
}
