//! `build.sh` of composed apps: inherited and overridden as any file, and part of the key.

use serde_json::json;

use crate::support::{FRONTEND, MIDDLEWARE, Project};

/// A `build.sh` of the base app that writes a file which the `build` script reads.
fn shop() -> Project {
    let project = Project::shop()
        .file(
            ".gitignore",
            "node_modules\n.out\n/.alokai\nlib\n.next\n.env\ngenerated.js\n",
        )
        .file(
            &format!("apps/{MIDDLEWARE}/.alokai/build.sh"),
            "echo prepared by the base\nmkdir -p lib\necho base > lib/made.txt\n",
        )
        .build_script(
            MIDDLEWARE,
            "const fs = require('fs'); console.log('built after ' + fs.readFileSync('lib/made.txt', 'utf8').trim()); fs.writeFileSync('lib/index.js', '');",
        );
    project.commit();
    project
}

#[test]
fn build_sh_runs_before_the_build_script_and_is_inherited() {
    let project = shop().file(
        &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.alokai/build.sh"),
        "echo prepared by us\nmkdir -p lib\necho us > lib/made.txt\n",
    );
    project.commit();
    let run = project.alokai("store build --all").succeeds();
    run.stderr_contains("storefront-middleware-us:build: prepared by us")
        .stderr_contains("storefront-middleware-us:build: built after us")
        .stderr_contains("storefront-middleware-eu:build: prepared by the base")
        .stderr_contains("storefront-middleware-eu:build: built after base");
    assert_eq!(
        project.read(&format!(".out/us/{MIDDLEWARE}/lib/made.txt")),
        "us\n"
    );

    // The result with both outputs comes from the cache.
    std::fs::remove_dir_all(project.path(".out")).unwrap();
    let again = project.alokai("store build --all").succeeds();
    again
        .stderr_contains("storefront-middleware-us:build: prepared by us")
        .stderr_contains("storefront-middleware-us:build: built after us");
}

#[test]
fn an_edited_or_added_build_sh_is_a_miss() {
    let project = shop();
    project.alokai("store build --store us").succeeds();
    let hit = project.alokai("store build --store us").succeeds();
    hit.stderr_contains("hit");
    let script = format!("apps/{MIDDLEWARE}/.alokai/build.sh");
    project.write(&script, "mkdir -p lib\necho edited > lib/made.txt\n");
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("changed: .alokai/build.sh");
    run.stderr_contains("built after edited");
}

#[test]
fn a_failing_build_sh_fails_the_build_with_its_own_name() {
    let project = shop();
    let script = format!("apps/{MIDDLEWARE}/.alokai/build.sh");
    project.write(&script, "echo cannot prepare\nexit 5\n");
    let run = project.alokai("store build --store us").fails_with(1);
    run.stderr_contains("`sh .alokai/build.sh` exited with code 5")
        .stderr_contains("│ cannot prepare")
        .stderr_lacks("built after");
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}/lib/index.js")));
}

#[test]
fn the_plan_names_build_sh_and_notices_name_scripts_that_do_not_run() {
    let project = shop()
        .file("apps/playwright/.artifakt/build.sh", "true\n")
        .file(
            &format!("apps/{FRONTEND}/.artifakt/entrypoint.sh"),
            "exec \"$@\"\n",
        )
        .file(
            &format!("apps/{MIDDLEWARE}/.artifakt/entrypoint.sh"),
            "node migrate.js\n",
        )
        .dockerfile("FROM scratch\nCOPY .deploy /\n");
    project.commit();
    let plan = project
        .alokai("store deploy --store us --until image --dry-run")
        .succeeds();
    plan.stdout_contains("sh .alokai/build.sh && npm run build")
        .stdout_contains("starts .artifakt/entrypoint.sh, which starts `node lib/index.js`")
        .stdout_contains("`.artifakt/build.sh` of `us/playwright` does not run, because the app is not built")
        .stdout_contains("`.artifakt/entrypoint.sh` of `us/storefront-unified-nextjs` does not run, because the image is made by its own `Dockerfile`")
        .stdout_contains("`.artifakt/entrypoint.sh` of `us/storefront-middleware` does not contain `exec \"$@\"`");
    let plan = project
        .alokai("store deploy --store us --until image --dry-run --json")
        .succeeds()
        .json();
    let task = &plan["tasks"][0];
    assert_eq!(task["before"], json!(["sh", ".alokai/build.sh"]));
    let images = plan["images"].as_array().unwrap();
    let of = |app: &str| images.iter().find(|image| image["app"] == app).unwrap();
    assert_eq!(of(MIDDLEWARE)["entrypoint"], ".artifakt/entrypoint.sh");
    assert!(of(FRONTEND)["entrypoint"].is_null());
}

#[test]
fn a_callback_in_both_folders_is_an_error_that_names_the_layers() {
    let project = shop().file(
        &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.artifakt/build.sh"),
        "true\n",
    );
    project.commit();
    let run = project.alokai("store build --all").fails_with(2);
    run.stderr_contains("`us/storefront-middleware` has `.alokai/build.sh` of")
        .stderr_contains("`.artifakt/build.sh` of")
        .stderr_contains("alokai::plan::callbacks")
        .stderr_lacks("eu/storefront-middleware");
    // A store can leave the inherited file out.
    let config = project.read("alokai.config.json");
    let config = config.replacen(
        "\"us\": {",
        "\"us\": { \"ignorePaths\": [\"/.alokai/build.sh\"],",
        1,
    );
    project.write("alokai.config.json", config);
    let plan = project
        .alokai("store build --store us --dry-run")
        .succeeds();
    plan.stdout_contains("sh .artifakt/build.sh && npm run build");
}

#[test]
fn a_callback_that_git_ignores_is_named() {
    let script = format!("apps/{MIDDLEWARE}/.alokai/build.sh");
    let project = Project::shop()
        .file(".gitignore", "node_modules\n.out/\n.alokai/\nlib\n.next\n")
        .file(&script, "echo ran\n");
    project.commit();
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains(&format!("`{script}` does not run, because git ignores it"))
        .stderr_contains("write `/.alokai/`")
        .stderr_lacks("build: ran");
    // With the line that `alokai init` writes, the folder of the app is composed.
    project.write(".gitignore", "node_modules\n.out/\n/.alokai/\nlib\n.next\n");
    project.commit();
    let run = project.alokai("store build --store us").succeeds();
    run.stderr_contains("storefront-middleware-us:build: ran")
        .stderr_lacks("git ignores it");
}
