//! The disk of this machine is full, an image is gone, or a command was killed before its first request.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::live::{processes_in, releases, shop, state};
use super::support::LONG;
use crate::docker_target::World;
use crate::docker_target::commands::{TEXTS, change};
use crate::support::{MIDDLEWARE, Mount, build_of, is_excused, own_port};

/// Fills a file system. Returns the file.
fn fill(folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("filling");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
    path
}

#[test]
fn a_full_disk_leaves_the_traffic_and_the_next_run_succeeds() {
    // Dropped after the project, whose stores are stopped first.
    let mount;
    let Some((project, folder)) = shop() else {
        return;
    };
    std::fs::create_dir_all(project.path(".alokai")).unwrap();
    let Some(mounted) = Mount::at(&project.path(".alokai"), "64m") else {
        assert!(is_excused("only root can mount a file system"));
        return;
    };
    mount = mounted;
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    let page = || World::page_at(port, "us.localhost", "/");
    let before = releases(&project);
    change(&project, TEXTS, "new texts\n");
    let build = build_of(&project);
    let release = format!("store release {build} --store us");
    let filling = fill(&mount.path());
    let run = project.alokai(&release).fails_with(1);
    run.stderr_contains("No space left on device");
    run.stderr_contains(".alokai/");
    assert_eq!(page(), "texts of us\n\n200");
    assert_eq!(releases(&project), before);
    assert_eq!(processes_in(&folder).len(), 2);
    std::fs::remove_file(filling).unwrap();
    project.alokai(&release).succeeds();
    assert_eq!(page(), "new texts\n\n200");
    assert_eq!(releases(&project).0.len(), 1);
}

#[test]
fn an_image_that_was_deleted_is_named() {
    let Some((project, _folder)) = shop() else {
        return;
    };
    let port = own_port(&project.alokai("store deploy --store us").succeeds());
    let before = releases(&project);
    change(&project, TEXTS, "new texts\n");
    let build = build_of(&project);
    let info = project.alokai(&["store", "builds", "info", &build, "--json"]);
    let info = info.succeeds().json();
    let digest = info["apps"]["storefront-unified-nextjs"]["digest"].as_str();
    let blob = digest.unwrap().replace(':', "/");
    project.remove(&format!(".alokai/registry/blobs/{blob}"));
    let run = project.alokai(&format!("store release {build} --store us"));
    let run = run.fails_with(1);
    run.stderr_contains("do not exist any more: `storefront-unified-nextjs`");
    let page = World::page_at(port, "us.localhost", "/");
    assert_eq!(page, "texts of us\n\n200");
    assert_eq!(releases(&project), before);
}

#[test]
fn a_release_whose_run_is_killed_while_it_is_staged_does_not_run() {
    let Some((project, folder)) = shop() else {
        return;
    };
    // An app whose files take a while to unpack.
    let more = "fs.writeFileSync('lib/index.js', fs.readFileSync('src/index.js'));
        for (let file = 0; file < 4000; file++) fs.writeFileSync('lib/' + file, 'x'.repeat(5000));";
    let script =
        format!("const fs = require('fs'); fs.mkdirSync('lib', {{ recursive: true }}); {more}");
    change(&project, &format!("apps/{MIDDLEWARE}/build.js"), &script);
    project.alokai("store deploy --store us").succeeds();
    let live = releases(&project).0;
    change(&project, TEXTS, "new texts\n");
    let build = build_of(&project);
    let variables = || {
        let listed = std::fs::read_dir(project.path(".alokai/local/environment/us"));
        let names = listed.unwrap().map(|it| it.unwrap().file_name());
        let names = names.map(|it| it.to_string_lossy().into_owned());
        names.filter(|it| !it.starts_with('.')).collect::<Vec<_>>()
    };
    let before = variables();
    let mut run = project.start(&format!("store release {build} --store us"));
    let start = Instant::now();
    // They are written before the apps are unpacked.
    let file = loop {
        assert!(start.elapsed() < LONG);
        if let Some(new) = variables().into_iter().find(|it| !before.contains(it)) {
            break new;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    run.kill().unwrap();
    run.wait().unwrap();
    let release = file.trim_end_matches(".json");
    let start = Instant::now();
    while state(&project)["releases"][release]["runs"] != false {
        assert!(start.elapsed() < LONG, "{}", state(&project));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(releases(&project).0, live);
    while processes_in(&folder).len() > 2 {
        assert!(start.elapsed() < LONG, "{:?}", processes_in(&folder));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_background_process_without_a_request_ends() {
    let Some((project, _folder)) = shop() else {
        return;
    };
    // As a command that was killed after it has started the process.
    let mut process = Command::new(env!("CARGO_BIN_EXE_alokai"));
    let process = process.arg("__local").arg(project.root());
    let mut process = process.stdin(Stdio::null()).spawn().unwrap();
    let (start, socket) = (Instant::now(), project.path(".alokai/local/socket"));
    let mut has_listened = false;
    let ended = loop {
        has_listened |= socket.exists();
        if let Some(ended) = process.try_wait().unwrap() {
            break ended;
        }
        if start.elapsed() > Duration::from_mins(1) {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
    assert!(has_listened && !socket.exists());
}
