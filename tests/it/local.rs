//! Deploying to this machine: images in a folder, and stores that run.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    FRONTEND, MIDDLEWARE, Project, Run, base_layout, begun, events, folder, is_root, is_there,
    rows, run,
};

const LOCAL: &str = "store deploy --all --local";
const STAGES: [&str; 6] = ["compose", "build", "prune", "image", "push", "deploy"];

fn shop(base: &str) -> Project {
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting("deploy", &json!({ "watch": 0, "drain": 1 }));
    project.commit();
    project
}

/// Runs the program without Docker, without network, and with no other programs than these.
fn alone(project: &Project, arguments: &str) -> Run {
    let programs = folder();
    for program in ["node", "git", "npm", "sh"] {
        let found = run("sh", &["-c", &format!("command -v {program}")]);
        let to = programs.path().join(program);
        std::os::unix::fs::symlink(found.trim(), to).unwrap();
    }
    let alokai = project.command(arguments);
    let mut command = Command::new(alokai.get_program());
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
    command
        .args(alokai.get_args())
        .current_dir(project.root())
        .env_clear()
        .envs(proxies.map(|name| (name, "http://127.0.0.1:9")))
        .env("PATH", programs.path())
        .env("HOME", project.root().with_file_name(".home"))
        .env("DOCKER_HOST", "unix:///nonexistent");
    command.output().expect("the program runs").into()
}

/// The stages that started.
fn stages(run: &Run) -> Vec<&str> {
    let lines = run
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("== "));
    lines.filter_map(|line| line.split(' ').next()).collect()
}

/// The public address of a store in the summary.
fn address(run: &Run, store: &str) -> String {
    let start = format!("deployed {store}: ");
    let mut lines = run.stdout.lines();
    let found = lines.find_map(|line| line.strip_prefix(&start));
    found.unwrap_or_else(|| panic!("{}", run.stdout)).to_owned()
}

/// Whether an entry of the index is a record of a build.
fn is_record(manifest: &Value) -> bool {
    let kind = manifest["artifactType"].as_str();
    kind.is_some_and(|kind| kind.starts_with("application/vnd.alokai."))
}

fn page(address: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(super::local_target::page(address))
}

#[test]
fn without_docker_and_network_stores_are_deployed_and_run() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    let run = alone(&project, LOCAL).succeeds();
    assert_eq!(stages(&run), STAGES);
    run.stdout_contains("`alokai store stop --store eu,us` stops what runs here\n");
    for store in ["us", "eu"] {
        let address = address(&run, store);
        assert_eq!(page(&format!("{address}/api/")), "middleware\n");
        assert_eq!(page(&address), format!("texts of {store}\n"));
    }
    // The build of another commit is a new release at the same address, although `.out` has changed.
    let texts = "apps/stores/fashion/stores/us/storefront-unified-nextjs/texts.txt";
    project.write(texts, "new texts of us\n");
    project.commit();
    let again = alone(&project, LOCAL).succeeds();
    assert_eq!(address(&again, "us"), address(&run, "us"));
    assert_eq!(page(&address(&run, "us")), "new texts of us\n");
    std::fs::remove_dir_all(project.path(".out")).unwrap();
    alone(&project, "store rollback --store us --local").succeeds();
    // Commands in hints are for this machine too.
    let plan = alone(&project, "store deploy --store us --local --dry-run").succeeds();
    plan.stdout_contains("`alokai store unpin --store us --local` removes the pin");
    let unset = alone(&project, "store settings unset --store us --local NOPE");
    unset
        .fails_with(2)
        .stderr_contains("`alokai store settings list --store us --local` lists the names");
    assert_eq!(page(&address(&run, "us")), "texts of us\n");
    assert_eq!(page(&address(&run, "eu")), "texts of eu\n");
    let stopped = alone(&project, "store stop --store us").succeeds();
    assert_eq!(stopped.stdout, "stopped us\n");
    assert_eq!(page(&address(&run, "eu")), "texts of eu\n");
    // The stop is recorded, and the printed command starts the store again.
    let status = alone(&project, "store status --store us --local").succeeds();
    assert!(!status.stdout.contains("drift"), "{}", status.stdout);
    let line = status
        .stdout
        .lines()
        .find(|line| line.starts_with("  stopped "));
    let again = line.unwrap().split('`').nth(1).unwrap();
    alone(&project, again.strip_prefix("alokai ").unwrap()).succeeds();
    assert_eq!(page(&address(&run, "us")), "texts of us\n");
    alone(&project, "store history --store us")
        .succeeds()
        .stdout_contains(" stop ");
}

#[test]
fn a_store_whose_target_is_this_machine_needs_no_registry() {
    let Some(base) = base_layout() else { return };
    let deploy = json!({ "target": "local", "watch": 0, "drain": 1 });
    let project = shop(&base).setting("deploy", &deploy);
    project.commit();
    let run = alone(&project, "store deploy --store us").succeeds();
    assert_eq!(page(&address(&run, "us")), "texts of us\n");
    assert!(project.exists(".alokai/registry/index.json"));
}

/// A middleware that says what it has, needs its `.env`, and writes beside itself.
const OF_VENDOR: &str = r"
const { API_PORT, COMMERCE_KEY } = process.env;
if (!COMMERCE_KEY) throw new Error('COMMERCE_KEY is missing');
require('fs').writeFileSync('written', '');
require('http')
  .createServer((_, answer) => answer.end(JSON.stringify({ ...process.env, cwd: process.cwd() })))
  .listen(API_PORT);
";

const SECRET: &str = "it's a \"key\" of $HOME \\n\nand a line";

#[test]
fn values_of_env_files_reach_the_app_and_nothing_else() {
    let Some(base) = base_layout() else { return };
    let quoted = format!("COMMERCE_KEY=`{SECRET}`\n");
    let project = shop(&base)
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), OF_VENDOR)
        .file(
            &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.env"),
            &format!("{quoted}API_PORT=1\nA.b=unnamed\n"),
        )
        .file("node_modules/marker", "");
    project.commit();
    // Node finds packages in folders above, so this folder is not used.
    let surrounded = project.root().with_file_name("surrounded");
    for folder in ["node_modules", "tmp"] {
        std::fs::create_dir_all(surrounded.join(folder)).unwrap();
    }
    let temporary = surrounded.join("tmp").display().to_string();
    let project = project.env("TMPDIR", &temporary);
    let plan = "store deploy --store us --local --dry-run --json";
    let plan = project.alokai(plan).succeeds();
    let run = project.alokai("store deploy --store us --local").succeeds();
    for text in [&run.stdout, &run.stderr, &plan.stdout] {
        assert!(
            !text.contains("a line") && !text.contains("it's a"),
            "{text}"
        );
    }
    let found = page(&format!("{}/api/", address(&run, "us")));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["COMMERCE_KEY"], SECRET);
    assert_eq!(found["A.b"], "unnamed");
    assert_eq!(found["API_PORT"], found["PORT"]);
    assert_eq!(found["NODE_PATH"], Value::Null);
    let folder = Path::new(found["cwd"].as_str().unwrap()).to_owned();
    assert!(folder.join("written").exists());
    assert!(!folder.starts_with(project.root()) && !folder.starts_with(&surrounded));
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}/.deploy/written")));

    // Of all files of the project, only those of the release have the value.
    let mut with_secret = Vec::new();
    for file in super::local_target::files(&project.path(".alokai")) {
        if String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains("a line") {
            let mode = file.metadata().unwrap().permissions().mode();
            with_secret.push((file, mode & 0o777));
        }
    }
    assert_eq!(with_secret.len(), 1, "{with_secret:?}");
    let (file, mode) = &with_secret[0];
    assert!(file.starts_with(project.path(".alokai/local/environment/us")));
    assert_eq!(*mode, 0o600);
    project.alokai("store stop").succeeds();
    assert!(!folder.exists(), "{folder:?}");
}

#[test]
fn a_base_may_lie_beside_the_images_under_its_own_name() {
    let Some(base) = base_layout() else { return };
    // The default base image, whose registry cannot be reached here.
    let project = Project::shop();
    std::fs::create_dir(project.path(".alokai")).unwrap();
    let to = format!(
        "oci:{}:node:22-alpine",
        project.path(".alokai/registry").display()
    );
    run("skopeo", &["copy", "--quiet", &base, &to]);
    let run = alone(&project, LOCAL).succeeds();
    assert_eq!(stages(&run), STAGES);
}

#[test]
fn images_in_the_folder_are_made_again_only_if_they_cannot_run() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    let us = ["store", "deploy", "--store", "us", "--local", "--json"];
    let first = rows(&project.alokai(&us).succeeds());
    let run = project.alokai(&us).succeeds();
    assert_eq!(begun(&run), ["push", "deploy"]);
    for (unit, row) in rows(&run) {
        assert_eq!(row["wasThere"], true);
        assert_eq!(row["digest"], first[&unit]["digest"]);
    }

    let deploy = format!(".out/us/{FRONTEND}/.deploy");
    std::fs::remove_dir_all(project.path(&deploy)).unwrap();
    let run = project.alokai(&us).succeeds();
    let second = rows(&run);
    assert!(project.path(&deploy).join("server.js").is_file());
    let there = |app: &str| &second[&format!("us/{app}")]["wasThere"];
    assert_eq!(
        (there(FRONTEND), there(MIDDLEWARE)),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        second[&format!("us/{FRONTEND}")]["digest"],
        first[&format!("us/{FRONTEND}")]["digest"]
    );

    // The index and the summary have an entry for each store.
    let index: Value = serde_json::from_str(&project.read(".alokai/registry/index.json")).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let manifests = manifests.iter().filter(|manifest| !is_record(manifest));
    assert_eq!(manifests.count(), 2 * 3);
    let events = events(&run);
    let summary = events.iter().find(|event| event["event"] == "summary");
    let units = summary.unwrap()["units"].as_array().unwrap();
    assert_eq!(
        units.len(),
        2,
        "a row each, though one was built for the other"
    );

    // A run for another store keeps this store running.
    let run = project.alokai("store deploy --store eu --local").succeeds();
    let of_us = address(&run, "eu").replace("eu.", "us.");
    assert_eq!(page(&of_us), "texts of us\n");
}

#[test]
fn other_tools_read_the_folder() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base).env("CLI_DOCKER_REGISTRY_URL", "oci:images/out");
    let deploy = ["store", "deploy", "--all", "--until", "push", "--json"];
    let rows = rows(&project.alokai(&deploy).succeeds());
    assert_eq!(rows.len(), 4);
    let layout = project.path("images/out").display().to_string();
    let sha = project.sha();
    let name = |store: &str, app: &str| format!("acme-{store}-storefrontcloud-io/{app}:{sha}");

    let index: Value = serde_json::from_str(&project.read("images/out/index.json")).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    for (unit, row) in &rows {
        let reference = row["reference"].as_str().unwrap();
        let mut named = manifests.iter().filter(|manifest| {
            let name = &manifest["annotations"]["org.opencontainers.image.ref.name"];
            name.as_str()
                .is_some_and(|name| reference == format!("oci:images/out:{name}"))
        });
        let annotations = &named.next().expect("the index lists the image")["annotations"];
        assert!(named.next().is_none(), "{reference} is listed twice");
        let of =
            ["com.alokai.store", "com.alokai.app"].map(|key| annotations[key].as_str().unwrap());
        assert_eq!(of.join("/"), *unit);
        assert_eq!(annotations["org.opencontainers.image.revision"], sha);

        let inspected = run(
            "skopeo",
            &["inspect", &reference.replace("images/out", &layout)],
        );
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], row["digest"]);
        assert_eq!(inspected["Labels"]["com.alokai.store"], row["storeId"]);
    }
    // An attestation has no name; it refers to an image that has one.
    let others = manifests
        .iter()
        .filter(|manifest| manifest["artifactType"].is_string() && !is_record(manifest));
    assert_eq!(others.count(), 8);

    if is_there("umoci") {
        let mut wanted: Vec<String> = ["us", "eu"]
            .iter()
            .flat_map(|store| {
                ["vue-storefront", "vue-storefront-middleware"].map(|app| name(store, app))
            })
            .collect();
        wanted.sort();
        let listed = run("umoci", &["ls", "--layout", &layout]);
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.retain(|name| !name.contains(":alokai.E"));
        listed.sort_unstable();
        assert_eq!(listed, wanted);
        let bundle = project.root().with_file_name("bundle");
        let image = format!("{layout}:{}", name("us", "vue-storefront"));
        let mut unpack = vec!["unpack", "--image", &image, bundle.to_str().unwrap()];
        if !is_root() {
            unpack.push("--rootless");
        }
        run("umoci", &unpack);
        let read = |path: &str| std::fs::read(bundle.join(path)).unwrap();
        let made = std::fs::read(project.path(&format!(".out/us/{FRONTEND}/.deploy/server.js")));
        assert_eq!(read("rootfs/var/www/server.js"), made.unwrap());
        let config: Value = serde_json::from_slice(&read("config.json")).unwrap();
        assert_eq!(config["process"]["args"], json!(["node", "server.js"]));
        assert_eq!(config["process"]["cwd"], "/var/www");
    }
    let copy = project.root().with_file_name("copy");
    let from = format!("oci:{layout}:{}", name("eu", "vue-storefront"));
    run(
        "skopeo",
        &["copy", "--quiet", &from, &format!("dir:{}", copy.display())],
    );
    assert!(Path::new(&copy).join("manifest.json").is_file());
}
