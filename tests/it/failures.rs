//! Every failure that has a name, provoked on real parts: exit code and diagnostic.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::deploy::unique;
use crate::support::{
    Console, FaultyRegistry, Mount, Project, Registry, Run, is_excused, is_root, registry,
};

const DEPLOY: [&str; 4] = ["store", "deploy", "--store", "us"];

/// A diagnostic without the addresses and names that differ from run to run.
fn diagnostic(run: &Run, project: &Project, replace: &[(&str, &str)]) -> String {
    let mut text = run.diagnostic(project);
    for (what, with) in replace {
        text = text.replace(what, with);
    }
    // Digests and upload ids, and ports of clients that the system's errors name.
    let mut settings = without(&text, "sha256:", 64, "[digest]");
    settings = without(&settings, "127.0.0.1:", 5, "127.0.0.1:[port]");
    settings
}

/// Replaces what begins so and goes on with up to `length` letters and digits.
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
    let run = project.alokai(&DEPLOY).fails_with(3);
    insta::assert_snapshot!(diagnostic(
        &run,
        &project,
        &[(&registry.address, "[registry]")]
    ));
    assert!(!project.exists(".out"), "nothing was composed or built");
}

#[test]
fn everything_that_is_missing_comes_at_once() {
    let project = Project::shop()
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .env("CLI_DOCKER_REGISTRY_URL", "127.0.0.1:9")
        .env("CLI_CONSOLE_API_URL", "http://127.0.0.1:9");
    let by_docker = [&DEPLOY[..], &["--builder", "docker"]].concat();
    let run = project.alokai(&by_docker).fails_with(3);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
    let project = project
        .env("CLI_CLOUD_USERNAME", "u")
        .env("CLI_CLOUD_PASSWORD", "p");
    let run = project.alokai(&DEPLOY).fails_with(3);
    assert!(
        run.stderr
            .contains("the registry `127.0.0.1:9` cannot be reached"),
        "{}",
        run.stderr
    );
}

/// Deploys to the real registry behind a proxy that answers the manifest with this status. (The
/// engine itself tries a layer again and again for 50 seconds; a manifest it sends once.)
fn push_refused(status: u16, body: &str) -> Option<(Run, Project, String)> {
    let registry = registry()?;
    let console = Console::start();
    let faulty = FaultyRegistry::before(&registry.address, "PUT", "/manifests/", status, body);
    let name = unique("refused");
    let behind = Registry {
        address: faulty.address.clone(),
        ..registry
    };
    let project = project(&behind, &console.address, &name);
    let run = project.alokai(&DEPLOY);
    assert!(
        console.requests().is_empty(),
        "nothing is deployed when a push failed"
    );
    let text = diagnostic(
        &run,
        &project,
        &[(&faulty.address, "[registry]"), (&*name, "[name]")],
    );
    Some((run, project, text))
}

#[test]
fn no_store_is_deployed_when_a_push_of_one_failed() {
    let Some(registry) = registry() else { return };
    let console = Console::start();
    let name = unique("partly");
    let part = format!("{name}-eu-storefrontcloud-io/vue-storefront/manifests/");
    let denied = r#"{"errors":[{"code":"DENIED","message":"denied"}]}"#;
    let faulty = FaultyRegistry::before(&registry.address, "PUT", &part, 403, denied);
    let behind = Registry {
        address: faulty.address.clone(),
        ..registry
    };
    let project = project(&behind, &console.address, &name);
    let deploy = ["store", "deploy", "--store", "us,eu"];
    project.alokai(&deploy).fails_with(1);
    assert!(console.requests().is_empty());
    // With `--keep-going` the store whose images are there is deployed, and it still says 1.
    let run = project
        .alokai(&[&deploy[..], &["--keep-going"]].concat())
        .fails_with(1);
    let requests = console.requests();
    assert_eq!(requests.len(), 1, "{}", run.stderr);
    assert!(requests[0].path.contains(&format!("{name}-us-")));
}

#[test]
fn push_401() {
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let Some((run, _, text)) = push_refused(401, body) else {
        return;
    };
    run.fails_with(1);
    insta::assert_snapshot!(text);
}

#[test]
fn push_403() {
    let body =
        r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let Some((run, _, text)) = push_refused(403, body) else {
        return;
    };
    run.fails_with(1);
    insta::assert_snapshot!(text);
}

#[test]
fn push_404() {
    let body =
        r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    let Some((run, _, text)) = push_refused(404, body) else {
        return;
    };
    run.fails_with(1);
    insta::assert_snapshot!(text);
}

#[test]
fn push_413() {
    let Some((run, _, text)) = push_refused(413, "<html>413 Request Entity Too Large</html>")
    else {
        return;
    };
    run.fails_with(1);
    insta::assert_snapshot!(text);
}

#[test]
fn push_500_is_tried_again_and_then_told() {
    let Some((run, _, text)) = push_refused(500, "") else {
        return;
    };
    let again = run.stderr.matches("trying again in").count();
    assert!(again >= 2, "{}", run.stderr);
    run.fails_with(1);
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
        let run = project.alokai(&DEPLOY).fails_with(1);
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
            "what may have been carried out is not repeated"
        );
    }
}

#[test]
fn a_console_out_of_reach_is_found_before_the_first_build() {
    let Some(registry) = registry() else { return };
    let project = project(&registry, "http://127.0.0.1:9", "acme");
    let run = project.alokai(&DEPLOY).fails_with(3);
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
        .alokai(&[
            "store", "deploy", "--store", "us", "--until", "image", "--filter", "*nextjs*",
        ])
        .fails_with(3);
    let text = diagnostic(&run, &project, &[(&registry.address, "[registry]")]);
    assert!(
        text.contains("before anything was built")
            && text.contains("the base image `127.0.0.1:[port]/none:1` cannot be resolved"),
        "{text}"
    );
}

#[test]
fn next_without_standalone_output() {
    let project = Project::shop().file("apps/storefront-unified-nextjs/build.js", "");
    project.commit();
    let run = project
        .alokai(&["store", "deploy", "--store", "us", "--until", "prune"])
        .fails_with(1);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
}

#[test]
fn next_without_server_js() {
    let build = "require('fs').mkdirSync('.next/standalone', { recursive: true })";
    let project = Project::shop().file("apps/storefront-unified-nextjs/build.js", build);
    project.commit();
    let run = project
        .alokai(&["store", "deploy", "--store", "us", "--until", "prune"])
        .fails_with(1);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
}

#[test]
fn a_middleware_whose_build_writes_nothing() {
    let project = Project::shop().file("apps/storefront-middleware/build.js", "");
    project.commit();
    let run = project
        .alokai(&["store", "deploy", "--store", "us", "--until", "prune"])
        .fails_with(1);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
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
    project.alokai(&["store", "compose", "--all"]).succeeds();
    let before = project.tree(".out");
    project.write(
        "apps/storefront-unified-nextjs/large.bin",
        &vec![1; 3_000_000],
    );
    let run = project.alokai(&["store", "compose", "--all"]).fails_with(1);
    let text = run.diagnostic(&project);
    // Which store fills the disk is chance, what is said of it is not.
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
    std::fs::remove_file(project.path("apps/storefront-unified-nextjs/large.bin")).unwrap();
    project.alokai(&["store", "compose", "--all"]).succeeds();
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
    let arguments = [
        "store",
        "deploy",
        "--store",
        "us",
        "--until",
        "image",
        "--allow-dirty",
        "--builder",
        "docker",
    ];
    let run = as_nobody(&project, &arguments).fails_with(3);
    insta::assert_snapshot!(diagnostic(&run, &project, &[]));
}

/// Runs the program as the user nobody, whose the whole project is from now on.
fn as_nobody(project: &Project, arguments: &[&str]) -> Run {
    let folder = project.root().parent().unwrap();
    let given = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(folder)
        .status()
        .unwrap();
    assert!(given.success());
    // The program itself may lie where nobody may look.
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
    project.alokai(&["store", "compose", "--all"]).succeeds();
    let before = project.tree(".out");
    let readable = "apps/storefront-unified-nextjs/app/[locale]/page.tsx";
    project.write(readable, b"changed\n");
    let source = "apps/storefront-unified-nextjs/texts.txt";
    project.write(source, b"changed\n");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(project.path(source), closed).unwrap();
    let run = as_nobody(&project, &["store", "compose", "--all"]).fails_with(1);
    assert!(
        run.stderr
            .contains(&format!("cannot read `{}", project.root().display()))
    );
    assert!(run.stderr.contains("texts.txt`"), "{}", run.stderr);
    assert_eq!(before, project.tree(".out"));
}
