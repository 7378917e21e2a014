//! Deploying to this machine: images in a folder, and scripts that start the apps.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::support::{
    FRONTEND, MIDDLEWARE, Project, Run, base_layout, begun, events, folder, is_root, is_there,
    page, rows, run,
};

const LOCAL: &str = "store deploy --all --local";
const STAGES: [&str; 6] = ["compose", "build", "prune", "image", "push", "deploy"];

fn shop(base: &str) -> Project {
    let project = Project::shop().setting("image", &json!({ "base": base }));
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
    let unshared = Command::new("unshare").args(["-rn", "true"]).status();
    let mut command = if unshared.is_ok_and(|status| status.success()) {
        let mut command = Command::new(run("sh", &["-c", "command -v unshare"]).trim());
        command.arg("-rn").arg(alokai.get_program());
        command
    } else {
        let mut command = Command::new(alokai.get_program());
        let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];
        command.envs(proxies.map(|name| (name, "http://127.0.0.1:9")));
        command
    };
    command
        .args(alokai.get_args())
        .current_dir(project.root())
        .env_clear()
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

/// A process and its children, which are ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let group = i32::try_from(self.0.id()).ok();
        if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A free port. It is not in the range from which the system takes ports of connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 10_000 + (pid + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Gives each store of the shop free ports: of its middleware and of its frontend.
fn on_free_ports(project: Project) -> (Project, BTreeMap<&'static str, [u16; 2]>) {
    let config: Value = serde_json::from_str(&project.read("alokai.config.json")).unwrap();
    let mut stores = config["stores"].clone();
    let mut ports = BTreeMap::new();
    for store in ["us", "eu"] {
        let own = [free_port(), free_port()];
        stores[store]["localPorts"] = json!({ "middleware": own[0], "nextjs": own[1] });
        ports.insert(store, own);
    }
    (project.setting("stores", &stores), ports)
}

/// Runs a command line of the summary.
fn start(project: &Project, command: &str) -> Started {
    let started = Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .current_dir(project.root())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    Started(started)
}

/// The printed commands.
fn commands(run: &Run) -> Vec<&str> {
    let lines = run.stdout.lines();
    let commands = lines.filter_map(|line| line.strip_prefix("  "));
    commands.filter(|line| line.starts_with("sh ")).collect()
}

#[test]
fn without_docker_and_network_stores_are_deployed_and_run() {
    let Some(base) = base_layout() else { return };
    let (project, ports) = on_free_ports(shop(&base));
    project.commit();
    let run = alone(&project, LOCAL).succeeds();
    assert_eq!(stages(&run), STAGES);

    // All stores at once.
    let commands = commands(&run);
    assert_eq!(commands.len(), 4, "{}", run.stdout);
    let _running: Vec<_> = commands
        .iter()
        .map(|command| start(&project, command))
        .collect();
    for (store, [middleware, frontend]) in &ports {
        assert_eq!(page(*middleware, "/"), "middleware\n");
        assert_eq!(page(*frontend, "/"), format!("texts of {store}\n"));
        run.stdout_contains(&format!("to run {store} at http://localhost:{frontend}:"));
    }

    let live: Value = serde_json::from_str(&project.read(".alokai/live.json")).unwrap();
    assert_eq!(live["schemaVersion"], 1);
    assert_eq!(live["stores"].as_object().unwrap().len(), 2);
    let again = rows(&alone(&project, &format!("{LOCAL} --json")).succeeds());
    for (store, app, port) in [
        ("us", FRONTEND, ports["us"][1]),
        ("us", MIDDLEWARE, ports["us"][0]),
        ("eu", FRONTEND, ports["eu"][1]),
        ("eu", MIDDLEWARE, ports["eu"][0]),
    ] {
        assert_eq!(live["stores"][store]["tag"], project.sha());
        let record = &live["stores"][store]["apps"][app];
        let row = &again[&format!("{store}/{app}")];
        assert_eq!(
            (&record["image"], &record["digest"]),
            (&row["reference"], &row["digest"])
        );
        let folder = record["folder"].as_str().unwrap();
        assert_eq!(record["command"][0], "node");
        assert!(
            project
                .path(folder)
                .join(record["command"][1].as_str().unwrap())
                .is_file()
        );
        assert_eq!(record["port"], port);
        assert_eq!(record["address"], format!("http://localhost:{port}"));
        assert_eq!(record["environment"]["PORT"], port.to_string());
        assert!(project.exists(record["script"].as_str().unwrap()));
    }
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
fn printed_commands_have_the_settings_and_no_secret() {
    let Some(base) = base_layout() else { return };
    let (project, ports) = on_free_ports(shop(&base));
    let quoted = format!("COMMERCE_KEY=`{SECRET}`\n");
    let project = project
        .file(&format!("apps/{MIDDLEWARE}/src/index.js"), OF_VENDOR)
        .file(
            &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.env"),
            &format!("{quoted}API_PORT=1\nFROM_SHELL=of-the-file\nA.b=unnamed\n"),
        )
        .file("node_modules/marker", "");
    project.commit();
    let run = project.alokai("store deploy --store us --local").succeeds();
    let json = project
        .alokai("store deploy --store us --local --json")
        .succeeds();
    let plan = project
        .alokai("store deploy --store us --local --dry-run --json")
        .succeeds();
    let [middleware, _] = ports["us"];
    let settings = format!(
        "    API_PORT={middleware} NODE_ENV=production PORT={middleware}; from .env: A.b, COMMERCE_KEY, FROM_SHELL\n"
    );
    run.stdout_contains(&settings)
        .stderr_contains("`A.b` of a `.env` file is not set");
    let live = project.read(".alokai/live.json");
    for text in [
        &run.stdout,
        &run.stderr,
        &json.stdout,
        &json.stderr,
        &plan.stdout,
        &live,
    ] {
        assert!(
            !text.contains("a line") && !text.contains("it's a"),
            "{text}"
        );
        assert!(text.contains("COMMERCE_KEY") || *text == run.stderr || *text == json.stderr);
    }

    let script = project.path(&format!(".alokai/start/us/{MIDDLEWARE}.sh"));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&script), mode(script.parent().unwrap())),
        (0o600, 0o700)
    );

    // Ports come from the script, and other variables from the shell.
    let command = format!(
        "env FROM_SHELL=of-the-shell API_PORT=2 NODE_PATH=/nonexistent {}",
        commands(&run)[0]
    );
    let mut started = start(&project, &command);
    let found: Value = serde_json::from_str(&page(middleware, "/")).unwrap();
    assert_eq!(found["COMMERCE_KEY"], SECRET);
    assert_eq!(found["FROM_SHELL"], "of-the-shell");
    assert_eq!(found["API_PORT"], middleware.to_string());
    assert_eq!(found["NODE_PATH"], Value::Null);
    let copy = Path::new(found["cwd"].as_str().unwrap()).to_owned();
    assert!(copy.join("written").exists() && !copy.starts_with(project.root()));
    assert!(!project.exists(&format!(".out/us/{MIDDLEWARE}/.deploy/written")));

    // SIGTERM to the script ends the app, and the copy goes.
    run_kill(started.0.id());
    started.0.wait().unwrap();
    assert!(!copy.exists(), "{copy:?}");
    assert!(TcpListener::bind(("127.0.0.1", middleware)).is_ok());

    project.alokai("store clean").succeeds();
    assert!(!project.exists(".alokai/start"));
}

fn run_kill(pid: u32) {
    run("kill", &[&pid.to_string()]);
}

#[test]
fn a_printed_command_refuses_a_folder_below_node_modules() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    let run = project.alokai("store deploy --store us --local").succeeds();
    let surrounded = project.root().with_file_name("surrounded");
    for folder in ["node_modules", "tmp"] {
        std::fs::create_dir_all(surrounded.join(folder)).unwrap();
    }
    let output = Command::new("sh")
        .args(["-c", commands(&run)[0]])
        .current_dir(project.root())
        .env("TMPDIR", surrounded.join("tmp"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is a node_modules in"), "{said}");
    let left = std::fs::read_dir(surrounded.join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
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
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2 * 3);
    let events = events(&run);
    let summary = events.iter().find(|event| event["event"] == "summary");
    let units = summary.unwrap()["units"].as_array().unwrap();
    assert_eq!(
        units.len(),
        2,
        "a row each, though one was built for the other"
    );

    // A run for another store keeps the record of this store.
    project.alokai("store deploy --store eu --local").succeeds();
    let live: Value = serde_json::from_str(&project.read(".alokai/live.json")).unwrap();
    assert_eq!(live["stores"].as_object().unwrap().len(), 2);
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
        .filter(|manifest| manifest["artifactType"].is_string());
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
