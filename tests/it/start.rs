//! Starting pruned apps by themselves: `prune.verify: "start"`, ports, addresses and settings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alokai::plan::released_servers;
use serde_json::{Value, json};

use crate::build::interrupt_when;
use crate::support::{FRONTEND, MIDDLEWARE, Project, Run, output_of, rows};

const UNTIL_PRUNE: &str = "store deploy --store us --until prune";

/// A build script of the frontend that writes this server.
fn frontend_build(server: &str) -> String {
    let server = json!(server);
    format!(
        r"
const fs = require('fs'), path = require('path');
const app = path.join('.next/standalone', path.relative(path.resolve('../../..'), process.cwd()));
fs.mkdirSync(app, {{ recursive: true }});
fs.mkdirSync('.next/static', {{ recursive: true }});
fs.mkdirSync('.next/standalone/node_modules/next', {{ recursive: true }});
fs.writeFileSync('.next/standalone/node_modules/next/package.json', '{{}}');
fs.writeFileSync(path.join(app, 'server.js'), {server});
"
    )
}

/// The shop, whose artifacts are started after pruning. `$REPORT` of each app is a file beside the
/// project.
fn started_shop(timeout: u16) -> Project {
    let project = Project::shop().setting("prune", &json!({ "verify": "start" }));
    let report = |app: &str| project.root().with_file_name(format!("{app}.report"));
    let env = json!({
        "*": { "STORE": "{store}" },
        MIDDLEWARE: { "REPORT": report(MIDDLEWARE) },
        FRONTEND: { "REPORT": report(FRONTEND) },
    });
    project.setting("start", &json!({ "timeout": timeout, "env": env }))
}

fn report(project: &Project, app: &str) -> String {
    let path = project.root().with_file_name(format!("{app}.report"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn middleware(project: Project, server: &str) -> Project {
    project.file(&format!("apps/{MIDDLEWARE}/src/index.js"), server)
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default().chars().next();
    state.is_some_and(|state| state != 'Z')
}

/// Files below a folder with this text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    let with = files.filter(|entry| {
        let content = std::fs::read(entry.path()).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(text)
    });
    with.map(walkdir::DirEntry::into_path).collect()
}

/// A middleware with the habits of the vendor's: it listens on `API_PORT`, and needs its `.env`.
const OF_VENDOR: &str = r"
const { API_PORT, COMMERCE_KEY, REPORT } = process.env;
if (!COMMERCE_KEY) throw new Error('COMMERCE_KEY is missing');
console.log('the key is ' + COMMERCE_KEY);
require('fs').writeFileSync(REPORT, JSON.stringify({ ...process.env, cwd: process.cwd() }));
require('http').createServer((_, answer) => answer.end('products of ' + API_PORT)).listen(API_PORT);
";

/// A frontend that asks its middleware before it listens.
const OF_FRONTEND: &str = r"
const { PORT, HOSTNAME, REPORT } = process.env;
fetch(process.env.NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL).then((it) => it.text()).then((said) => {
  require('fs').writeFileSync(REPORT, JSON.stringify({ ...process.env, said }));
  require('fs').writeFileSync('written-by-the-app', '');
  require('http').createServer((_, answer) => answer.end('page')).listen(PORT, HOSTNAME);
});
";

#[test]
fn apps_of_a_store_get_ports_addresses_and_settings_and_run_alone() {
    let project = middleware(started_shop(20), OF_VENDOR)
        .build_script(FRONTEND, &frontend_build(OF_FRONTEND))
        .file(
            &format!("apps/{MIDDLEWARE}/.env"),
            "COMMERCE_KEY=key-of-the-base\nAPI_PORT=4000\n",
        )
        .file(
            &format!("apps/stores/fashion/stores/us/{MIDDLEWARE}/.env"),
            "COMMERCE_KEY='key-of-us $x'\nAPI_PORT=4000\nFROM_SHELL=of-the-file\n",
        )
        .file(
            &format!("apps/{FRONTEND}/.env"),
            "A=of-env\nB=of-env\nC=of-env\nD=of-env\nPORT=1\nNODE_ENV=test\n",
        )
        .file(
            &format!("apps/{FRONTEND}/.env.production"),
            "B=of-production\nC=of-production\nD=of-production\n",
        )
        .file(
            &format!("apps/{FRONTEND}/.env.local"),
            "C=of-local\nD=of-local\n",
        )
        .file(
            &format!("apps/{FRONTEND}/.env.production.local"),
            "D=of-production-local\n",
        )
        .file(&format!("apps/{FRONTEND}/.env.test"), "A=of-test\n")
        .file(
            ".env",
            "CLI_CLOUD_PASSWORD=password-of-the-cloud\nOF_PROJECT=1\n",
        )
        .env("FROM_SHELL", "of-the-shell")
        .env("STORE", "of-the-shell")
        .env("PORT", "1")
        .env("HOSTNAME", "host.invalid")
        .env("NODE_PATH", "/nonexistent")
        .env("CLI_CLOUD_USERNAME", "somebody");
    let run = project
        .alokai(&[
            "store", "deploy", "--store", "us", "--until", "prune", "--json",
        ])
        .succeeds();
    assert_eq!(rows(&run).len(), 2);

    let server: Value = serde_json::from_str(&report(&project, MIDDLEWARE)).unwrap();
    let page: Value = serde_json::from_str(&report(&project, FRONTEND)).unwrap();
    assert_eq!(server["COMMERCE_KEY"], "key-of-us $x");
    assert_eq!(server["FROM_SHELL"], "of-the-shell");
    assert_eq!(server["STORE"], "of-the-shell");
    assert_eq!(server["PORT"], server["API_PORT"]);
    for (name, value) in [
        ("A", "of-env"),
        ("B", "of-production"),
        ("C", "of-local"),
        ("D", "of-production-local"),
        ("NODE_ENV", "production"),
        ("HOSTNAME", "localhost"),
    ] {
        assert_eq!(page[name], value, "{name}");
    }
    let port = server["API_PORT"].as_str().unwrap();
    let address = format!("http://localhost:{port}");
    assert_eq!(
        page["NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL"],
        address.as_str()
    );
    assert_eq!(page["said"], format!("products of {port}"));
    assert_ne!(page["PORT"], server["PORT"]);
    for environment in [&server, &page] {
        for name in [
            "OF_PROJECT",
            "NODE_PATH",
            "CLI_CLOUD_PASSWORD",
            "CLI_CLOUD_USERNAME",
        ] {
            assert_eq!(environment[name], Value::Null, "{name}");
        }
        assert!(!["1", "3000", "4000"].contains(&environment["PORT"].as_str().unwrap()));
    }

    // Each app had a folder of its own outside of the project, which is gone.
    let cwd = Path::new(server["cwd"].as_str().unwrap());
    assert!(!cwd.starts_with(project.root()) && !cwd.exists(), "{cwd:?}");
    assert!(!project.exists(&format!(".out/us/{FRONTEND}/.deploy/written-by-the-app")));

    // The value that the app has printed is in the composed `.env` alone.
    let log = project.read(&format!(".alokai/logs/start/us/{MIDDLEWARE}.log"));
    assert_eq!(log, "the key is ***\n");
    let found = [".alokai", ".out"].map(|folder| files_with(&project.path(folder), "key-of-us"));
    let composed = project.path(&format!(".out/us/{MIDDLEWARE}/.env"));
    assert_eq!(found.concat(), [composed]);
    run.stdout_lacks("key-of-us").stderr_lacks("key-of-us");
}

#[test]
fn verification_is_a_step_of_its_own_and_only_if_wanted() {
    let project = Project::shop();
    project
        .alokai(UNTIL_PRUNE)
        .succeeds()
        .stderr_lacks("== start");
    let project = started_shop(20);
    let run = project.alokai(UNTIL_PRUNE).succeeds();
    run.stderr_contains("== start").stderr_contains("GET / 200");
}

/// The run of a project whose middleware is this program.
fn failed(server: &str) -> (Project, Run) {
    let project = middleware(started_shop(2), server);
    let run = project.alokai(UNTIL_PRUNE).fails_with(1);
    let frontend = format!("us/{FRONTEND}");
    run.stderr_contains(&format!("`us/{MIDDLEWARE}` failed in stage `prune`"))
        .stderr_lacks(&format!("{frontend}: `node"));
    (project, run)
}

#[test]
fn an_app_without_its_env_file_fails_with_its_last_lines() {
    let (project, run) = failed(OF_VENDOR);
    run.stderr_contains("`node lib/index.js` exited with code 1 before it answered on port")
        .stderr_contains("│ Error: COMMERCE_KEY is missing")
        .stderr_contains("API_PORT, NODE_ENV, PORT, REPORT, STORE");
    let log = project.read(&format!(".alokai/logs/start/us/{MIDDLEWARE}.log"));
    assert!(log.contains("COMMERCE_KEY is missing"), "{log}");
}

#[test]
fn the_error_names_the_exit_code_or_the_signal_of_an_app() {
    let (_, run) = failed("console.error('no backend'); process.exit(3)");
    run.stderr_contains("exited with code 3 before it answered")
        .stderr_contains("│ no backend");
    let (_, run) = failed("process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000)");
    run.stderr_contains("was killed by signal 9 before it answered");
}

#[test]
fn the_error_about_another_port_names_the_port_on_which_the_app_listens() {
    let (project, run) = failed(
        "const server = require('net').createServer().listen(0, () => \
         require('fs').writeFileSync(process.env.REPORT, String(server.address().port)));",
    );
    let port = report(&project, MIDDLEWARE);
    run.stderr_contains("did not answer on port")
        .stderr_contains(&format!("within 2 s; it listens on port {port}"))
        .stderr_contains("does not read its port from `API_PORT`, `PORT`");
}

#[test]
fn an_app_that_hangs_is_ended_with_all_its_processes() {
    let (project, run) = failed(
        "const child = require('child_process').spawn('sleep', ['300']); process.on('SIGTERM', () => {}); \
         require('fs').writeFileSync(process.env.REPORT, `${process.pid} ${child.pid}`); \
         console.log('connecting'); setInterval(() => {}, 1000)",
    );
    run.stderr_contains("it still runs and listens on no port")
        .stderr_contains("│ connecting")
        .stderr_contains("raise `start.timeout`");
    for pid in report(&project, MIDDLEWARE).split(' ') {
        assert!(!is_alive(pid), "{pid} lives");
    }
}

#[test]
fn an_app_that_crashes_at_its_first_request_fails() {
    let (_, run) = failed(
        "require('http').createServer(() => { require('not-shipped'); }).listen(process.env.PORT);",
    );
    run.stderr_contains("exited with code 1 before it answered")
        .stderr_contains("Cannot find module 'not-shipped'");
}

#[test]
fn a_package_above_the_artifact_is_not_found() {
    // Only a start finds out which module a computed name means.
    let server = "require(['only', 'above'].join('-')); require('http').createServer((_, it) => it.end()).listen(process.env.PORT);";
    let project = middleware(started_shop(20), server)
        .file("node_modules/only-above/index.js", "")
        .file(".gitignore", "node_modules\n.out\nlib\n.next\n");
    let run = project.alokai(UNTIL_PRUNE).fails_with(1);
    run.stderr_contains("Cannot find module 'only-above'");
    // In place, Node finds the package in the project.
    let lib = project.path(&format!(".out/us/{MIDDLEWARE}/.deploy/lib"));
    output_of(
        Command::new("node")
            .args(["-e", "require('only-above')"])
            .current_dir(lib),
    );
}

#[test]
fn a_temporary_folder_below_node_modules_is_not_used() {
    let project = middleware(
        started_shop(20),
        "require('fs').writeFileSync(process.env.REPORT, process.cwd()); \
         require('http').createServer((_, it) => it.end()).listen(process.env.PORT);",
    );
    let surrounded = project.root().with_file_name("surrounded");
    std::fs::create_dir_all(surrounded.join("node_modules")).unwrap();
    std::fs::create_dir_all(surrounded.join("tmp")).unwrap();
    let project = project.env("TMPDIR", surrounded.join("tmp").to_str().unwrap());
    project.alokai(UNTIL_PRUNE).succeeds();
    let cwd = report(&project, MIDDLEWARE);
    assert!(!Path::new(&cwd).starts_with(&surrounded), "{cwd}");
}

#[test]
fn an_interruption_leaves_no_process_and_no_copy() {
    let server = "const child = require('child_process').spawn('sleep', ['300']); \
        require('fs').writeFileSync(process.env.REPORT, [process.pid, child.pid, process.cwd()].join(' ')); \
        setInterval(() => {}, 1000)";
    let project = middleware(started_shop(300), server);
    // The line is printed when the app is begun; the signal may come before or after its first line.
    let ended = interrupt_when(
        &project,
        UNTIL_PRUNE,
        "== start",
        1,
        Duration::from_secs(30),
    );
    assert_eq!(ended, 130);

    let watched = project
        .root()
        .with_file_name(format!("{MIDDLEWARE}.report"));
    let _ = std::fs::remove_file(&watched);
    let mut child = project.start(UNTIL_PRUNE);
    let start = Instant::now();
    while !std::fs::read_to_string(&watched).is_ok_and(|text| !text.is_empty()) {
        assert!(start.elapsed() < Duration::from_mins(1), "it never began");
        std::thread::sleep(Duration::from_millis(20));
    }
    output_of(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let begun = report(&project, MIDDLEWARE);
    let mut words = begun.split(' ');
    for pid in words.by_ref().take(2) {
        assert!(!is_alive(pid), "{pid} lives");
    }
    let copy = words.next().unwrap();
    assert!(!Path::new(copy).exists(), "{copy}");
}

#[test]
fn a_child_of_an_app_that_has_answered_ends_with_it() {
    let server = "const child = require('child_process').spawn('sleep', ['300']); \
        require('fs').writeFileSync(process.env.REPORT, String(child.pid)); \
        require('http').createServer((_, it) => it.end()).listen(process.env.PORT);";
    let project = middleware(started_shop(20), server);
    project.alokai(UNTIL_PRUNE).succeeds();
    let pid = report(&project, MIDDLEWARE);
    assert!(!is_alive(&pid), "{pid} lives");
}

/// The address of a store, and the variables of each of its apps in one line.
fn started(project: &Project, store: &str) -> (String, Vec<String>) {
    let project = alokai::config::Project::load(project.root()).unwrap();
    let store = project.stores.get(store).unwrap();
    let apps = project.apps_of(store).map(|app| app.name.clone());
    let apps: Vec<_> = apps.filter(|app| app.as_str() != "playwright").collect();
    let servers = released_servers(&project, store, None, &apps, false).unwrap();
    let lines = servers.servers.iter().map(|server| {
        let known = servers.known(server).into_iter();
        let known: Vec<_> = known
            .map(|it| format!("{}={}", it.name, it.value))
            .collect();
        let names: Vec<_> = server.secret_names().map(|(name, _)| name).collect();
        match names.as_slice() {
            [] => known.join(" "),
            names => format!("{}; from .env: {}", known.join(" "), names.join(", ")),
        }
    });
    (servers.address().unwrap(), lines.collect())
}

#[test]
fn ports_do_not_collide_and_do_not_depend_on_the_selection() {
    let project = Project::shop();
    let deployment =
        |store: &str| json!({ "projectName": store, "cloudRegion": "r", "framework": "nextjs" });
    let project = project.setting(
        "stores",
        &json!({
            "a": { "deployment": deployment("a") },
            "b": { "deployment": deployment("b"), "localPorts": { "middleware": 4002, "nextjs": 3000 } },
            "fashion": { "ignorePaths": [] },
            "c": { "deployment": deployment("c") },
            "d": { "deployment": deployment("d"), "localPorts": { "nextjs": 4003 } },
        }),
    );
    project.commit();
    let ports = |store: &str| {
        let (address, settings) = started(&project, store);
        let ports = settings.iter().map(|line| {
            let (_, port) = line.split_once(" PORT=").unwrap();
            port.split(' ').next().unwrap().to_owned()
        });
        let ports: Vec<_> = ports.collect();
        assert_eq!(address, format!("http://localhost:{}", ports[1]));
        ports.join(" ")
    };
    // 3000 and 4002 are taken by `b`, and 4003 by `d`.
    assert_eq!(
        ["a", "b", "c", "d"].map(ports),
        ["4000 3001", "4002 3000", "4004 3002", "4005 4003"]
    );
}

#[test]
fn variables_of_the_config_may_name_ports_and_addresses() {
    let project = Project::shop().setting(
        "start",
        &json!({ "env": {
            "*": { "SHOP": "{frontend.url}/{store}", "PAIR": "{{{port}}}", "PORT": "{port}" },
            FRONTEND: { "API": "{middleware.url}/commerce", "OWN": format!("{{{FRONTEND}.port}}"), "PAIR": "own" },
            MIDDLEWARE: { "NUXT": "{storefront-unified-nuxt.url}" },
        } }),
    );
    let project = project.app("storefront-unified-nuxt", r#""build": "node build.js""#);
    project.commit();
    let (_, settings) = started(&project, "us");
    let of_middleware =
        "API_PORT=4000 NODE_ENV=production PAIR={4000} PORT=4000 SHOP=http://localhost:3000/us";
    let of_frontend = "API=http://localhost:4000/commerce HOSTNAME=localhost \
        NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL=http://localhost:4000 \
        NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL=http://localhost:4000 \
        NODE_ENV=production OWN=3000 PAIR=own PORT=3000 SHOP=http://localhost:3000/us";
    assert_eq!(settings, [of_middleware, of_frontend]);
}

#[test]
fn without_a_middleware_its_address_comes_from_the_env_file() {
    let project = Project::shop()
        .file(
            &format!("apps/{FRONTEND}/.env"),
            "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL=https://api.example.com\nOTHER=1\n",
        )
        .setting(
            "start",
            &json!({ "env": { "*": { "OTHER": "{middleware.port}" } } }),
        );
    std::fs::remove_dir_all(project.path(&format!("apps/{MIDDLEWARE}"))).unwrap();
    project.commit();
    let (_, settings) = started(&project, "us");
    assert_eq!(
        settings,
        ["HOSTNAME=localhost NODE_ENV=production PORT=3000; \
            from .env: NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL, OTHER"]
    );
}

#[test]
fn wrong_variables_of_the_config_come_at_once_with_their_place() {
    let project = Project::shop().config(
        r#"{
  "stores": {},
  "start": {
    "timeout": 0,
    "env": {
      "*": { "A": "{middlewear.url}", "B-C": "x", "D": "{", "E": "a}" },
      "storefront-midleware": { "F": "{x}" }
    }
  }
}
"#,
    );
    let run = project.alokai("store list").fails_with(2);
    insta::assert_snapshot!(run.diagnostic(&project));
}
