//! What a change does to `.out`, and which lines tell it.

use std::process::Command;

use super::follower::{Follower, eventually};
use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";
const WATCH: &str = "store compose --watch --all --json";

fn header(project: &Project, store: &str) -> Option<String> {
    let path = project.path(&format!(".out/{store}/{NEXT}/header.tsx"));
    std::fs::read_to_string(path).ok()
}

#[track_caller]
fn shows(project: &Project, store: &str, expected: Option<&str>) {
    eventually(
        || header(project, store).as_deref() == expected,
        || format!("{store}: {:?} and not {expected:?}", header(project, store)),
    );
}

/// The shop with a header of the base app, and a store `outlet` with one of its own.
fn shop() -> Project {
    let config = Project::shop().read("alokai.config.json");
    let outlet = r#""outlet": { "deployment": { "projectName": "acme-outlet", "cloudRegion": "r", "framework": "nextjs" } },
    "us":"#;
    let project = Project::shop()
        .config(&config.replacen(r#""us":"#, outlet, 1))
        .file(&format!("apps/{NEXT}/header.tsx"), "header of base\n")
        .file(
            &format!("apps/stores/fashion/stores/outlet/{NEXT}/header.tsx"),
            "header of outlet\n",
        );
    project.commit();
    project
}

#[test]
fn an_edit_reaches_the_stores_that_inherit_it_and_names_those_that_do_not() {
    let project = shop();
    let follower = Follower::start(&project, WATCH);
    let fashion = format!("apps/stores/fashion/{NEXT}/header.tsx");
    let outlet = format!("apps/stores/fashion/stores/outlet/{NEXT}/header.tsx");

    let mark = follower.mark();
    project.write(&fashion, "edited\n");
    shows(&project, "us", Some("edited\n"));
    shows(&project, "eu", Some("edited\n"));
    shows(&project, "outlet", Some("header of outlet\n"));
    follower.checked(mark);
    assert_eq!(
        follower.files_since(mark),
        [format!(
            "{NEXT}/header.tsx written fashion> [eu,us] own [outlet]"
        )]
    );

    // A deleted override: the line says which layer gives the file now.
    let mark = follower.mark();
    project.remove(&outlet);
    shows(&project, "outlet", Some("edited\n"));
    follower.checked(mark);
    assert_eq!(
        follower.files_since(mark),
        [format!(
            "{NEXT}/header.tsx removed outlet>fashion [outlet] own []"
        )]
    );

    let mark = follower.mark();
    project.remove(&fashion);
    shows(&project, "us", Some("header of base\n"));
    project.remove(&format!("apps/{NEXT}/header.tsx"));
    shows(&project, "us", None);
    follower.checked(mark);
    assert_eq!(
        follower.files_since(mark),
        [
            format!("{NEXT}/header.tsx removed fashion>base [eu,outlet,us] own []"),
            format!("{NEXT}/header.tsx removed base> [eu,outlet,us] own []"),
        ]
    );
    assert_eq!(follower.interrupt(), Some(130));
}

#[test]
fn a_file_that_every_store_overrides_is_told_although_no_composition_changes() {
    let project = shop().file(
        &format!("apps/stores/fashion/{NEXT}/texts.txt"),
        "texts of fashion\n",
    );
    let follower = Follower::start(&project, "store compose --watch --store us,eu --json");
    let mark = follower.mark();
    project.write(&format!("apps/stores/fashion/{NEXT}/texts.txt"), "edited\n");
    follower.checked(mark);
    assert_eq!(
        follower.files_since(mark),
        [format!("{NEXT}/texts.txt written fashion> [] own [us,eu]")]
    );
}

#[test]
fn a_changed_config_needs_no_restart() {
    let project = shop();
    let follower = Follower::start(&project, WATCH);
    let config = project.read("alokai.config.json");
    let ignored = config.replacen(r#""us": {"#, r#""us": { "ignorePaths": ["header.tsx"],"#, 1);
    project.write("alokai.config.json", &ignored);
    shows(&project, "us", None);
    shows(&project, "eu", Some("header of fashion\n"));

    // A new store.
    let more = config.replacen(
        r#""us": {"#,
        r#""asia": { "deployment": { "projectName": "acme-asia", "cloudRegion": "r", "framework": "nextjs" } }, "us": {"#,
        1,
    );
    project.write("alokai.config.json", &more);
    shows(&project, "asia", Some("header of base\n"));
    shows(&project, "us", Some("header of fashion\n"));
    // Its folder was not there when the program started.
    project.write(
        &format!("apps/stores/asia/{NEXT}/header.tsx"),
        "header of asia\n",
    );
    shows(&project, "asia", Some("header of asia\n"));
    drop(follower);
}

#[test]
fn an_error_keeps_what_is_there_until_it_is_mended() {
    let project = shop();
    let follower = Follower::start(&project, WATCH);
    let config = project.read("alokai.config.json");

    let mark = follower.mark();
    project.write("alokai.config.json", "{");
    let failed = follower.waits_for(mark, "failed", |event| event["sync"] == "failed");
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(message.contains("unterminated object"), "{message}");
    assert!(message.contains("\n  - alokai.config.json:1:"), "{message}");
    assert_eq!(
        header(&project, "us").as_deref(),
        Some("header of fashion\n")
    );
    project.write("alokai.config.json", &config);
    follower.waits_for(mark, "mended", |event| event["sync"] == "mended");

    // A file of the base app that is a folder in a store.
    let mark = follower.mark();
    let clash = format!("apps/stores/fashion/{NEXT}/header.tsx/inner/deep.tsx");
    project.remove(&format!("apps/stores/fashion/{NEXT}/header.tsx"));
    project.write(&clash, "clash\n");
    let failed = follower.waits_for(mark, "failed", |event| event["sync"] == "failed");
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("is a file in base and a folder in fashion"),
        "{message}"
    );
    // The remedy is in a folder that was not watched when the error came.
    project.remove(&clash);
    follower.waits_for(mark, "mended", |event| event["sync"] == "mended");
    shows(&project, "us", Some("header of base\n"));
}

#[test]
fn a_hand_edit_in_out_is_corrected_and_an_edit_of_tsconfig_is_kept() {
    let project = shop().file(&format!("apps/{NEXT}/tsconfig.json"), "{ \"a\": 1 }\n");
    let follower = Follower::start(&project, WATCH);
    let tsconfig = format!(".out/us/{NEXT}/tsconfig.json");
    project.write(&tsconfig, "{ \"a\": 1, \"edited\": true }\n");
    project.write(&format!(".out/us/{NEXT}/header.tsx"), "by hand\n");
    let mark = follower.mark();
    project.write(&format!("apps/{NEXT}/other.tsx"), "a change\n");
    let checked = follower.checked(mark);
    assert_eq!(checked["repaired"], 1);
    let corrected = format!(".out/us/{NEXT}/header.tsx");
    assert_eq!(checked["repairedFiles"], serde_json::json!([corrected]));
    assert_eq!(
        header(&project, "us").as_deref(),
        Some("header of fashion\n")
    );
    assert_eq!(project.read(&tsconfig), "{ \"a\": 1, \"edited\": true }\n");
    // A change of the source replaces the edit.
    project.write(&format!("apps/{NEXT}/tsconfig.json"), "{ \"a\": 2 }\n");
    eventually(
        || project.read(&tsconfig) == "{ \"a\": 2 }\n",
        || project.read(&tsconfig),
    );
}

#[test]
fn a_second_program_is_refused_and_a_build_beside_it_is_not() {
    let project = shop();
    let follower = Follower::start(&project, WATCH);
    let second = project.alokai("store compose --watch --all").fails_with(1);
    second.stderr_contains("`alokai store compose --watch` (pid ");
    second.stderr_contains("in step already");
    project.alokai("store compose --all").succeeds();
    drop(follower);
    // The lock ends with its process.
    Follower::start(&project, WATCH);
}

/// Whether a user namespace with its own limits can be made here.
fn limited(setting: &str, arguments: &str) -> Option<Command> {
    let script = format!("echo {setting} && exec \"$0\" {arguments}");
    let can = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo 9 > /proc/sys/user/max_inotify_watches",
        ])
        .stderr(std::process::Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: no user namespaces");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    Some(command)
}

#[test]
fn without_watches_everything_is_compared_once_a_second() {
    for (setting, sysctl) in [
        (
            "3 > /proc/sys/user/max_inotify_watches",
            "fs.inotify.max_user_watches",
        ),
        (
            "0 > /proc/sys/user/max_inotify_instances",
            "fs.inotify.max_user_instances",
        ),
    ] {
        let project = shop();
        let Some(mut command) = limited(setting, WATCH) else {
            return;
        };
        let plain = project.command("");
        command
            .arg(plain.get_program())
            .current_dir(project.root())
            .env("HOME", project.root().with_file_name(".home"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped());
        let follower = Follower::of(command);
        follower.waits_for(0, "a notice with the setting", |event| {
            let message = event["message"].as_str();
            message.is_some_and(|message| message.contains(sysctl))
        });
        project.write(
            &format!("apps/stores/fashion/{NEXT}/header.tsx"),
            "edited\n",
        );
        shows(&project, "us", Some("edited\n"));
    }
}
