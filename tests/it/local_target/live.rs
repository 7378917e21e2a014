//! The commands of releases at the target `local`: the functions of the target `docker`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files;
use crate::docker_target::commands::{TEXTS, change};
use crate::docker_target::killed::kill_runs;
use crate::docker_target::secrets::leave_no_value;
use crate::docker_target::switching::release_and_roll_back_by_commands;
use crate::docker_target::{World, faults};
use crate::support::{Project, Run, base_layout, build_of, configure, own_port};

/// A shop whose stores run on this machine, with a folder for temporary files.
pub fn shop() -> Option<(Project, PathBuf)> {
    let base = base_layout()?;
    let project = Project::shop()
        .setting("image", &json!({ "base": base }))
        .setting(
            "deploy",
            &json!({ "target": "local", "watch": 1, "drain": 1, "keep": 1 }),
        );
    project.commit();
    let folder = project.root().with_file_name("tmp");
    std::fs::create_dir(&folder).unwrap();
    let project = project.env("TMPDIR", folder.to_str().unwrap());
    Some((project, folder))
}

/// What the target remembers of the store `us`.
pub fn state(project: &Project) -> Value {
    let state = project.read(".alokai/local/state.json");
    let mut state: Value = serde_json::from_str(&state).unwrap();
    state["stores"]["us"].take()
}

/// The releases that run, and those whose unpacked apps are kept.
pub fn releases(project: &Project) -> (Vec<String>, Vec<String>) {
    let state = state(project);
    let all = state["releases"].as_object().unwrap().iter();
    let of = |runs: bool| {
        let some = all
            .clone()
            .filter(|(_, it)| it["runs"] == runs && it["folder"].is_string());
        some.map(|(id, _)| id.clone()).collect()
    };
    (of(true), of(false))
}

/// The processes with a working folder below this one.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let own = all.filter(|it| {
        let place = std::fs::read_link(it.path().join("cwd"));
        place.is_ok_and(|place| place.starts_with(folder))
    });
    let names = own.map(|it| it.file_name().to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn commands_that_release_and_roll_back_lose_no_request() {
    if let Some((project, _folder)) = shop() {
        release_and_roll_back_by_commands(&project);
    }
}

#[test]
fn a_killed_run_loses_no_request_and_the_next_one_cleans() {
    let Some((project, folder)) = shop() else {
        return;
    };
    kill_runs(&project, 2500);
    let (running, kept) = releases(&project);
    assert_eq!(running.len(), 1, "{running:?}");
    assert!(kept.len() <= 1, "{kept:?}");
    // The apps of the earlier release end in the background.
    let start = std::time::Instant::now();
    while processes_in(&folder).len() > 2 {
        assert!(
            start.elapsed() < super::support::LONG,
            "{:?}",
            processes_in(&folder)
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(processes_in(&folder).len(), 2);
    let unpacked = std::fs::read_dir(&folder).unwrap().flatten();
    let unpacked: Vec<_> = unpacked.map(|it| it.file_name()).collect();
    assert_eq!(unpacked.len(), 1 + kept.len(), "{unpacked:?}");
    assert_eq!(project.read(".alokai/local/locks.json"), "{}");
}

#[test]
fn the_second_of_two_runs_in_one_project_fails_and_names_the_first() {
    let Some((project, folder)) = shop() else {
        return;
    };
    configure(&project, &json!({ "watch": 3 }));
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    let texts = ["first texts\n", "second texts\n"];
    let builds = texts.map(|text| {
        change(&project, TEXTS, text);
        build_of(&project)
    });
    let release = |id: &String| format!("store release {id} --store us --allow-older");
    let runs = builds.each_ref().map(|id| project.start(&release(id)));
    let runs = runs.map(|run| Run::from(run.wait_with_output().unwrap()));
    let won = runs.iter().position(|run| run.code == 0);
    let won = won.unwrap_or_else(|| panic!("{runs:?}"));
    let lost = &runs[1 - won];
    assert_eq!(lost.code, 1, "{runs:?}");
    lost.stderr_contains("`us` is locked: `release` by ");
    lost.stderr_contains(", pid ");
    let page = World::page_at(port, "us.localhost", "/");
    assert_eq!(page, format!("{}\n200", texts[won]));
    assert_eq!(releases(&project).0.len(), 1);
    assert_eq!(processes_in(&folder).len(), 2);
    project.alokai(&release(&builds[1 - won])).succeeds();
    let page = World::page_at(port, "us.localhost", "/");
    assert_eq!(page, format!("{}\n200", texts[1 - won]));
}

#[test]
fn an_app_that_listens_on_another_port_gets_no_traffic() {
    let Some((project, _folder)) = shop() else {
        return;
    };
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    let before = releases(&project);
    faults::listen_on_another_port(&project);
    let page = World::page_at(port, "us.localhost", "/api/x");
    assert_eq!(page, "middleware\n\n200");
    assert_eq!(releases(&project), before);
}

#[test]
fn values_are_in_no_argument_record_and_readable_file() {
    let Some((project, folder)) = shop() else {
        return;
    };
    let (values, found) = leave_no_value(&project);
    // The release has them in files of its own, so the search finds what is there.
    let remembered = project.path(".alokai/local");
    assert!(found.len() >= 2, "{found:?}");
    // The composed app has a copy of its `.env` file.
    let composed = project.path(".out/us");
    let is_known = |path: &&PathBuf| path.starts_with(&remembered) || path.starts_with(&composed);
    assert!(found.iter().all(|path| is_known(&path)), "{found:?}");
    for path in files(&folder) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let values = values.each_ref().map(String::as_str);
        crate::ledger::secrets::lacks(&path.display().to_string(), &bytes, &values);
    }
}

#[test]
fn a_stop_and_a_page_are_refused_while_a_release_is_watched() {
    let Some((project, _)) = shop() else {
        return;
    };
    configure(&project, &json!({ "watch": 5 }));
    let watched = || {
        let run = project.start("store deploy --store us");
        let state = project.path(".alokai/local/state.json");
        let is_live = |state: String| state.contains("\"active\":\"R");
        while !std::fs::read_to_string(&state).is_ok_and(is_live) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run
    };
    let run = watched();
    for refused in ["store stop", "store stop --store us"] {
        project
            .alokai(refused)
            .fails_with(1)
            .stderr_contains("`us` is locked: `deploy` by ");
    }
    project
        .alokai("store maintenance on --store us")
        .fails_with(1)
        .stderr_contains("`us` is locked: `deploy` by ");
    Run::from(run.wait_with_output().unwrap()).succeeds();
    let stopped = project.alokai("store stop").succeeds();
    assert_eq!(stopped.stdout, "stopped us\n");
    assert_eq!(project.read(".alokai/local/locks.json"), "{}");

    // Without the lock, the release that was stopped has not failed.
    let run = watched();
    project.alokai("store lock release --store us").succeeds();
    project.alokai("store stop").succeeds();
    Run::from(run.wait_with_output().unwrap())
        .fails_with(1)
        .stderr_contains("another run has switched the traffic since then");
    let failed = project.alokai("store releases --status failed").succeeds();
    assert_eq!(failed.stdout, "");
}
