//! Each package manager runs scripts in composed apps. An app's key has the part of the lock file
//! that the app reaches.

use std::path::{Path, PathBuf};

use crate::support::{FRONTEND, MIDDLEWARE, Project, build, events, results};

/// Installs a program from npm's registry and returns the folder of its command.
fn from_npm(folder: &Path, package: &str) -> PathBuf {
    let installed = std::process::Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(folder)
        .arg(package)
        .output()
        .unwrap();
    assert!(
        installed.status.success(),
        "{}",
        String::from_utf8_lossy(&installed.stderr)
    );
    folder.join("node_modules/.bin")
}

/// Builds an app that needs a package; then again after a change of the lock file for another
/// package, and for this package.
fn package_manager(package: &str, field: &str, install: &[&str], files: &[(&str, &str)]) {
    let tools = tempfile::tempdir().unwrap();
    let bin = from_npm(tools.path(), package);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let app = |name: &str, needs: &str| {
        format!(
            r#"{{ "name": "{name}", "version": "1.0.0", "scripts": {{ "build": "node build.js", "start": "node lib/index.js" }}, "dependencies": {needs} }}"#
        )
    };
    let script = "const fs = require('fs'); fs.mkdirSync('lib', { recursive: true }); \
        fs.writeFileSync('lib/index.js', String(require('is-odd')(3)))";
    let root = format!(
        r#"{{ "name": "acme", "private": true, "packageManager": "{field}", "workspaces": ["apps/storefront-middleware", "apps/storefront-unified-nextjs"] }}"#
    );
    let mut project = Project::shop()
        .file("package.json", &root)
        .file(
            "apps/storefront-middleware/package.json",
            &app(MIDDLEWARE, r#"{ "is-odd": "3.0.0" }"#),
        )
        .build_script("storefront-middleware", script)
        .file(
            "apps/storefront-unified-nextjs/package.json",
            &app(FRONTEND, "{}"),
        )
        .env("PATH", &path);
    for (name, content) in files {
        project = project.file(name, content);
    }
    let install = |project: &Project| {
        let mut command = std::process::Command::new(bin.join(install[0]));
        command
            .args(&install[1..])
            .current_dir(project.root())
            .env("PATH", &path)
            .env("CI", "")
            .env("YARN_ENABLE_IMMUTABLE_INSTALLS", "false");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    };
    let unit = format!("us/{MIDDLEWARE}");
    let missed = |run: &crate::support::Run, app: &str| {
        let events = events(run);
        let mut missed = events.iter().filter(|event| event["event"] == "missed");
        let missed = missed.find(|event| event["name"] == app);
        missed.expect("it is explained")["changes"].clone()
    };
    // In a sandbox: each package manager finds the files that it reads.
    let only = ["--store", "us", "--sandbox"];
    let run = project.alokai("store build --store us").fails_with(3);
    run.stderr_contains("`is-odd` (needed by `storefront-middleware`)");
    install(&project);
    assert_eq!(results(&build(&project, &only))[&unit], "miss");
    assert_eq!(
        project.read(&format!(".out/us/{MIDDLEWARE}/lib/index.js")),
        "true"
    );

    project.write(
        "apps/storefront-unified-nextjs/package.json",
        app(FRONTEND, r#"{ "is-even": "1.0.0" }"#).as_bytes(),
    );
    install(&project);
    let found = results(&build(&project, &only));
    assert_eq!(
        found[&unit], "hit",
        "{package}: the lock file has changed for the frontend alone"
    );
    assert_eq!(found[&format!("us/{FRONTEND}")], "miss");

    project.write(
        "apps/storefront-middleware/package.json",
        app(MIDDLEWARE, r#"{ "is-odd": "3.0.1" }"#).as_bytes(),
    );
    install(&project);
    let run = build(&project, &only);
    assert_eq!(results(&run)[&unit], "miss");
    let changes = missed(&run, MIDDLEWARE).as_array().unwrap().clone();
    let dependency = changes
        .iter()
        .find(|change| change["name"] == "is-odd")
        .expect("it is named");
    assert!(
        dependency["from"] == serde_json::json!(["3.0.0"])
            && dependency["to"] == serde_json::json!(["3.0.1"]),
        "{dependency}"
    );

    // The frontend declares what is installed for the middleware already.
    let needs = r#"{ "is-even": "1.0.0", "is-odd": "3.0.1" }"#;
    let manifest = "apps/storefront-unified-nextjs/package.json";
    project.write(manifest, app(FRONTEND, needs).as_bytes());
    install(&project);
    let changes = missed(&build(&project, &only), FRONTEND).to_string();
    for raw in ["workspace:", "npm:", "@workspace"] {
        assert!(!changes.contains(raw), "{package}: {changes}");
    }
}

#[test]
fn npm_builds_and_its_lock_file_is_cut() {
    package_manager(
        "npm@10",
        "npm@10.9.0",
        &["npm", "install", "--no-audit", "--no-fund"],
        &[],
    );
}

#[test]
fn pnpm_builds_and_its_lock_file_is_cut() {
    let workspace = (
        "pnpm-workspace.yaml",
        "packages:\n  - apps/storefront-middleware\n  - apps/storefront-unified-nextjs\n",
    );
    package_manager(
        "pnpm@9",
        "pnpm@9.15.9",
        &["pnpm", "install", "--no-frozen-lockfile"],
        &[workspace],
    );
}

#[test]
fn yarn_1_builds_and_its_lock_file_is_cut() {
    package_manager("yarn@1.22.22", "yarn@1.22.22", &["yarn", "install"], &[]);
}

#[test]
fn yarn_4_builds_and_its_lock_file_is_cut() {
    package_manager(
        "@yarnpkg/cli-dist@4",
        "yarn@4.9.0",
        &["yarn", "install"],
        &[(".yarnrc.yml", "nodeLinker: node-modules\n")],
    );
}

#[test]
fn bun_builds_and_its_lock_file_is_cut() {
    package_manager("bun@1.2", "bun@1.2.0", &["bun", "install"], &[]);
}
