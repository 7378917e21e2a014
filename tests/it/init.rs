//! `alokai init`: what it finds, what it shows, and that it writes all files or none.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{Project, Run, git, is_root, output_of};

const NEXT: &str = "storefront-unified-nextjs";
const NUXT: &str = "storefront-unified-nuxt";

/// A repository with base apps and without a config.
fn unconfigured() -> Project {
    let project = Project::new();
    project.remove("alokai.config.json");
    project.file(
        "package.json",
        r#"{ "name": "@acme/shop", "private": true }"#,
    )
}

/// A Next.js app, a middleware, and two stores.
fn next_only() -> Project {
    unconfigured()
        .app(NEXT, r#""dev": "next dev -p 3001", "build": "next build""#)
        .app("storefront-middleware", r#""dev": "tsx src/index.ts""#)
        .file("apps/storefront-middleware/.env", "# API_PORT=1\nAPI_PORT=8181\nSECRET=hunter2\n")
        .file("apps/stores/fashion/stores/us/storefront-unified-nextjs/a.txt", "us\n")
        .file("apps/stores/fashion/stores/eu/storefront-unified-nextjs/a.txt", "eu\n")
        .file("yarn.lock", "")
        .file(
            ".github/workflows/deploy.yml",
            "jobs:\n  deploy:\n    steps:\n      - uses: vendor/deploy@v1\n        with:\n          # project_name: old\n          project_name: acme-us-prod\n          cloud_region: us-east1\n          cloud_password: ${{ secrets.CLOUD_PASSWORD }}\n      - with:\n          project_name: \"acme-us-dev\" # for tests\n",
        )
}

/// What `--dry-run` prints, without the path of the project.
fn shown(project: &Project, arguments: &str) -> String {
    let run = project
        .alokai(&format!("init --dry-run {arguments}"))
        .succeeds();
    run.stdout
        .replace(&project.root().display().to_string(), "[project]")
}

/// Fails unless `list`, `check` and `compose` accept the config, and git ignores what they write.
#[track_caller]
fn is_accepted(project: &Project) {
    project.alokai("store list").succeeds();
    let check = project.alokai("store check").succeeds();
    check.stdout_contains("no problems found");
    project.alokai("store compose --all").succeeds();
    let status = project.git("status --porcelain --untracked-files=all");
    assert!(
        !status.contains(".out") && !status.contains(".alokai/"),
        "{status}"
    );
}

#[test]
fn everything_that_is_found_is_shown_with_its_place() {
    let project = next_only();
    let before = project.tree(".");
    insta::assert_snapshot!(shown(&project, ""));
    assert_eq!(project.tree("."), before, "a dry run writes nothing");
}

#[test]
fn the_config_is_accepted_at_once() {
    let both = unconfigured()
        .app(NEXT, r#""dev": "next dev""#)
        .app(NUXT, r#""dev": "nuxt dev""#)
        .file(
            &format!("apps/{NUXT}/nuxt.config.ts"),
            "export default {\n  devServer: {\n    port: 3456 } }\n",
        )
        .file(&format!("apps/stores/outlet/{NUXT}/a.txt"), "outlet\n")
        .file("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
    let nuxt_only = unconfigured()
        .app(NUXT, r#""dev": "PORT=3000 nuxt dev""#)
        .app("storefront-middleware", r#""dev": "API_PORT=3000 node .""#)
        .file("package-lock.json", "{}");
    let many = (0..5).fold(next_only(), |project, index| {
        project.file(&format!("apps/stores/s{index}/{NEXT}/a.txt"), "s\n")
    });
    // Characters of JSON, YAML and shells in what comments quote.
    let hostile = next_only()
        .file(
            ".github/workflows/a\"b\\c */ \u{2028}.yml",
            "env:\n  CLOUD_PROJECT_NAME: \"hostile\"\n",
        )
        .file(
            ".github/workflows/b.yml",
            "  project_name: ${{ secrets.PROJECT\"\\ }}\n  project_name: ../../etc\n",
        );
    for (project, texts) in [
        (next_only(), ["\"nextjs\": 3001", "\"middleware\": 8181"]),
        (both, ["\"framework\": \"nuxt\"", "\"nuxt\": 3456"]),
        (nuxt_only, ["\"nuxt\": 3001", "\"middleware\": 3000"]),
        (many, ["\"s4\"", "\"nextjs\": 3007"]),
        (hostile, ["found in", "\"us\""]),
    ] {
        project.alokai("init --yes").succeeds();
        let config = project.read("alokai.config.json");
        for text in texts {
            assert!(config.contains(text), "{text} is missing:\n{config}");
        }
        is_accepted(&project);
        let again = project.alokai("init --yes").fails_with(2);
        again.stderr_contains("alokai.config.json");
        assert_eq!(project.read("alokai.config.json"), config);
    }
}

#[test]
fn cloud_names_are_found_in_the_files_of_ci_systems() {
    for (file, text, name, region) in [
        (
            "Jenkinsfile",
            "environment {\n  CLOUD_PROJECT_NAME = 'acme'\n  CLOUD_REGION = 'europe-west3'\n}",
            "acme",
            "europe-west3",
        ),
        (
            "bitbucket-pipelines.yml",
            "script:\n  - export PROJECT_NAME=acme\n",
            "acme",
            "europe-west1",
        ),
        (
            ".gitlab-ci.yml",
            "deploy:\n  script: curl -X PATCH https://x/cloud/instances/acme-eu-us-central1-gcp-storefrontcloud-io/deploy\n",
            "acme-eu",
            "us-central1",
        ),
        (
            ".gitlab-ci.yml",
            "url: https://acme.us-east4.gcp.storefrontcloud.io\n",
            "acme",
            "us-east4",
        ),
        (
            ".circleci/config.yml",
            "docker push registry.example/acme-storefrontcloud-io/vue-storefront:1",
            "acme",
            "europe-west1",
        ),
        // Not names of projects.
        (
            "Jenkinsfile",
            "echo 'PROJECT_NAME is not set'\n// project_name: no\nPROJECT_NAME = \"${NAME}\"",
            "shop",
            "europe-west1",
        ),
    ] {
        let project = unconfigured().app(NEXT, "").file(file, text);
        project.alokai("init --yes").succeeds();
        let config = project.read("alokai.config.json");
        for part in [
            format!("\"projectName\": \"{name}\""),
            format!("\"cloudRegion\": \"{region}\""),
        ] {
            assert!(config.contains(&part), "{part} is missing:\n{config}");
        }
        let place = format!("found in {file}:");
        assert_eq!(config.contains(&place), name != "shop", "{config}");
        is_accepted(&project);
    }
}

#[test]
fn a_secret_is_named_and_values_of_env_files_are_not_shown() {
    let project = unconfigured()
        .app(NEXT, "")
        .file(".env", "CLI_CLOUD_PASSWORD=hunter2\nPROJECT_NAME=acme\n")
        .file(
            ".github/workflows/a.yml",
            "project_name: ${{ secrets.PROJECT_NAME }}\n",
        );
    let run = project.alokai("init --yes --ci github").succeeds();
    for text in [
        &run.stdout,
        &run.stderr,
        &project.read("alokai.config.json"),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    run.stdout_contains("found in .env:2");
    let project = unconfigured().app(NEXT, "").file(
        ".github/workflows/a.yml",
        "project_name: ${{ secrets.PROJECT_NAME }}\n",
    );
    project.alokai("init --yes").succeeds();
    let config = project.read("alokai.config.json");
    assert!(
        config.contains("takes it from secrets.PROJECT_NAME"),
        "{config}"
    );
}

#[test]
fn the_ignore_file_gets_only_what_git_does_not_ignore() {
    for (old, new) in [
        (Some("lib"), Some("lib\n.out/\n/.alokai/\n")),
        (Some("lib\r\n"), Some("lib\r\n.out/\r\n/.alokai/\r\n")),
        (Some(".out\n"), Some(".out\n/.alokai/\n")),
        (Some(".*\n!.github\n"), Some(".*\n!.github\n")),
        (None, Some(".out/\n/.alokai/\n")),
    ] {
        let project = unconfigured().app(NEXT, "");
        if let Some(old) = old {
            project.write(".gitignore", old);
        }
        project.alokai("init --yes").succeeds();
        assert_eq!(Some(project.read(".gitignore").as_str()), new, "{old:?}");
        is_accepted(&project);
    }
    // A rule of the repository, above the project.
    let repository = Project::new().file(".gitignore", ".out\n.alokai\n");
    repository.remove("alokai.config.json");
    let shop = Project::at(repository.path("shop")).app(NEXT, "");
    shop.alokai("init --yes").succeeds();
    assert!(!shop.exists(".gitignore"));
    let linked = unconfigured()
        .app(NEXT, "")
        .file("rules", "x\n")
        .link(".gitignore", "rules");
    linked
        .alokai("init --yes")
        .succeeds()
        .stdout_contains("symbolic link");
    assert_eq!(linked.read("rules"), "x\n");
}

#[test]
fn nothing_is_written_without_confirmation() {
    let project = next_only();
    let before = project.tree(".");
    let run = project.alokai("init").fails_with(2);
    run.stdout_contains("+  \"stores\": {");
    run.stderr_contains("--yes");
    assert_eq!(project.tree("."), before);
    project.alokai("init --yes --dry-run").fails_with(2);
    for (answer, code) in [("n\n", 0), ("\n", 0), ("", 0), ("y\n", 0)] {
        let run = on_a_terminal(&project, answer).fails_with(code);
        run.stdout_contains("[y/N]");
        assert_eq!(
            project.exists("alokai.config.json"),
            answer == "y\n",
            "{}",
            run.stdout
        );
    }
    is_accepted(&project);
}

/// Runs `init` on a terminal, and types the answer.
fn on_a_terminal(project: &Project, answer: &str) -> Run {
    use std::io::Write;
    let program = project.command("init");
    let line = program.get_program().to_str().unwrap().to_owned() + " init";
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(project.root())
        .env("GIT_PAGER", "cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = script.spawn().expect("script runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(answer.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

#[test]
fn all_files_are_written_or_none() {
    // The folder of the second file cannot be made: a file has its name.
    let project = next_only()
        .file(".gitlab", "a file\n")
        .file(".gitlab-ci.yml", "x: 1\n");
    let before = project.tree(".");
    let run = project.alokai("init --yes --ci gitlab").fails_with(1);
    run.stderr_contains("no file was changed");
    assert_eq!(project.tree("."), before);
    // The last file cannot be written.
    let project = next_only().link("alokai.config.json", "/nonexistent/config");
    let run = project.alokai("init --yes --ci github").fails_with(1);
    run.stderr_contains("no file was changed");
    assert!(!project.exists(".gitignore") && !project.exists(".github/workflows/alokai.yml"));
    if !is_root() {
        let project = next_only();
        let mut permissions = project.root().metadata().unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(project.root(), permissions).unwrap();
        project
            .alokai("init --yes")
            .fails_with(1)
            .stderr_contains("cannot write");
        Command::new("chmod")
            .arg("u+w")
            .arg(project.root())
            .status()
            .unwrap();
    }
}

#[test]
fn new_files_can_be_read_by_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let project = next_only();
    std::fs::write(project.path(".gitignore"), "lib\n").unwrap();
    std::fs::set_permissions(project.path(".gitignore"), PermissionsExt::from_mode(0o664)).unwrap();
    project.alokai("init --yes").succeeds();
    let mode = |name| project.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("alokai.config.json") & 0o444, 0o444);
    assert_eq!(mode(".gitignore"), 0o664);
}

#[test]
fn another_layout_is_refused_with_what_to_move() {
    let package = |dependency: &str| format!(r#"{{ "dependencies": {{ "{dependency}": "1" }} }}"#);
    let next = unconfigured()
        .file("package.json", &package("next"))
        .file("src/a.ts", "");
    let elsewhere = unconfigured().file("packages/web/package.json", &package("nuxt"));
    let below = unconfigured().file("shop/apps/web/package.json", "{}");
    let empty_apps = unconfigured().file("apps/web/index.js", "");
    let nothing = unconfigured();
    nothing.remove("package.json");
    let name = unconfigured().file("apps/we ird/package.json", "{}");
    let broken = unconfigured().file("apps/web/package.json", "{");
    let mut all = String::new();
    for project in [next, elsewhere, below, empty_apps, nothing, name, broken] {
        let before = project.tree(".");
        let run = project.alokai("init --yes").fails_with(2);
        all += &run.diagnostic(&project);
        all += "\n";
        assert_eq!(project.tree("."), before);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_project_below_the_root_of_its_repository() {
    let repository = Project::new();
    repository.remove("alokai.config.json");
    let shop = Project::at(repository.path("my shop"))
        .app(NEXT, "")
        .app("storefront-middleware", "")
        .file(".nvmrc", "20\n")
        .file(
            "package.json",
            r#"{ "devDependencies": { "alokai": "1" } }"#,
        )
        .file("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
    repository.write(
        ".github/workflows/x.yml",
        "cloud_region: us-west1\nproject_name: acme\n",
    );
    // From a folder below the project.
    let run = repository.alokai(&[
        "init",
        "--yes",
        "--ci",
        "github",
        "--cwd",
        "my shop/apps/storefront-middleware",
    ]);
    let run = run.succeeds();
    run.stdout_contains("the project is its folder `my shop`");
    is_accepted(&shop);
    let workflow = repository.read(".github/workflows/alokai.yml");
    insta::assert_snapshot!(workflow);
    let run = repository.alokai("init --yes");
    run.fails_with(2)
        .stderr_contains("alokai init --cwd my shop");
}

#[test]
fn a_pipeline_is_never_replaced() {
    let project = next_only().file(".github/workflows/alokai.yml", "mine\n");
    let run = project.alokai("init --yes --ci github").fails_with(2);
    run.stderr_contains("alokai.yml");
    assert_eq!(project.read(".github/workflows/alokai.yml"), "mine\n");
    assert!(!project.exists("alokai.config.json"));
    let project = next_only().file(".gitlab-ci.yml", "mine\n");
    let run = project.alokai("init --yes --ci gitlab").succeeds();
    run.stdout_contains("include: [{ local: .gitlab/alokai.yml }]");
    assert_eq!(project.read(".gitlab-ci.yml"), "mine\n");
    insta::assert_snapshot!(project.read(".gitlab/alokai.yml"));
}

/// A project with a config gets the pipeline, and no file of it is changed.
#[test]
fn a_configured_project_gets_the_pipeline_alone() {
    for (deploy, runner) in [
        ("{}", "ubuntu-latest"),
        (r#"{ "target": "docker" }"#, "self-hosted"),
        (
            r#"{ "target": "docker", "docker": { "proxy": null } }"#,
            "ubuntu-latest",
        ),
        (r#"{ "target": "swarm" }"#, "self-hosted"),
        (r#"{ "target": "kubernetes" }"#, "ubuntu-latest"),
    ] {
        let project = next_only();
        project.alokai("init --yes").succeeds();
        let config = project.read("alokai.config.json");
        let with_target = config.replacen('{', &format!("{{ \"deploy\": {deploy},"), 1);
        project.write("alokai.config.json", &with_target);
        let before = project.tree(".");
        let run = project.alokai("init --yes").fails_with(2);
        run.stderr_contains("alokai init --ci github");
        let run = project.alokai("init --yes --ci github").succeeds();
        let written: Vec<_> = run
            .stderr
            .lines()
            .filter(|it| it.starts_with("wrote"))
            .collect();
        assert_eq!(written, ["wrote .github/workflows/alokai.yml"]);
        let workflow = project.read(".github/workflows/alokai.yml");
        let (build, deploy) = workflow.split_once("  deploy:\n").expect("the job");
        assert!(
            deploy.contains(&format!("    runs-on: {runner}\n")),
            "{deploy}"
        );
        assert!(!build.contains("self-hosted"), "{build}");
        assert_eq!(
            run.stdout.contains("runs-on: self-hosted`"),
            runner == "self-hosted"
        );
        project.remove(".github/workflows/alokai.yml");
        let gitlab = project.alokai("init --dry-run --ci gitlab").succeeds();
        assert_eq!(
            gitlab.stdout.contains("needs the `tags`"),
            runner == "self-hosted"
        );
        assert_eq!(project.tree("."), before, "nothing else is changed");
    }
}

/// The steps of the pipelines find the changed stores, and their names reach `deploy`.
#[test]
fn the_steps_of_a_pipeline_run() {
    let project = next_only();
    project.alokai("init --yes --ci github").succeeds();
    project.commit();
    project.write(
        &format!("apps/stores/fashion/stores/us/{NEXT}/a.txt"),
        "changed\n",
    );
    project.commit();
    let workflow = project.read(".github/workflows/alokai.yml");
    let start = workflow
        .find("          # GitHub cancels all waiting runs")
        .expect("the step");
    let end = workflow.find("  build:\n").expect("the job");
    let program = project.command("");
    let program = program.get_program().to_str().unwrap().to_owned();
    let step = workflow[start..end].replace("yarn --silent alokai", &program);
    let output = project.path("output");
    // A double of GitHub's program, which only returns its answer.
    project.write("bin/gh", "#!/bin/sh\necho \"$LAST\"\n");
    let gh = project.path("bin/gh");
    std::fs::set_permissions(&gh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", project.path("bin").display());
    let last = git(project.root(), "rev-parse HEAD~1");
    // A commit that is gone after a forced push, no run that succeeded, and a run of the commit before.
    for (before, expected) in [
        (
            "1234567890123456789012345678901234567890",
            "[\"eu\",\"us\"]",
        ),
        ("", "[\"eu\",\"us\"]"),
        (last.as_str(), "[\"us\"]"),
    ] {
        std::fs::write(&output, "").unwrap();
        let status = Command::new("sh")
            .args(["-e", "-c", &step])
            .current_dir(project.root())
            .env("PATH", &path)
            .env("LAST", before)
            .env("GITHUB_REF_NAME", "main")
            .env("GITHUB_OUTPUT", &output)
            .status()
            .unwrap();
        assert!(status.success());
        let line = std::fs::read_to_string(&output).unwrap();
        let expected = format!("stores={expected}\nshards=[\"1/1\"]\n");
        assert_eq!(line.replace(' ', ""), expected);
    }
}

/// The line of the workflow, and those of GitLab, choose the machines for a number of stores.
#[test]
fn a_pipeline_has_one_machine_for_four_stores_and_at_most_eight() {
    let (github, gitlab) = (next_only(), next_only());
    github.alokai("init --yes --ci github").succeeds();
    gitlab.alokai("init --yes --ci gitlab").succeeds();
    let workflow = github.read(".github/workflows/alokai.yml");
    let start = workflow.find("          shards=").expect("the step");
    let end = workflow.find("          echo \"stores=").expect("the end");
    let of_github = format!("{}echo \"$shards\"", &workflow[start..end]);
    let pipeline = gitlab.read(".gitlab-ci.yml");
    let start = pipeline.find("    - count=").expect("the step");
    let end = pipeline[start..].find("    - yarn").expect("the end") + start;
    let of_gitlab = pipeline[start..end]
        .replace("    - ", "")
        .replace("    #", "#");
    let of_gitlab = format!("{of_gitlab}echo \"$CI_NODE_INDEX/$count\"");
    let shell = |script: &str, stores: &str, node: usize| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", script]).current_dir(gitlab.root());
        shell.env("stores", stores).env("CI_NODE_TOTAL", "8");
        output_of(shell.env("CI_NODE_INDEX", node.to_string()))
    };
    for (stores, machines) in [(0, 0), (1, 1), (4, 1), (5, 2), (12, 3), (32, 8), (200, 8)] {
        let ids: Vec<String> = (0..stores).map(|number| format!("s{number}")).collect();
        let ids = serde_json::json!(ids).to_string();
        let shards: Vec<String> = (1..=machines)
            .map(|it| format!("{it}/{machines}"))
            .collect();
        let of_github = shell(&of_github, &ids, 0);
        assert_eq!(of_github.trim(), serde_json::json!(shards).to_string());
        gitlab.write(".alokai/changed.json", &ids);
        for node in 1..=8 {
            let line = shell(&of_gitlab, "", node);
            let expected = match shards.get(node - 1) {
                Some(shard) if machines > 1 => shard,
                _ => "nothing to build here",
            };
            assert_eq!(line.trim(), expected, "{stores} stores");
        }
    }
}

#[test]
fn the_schema_is_named_where_it_is_installed() {
    let schema = "node_modules/alokai/alokai.config.schema.json";
    let project = next_only()
        .file(schema, "{}")
        .file(".gitignore", "node_modules\n");
    project.alokai("init --yes").succeeds();
    let config = project.read("alokai.config.json");
    assert!(
        config.contains(&format!("\"$schema\": \"./{schema}\"")),
        "{config}"
    );
    is_accepted(&project);
    let project = next_only();
    project.alokai("init --yes").succeeds();
    assert!(!project.read("alokai.config.json").contains("$schema"));
}

#[test]
fn a_project_without_a_repository() {
    let folder = tempfile::tempdir().unwrap();
    let project = Project::at(folder.path().canonicalize().unwrap()).app(NEXT, "");
    let run = project.alokai("init --yes").succeeds();
    run.stdout_contains("none; a deploy needs one");
    assert_eq!(project.read(".gitignore"), ".out/\n/.alokai/\n");
    project.alokai("store compose --all").succeeds();
}
