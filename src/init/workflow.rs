//! The pipeline of a CI system: one job finds the stores that a push changes, several machines build and
//! push them, and one job makes them live.

use std::path::Path;

use super::{CiSystem, Error, ProposedFile, Survey};
use crate::config::Project;
use crate::files::DiskFiles;
use crate::git::Repository;
use crate::store::TargetKind;
use crate::workspace::PackageManager;

/// The version of Node, if the project does not name a version.
const NODE: &str = "22";

/// Files that name the version of Node, as `actions/setup-node` reads them.
const NODE_FILES: [&str; 3] = [".nvmrc", ".node-version", ".tool-versions"];

/// The file of the pipeline, at the root of the repository.
pub fn propose(
    survey: &Survey,
    ci: CiSystem,
    notes: &mut Vec<String>,
) -> Result<ProposedFile, Error> {
    let is_there = |name: &str| survey.top.join(name).symlink_metadata().is_ok();
    let name = match ci {
        CiSystem::GitHub => ".github/workflows/alokai.yml",
        CiSystem::GitLab if is_there(".gitlab-ci.yml") => ".gitlab/alokai.yml",
        CiSystem::GitLab => ".gitlab-ci.yml",
    };
    let path = survey.top.join(name);
    if is_there(name) {
        return Err(Error::PipelineExists { path });
    }
    if name == ".gitlab/alokai.yml" {
        notes.push(
            "add the pipeline to `.gitlab-ci.yml`: `include: [{ local: .gitlab/alokai.yml }]`; its jobs have the stages `build` and `deploy`"
                .into(),
        );
    }
    notes.push(match ci {
        CiSystem::GitHub => {
            "add the secrets CLOUD_USERNAME and CLOUD_PASSWORD to the repository at GitHub; for a remote cache, also the secret TURBO_TOKEN and the variables TURBO_API and TURBO_TEAM".into()
        }
        CiSystem::GitLab => {
            "add the masked variables CLI_CLOUD_USERNAME and CLI_CLOUD_PASSWORD to the project at GitLab; for a remote cache, also TURBO_API, TURBO_TEAM and TURBO_TOKEN".into()
        }
    });
    let manager = survey.manager;
    let package = &survey.folders.root;
    if !package.build_dependencies().any(|name| name == "alokai") {
        notes.push(format!(
            "add the package `alokai` to `package.json` of the project: `{}`; the pipeline runs `{}`",
            add(manager),
            program(manager)
        ));
    }
    let fixed = survey.config.as_ref().and_then(fixed_target);
    if let Some(target) = fixed {
        let job = match ci {
            CiSystem::GitHub => {
                "`deploy` has `runs-on: self-hosted`: it has to run on the machine that runs the stores or their HAProxy"
            }
            CiSystem::GitLab => {
                "`deploy-stores` needs the `tags` of a runner with the shell executor on the machine that runs the stores or their HAProxy"
            }
        };
        notes.push(format!(
            "stores have the target `{}`, so the job {job}",
            target.name()
        ));
    }
    let text = match ci {
        CiSystem::GitHub => github(survey, fixed.is_some()),
        CiSystem::GitLab => gitlab(survey),
    };
    Ok(survey.file(path, None, text.into_bytes()))
}

/// A target of the stores that becomes live only from a certain machine.
fn fixed_target(project: &Project) -> Option<TargetKind> {
    let deployments = project.stores.deployables();
    let deployments = deployments.filter_map(|store| store.deployment.as_ref());
    let mut targets = deployments.map(|it| project.target_of(it));
    targets.find(|target| match target {
        TargetKind::Local | TargetKind::Swarm => true,
        TargetKind::Docker => project.settings.deploy.docker.proxy.is_some(),
        TargetKind::Console | TargetKind::Kubernetes | TargetKind::Command => false,
    })
}

/// The command that adds this program to a project.
fn add(manager: PackageManager) -> &'static str {
    match manager {
        PackageManager::Npm => "npm install --save-dev alokai",
        PackageManager::Yarn => "yarn add --dev -W alokai",
        PackageManager::Berry => "yarn add --dev alokai",
        PackageManager::Pnpm => "pnpm add --save-dev -w alokai",
        PackageManager::Bun => "bun add --dev alokai",
    }
}

/// The command that runs this program in a project that has it as a dependency.
fn program(manager: PackageManager) -> &'static str {
    match manager {
        PackageManager::Npm => "npx --no-install alokai",
        // Yarn 1 prints lines of its own to standard output.
        PackageManager::Yarn => "yarn --silent alokai",
        PackageManager::Berry => "yarn alokai",
        PackageManager::Pnpm => "pnpm exec alokai",
        PackageManager::Bun => "bunx --no-install alokai",
    }
}

/// The command that makes the package manager available, if it is missing on machines of CI systems.
fn prepare(survey: &Survey) -> Option<&'static str> {
    let is_pinned = survey.folders.root.package_manager.is_some();
    match survey.manager {
        PackageManager::Pnpm | PackageManager::Berry => Some("corepack enable"),
        PackageManager::Yarn if is_pinned => Some("corepack enable"),
        PackageManager::Bun => Some("npm install --global bun"),
        PackageManager::Npm | PackageManager::Yarn => None,
    }
}

/// A template with values in the places of their names: `%NAME%`.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let parts = template.split('%').enumerate();
    let parts = parts.map(|(position, part)| {
        if position % 2 == 0 {
            return part;
        }
        let value = values.iter().find(|(name, _)| *name == part);
        value.map_or("", |(_, value)| value)
    });
    parts.collect()
}

/// A string in YAML. A string in JSON is valid there.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A path in the repository of a path in the project.
fn in_repository(survey: &Survey, name: &str) -> String {
    let path = Path::new(&survey.below()).join(name);
    path.to_string_lossy().into_owned()
}

/// The input of `actions/setup-node`.
fn node_input(survey: &Survey) -> String {
    let mut names = NODE_FILES.iter();
    match names.find(|name| survey.root.join(name).is_file()) {
        Some(name) => {
            let name = quoted(&in_repository(survey, name));
            format!("node-version-file: {name}")
        }
        None => format!("node-version: {NODE}"),
    }
}

fn github(survey: &Survey, is_fixed: bool) -> String {
    let branch = survey
        .repository
        .as_ref()
        .and_then(Repository::default_branch);
    let branch = quoted(branch.as_deref().unwrap_or("main"));
    let node = node_input(survey);
    let below = survey.below();
    let defaults = if below.is_empty() {
        String::new()
    } else {
        format!(
            "defaults:\n  run:\n    working-directory: {}\n",
            quoted(&below)
        )
    };
    let prepare = prepare(survey).map_or(String::new(), |it| format!("      - run: {it}\n"));
    let install = survey.manager.install(&DiskFiles, &survey.root);
    let setup = format!(
        "      - uses: actions/setup-node@v4\n        with:\n          {node}\n{prepare}      - run: {install}\n"
    );
    let alokai = program(survey.manager);
    let values = [
        ("BRANCH", &*branch),
        ("DEFAULTS", &defaults),
        ("SETUP", &setup),
        ("ALOKAI", alokai),
        (
            "RUNNER",
            if is_fixed {
                "self-hosted"
            } else {
                "ubuntu-latest"
            },
        ),
    ];
    fill(include_str!("github.yml"), &values)
}

/// The Node image: with the version in `.nvmrc`, if that is a number.
fn node_image(survey: &Survey) -> String {
    let names = NODE_FILES[..2].iter();
    let mut texts = names.filter_map(|name| std::fs::read_to_string(survey.root.join(name)).ok());
    let version = texts.next().unwrap_or_default();
    let version = version.trim().trim_start_matches('v');
    let is_number = !version.is_empty()
        && version.len() < 12
        && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    format!("node:{}", if is_number { version } else { NODE })
}

fn gitlab(survey: &Survey) -> String {
    let image = node_image(survey);
    // GitLab expands variables in the values of variables.
    let project = match survey.below() {
        below if below.is_empty() => ".".to_owned(),
        below => below.replace('$', "$$"),
    };
    let artifact = quoted(&in_repository(survey, ".alokai/changed.json"));
    let project = quoted(&project);
    let prepare = prepare(survey).map_or(String::new(), |it| format!("    - {it}\n"));
    let install = survey.manager.install(&DiskFiles, &survey.root);
    let alokai = program(survey.manager);
    let values = [
        ("IMAGE", &*image),
        ("PROJECT", &project),
        ("PREPARE", &prepare),
        ("INSTALL", install),
        ("ALOKAI", alokai),
        ("ARTIFACT", &artifact),
    ];
    fill(include_str!("gitlab.yml"), &values)
}
