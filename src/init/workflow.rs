//! The pipeline of a CI system: one job finds the stores that a push changes, several machines build and
//! push them, and one job makes them live.

use std::path::Path;

use super::{CiSystem, Error, ProposedFile, Survey};
use crate::files::DiskFiles;
use crate::git::Repository;
use crate::workspace::PackageManager;

/// The most machines that build at once.
const MOST_SHARDS: usize = 8;

/// How many changed stores make another machine worthwhile.
const STORES_OF_SHARD: usize = 4;

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
    let text = match ci {
        CiSystem::GitHub => github(survey),
        CiSystem::GitLab => gitlab(survey),
    };
    Ok(survey.file(path, None, text.into_bytes()))
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

fn github(survey: &Survey) -> String {
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
    let alokai = program(survey.manager);
    let setup = format!(
        "      - uses: actions/setup-node@v4\n        with:\n          {node}\n{prepare}      - run: {install}\n"
    );
    // An empty variable counts as not set, so a project without a remote cache needs no change.
    let env = "          STORES: ${{ join(fromJSON(needs.changed.outputs.stores), ',') }}
          CLI_CLOUD_USERNAME: ${{ secrets.CLOUD_USERNAME }}
          CLI_CLOUD_PASSWORD: ${{ secrets.CLOUD_PASSWORD }}
          TURBO_API: ${{ vars.TURBO_API }}
          TURBO_TEAM: ${{ vars.TURBO_TEAM }}
          TURBO_TOKEN: ${{ secrets.TURBO_TOKEN }}
";
    format!(
        r#"# Written by `alokai init`: deploys the stores that a push changes.
name: Deploy stores
on:
  push:
    branches: [{branch}]
permissions:
  contents: read
concurrency:
  group: deploy-stores
  cancel-in-progress: false
{defaults}jobs:
  changed:
    runs-on: ubuntu-latest
    outputs:
      stores: ${{{{ steps.changed.outputs.stores }}}}
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0 # changes need history
{setup}      - id: changed
        env:
          BEFORE: ${{{{ github.event.before }}}}
        run: |
          # The first push of a branch has no commit before it.
          git cat-file -e "$BEFORE^{{commit}}" 2>/dev/null || BEFORE=HEAD~1
          stores=$({alokai} store changed --since "$BEFORE" --to HEAD --condensed)
          # One machine for {STORES_OF_SHARD} stores, and at most {MOST_SHARDS}: ["1/2","2/2"].
          shards=$(node -e '
            const stores = JSON.parse(process.argv[1]).length;
            const count = Math.min({MOST_SHARDS}, Math.ceil(stores / {STORES_OF_SHARD}));
            console.log(JSON.stringify(Array.from({{ length: count }}, (_, i) => i + 1 + "/" + count)));
          ' "$stores")
          echo "stores=$(echo $stores)" >> "$GITHUB_OUTPUT"
          echo "shards=$shards" >> "$GITHUB_OUTPUT"
  build:
    needs: changed
    # For one machine, the job `deploy` builds.
    if: needs.changed.outputs.stores != '[]' && needs.changed.outputs.shards != '["1/1"]'
    runs-on: ubuntu-latest
    timeout-minutes: 60
    strategy:
      matrix:
        shard: ${{{{ fromJSON(needs.changed.outputs.shards) }}}}
    steps:
      - uses: actions/checkout@v4
{setup}      - env:
          SHARD: ${{{{ matrix.shard }}}}
{env}        run: {alokai} store deploy --store "$STORES" --shard "$SHARD" --until push
  deploy:
    needs: [changed, build]
    # Not if a machine has failed: the stores become live together.
    if: ${{{{ !failure() && !cancelled() && needs.changed.outputs.stores != '[]' }}}}
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
{setup}      - env:
{env}        run: {alokai} store deploy --store "$STORES"
"#
    )
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
    let stores = r#"stores=$(node -p "JSON.parse(require('fs').readFileSync('.alokai/changed.json', 'utf8')).join()")"#;
    format!(
        r#"# Written by `alokai init`: deploys the stores that a push changes.
# The variables CLI_CLOUD_USERNAME and CLI_CLOUD_PASSWORD are set in the settings of the project.
.alokai:
  image: {image}
  variables:
    PROJECT: {project}
    GIT_DEPTH: "0" # changes need history
  rules:
    - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
  before_script:
    - cd "$PROJECT"
{prepare}    - {install}

changed-stores:
  extends: .alokai
  stage: build
  script:
    # The first push of a branch has no commit before it.
    - git cat-file -e "$CI_COMMIT_BEFORE_SHA^{{commit}}" 2>/dev/null && since=$CI_COMMIT_BEFORE_SHA || since=HEAD~1
    - mkdir -p .alokai
    - {alokai} store changed --since "$since" --to HEAD --condensed > .alokai/changed.json
  artifacts:
    paths: [{artifact}]
    expire_in: 1 day

build-stores:
  extends: .alokai
  stage: build
  needs: [changed-stores]
  parallel: {MOST_SHARDS} # machines; one for {STORES_OF_SHARD} stores, and the others end at once
  before_script:
    - cd "$PROJECT"
    - count=$(node -p "Math.ceil(JSON.parse(require('fs').readFileSync('.alokai/changed.json', 'utf8')).length / {STORES_OF_SHARD})")
    - if [ "$count" -gt "$CI_NODE_TOTAL" ]; then count=$CI_NODE_TOTAL; fi
    # One machine builds in the job `deploy-stores`.
    - if [ "$count" -le 1 ] || [ "$CI_NODE_INDEX" -gt "$count" ]; then echo "nothing to build here"; exit 0; fi
{prepare}    - {install}
  script:
    - {stores}
    - {alokai} store deploy --store "$stores" --shard "$CI_NODE_INDEX/$count" --until push

deploy-stores:
  extends: .alokai
  stage: deploy
  needs: [changed-stores, build-stores]
  resource_group: deploy-stores
  script:
    - {stores}
    - if [ -n "$stores" ]; then {alokai} store deploy --store "$stores"; else echo "no store has changed"; fi
"#
    )
}
