//! The memory of builds: every deploy leaves a record, also a failed, interrupted or killed one.

mod many;
mod memory;
mod places;
mod pruned;
mod questions;
pub mod secrets;
mod storm;
mod travel;

use serde_json::{Value, json};

use crate::deploy::unique;
use crate::support::{
    Before, FRONTEND, MIDDLEWARE, Project, Turn, base_layout, base_reference, registry,
};

const LOCAL: &str = "store deploy --store us --local --until push";

fn shop(base: &str) -> Project {
    let project = Project::shop().setting("image", &json!({ "base": base }));
    project.commit_as("Add a shop");
    project
}

fn builds(project: &Project, options: &str) -> Vec<Value> {
    let arguments = format!("store builds --json {options}");
    let list = project.alokai(arguments.as_str()).succeeds().json();
    list["builds"].as_array().unwrap().clone()
}

#[test]
fn a_deploy_leaves_a_record_of_what_was_built_from_what() {
    let Some(base) = base_layout() else { return };
    let project = shop(&base);
    project
        .alokai("store builds")
        .succeeds()
        .stderr_contains("no builds are recorded");
    project.alokai(LOCAL).succeeds();
    let list = builds(&project, "");
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["status"], "complete");
    assert_eq!(list[0]["storeId"], "us");
    let sha = project.sha();
    assert_eq!(list[0]["description"], format!("{} Add a shop", &sha[..7]));
    let id = list[0]["id"].as_str().unwrap();

    // The last characters of an id may be left out.
    let info = format!("store builds info {} --json", &id.to_lowercase()[..14]);
    let info = project.alokai(info.as_str()).succeeds().json();
    assert_eq!(info["commit"]["sha"], sha);
    for app in [FRONTEND, MIDDLEWARE] {
        let app = &info["apps"][app];
        assert_eq!(app["cache"], "miss");
        assert!(
            app["digest"].as_str().unwrap().starts_with("sha256:"),
            "{app}"
        );
        assert!(app["imageBytes"].as_u64().unwrap() > 0, "{app}");
    }
    let text = project.alokai(&["store", "builds", "info", id]).succeeds();
    text.stdout_contains("subject      Add a shop");
    let logs = project.alokai(&["store", "builds", "logs", id]).succeeds();
    logs.stdout_contains(&format!("{FRONTEND}-us:build: > node build.js"));
    project
        .alokai("store builds logs Bzzzzzz")
        .fails_with(2)
        .stderr_contains("no record has an id that starts with `Bzzzzzz`");

    // The second build is newer, has nothing to do, and is recorded as well.
    project.alokai(LOCAL).succeeds();
    let list = builds(&project, "--limit 1");
    let second = list[0]["id"].as_str().unwrap();
    assert_ne!(second, id);
    let info = format!("store builds info {second} --json");
    let info = project.alokai(info.as_str()).succeeds().json();
    assert_eq!(info["apps"][FRONTEND]["cache"], "present");
    assert_eq!(builds(&project, "--store us").len(), 2);
    assert_eq!(builds(&project, "--store eu").len(), 0);
    project
        .alokai("store builds --store usa")
        .fails_with(2)
        .stderr_contains("did you mean `us`?");
    let none = project.alokai("store builds --status failed").succeeds();
    none.stderr_contains("no recorded build matches");
    // A build without output has nothing to print.
    let record = format!(".alokai/ledger/builds/{second}.json");
    let mut without: Value = serde_json::from_str(&project.read(&record)).unwrap();
    without.as_object_mut().unwrap().remove("log");
    project.write(&record, without.to_string());
    let logs = project.alokai(&["store", "builds", "logs", second]);
    logs.succeeds()
        .stderr_contains(&format!("the build {second} has no output"));
    assert_eq!(builds(&project, "--status failed").len(), 0);
}

#[test]
fn a_failed_build_keeps_its_reason_and_its_output_without_secrets() {
    let Some(base) = base_layout() else { return };
    let script = "console.log('before the failure, ' + require('fs').readFileSync('../../../.env', 'utf8')); process.exit(7)";
    let project = shop(&base).build_script(FRONTEND, script);
    project.write(
        ".env",
        "CLI_CLOUD_USERNAME=us\nCLI_CLOUD_PASSWORD=correct-horse-battery\n",
    );
    project.write(".gitignore", ".env\n.out\n.alokai\nnode_modules\n");
    project.commit();
    project.alokai(LOCAL).fails_with(1);
    let list = builds(&project, "--status failed");
    assert_eq!(list.len(), 1);
    let id = list[0]["id"].as_str().unwrap();
    let text = project.alokai(&["store", "builds", "info", id]).succeeds();
    text.stdout_contains("stage        build");
    text.stdout_contains(&format!("failed: us/{FRONTEND}: "));
    text.stdout_contains(&format!("output: alokai store builds logs {id}"));
    let logs = project.alokai(&["store", "builds", "logs", id]).succeeds();
    logs.stdout_contains("before the failure");
    logs.stdout_lacks("correct-horse-battery");

    // A record of another machine may have anything in its texts.
    let record = format!(".alokai/ledger/builds/{id}.json");
    let mut hostile: Value = serde_json::from_str(&project.read(&record)).unwrap();
    let escape = "\u{1b}[2J\u{202e}\nstatus complete";
    hostile["commit"] = json!({ "sha": escape, "subject": escape });
    hostile["actor"] = json!({ "user": escape, "host": escape, "run": escape });
    hostile["failures"] = json!([escape]);
    project.write(&record, hostile.to_string());
    let info = project.alokai(&["store", "builds", "info", id]).succeeds();
    info.stdout_contains("commit       \\u{1b}[2J\\u{202e}\\nstatus complete");
    let list = project.alokai("store builds").succeeds();
    for run in [info, list] {
        run.stdout_lacks("\u{1b}").stdout_lacks("\u{202e}");
    }
}

#[test]
fn a_killed_run_is_not_forgotten() {
    let Some(base) = base_layout() else { return };
    let script = "console.log('it hangs'); setInterval(() => {}, 1000)";
    let project = shop(&base).build_script(FRONTEND, script);
    project.commit();
    let mut run = project.start(LOCAL);
    while !project.exists(".alokai/ledger/events") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A run that is killed at this moment is found by its log.
    assert_eq!(project.tree(".alokai/ledger/running").len(), 1);
    assert_eq!(builds(&project, "--status running").len(), 1);
    run.kill().unwrap();
    run.wait().unwrap();
    let list = builds(&project, "");
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["status"], "interrupted");
    // A run that was killed before the record of its start has left only a log.
    let early = ".alokai/ledger/running/E0000000000000000.log";
    project.write(early, "");
    // What was composed is not known, and no other digest stands for it.
    // The command records the end of the killed run first, whether the registry can be reached or not.
    let _ = project.alokai("store history --push");
    let record: serde_json::Value = {
        let files = project.tree(".alokai/ledger/builds");
        serde_json::from_str(files.values().next().unwrap()).unwrap()
    };
    assert_eq!(record["composition"], "");
    assert!(!project.exists(early));
    assert_eq!(builds(&project, "").len(), 1);
    // A record that was cut short by something else is named and does no harm.
    project.write(".alokai/ledger/builds/B0000000000000000.json", "{");
    let list = project.alokai("store builds").succeeds();
    list.stdout_contains("interrupted");
    list.stderr_contains("B0000000000000000.json` is ignored: it is not a valid record");
}

#[test]
fn the_output_of_a_run_is_read_while_it_is_written_and_after_it_was_killed() {
    let Some(base) = base_layout() else { return };
    let script = "console.log('first line'); const wait = () => \
        require('fs').existsSync('../../../go-on') || setTimeout(wait, 50); wait(); \
        process.on('exit', () => console.log('last line'))";
    let project = shop(&base).build_script(FRONTEND, script);
    project.write(
        ".gitignore",
        "node_modules\n.out\n.alokai\ngo-on\nlib\n.next\n",
    );
    project.commit();
    let mut run = project.start(LOCAL);
    let mut output = String::new();
    let start = loop {
        if let Some(run) = builds(&project, "--status running").first() {
            let id = run["id"].as_str().unwrap().to_owned();
            output = project.alokai(&["store", "builds", "logs", &id]).stdout;
            if output.contains("first line") {
                break id;
            }
        }
        assert!(run.try_wait().unwrap().is_none(), "it has ended: {output}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(!output.contains("last line"), "{output}");
    let follow = ["store", "builds", "logs", "--follow", &start];
    let following = project.start(&follow);
    project.write("go-on", "");
    run.wait().unwrap();
    let followed = following.wait_with_output().unwrap();
    assert!(followed.status.success());
    let followed = String::from_utf8_lossy(&followed.stdout);
    assert!(followed.starts_with(&output), "{followed}");
    assert!(followed.contains("last line"), "{followed}");
    // The id of the run names its build now.
    let ended = project
        .alokai(&["store", "builds", "logs", &start])
        .succeeds();
    ended.stdout_contains("last line");

    project.remove("go-on");
    project.write("apps/storefront-unified-nextjs/texts.txt", "other\n");
    project.commit();
    let mut run = project.start(LOCAL);
    let start = loop {
        if let Some(run) = builds(&project, "--status running").first() {
            let id = run["id"].as_str().unwrap().to_owned();
            let output = project.alokai(&["store", "builds", "logs", &id]).stdout;
            if output.contains("first line") {
                break id;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let following = project.start(&["store", "builds", "logs", "-f", &start]);
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(following.wait_with_output().unwrap().status.success());
    // The next run records it, with its output.
    project.write("go-on", "");
    let _ = project.alokai(LOCAL);
    let interrupted = builds(&project, "--status interrupted");
    assert_eq!(interrupted.len(), 1);
    let id = interrupted[0]["id"].as_str().unwrap();
    assert!(id.starts_with('B'), "{id}");
    let output = project.alokai(&["store", "builds", "logs", id]).succeeds();
    output.stdout_contains("first line");
}

#[test]
fn another_machine_lists_the_build_and_reads_its_log() {
    let Some(registry) = registry() else { return };
    let name = unique("builds");
    let base = json!({ "base": base_reference().unwrap() });
    let project = Project::shop_named(&name).setting("image", &base);
    let project = registry.used_by(project, "http://127.0.0.1:9");
    project.commit_as("Add a shop");
    let deploy = "store deploy --store us --until push";
    project.alokai(deploy).succeeds();
    let clone = project.shallow_clone("1");
    let other = registry.used_by(clone, "http://127.0.0.1:9");
    assert!(!other.exists(".alokai/ledger"));
    let list = builds(&other, "");
    assert_eq!(list, builds(&project, ""));
    let id = list[0]["id"].as_str().unwrap();
    let logs = ["store", "builds", "logs", id];
    let (here, there) = (
        project.alokai(&logs).succeeds(),
        other.alokai(&logs).succeeds(),
    );
    assert_eq!(here.stdout, there.stdout);
    here.stdout_contains("> node build.js");

    // A registry that takes images and no records: the deploy succeeds and says so.
    let refusing = Before::new(&registry.address, |seen| {
        if seen.is("PUT", "/manifests/alokai.") {
            Turn::error(403, "DENIED")
        } else {
            Turn::Pass
        }
    });
    let base =
        json!({ "base": base_reference().unwrap().replace(&registry.address, &refusing.address) });
    let refused = other
        .env("CLI_DOCKER_REGISTRY_URL", &refusing.address)
        .setting("image", &base);
    refused.commit();
    let run = refused.alokai(deploy).succeeds();
    run.stderr_contains("the records of this run are only on this machine: ");
    assert_eq!(builds(&refused, "").len(), 2);
    // A registry out of reach hides nothing that is here.
    let alone = refused.env("CLI_DOCKER_REGISTRY_URL", "127.0.0.1:9");
    let run = alone.alokai("store builds").succeeds();
    run.stderr_contains("records of other machines may be missing");
    run.stdout_contains("complete");
}

#[test]
fn a_login_of_docker_is_enough_to_exchange_records() {
    let Some(registry) = registry() else { return };
    let name = unique("logins");
    let place = tempfile::tempdir().unwrap();
    let login = registry.login(place.path()).display().to_string();
    let with_login = |project: Project| {
        project
            .env("DOCKER_CONFIG", &login)
            .env("CLI_DOCKER_REGISTRY_URL", &registry.address)
    };
    let base = json!({ "base": base_reference().unwrap() });
    let project = with_login(Project::shop_named(&name).setting("image", &base));
    project.commit_as("Add a shop");
    project
        .alokai("store deploy --store us --until push")
        .succeeds();
    let other = with_login(project.shallow_clone("1"));
    let list = builds(&other, "");
    assert_eq!((list.len(), &list), (1, &builds(&project, "")));
    // Without any login, it is said that records may be missing.
    let nobody = project
        .shallow_clone("1")
        .env("CLI_DOCKER_REGISTRY_URL", &registry.address);
    let run = nobody.alokai("store builds").succeeds();
    run.stderr_contains("records of other machines may be missing");
}
