//! `alokai doctor`: what each check finds, its exit code, and that it changes and reveals nothing.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Console, Project, Run, TlsRegistry, base_layout, registry};

/// An address on which no server listens.
const CLOSED: &str = "127.0.0.1:1";

const PASSWORD: &str = "pass\"word-of-doctor";

/// A project whose services cannot be reached, and whose config is valid.
fn offline() -> Project {
    services(Project::shop(), CLOSED, &format!("http://{CLOSED}"))
}

fn services(project: Project, registry: &str, console: &str) -> Project {
    let project = project
        .setting("image", &json!({ "base": format!("{CLOSED}/node:22") }))
        .env("CLI_CLOUD_USERNAME", "user-of-doctor")
        .env("CLI_CLOUD_PASSWORD", PASSWORD)
        .env("CLI_DOCKER_REGISTRY_URL", registry)
        .env("CLI_CONSOLE_API_URL", console);
    project.commit();
    project
}

/// The results of `doctor --json`.
struct Report {
    document: Value,
    run: Run,
}

impl Report {
    #[track_caller]
    fn of(project: &Project, code: i32) -> Self {
        let run = project.alokai("doctor --json").fails_with(code);
        for text in [&run.stdout, &run.stderr] {
            assert!(
                !text.contains("word-of-doctor"),
                "a secret is shown: {text}"
            );
        }
        Self {
            document: run.json(),
            run,
        }
    }

    /// All results of a check, as `verdict: found -> next`.
    fn all(&self, check: &str) -> Vec<String> {
        let checks = self.document["checks"].as_array().expect("a list").iter();
        let checks = checks.filter(|it| it["check"] == check);
        checks
            .map(|it| {
                let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
                format!("{}: {} -> {}", text("verdict"), text("found"), text("next"))
            })
            .collect()
    }

    /// Fails unless the check has this verdict, and its text contains all parts.
    #[track_caller]
    fn has(&self, check: &str, verdict: &str, parts: &[&str]) -> &Self {
        let all = self.all(check);
        let is_there = all.iter().any(|it| {
            it.starts_with(&format!("{verdict}: ")) && parts.iter().all(|part| it.contains(part))
        });
        assert!(
            is_there,
            "{check}: no {verdict} with {parts:?} in {all:#?}\n{}",
            self.run.stdout
        );
        self
    }
}

#[test]
fn every_check_passes() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let console = Console::start();
    let name = format!("doctor-{}", std::process::id());
    let project = Project::shop_named(&name).setting("image", &json!({ "base": base }));
    project.commit();
    let project = registry
        .used_by(project, &console.address)
        .file(".env", "A=1\n");
    let before = project.tree(".");
    let run = project.alokai("doctor --json").succeeds();
    assert!(!run.stdout.contains(&registry.password), "{}", run.stdout);
    let report = Report {
        document: run.json(),
        run,
    };
    report
        .has(
            "config",
            "ok",
            &["3 base apps, 2 deployable stores, 1 template"],
        )
        .has("package manager", "ok", &["npm"])
        .has("credentials", "ok", &[&registry.user])
        .has("registry", "ok", &["push is allowed to all 2 stores"])
        .has("base image", "ok", &["sha256:"])
        .has("console", "ok", &[&console.address])
        .has("clock", "ok", &["differs"])
        .has("git", "ok", &["without uncommitted changes"])
        .has(".env", "ok", &["ignored"])
        .has("node", "ok", &["v"])
        .has(
            "disk",
            report.all("disk")[0].split(':').next().unwrap(),
            &["free"],
        );
    assert!(
        report.all("lock file").is_empty(),
        "there is nothing to lock"
    );
    assert_eq!(report.document["ok"], true);
    assert!(console.requests().is_empty(), "nothing is deployed");
    assert!(
        registry.repositories(&name).is_empty(),
        "nothing is left in the registry"
    );
    assert_eq!(project.tree("."), before, "nothing is written");
}

#[test]
fn a_wrong_password() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let console = Console::start();
    let project = services(Project::shop(), &registry.address, &console.address)
        .setting("image", &json!({ "base": base }))
        .env("CLI_CLOUD_USERNAME", &registry.user);
    let report = Report::of(&project, 3);
    report
        .has(
            "registry",
            "problem",
            &["does not accept", "CLI_CLOUD_PASSWORD"],
        )
        .has("console", "ok", &[])
        .has("clock", "ok", &[]);
    let project = project.env("CLI_CLOUD_PASSWORD", "");
    Report::of(&project, 3)
        .has("credentials", "problem", &["not set: CLI_CLOUD_PASSWORD"])
        .has("registry", "problem", &["credentials", "missing"]);
}

#[test]
fn a_registry_with_an_unknown_certificate() {
    let Some(registry) = TlsRegistry::start() else {
        return;
    };
    let address = format!("https://{}", registry.address);
    let project = services(Project::shop(), &address, &format!("http://{CLOSED}"));
    Report::of(&project, 3).has("registry", "problem", &["certificate"]);
    let ca = std::fs::read(&registry.ca).unwrap();
    project.write("ca.crt", &ca);
    let project = project.setting("registry", &json!({ "ca": "ca.crt" }));
    Report::of(&project, 3).has("registry", "ok", &["push is allowed"]);
    let project = project.setting("registry", &json!({ "ca": "package.json" }));
    project.write("package.json", "{}");
    Report::of(&project, 2).has("registry", "problem", &["PEM"]);
}

#[test]
fn services_that_cannot_be_reached() {
    let project = offline();
    let report = Report::of(&project, 3);
    report
        .has(
            "registry",
            "problem",
            &[CLOSED, "cannot be reached", "CLI_DOCKER_REGISTRY_URL"],
        )
        .has(
            "console",
            "problem",
            &[CLOSED, "cannot be reached", "CLI_CONSOLE_API_URL"],
        )
        .has("base image", "problem", &["image.base"])
        .has("clock", "warning", &["not checked"]);
    assert_eq!(report.document["ok"], false);
    let lines = project.alokai("doctor").fails_with(3);
    lines.stdout_contains("problem  registry        ");
    lines.stderr_contains("a deploy is not possible: ");
    assert!(!lines.stdout.contains('\u{1b}'), "no colours in a pipe");
    let project = project
        .env("TURBO_API", &format!("http://{CLOSED}"))
        .env("TURBO_TOKEN", PASSWORD);
    Report::of(&project, 3).has("remote cache", "warning", &["cannot be used"]);
    let project = project.env("TURBO_API", "http://cache.example.com");
    Report::of(&project, 3).has("remote cache", "warning", &["plain HTTP"]);
    // A folder needs no network.
    let project = project.env("CLI_DOCKER_REGISTRY_URL", "oci:images");
    Report::of(&project, 3).has("registry", "ok", &["folder"]);
}

#[test]
fn the_password_is_not_sent_unencrypted() {
    let project = services(
        Project::shop(),
        "http://registry.example.com",
        "http://console.example.com",
    );
    Report::of(&project, 2)
        .has("registry", "problem", &["plain HTTP", "https://"])
        .has("console", "problem", &["plain HTTP", "https://"]);
}

#[test]
fn only_the_targets_that_stores_have_are_checked() {
    let Some(base) = base_layout() else { return };
    // All stores run on this machine, so that nothing else is needed. The base image is where images are.
    let layout = base.strip_prefix("oci:").expect("a layout");
    let (folder, image) = layout.split_once(':').expect("a name");
    let local = Project::shop()
        .setting("deploy", &json!({ "target": "local" }))
        .setting("image", &json!({ "base": image }));
    local.commit();
    std::fs::create_dir(local.path(".alokai")).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-R", folder])
        .arg(local.path(".alokai/registry"))
        .status();
    assert!(copied.unwrap().success());
    let before = local.tree(".");
    let report = Report::of(&local, 0);
    report
        .has("target local", "ok", &["can be used by 2 stores"])
        .has("base image", "ok", &["sha256:"])
        .has("registry", "ok", &["`oci:.alokai/registry` is a folder"]);
    for check in ["console", "credentials", "clock", "target docker"] {
        assert_eq!(report.all(check), [""; 0]);
    }
    assert_eq!(local.tree("."), before, "nothing is written");

    let docker = offline()
        .setting("deploy", &json!({ "target": "docker" }))
        .env("DOCKER_HOST", "tcp://127.0.0.1:1");
    let report = Report::of(&docker, 3);
    report.has("target docker", "problem", &["Docker"]);
    assert_eq!(report.all("console"), [""; 0]);
    let command = offline().setting("deploy", &json!({ "target": "command" }));
    Report::of(&command, 2).has("target command", "problem", &["deploy.command"]);
    let command = json!({ "target": "command", "command": ["./no-such-program"] });
    let command = offline().setting("deploy", &command);
    Report::of(&command, 3).has("target command", "problem", &["no-such-program"]);
}

/// A server that gives this answer to every request, or none.
fn server(answer: Option<&'static str>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(answer) = answer else {
                silent.push(stream);
                continue;
            };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn a_clock_that_is_wrong_and_a_server_that_is_silent() {
    let old = "HTTP/1.1 200 OK\r\nDate: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let project = services(Project::shop(), CLOSED, &server(Some(old)));
    Report::of(&project, 3).has("console", "ok", &[]).has(
        "clock",
        "problem",
        &["ahead of that of the console", "timedatectl"],
    );
    let project = services(Project::shop(), &server(None), &server(None));
    Report::of(&project, 3)
        .has("console", "problem", &["no response within"])
        .has("registry", "problem", &["no response within"]);
}

#[test]
fn a_project_without_a_valid_config() {
    let project = offline();
    project.remove("alokai.config.json");
    Report::of(&project, 2).has("config", "problem", &["alokai init"]);
    let wrong = "{\n  \"stores\": {\n    \"us\": { \"deploymnt\": {} },\n    \"eu\": { \"localPort\": {} }\n  }\n}\n";
    let project = project.config(wrong);
    Report::of(&project, 2)
        .has("config", "problem", &["alokai.config.json:3", "deploymnt"])
        .has("config", "problem", &["alokai.config.json:4", "localPort"]);
}

#[test]
fn a_repository_that_lacks_something() {
    let project = offline().file("apps/playwright/new\u{1b}[31m.txt", "x\n");
    let report = Report::of(&project, 3);
    report.has("git", "warning", &["1 uncommitted path", "--allow-dirty"]);
    let lines = project.alokai("doctor").fails_with(3);
    assert!(!lines.stdout.contains('\u{1b}'), "{}", lines.stdout);
    project.commit();
    let clone = project.shallow_clone("1");
    let clone = clone
        .env("CLI_DOCKER_REGISTRY_URL", CLOSED)
        .env("CLI_CONSOLE_API_URL", &format!("http://{CLOSED}"));
    Report::of(&clone, 3).has("git history", "warning", &["shallow", "--unshallow"]);
    project.git("config core.fileMode false");
    Report::of(&project, 3).has("git file modes", "ok", &["index"]);
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    Report::of(&project, 3).has("git", "problem", &["git init"]);
    project.git("init --quiet");
    Report::of(&project, 3).has("git", "problem", &["no commit"]);
}

#[test]
fn env_files_that_git_does_not_ignore() {
    let project = offline().file(".env", "CLI_CLOUD_PASSWORD=word-of-doctor\n");
    Report::of(&project, 3).has(".env", "ok", &[]);
    let project = project.file(".gitignore", "node_modules\n");
    Report::of(&project, 3).has(".env", "warning", &["`.env` is not ignored", ".gitignore"]);
    project.git("add .env");
    let project = project.file(".gitignore", ".env\n");
    Report::of(&project, 3).has(".env", "warning", &["git rm --cached"]);
}

/// A folder for `PATH` with a program for each name, which prints the text.
fn programs(project: &Project, all: &[(&str, &str)]) -> String {
    for (name, text) in all {
        let path = format!(".alokai/bin/{name}");
        project.write(&path, format!("#!/bin/sh\n{text}\n"));
        project.make_executable(&path);
    }
    project.path(".alokai/bin").display().to_string()
}

#[test]
fn versions_are_compared() {
    let project = offline().file(
        "package.json",
        r#"{ "engines": { "node": ">=20 <23" }, "packageManager": "yarn@1.22.22+sha1.0" }"#,
    );
    let path = programs(
        &project,
        &[("node", "echo v18.1.0"), ("yarn", "echo 1.22.19")],
    );
    let project = project.env("PATH", &path);
    Report::of(&project, 3)
        .has("alokai", "ok", &[env!("CARGO_PKG_VERSION")])
        .has("node", "warning", &["v18.1.0", "engines.node", ">=20 <23"])
        .has(
            "package manager",
            "warning",
            &["1.22.19", "1.22.22", "corepack"],
        );
    programs(&project, &[("node", "echo v22.3.0"), ("yarn", "exit 1")]);
    Report::of(&project, 3).has("node", "ok", &["v22.3.0"]).has(
        "package manager",
        "problem",
        &["exit status: 1"],
    );
    let project = project.file(".nvmrc", "\n20.1\n");
    Report::of(&project, 3).has("node", "warning", &["`.nvmrc` requires 20.1"]);
    let project = project.file(".nvmrc", "lts/jod\n");
    project.remove(".alokai/bin/yarn");
    Report::of(&project, 3).has("node", "ok", &["lts/jod"]).has(
        "package manager",
        "problem",
        &["not on the `PATH`"],
    );
    project.remove(".alokai/bin/node");
    Report::of(&project, 3).has("node", "problem", &["not on the `PATH`", "install Node"]);
    let project = project.file("package.json", r#"{ "packageManager": "cargo@1" }"#);
    Report::of(&project, 2).has("package manager", "problem", &["`cargo`"]);
}

#[test]
fn the_lock_file_and_the_install_are_compared() {
    let project = offline().dependency("playwright", "is-odd", "^3.0.0");
    Report::of(&project, 3)
        .has("lock file", "warning", &["does not have one"])
        .has("dependencies", "problem", &["npm install"]);
    let lock = |more: &str| {
        format!(
            r#"{{ "lockfileVersion": 3, "packages": {{ "": {{}}, "apps/playwright": {{ "name": "playwright"{more}"#
        )
    };
    let stale = lock(" } } }");
    let fresh = lock(
        r#", "dependencies": { "is-odd": "^3.0.0" } }, "node_modules/is-odd": { "version": "3.0.1" } } }"#,
    );
    let project = project
        .file("package.json", "{}")
        .file("package-lock.json", &stale);
    Report::of(&project, 3).has(
        "lock file",
        "warning",
        &["`apps/playwright/package.json`", "npm install"],
    );
    let project = project.file("package-lock.json", &fresh);
    Report::of(&project, 3).has("lock file", "ok", &["package-lock.json"]);
    let project = project.file("node_modules/.package-lock.json", "{}");
    Report::of(&project, 3).has("dependencies", "ok", &[]);
    let later = std::time::SystemTime::now() + std::time::Duration::from_mins(5);
    let file = std::fs::File::options()
        .write(true)
        .open(project.path("package-lock.json"))
        .unwrap();
    file.set_modified(later).unwrap();
    Report::of(&project, 3).has(
        "dependencies",
        "warning",
        &["changed since the last install", "npm ci"],
    );
}
