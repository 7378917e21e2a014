//! The example project with real Next.js, Nuxt and middleware, a real engine, a real registry and a
//! real browser: one slow run, and all its results.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::build::{has_no_process, interrupt_when};
use crate::deploy::{request_body, unique};
use crate::support::{
    Console, Containers, Project, Registry, Run, copy_tracked, docker, next_is_whole, page,
    registry,
};

/// A copy of `apps-example` in a repository of its own, with its dependencies and with project
/// names that no other run has.
pub fn example(name: &str) -> (tempfile::TempDir, Project) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps-example");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = folder.path().canonicalize().unwrap();
    copy_tracked(&source, &root);
    assert!(
        source.join("node_modules").is_dir(),
        "install them first: `npm ci` in apps-example, or `scripts/test`"
    );
    // Hard links are enough, since builds only read dependencies.
    let linked = Command::new("cp")
        .arg("-al")
        .arg(source.join("node_modules"))
        .arg(&root)
        .status()
        .unwrap();
    assert!(linked.success());
    let project = Project::at(root);
    let config = project
        .read("alokai.config.json")
        .replace("\"acme-", &format!("\"{name}-"));
    let project = project.config(&config);
    project.git("init --quiet --initial-branch=main");
    project.commit();
    (folder, project)
}

/// The packages that the lock file marks as dev dependencies, and well-known dev tools that some
/// package lists as an optional peer.
fn dev_dependencies(project: &Project) -> BTreeSet<String> {
    let lock: Value = serde_json::from_str(&project.read("package-lock.json")).unwrap();
    let packages = lock["packages"].as_object().unwrap().iter();
    let dev = packages.filter(|(_, package)| package["dev"] == true);
    let names = dev.filter_map(|(path, _)| path.strip_prefix("node_modules/").map(str::to_owned));
    let mut names: BTreeSet<_> = names.collect();
    assert!(
        names.contains("@types/react"),
        "the lock file is not read: {names:?}"
    );
    names.extend(["typescript", "@playwright/test", "playwright-core"].map(str::to_owned));
    names
}

/// Fails unless a pulled image has no foreign files and a user other than root.
fn inspect_image(image: &str, dev: &BTreeSet<String>) {
    let user = docker(&["run", "--rm", "--entrypoint", "id", image, "-u"]);
    assert_ne!(user, "0", "{image} runs as root");
    let env = [
        "run",
        "--rm",
        "--user",
        "0",
        "--entrypoint",
        "find",
        image,
        "/",
        "-xdev",
        "-name",
        ".env*",
    ];
    assert_eq!(docker(&env), "", "{image} has .env files");
    let files = docker(&[
        "run",
        "--rm",
        "--entrypoint",
        "find",
        image,
        "/var/www",
        "-type",
        "f",
    ]);
    assert!(files.lines().count() > 3, "{image}: {files}");
    for file in files.lines() {
        let of_app = !file.contains("/node_modules/");
        let is_source = [".ts", ".tsx", ".vue"]
            .iter()
            .any(|end| file.ends_with(end));
        assert!(!(of_app && is_source), "{image} has the source {file}");
        let mut packages = file.split("/node_modules/").skip(1).map(|rest| {
            let parts = if rest.starts_with('@') { 2 } else { 1 };
            rest.split('/').take(parts).collect::<Vec<_>>().join("/")
        });
        let found = packages.find(|package| dev.contains(package));
        assert!(
            found.is_none(),
            "{image} has the dev dependency {found:?}: {file}"
        );
    }
}

/// Runs the composed browser tests of a store against the app at a port.
fn browser(project: &Project, store: &str, port: u16) -> Run {
    let run = Command::new("npm")
        .args(["test", "--", "--reporter=line"])
        .current_dir(project.path(&format!(".out/{store}/playwright")))
        .env("BASE_URL", format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    run.into()
}

#[test]
fn the_example_goes_through_all_six_stages() {
    let Some(registry) = registry() else { return };
    let console = Console::start();
    let name = unique("example");
    let (_folder, project) = example(&name);
    let project = registry.used_by(project, &console.address);
    let run = project
        .alokai("store deploy --all --json --sandbox")
        .succeeds();
    opens_only_what_its_keys_know(&project, &run);
    let summary: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    let sha = project.sha();

    // Another client asks the registry.
    for store in ["us", "eu", "outlet"] {
        for app in ["vue-storefront", "vue-storefront-middleware"] {
            assert_eq!(
                registry.tags(&format!("{name}-{store}-storefrontcloud-io/{app}")),
                [sha.as_str()]
            );
        }
    }
    assert_eq!(registry.repositories(&name).len(), 6);
    assert_eq!(console.requests().len(), 3);
    for request in console.requests() {
        assert_eq!(
            request.body,
            request_body(&registry.user, &registry.password, &sha)
        );
    }
    let image = |store: &str, app: &str| {
        format!(
            "{}/{name}-{store}-storefrontcloud-io/{app}:{sha}",
            registry.address
        )
    };
    pull_again(&registry, &summary);

    for store in ["us", "eu"] {
        next_is_whole(&project.path(&format!(".out/{store}/storefront-unified-nextjs")));
    }

    let dev = dev_dependencies(&project);
    let mut containers = Containers::default();
    let mut frontends = Vec::new();
    for store in ["us", "eu", "outlet"] {
        let (frontend, middleware) = (
            image(store, "vue-storefront"),
            image(store, "vue-storefront-middleware"),
        );
        inspect_image(&frontend, &dev);
        inspect_image(&middleware, &dev);
        let middleware = containers.run(&middleware, 4000, &[]);
        page(middleware, "/healthz");
        let address = containers.inspect("{{.NetworkSettings.IPAddress}}");
        let port = containers.run(
            &frontend,
            3000,
            &[&format!("MIDDLEWARE_URL=http://{address}:4000")],
        );
        let home = page(port, "/");
        assert!(
            home.contains(&format!("data-store=\"{store}\"")),
            "{store}: {home}"
        );
        frontends.push((store, port));
    }

    // The tests of a store pass against its own app and fail against that of another store.
    let port = |store: &str| frontends.iter().find(|(name, _)| *name == store).unwrap().1;
    browser(&project, "us", port("us")).succeeds();
    browser(&project, "eu", port("eu")).succeeds();
    browser(&project, "outlet", port("outlet")).succeeds();
    let swapped = [
        browser(&project, "us", port("eu")),
        browser(&project, "eu", port("us")),
    ];
    for run in swapped {
        assert!(
            run.code != 0 && run.stdout.contains("failed"),
            "{}",
            run.stdout
        );
    }

    stores_are_tested_side_by_side(&project);

    // The composed trees build without this program.
    let folders =
        ["us", "eu"].map(|store| project.path(&format!(".out/{store}/storefront-unified-nextjs")));
    let builds = folders.map(|folder| std::thread::spawn(move || plain_next_build(&folder)));
    for build in builds {
        build.join().unwrap();
    }
}

/// `store test` passes for all stores at once, each on ports of its own, and fails for a store whose
/// header is broken in `.deploy`. It never builds.
fn stores_are_tested_side_by_side(project: &Project) {
    let stores = ["us", "eu", "outlet"];
    let test = ["store", "test", "--all", "--concurrency", "3"];
    let run = project.alokai(&test).succeeds();
    for store in stores {
        let row = run.stdout.lines().find(|line| line.starts_with(store));
        let columns: Vec<_> = row.unwrap_or_default().split_whitespace().collect();
        let [_, "playwright", passed, "0", "0", "0", ..] = columns[..] else {
            panic!("{store}: {}", run.stdout);
        };
        assert!(passed.parse::<usize>().unwrap() >= 5, "{store}: {passed}");
        // The reporter of the project's config is kept.
        run.stderr_contains(&format!("{store}/playwright |   ✓"));
    }
    let broken = project.path(".out/eu/storefront-unified-nextjs/.deploy");
    let mut changed = 0;
    for entry in walkdir::WalkDir::new(&broken).into_iter().flatten() {
        let is_code = entry
            .path()
            .extension()
            .is_some_and(|it| it == "js" || it == "html");
        let in_build = entry.path().starts_with(broken.join(".next"));
        if is_code && in_build && entry.file_type().is_file() {
            let code = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if code.contains("data-store") {
                std::fs::write(entry.path(), code.replace("data-store", "data-other")).unwrap();
                changed += 1;
            }
        }
    }
    assert!(changed > 0, "the header is not in the build");
    let run = project.alokai(&test).fails_with(1);
    run.stderr_contains("the tests of 1 store failed")
        .stderr_contains("eu/playwright: 1 test failed")
        .stderr_contains("› the header is the store's");
    let one = [
        "store",
        "test",
        "-s",
        "us",
        "--json",
        "--",
        "--grep",
        "the header is",
    ];
    let run = project.alokai(&one).succeeds();
    let mut lines = run.stdout.lines();
    let ended = lines.find(|line| line.contains("\"event\":\"tested\""));
    let ended: Value = serde_json::from_str(ended.unwrap()).unwrap();
    assert_eq!(ended["passed"], 1, "{ended}");
}

/// Next.js, Nuxt and `tsc` ran in a sandbox, and `vitest` runs in one here. No refused file was
/// ignored.
fn opens_only_what_its_keys_know(project: &Project, run: &Run) {
    let scripts = ["next build", "nuxt build", "tsc"];
    for script in scripts {
        let line = format!("> {script}\"");
        assert!(run.stdout.contains(&line), "{script}: {}", run.stdout);
    }
    let refused = |run: &Run| run.stdout.contains("the sandbox denied access to");
    assert!(!refused(run), "{}", run.stdout);
    let middleware = "storefront-middleware-*";
    let arguments = ["store", "run", "test", "--all", "--filter", middleware];
    let mut command = project.command(&arguments);
    let run = Run::from(command.args(["--sandbox", "--json"]).output().unwrap()).succeeds();
    assert_eq!(run.stdout.matches("2 passed").count(), 3, "{}", run.stdout);
    assert!(!refused(&run), "{}", run.stdout);
}

/// Removes the images and pulls them again, so that only the registry counts.
fn pull_again(registry: &Registry, summary: &Value) {
    let config = tempfile::tempdir().unwrap();
    let config = config.path().to_str().unwrap();
    let mut login = Command::new("docker");
    login.args([
        "--config",
        config,
        "login",
        "--username",
        &registry.user,
        "--password-stdin",
        &registry.address,
    ]);
    let mut login = login
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(
        &mut login.stdin.take().unwrap(),
        registry.password.as_bytes(),
    )
    .unwrap();
    assert!(login.wait().unwrap().success());
    for unit in summary["units"].as_array().unwrap() {
        let reference = unit["reference"].as_str().unwrap();
        docker(&["rmi", "--force", reference]);
        docker(&["--config", config, "pull", "--quiet", reference]);
        let digests = docker(&[
            "image",
            "inspect",
            "--format",
            "{{json .RepoDigests}}",
            reference,
        ]);
        assert!(
            digests.contains(unit["digest"].as_str().unwrap()),
            "{digests}"
        );
        let inspected: Value =
            serde_json::from_str(&docker(&["image", "inspect", reference])).unwrap();
        let labels = &inspected[0]["Config"]["Labels"];
        assert_eq!(labels["com.alokai.store"], unit["storeId"]);
        assert_eq!(labels["com.alokai.app"], unit["app"]);
        assert!(
            labels["org.opencontainers.image.revision"]
                .as_str()
                .is_some_and(|sha| reference.ends_with(sha))
        );
    }
}

fn plain_next_build(folder: &PathBuf) {
    std::fs::remove_dir_all(folder.join(".next")).unwrap();
    let run = Command::new("npx")
        .args(["next", "build"])
        .current_dir(folder)
        .env("NEXT_TELEMETRY_DISABLED", "1")
        .output()
        .unwrap();
    Run::from(run).succeeds();
    // Standalone output is asked for by this program, and the config does not name it.
    assert!(folder.join(".next/BUILD_ID").is_file());
}

#[test]
fn twenty_stores_with_one_middleware_build_it_once() {
    let Some(_registry) = registry() else { return };
    let name = unique("twenty");
    let (_folder, project) = example(&name);
    let ids: Vec<String> = (1..=20).map(|number| format!("shop-{number:02}")).collect();
    let mut stores = serde_json::Map::new();
    for id in &ids {
        let texts = project.read("apps/storefront-unified-nextjs/texts/store.ts");
        let path = format!("apps/stores/{id}/storefront-unified-nextjs/texts/store.ts");
        project.write(&path, format!("// {id}\n{texts}").as_bytes());
        let deployment = serde_json::json!({
            "projectName": format!("{name}-{id}"), "cloudRegion": "europe-west1", "framework": "nextjs",
        });
        stores.insert(id.clone(), serde_json::json!({ "deployment": deployment }));
    }
    let shared =
        serde_json::json!({ "stores": stores, "build": { "shared": ["storefront-middleware"] } });
    let project = project.config(&shared.to_string());
    project.commit();
    let run = project
        .alokai(&[
            "store",
            "deploy",
            "--store",
            &ids.join(","),
            "--filter",
            "storefront-middleware-*",
            "--until",
            "image",
        ])
        .succeeds();
    let summary = [
        "1 built, 0 cache hits, 19 reused from other stores\n",
        "/storefront-middleware was built once for 20 stores\n",
    ];
    for line in summary {
        run.stdout_contains(line);
    }
    // Each store has its own image, which runs.
    let sha = project.sha();
    let registry = "registry.vuestorefront.cloud";
    let mut containers = Containers::default();
    for id in &ids {
        let repository = format!("{registry}/{name}-{id}-storefrontcloud-io");
        let image = format!("{repository}/vue-storefront-middleware:{sha}");
        let port = containers.run(&image, 4000, &[]);
        page(port, "/healthz");
        let store = containers.inspect("{{index .Config.Labels \"com.alokai.store\"}}");
        assert_eq!(store, *id);
    }
    drop(containers);
    for id in &ids {
        let image =
            format!("{registry}/{name}-{id}-storefrontcloud-io/vue-storefront-middleware:{sha}");
        docker(&["rmi", "--force", &image]);
    }
}

#[test]
fn ctrl_c_in_the_middle_of_a_next_build_leaves_no_process() {
    let Some(_registry) = registry() else { return };
    let (_folder, project) = example("acme");
    let arguments = [
        "store",
        "build",
        "--store",
        "us",
        "--filter",
        "storefront-unified-nextjs-us",
    ];
    let seen = "storefront-unified-nextjs-us:build:    Creating an optimized production build";
    let code = interrupt_when(&project, &arguments, seen, 1, Duration::from_secs(12));
    assert_eq!(code, 130);
    has_no_process(&project);
}
