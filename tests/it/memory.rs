//! Scripts run in parallel only as far as memory allows.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::{FRONTEND, Project, Run, is_excused, many, results};

/// A build script that allocates 1 GB and writes down when it started and ended.
const LARGE: &str = "const fs = require('fs'); \
    const note = what => fs.appendFileSync('../../../times', `${Date.now()} ${what}\\n`); \
    const memory = Buffer.alloc(1e9, 1); note(1); \
    setTimeout(() => { note(-1); fs.mkdirSync('.next', { recursive: true }); \
    fs.writeFileSync('.next/x', process.cwd() + memory.length) }, 1500)";

fn large(stores: usize) -> Project {
    many(stores).file(&format!("apps/{FRONTEND}/build.js"), LARGE)
}

/// The largest number of builds that ran at once.
fn most_at_once(project: &Project) -> i64 {
    let times = project.read("times");
    let mut times: Vec<(u64, i64)> = times
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(time, what)| (time.parse().unwrap(), what.parse().unwrap()))
        .collect();
    times.sort_unstable();
    let running = times.iter().scan(0, |now, (_, what)| {
        *now += what;
        Some(*now)
    });
    running.max().unwrap()
}

#[test]
fn a_limit_in_the_config_holds() {
    let project = large(8).setting("build", &json!({ "maxMemory": "3 GB" }));
    let arguments = "store build --all --jobs 8 --json";
    holds(&project, &project.alokai(arguments).succeeds());
}

/// Fails unless all builds ran, and two at once: three need more memory than the limit.
fn holds(project: &Project, run: &Run) {
    let found = results(run);
    let built = found.iter().filter(|(unit, _)| unit.ends_with(FRONTEND));
    assert!(built.clone().count() == 8 && built.clone().all(|(_, result)| result == "miss"));
    assert_eq!(most_at_once(project), 2);
}

/// A control group with a memory limit, as a container has.
struct Group(PathBuf);

impl Group {
    /// A group with this limit, or nothing where a test is excused from control groups.
    fn new(bytes: u64) -> Option<Self> {
        let group = Self::made(bytes);
        assert!(group.is_some() || is_excused("no control group can be made here"));
        group
    }

    /// Only root can make a group, and only where version 1 of control groups is mounted.
    fn made(bytes: u64) -> Option<Self> {
        let name = format!("alokai-test-{}-{bytes}", std::process::id());
        let folder = PathBuf::from("/sys/fs/cgroup/memory").join(name);
        std::fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        std::fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }

    /// Runs the program in the group.
    fn run(&self, project: &Project, arguments: &str) -> Run {
        let plain = project.command(arguments);
        let mut command = Command::new("sh");
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        command
            .args(["-c", &enter, "sh"])
            .arg(plain.get_program())
            .args(plain.get_args());
        command.env_clear().current_dir(project.root());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.output().unwrap().into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_limit_of_a_container_holds() {
    let Some(group) = Group::new(3_000_000_000) else {
        return;
    };
    let project = large(8);
    let run = group
        .run(&project, "store build --all --jobs 8 --json")
        .succeeds();
    holds(&project, &run);
}

#[test]
fn a_script_that_is_killed_for_memory_says_so() {
    let Some(group) = Group::new(400_000_000) else {
        return;
    };
    let project = large(1);
    let run = group.run(&project, "store build --all").fails_with(1);
    let text = run.diagnostic(&project);
    assert!(
        text.contains("was killed by signal 9 after using ")
            && text.contains("out of memory")
            && text.contains("`build.maxMemory`"),
        "{text}"
    );

    // Node's heap limit is another cause and has another remedy.
    let project = large(1).file(
        &format!("apps/{FRONTEND}/build.js"),
        "require('v8').setFlagsFromString('--max-old-space-size=20'); const all = []; while (true) all.push(new Array(1000).fill(all.length))",
    );
    let run = project.alokai("store build --all").fails_with(1);
    let text = run.diagnostic(&project);
    assert!(
        text.contains("reached Node's heap limit") && text.contains("--max-old-space-size=4096"),
        "{text}"
    );
}

/// The megabytes that a script prints; with `ALOKAI_LONG=1` as many as in the benchmark.
fn printed() -> u64 {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        300
    } else {
        100
    }
}

/// A project whose script prints this many megabytes in lines of 4 kB.
const PRINTS: &str = "const fs = require('fs'); \
    const line = Buffer.from('x'.repeat(3999) + '\\n'); \
    const megabytes = Number(fs.readFileSync('megabytes', 'utf8')); \
    for (let n = 0; n < megabytes * 250; n++) fs.writeSync(1, line); \
    fs.mkdirSync('.next', { recursive: true }); fs.writeFileSync('.next/x', process.cwd())";

fn printing(megabytes: u64, github: bool) -> Project {
    let project = many(1)
        .file(&format!("apps/{FRONTEND}/build.js"), PRINTS)
        .file(
            &format!("apps/{FRONTEND}/megabytes"),
            &megabytes.to_string(),
        );
    if github {
        project.env("GITHUB_ACTIONS", "true")
    } else {
        project
    }
}

/// The peak memory of a build in bytes, and the size of its output.
fn peak(project: &Project, more: &str) -> (u64, u64) {
    let arguments = format!("store build --all {more}");
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut command = project.command(&arguments);
    command.stdout(output.reopen().unwrap());
    command.stderr(output.reopen().unwrap());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        most = most.max(kibibytes.unwrap_or(0) * 1024);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(ended.success(), "{arguments:?}");
    (most, output.path().metadata().unwrap().len())
}

#[test]
fn memory_does_not_grow_with_the_output_of_scripts() {
    let small = printing(0, false);
    let without = ["run", "replay"].map(|_| peak(&small, "").0);
    for (more, github) in [("", false), ("", true), ("--json", false)] {
        let large = printing(printed(), github);
        for (turn, without) in ["run", "replay"].into_iter().zip(without) {
            let (with, bytes) = peak(&large, more);
            let what = format!("{turn}, {more:?}, GitHub {github}");
            assert!(bytes > printed() * 1_000_000, "{what}: {bytes} bytes shown");
            assert!(
                with <= without + 64_000_000,
                "{what}: {without} bytes without, {with} with"
            );
        }
    }
}
