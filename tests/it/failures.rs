//! The exit code and the diagnostic of each failure, against a real registry and a real engine.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::deploy::unique;
use crate::support::{
    Console, FaultyRegistry, Mount, Project, Registry, Run, is_excused, is_root, registry,
};

const DEPLOY: &str = "store deploy --store us";

/// A diagnostic without the addresses and names that differ from run to run.
fn diagnostic(run: &Run, project: &Project, replace: &[(&str, &str)]) -> String {
    let mut text = run.diagnostic(project);
    for (what, with) in replace {
        text = text.replace(what, with);
    }
    // Digests, upload ids, and the ports of clients in errors of the system.
    let mut settings = without(&text, "sha256:", 64, "[digest]");
    settings = without(&settings, "127.0.0.1:", 5, "127.0.0.1:[port]");
    settings
}

/// Replaces each text that starts with `beginning` and has up to `length` hexadecimal digits.
fn without(text: &str, beginning: &str, length: usize, with: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(beginning) {
        let (before, after) = rest.split_at(start);
        let tail = &after[beginning.len()..];
        let end = tail
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(tail.len())
            .min(length);
        result.push_str(before);
        result.push_str(with);
        rest = &tail[end..];
    }
    result + rest
}

fn project(registry: &Registry, console: &str, name: &str) -> Project {
    registry.used_by(Project::shop_named(name), console)
}

#[test]
fn a_wrong_password_is_found_before_the_first_build() {
    let Some(registry) = registry() else { return };
    let console = Console::start();
    let project = project(&registry, &console.address, "acme").env("CLI_CLOUD_PASSWORD", "wrong");
    let run = project.alokai(DEPLOY).fails_with(3);
    insta::assert_snapshot!(diagnostic(
        &run,
        &project,
        &[(&registry.address, "[registry]")]
    ));
    assert!(!project.exists(".out"), "nothing is composed or built");
}

#[test]
fn everything_that_is_missing_comes_at_once() {
    let project = Project::shop()
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .env("CLI_DOCKER_REGISTRY_URL", "127.0.0.1:9")
        .env("CLI_CONSOLE_API_URL", "http://127.0.0.1:9");
    let by_docker = format!("{DEPLOY} --builder docker");
    let run = project.alokai(&by_docker).fails_with(3);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
    let project = project
        .env("CLI_CLOUD_USERNAME", "u")
        .env("CLI_CLOUD_PASSWORD", "p");
    let run = project.alokai(DEPLOY).fails_with(3);
    run.stderr_contains("the registry `127.0.0.1:9` cannot be reached");
}

/// Deploys through a proxy in front of the real registry that answers a manifest with this status.
/// Fails unless the run fails with exit code 1.
fn push_refused(status: u16, body: &str) -> Option<(Run, String)> {
    let registry = registry()?;
    let console = Console::start();
    let faulty = FaultyRegistry::before(&registry.address, "PUT", "/manifests/", status, body);
    let name = unique("refused");
    let behind = registry.at(&faulty.address);
    let project = project(&behind, &console.address, &name);
    let run = project.alokai(DEPLOY).fails_with(1);
    assert!(
        console.requests().is_empty(),
        "nothing is deployed when a push failed"
    );
    let text = diagnostic(
        &run,
        &project,
        &[(&faulty.address, "[registry]"), (&*name, "[name]")],
    );
    Some((run, text))
}

#[test]
fn no_store_is_deployed_when_a_push_of_one_failed() {
    let Some(registry) = registry() else { return };
    let console = Console::start();
    let name = unique("partly");
    let part = format!("{name}-eu-storefrontcloud-io/vue-storefront/manifests/");
    let denied = r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#;
    let faulty = FaultyRegistry::before(&registry.address, "PUT", &part, 403, denied);
    let behind = registry.at(&faulty.address);
    let project = project(&behind, &console.address, &name);
    let deploy = "store deploy --store us,eu";
    project.alokai(deploy).fails_with(1);
    assert!(console.requests().is_empty());
    // With `--keep-going` the store whose images are pushed is deployed; the exit code is still 1.
    let run = project
        .alokai(&format!("{deploy} --keep-going"))
        .fails_with(1);
    let requests = console.requests();
    assert_eq!(requests.len(), 1, "{}", run.stderr);
    assert!(requests[0].path.contains(&format!("{name}-us-")));
}

/// Compares the diagnostic of a push that is refused with its snapshot.
#[track_caller]
fn push_fails(status: u16, body: &str) {
    let Some((_, text)) = push_refused(status, body) else {
        return;
    };
    insta::assert_snapshot!(format!("push_{status}"), text);
}

#[test]
fn push_401() {
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    push_fails(401, body);
}

#[test]
fn push_403() {
    let body =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    push_fails(403, body);
}

#[test]
fn push_404() {
    let body =
        r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    push_fails(404, body);
}

#[test]
fn push_413() {
    push_fails(413, "<html>413 Request Entity Too Large</html>");
}

#[test]
fn push_500_is_tried_again_and_then_told() {
    let Some((run, text)) = push_refused(500, "") else {
        return;
    };
    let again = run.stderr.matches("retrying in").count();
    assert!(again >= 2, "{}", run.stderr);
    insta::assert_snapshot!(text);
}

#[test]
fn a_console_that_fails_or_refuses_shows_its_answer() {
    let Some(registry) = registry() else { return };
    let name = unique("console");
    for (status, body) in [
        (500, "out of order"),
        (401, r#"{"message":"no such user"}"#),
        (404, "no such instance"),
    ] {
        let console = Console::answering(status, body);
        let project = project(&registry, &console.address, &name);
        let run = project.alokai(DEPLOY).fails_with(1);
        let address = console.address.as_str();
        let text = diagnostic(
            &run,
            &project,
            &[(address, "[console]"), (&*name, "[name]")],
        );
        insta::assert_snapshot!(format!("console_{status}"), text);
        assert_eq!(
            console.requests().len(),
            1,
            "a request that may have been carried out is not repeated"
        );
    }
}

#[test]
fn a_console_out_of_reach_is_found_before_the_first_build() {
    let Some(registry) = registry() else { return };
    let project = project(&registry, "http://127.0.0.1:9", "acme");
    let run = project.alokai(DEPLOY).fails_with(3);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
}

#[test]
fn a_base_image_that_cannot_be_pulled_is_named() {
    let Some(registry) = registry() else { return };
    let project = Project::shop();
    let config = project.read("alokai.config.json").replacen(
        '{',
        r#"{ "image": { "base": "127.0.0.1:9/none:1" },"#,
        1,
    );
    let project = registry.used_by(project.config(&config), "http://127.0.0.1:9");
    project.commit();
    let run = project
        .alokai("store deploy --store us --until image --filter *nextjs*")
        .fails_with(3);
    let text = diagnostic(&run, &project, &[(&registry.address, "[registry]")]);
    assert!(
        text.contains("before anything was built")
            && text.contains("the base image `127.0.0.1:[port]/none:1` cannot be resolved"),
        "{text}"
    );
}

/// The diagnostic of the prune stage after this build script of an app.
fn failed_prune(app: &str, script: &str) -> String {
    let project = Project::shop().build_script(app, script);
    project.commit();
    let run = project.alokai("store deploy --store us --until prune");
    diagnostic(&run.fails_with(1), &project, &[])
}

#[test]
fn next_without_standalone_output() {
    insta::assert_snapshot!(failed_prune("storefront-unified-nextjs", ""));
}

#[test]
fn next_without_server_js() {
    let build = "require('fs').mkdirSync('.next/standalone', { recursive: true })";
    insta::assert_snapshot!(failed_prune("storefront-unified-nextjs", build));
}

#[test]
fn a_middleware_whose_build_writes_nothing() {
    insta::assert_snapshot!(failed_prune("storefront-middleware", ""));
}

#[test]
fn a_full_disk_is_named_and_leaves_the_earlier_tree_intact() {
    let Some(mount) = Mount::new("4m") else {
        assert!(is_excused("only root can mount a small file system"));
        return;
    };
    let shop = Project::shop();
    let root = mount.path().join("shop");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(shop.root())
        .arg(&root)
        .status()
        .unwrap();
    assert!(copied.success());
    let project = Project::at(root);
    project.alokai("store compose --all").succeeds();
    let before = project.tree(".out");
    project.write(
        "apps/storefront-unified-nextjs/large.bin",
        vec![1; 3_000_000],
    );
    let run = project.alokai("store compose --all").fails_with(1);
    let text = run.diagnostic(&project);
    // The store that fills the disk varies; the diagnostic does not.
    assert!(
        text.contains("alokai::disk_full") && text.contains("large.bin`"),
        "{text}"
    );
    insta::assert_snapshot!(
        text.lines()
            .find(|line| line.contains("help:"))
            .unwrap()
            .trim()
    );
    let mut after = project.tree(".out");
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(before, after);
    assert!(!project.exists(".out/.tmp"), "no half-written file is left");
    project.remove("apps/storefront-unified-nextjs/large.bin");
    project.alokai("store compose --all").succeeds();
    assert_eq!(before, project.tree(".out"));
}

#[test]
fn a_socket_without_permission() {
    if registry().is_none() {
        return;
    }
    if !is_root() {
        assert!(is_excused("only root can become a user without permission"));
        return;
    }
    let project = Project::shop();
    let arguments = "store deploy --store us --until image --allow-dirty --builder docker";
    let run = as_nobody(&project, arguments).fails_with(3);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
}

/// Runs the program as the user nobody, who owns the project from then on.
fn as_nobody(project: &Project, arguments: &str) -> Run {
    let folder = project.root().parent().unwrap();
    let given = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(folder)
        .status()
        .unwrap();
    assert!(given.success());
    // The user nobody may not be allowed to read the program's own folder.
    let program = folder.join("alokai");
    std::fs::copy(env!("CARGO_BIN_EXE_alokai"), &program).unwrap();
    let template = project.command(arguments);
    let mut command = Command::new(&program);
    command
        .args(template.get_args())
        .current_dir(project.root())
        .env_clear()
        .uid(65534)
        .gid(65534);
    for (name, value) in template.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.output().unwrap().into()
}

#[test]
fn an_unreadable_source_is_named_and_leaves_the_earlier_tree_intact() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        assert!(is_excused("only root can become a user without permission"));
        return;
    }
    let project = Project::shop();
    project.alokai("store compose --all").succeeds();
    let before = project.tree(".out");
    let readable = "apps/storefront-unified-nextjs/app/[locale]/page.tsx";
    project.write(readable, b"changed\n");
    let source = "apps/storefront-unified-nextjs/texts.txt";
    project.write(source, b"changed\n");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(project.path(source), closed).unwrap();
    let run = as_nobody(&project, "store compose --all").fails_with(1);
    run.stderr_contains(&format!("cannot read `{}", project.root().display()));
    run.stderr_contains("texts.txt`");
    assert_eq!(before, project.tree(".out"));
}
