//! Hooks around the steps of a release, at a target with two replicas of each app.

use serde_json::{Value, json};

use super::{hook_records, noted, noting};
use crate::deploy::{Unique, unique};
use crate::release::Shop;
use crate::support::{Console, MIDDLEWARE, Registry, base_reference, docker, registry};

/// The target of `target.js`, with every app twice.
const TWICE: &str = r"
const { spawnSync } = require('child_process');
const input = require('fs').readFileSync(0);
const ended = spawnSync('node', ['target.js', ...process.argv.slice(2)], { input, stdio: ['pipe', 'pipe', 'inherit'] });
let output = ended.stdout.toString();
if (process.argv[2] === 'stage' && ended.status === 0) {
  const staged = JSON.parse(output);
  staged.replicas = staged.replicas.flatMap((replica) => [replica, replica]);
  require('fs').appendFileSync('.alokai/target/replicas', `${staged.replicas.length}\n`);
  output = JSON.stringify(staged);
}
process.stdout.write(output);
process.exitCode = ended.status;
";

fn shop(hooks: &Value) -> Option<Shop> {
    let mut shop = Shop::with(&json!({ "command": ["node", "twice.js"] }))?;
    shop.project = shop.project.setting("hooks", hooks).file("twice.js", TWICE);
    shop.project.commit_as("Add hooks");
    Some(shop)
}

const PLACES: [(&str, &str); 6] = [
    ("before", "stage"),
    ("after", "stage"),
    ("before", "release"),
    ("after", "release"),
    ("before", "rollback"),
    ("after", "rollback"),
];

fn everywhere() -> Value {
    PLACES
        .map(|(when, stage)| noting(when, stage, "$ALOKAI_WHEN $ALOKAI_STAGE"))
        .into_iter()
        .collect()
}

#[test]
fn hooks_run_around_the_steps_of_a_release_and_of_a_rollback() {
    let Some(shop) = shop(&everywhere()) else {
        return;
    };
    shop.deploy().succeeds();
    let release = [
        "before stage",
        "after stage",
        "before release",
        "after release",
    ];
    assert_eq!(noted(&shop.project), release);
    let active = shop.active().unwrap();
    // Between the steps, and each one recorded with its release and target.
    let mut happened = shop.happenings(&active);
    happened.retain(|it| it != "ended");
    assert_eq!(
        happened,
        [
            "hook", "staged", "healthy", "hook", "hook", "released", "hook"
        ]
    );
    for record in hook_records(&shop.project) {
        assert_eq!(
            (&record["release"], &record["target"]),
            (&json!(active), &json!("command"))
        );
        assert_eq!(record["code"], 0);
    }
    // A release that is only staged has no hooks of the switch.
    shop.commit("second");
    shop.run("store deploy --store us --no-release").succeeds();
    assert_eq!(noted(&shop.project)[4..], release[..2]);
    let plan = shop
        .run("store deploy --store us --no-release --dry-run")
        .succeeds();
    plan.stdout_contains("hook us  after stage")
        .stdout_lacks("hook us  after release");
    shop.run("store release latest --store us").succeeds();
    assert_eq!(noted(&shop.project)[6..], release);

    shop.run("store rollback --store us").succeeds();
    assert_eq!(
        noted(&shop.project)[10..],
        [
            "before stage",
            "after stage",
            "before rollback",
            "after rollback"
        ]
    );
    // What is live already has no hooks.
    shop.run("store unpin --store us").succeeds();
    let live = shop.active().unwrap();
    shop.run(&format!("store release {live} --store us"))
        .succeeds();
    assert_eq!(noted(&shop.project).len(), 14);
}

#[test]
fn a_hook_of_a_release_gets_its_ids_and_references() {
    let hook = json!([{ "when": "after", "stage": "stage", "command": ["sh", "-c", "env | grep ALOKAI_ | sort > ../env.txt"] }]);
    let Some(shop) = shop(&hook) else { return };
    shop.deploy().succeeds();
    let seen = std::fs::read_to_string(shop.project.root().with_file_name("env.txt")).unwrap();
    let release = &shop.records("releases")[0];
    for line in [
        format!("ALOKAI_RELEASE={}", release["id"].as_str().unwrap()),
        format!("ALOKAI_BUILD={}", release["build"].as_str().unwrap()),
        "ALOKAI_STAGE=stage".to_owned(),
        "ALOKAI_STORE=us".to_owned(),
    ] {
        assert!(seen.lines().any(|it| it == line), "{line}:\n{seen}");
    }
    assert!(
        seen.contains("ALOKAI_IMAGE_STOREFRONT_MIDDLEWARE=oci:.alokai/registry:"),
        "{seen}"
    );
}

#[test]
fn a_failing_hook_leaves_the_traffic_where_it_was() {
    let fails = |when: &str, stage: &str| {
        json!({ "when": when, "stage": stage,
                "command": ["sh", "-c", "test ! -e ../fail-$ALOKAI_WHEN-$ALOKAI_STAGE || { echo no; exit 9; }"] })
    };
    let hooks: Value = PLACES
        .map(|(when, stage)| fails(when, stage))
        .into_iter()
        .collect();
    let Some(shop) = shop(&hooks) else { return };
    shop.deploy().succeeds();
    let first = shop.active().unwrap();
    shop.verbs();
    for (place, verbs, last) in [
        ("before-stage", &["lock", "retire", "unlock"][..], "failed"),
        (
            "after-stage",
            &["lock", "stage", "retire", "unlock"],
            "failed",
        ),
        (
            "before-release",
            &["lock", "stage", "retire", "unlock"],
            "failed",
        ),
        (
            "after-release",
            &["lock", "stage", "switch", "switch", "retire", "unlock"],
            "switched-back",
        ),
    ] {
        let file = shop.project.root().with_file_name(format!("fail-{place}"));
        std::fs::write(&file, "").unwrap();
        shop.commit(place);
        let run = shop.deploy().fails_with(1);
        std::fs::remove_file(&file).unwrap();
        run.stderr_contains("exited with code 9")
            .stderr_contains("no");
        assert_eq!(shop.active().as_ref(), Some(&first), "{place}");
        assert_eq!(shop.releases().0, std::slice::from_ref(&first), "{place}");
        assert_eq!(shop.verbs(), verbs, "{place}");
        let release = shop.records("releases").pop().unwrap();
        let happened = shop.happenings(release["id"].as_str().unwrap());
        assert!(
            happened.iter().any(|it| it == last),
            "{place}: {happened:?}"
        );
    }
    shop.commit("healthy");
    shop.deploy().succeeds();
    assert_ne!(shop.active(), Some(first));
}

#[test]
fn a_hanging_hook_ends_and_gives_the_lock_back() {
    let hooks = json!([{ "when": "before", "stage": "release", "timeout": 1, "command": ["sh", "-c", "sleep 300 & sleep 300"] }]);
    let Some(shop) = shop(&hooks) else { return };
    let run = shop.deploy().fails_with(1);
    run.stderr_contains("did not end within 1 s");
    assert_eq!(shop.active(), None);
    assert_eq!(shop.verbs(), ["lock", "stage", "retire", "unlock"]);
}

#[test]
fn hooks_of_staging_are_named_for_a_target_without_it() {
    let project = crate::support::Project::shop().setting("hooks", &everywhere());
    project.commit();
    let plan = project
        .alokai("store deploy --store us --dry-run")
        .succeeds();
    plan.stdout_contains("the hooks of the stage `stage` do not run for `us`, because the target `console` has no staging")
        .stdout_lacks("hook us  before stage");
}

/// The same shop with its images in the registry.
fn with_registry(name: &Unique, hooks: &Value) -> Option<(Registry, Console, Shop)> {
    let (registry, base) = (registry()?, base_reference()?);
    let console = Console::start();
    let mut shop = shop(hooks)?;
    let stores: Value = ["us", "eu"]
        .map(|store| {
            let project = format!("{name}-{store}");
            (store.to_owned(), json!({ "deployment": { "projectName": project, "cloudRegion": "us-east1", "framework": "nextjs" } }))
        })
        .into_iter()
        .collect();
    let project = shop
        .project
        .setting("stores", &stores)
        .setting("image", &json!({ "base": base }))
        .file(
            &format!("apps/{MIDDLEWARE}/src/index.js"),
            "console.log('migrating', process.env.ALOKAI_STORE, process.env.ALOKAI_RELEASE, process.env.SECRET_SETTING);",
        );
    shop.project = registry.used_by(project, &console.address);
    shop.project.commit_as("Use a registry");
    Some((registry, console, shop))
}

#[test]
fn a_migration_in_the_new_image_runs_once_for_two_replicas() {
    let name = unique("once");
    let hooks = json!([
        { "when": "after", "stage": "stage", "in": "image", "command": ["node", "lib/index.js"] },
        { "when": "before", "stage": "rollback", "in": "image", "command": ["node", "lib/index.js"] },
    ]);
    let Some((_registry, _console, shop)) = with_registry(&name, &hooks) else {
        return;
    };
    let run = shop.deploy().succeeds();
    let first = shop.active().unwrap();
    let line = format!("us:hook after stage: migrating us {first}");
    assert_eq!(run.stderr.matches(&line).count(), 1, "{}", run.stderr);
    // Two replicas of two apps.
    assert_eq!(shop.project.read(".alokai/target/replicas"), "4\n");
    shop.commit("second");
    shop.deploy().succeeds();
    // A rollback makes no plan and builds nothing. Its hooks run in the image to which it goes back.
    let run = shop.run("store rollback --store us").succeeds();
    assert_eq!(
        run.stderr.matches("migrating us").count(),
        2,
        "{}",
        run.stderr
    );
    let codes: Vec<_> = hook_records(&shop.project)
        .iter()
        .map(|it| it["code"].clone())
        .collect();
    assert_eq!(codes, [0; 4].map(|code| json!(code)));
    let label = format!("label=com.alokai.project={}", shop.project.root().display());
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &label]), "");
}

#[test]
fn a_hook_in_an_image_gets_the_settings_of_the_release() {
    let name = unique("settings");
    let hooks = json!([{ "when": "after", "stage": "stage", "in": "image", "command": ["node", "lib/index.js"] }]);
    let Some((_registry, _console, shop)) = with_registry(&name, &hooks) else {
        return;
    };
    shop.deploy().succeeds();
    shop.run("store settings set --store us SECRET_SETTING=very-secret-value")
        .succeeds();
    let run = shop.run("store deploy --store us --settings").succeeds();
    let active = shop.active().unwrap();
    run.stderr_contains(&format!("migrating us {active} ***"))
        .stderr_lacks("very-secret-value");
    for (path, text) in shop.project.tree(".alokai/logs/hooks") {
        assert!(!text.contains("very-secret-value"), "{path}");
    }
}

#[test]
fn on_this_machine_a_hook_in_an_image_runs_in_the_unpacked_image() {
    let Some(base) = crate::support::base_layout() else {
        return;
    };
    let hooks = json!([
        { "when": "after", "stage": "stage", "in": "image", "app": MIDDLEWARE,
          "command": ["node", "-e", "console.log('in', require('fs').existsSync('lib/index.js'), process.env.NODE_ENV, process.cwd())"] },
    ]);
    let project = crate::support::Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting("hooks", &hooks)
        .setting("deploy", &json!({ "watch": 0, "drain": 0 }));
    project.commit();
    let run = project.alokai("store deploy --store us --local");
    project.alokai("store stop").succeeds();
    let run = run.succeeds();
    let line = run
        .stderr
        .lines()
        .find(|line| line.starts_with("us:hook after stage: in "));
    let line = line.unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(line.contains("in true production "), "{line}");
    // Neither the project's folder nor the one from which the app runs, and removed afterwards.
    let folder = line.rsplit(' ').next().unwrap();
    assert!(
        !folder.starts_with(project.root().to_str().unwrap()),
        "{line}"
    );
    assert!(!std::path::Path::new(folder).exists(), "{line}");
}
