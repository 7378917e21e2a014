//! The build stage: order, failures, interruption, two runs at once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::support::{Arguments, Project, filtered, output_of};

#[test]
fn a_failing_script_shows_its_end_and_what_is_skipped() {
    let noisy = "for (let n = 1; n <= 100; n++) console.log('line', n); console.log('the cause'); process.exitCode = 7";
    let project = Project::shop().build_script("storefront-middleware", noisy);
    let run = project.alokai("store build --store us").fails_with(1);
    insta::assert_snapshot!(run.diagnostic(&project));
    run.stderr_contains(
        "skipped build us/storefront-unified-nextjs because of us/storefront-middleware",
    );
    let log = project.read(".alokai/logs/build/us/storefront-middleware.log");
    assert!(
        log.contains("line 1\n") && log.contains("the cause"),
        "the log has the whole output"
    );
}

#[test]
fn keep_going_drops_failed_stores_and_exits_1() {
    let build = "if (require('fs').existsSync('broken')) process.exit(1); require('fs').mkdirSync('lib', {recursive: true}); require('fs').writeFileSync('lib/index.js', '')";
    let project = Project::shop()
        .build_script("storefront-middleware", build)
        .file(
            "apps/stores/fashion/stores/us/storefront-middleware/broken",
            "",
        );
    project.commit();
    let run = project
        .alokai("store deploy --all --keep-going --until prune")
        .fails_with(1);
    assert!(
        project.exists(".out/eu/storefront-unified-nextjs/.deploy/server.js"),
        "{}",
        run.stderr
    );
    assert!(!project.exists(".out/us/storefront-unified-nextjs/.deploy"));
    run.stdout_contains("eu");
    run.stderr_contains("`us/storefront-middleware` failed");

    // Without the flag, no script starts after a failure.
    let run = project
        .alokai("store deploy --all --until prune --concurrency 1 --force")
        .fails_with(1);
    run.stderr_contains("skipped build eu/storefront-unified-nextjs");
}

#[test]
fn scripts_see_the_env_file_and_the_environment_wins() {
    let build = "console.log('A=' + process.env.A, 'B=' + process.env.B)";
    let project = Project::shop()
        .build_script("storefront-middleware", build)
        .file(".env", "A=file\nB=file\n")
        .env("B", "real")
        .env_of("storefront-middleware", &["A", "B"]);
    let run = project
        .alokai("store build --store us --filter storefront-middleware-*")
        .succeeds();
    run.stderr_contains("A=file B=real");
}

#[test]
fn a_password_in_the_env_file_is_taken_as_it_is_and_never_shown() {
    let build = "console.log('FOO=' + process.env.FOO, 'user=' + process.env.CLI_CLOUD_USERNAME); \
        console.log(require('fs').readFileSync('../../../.env', 'utf8'))";
    let project = Project::shop()
        .build_script("storefront-middleware", build)
        .file(
            ".env",
            "FOO=a$HOME-b c\nCLI_CLOUD_USERNAME=somebody\nCLI_CLOUD_PASSWORD=n33dle$x\n",
        )
        .env_of("storefront-middleware", &["FOO", "CLI_CLOUD_*"]);
    let run = project
        .alokai("store build --store us --filter storefront-middleware-*")
        .succeeds();
    run.stderr_contains("FOO=a$HOME-b c user=undefined");
    run.stderr_contains("CLI_CLOUD_PASSWORD=***");
    assert!(
        !run.stderr.contains("n33dle")
            && !project
                .read(".alokai/logs/build/us/storefront-middleware.log")
                .contains("n33dle")
    );
}

#[test]
fn the_exit_code_is_right_although_the_output_is_closed() {
    let project = Project::shop().build_script("storefront-middleware", "process.exit(1)");
    for arguments in ["store build --store us", "store build --store us --json"] {
        let mut child = project.start(arguments);
        drop(child.stdout.take());
        drop(child.stderr.take());
        assert_eq!(
            wait(&mut child, Duration::from_secs(20)).code(),
            Some(1),
            "{arguments:?}"
        );
    }
    let mut child = project.start("store list");
    drop(child.stdout.take());
    assert_eq!(wait(&mut child, Duration::from_secs(20)).code(), Some(0));
}

#[test]
fn a_line_of_64_mib_is_cut_in_the_output_and_whole_in_the_log() {
    let endless = "const chunk = 'x'.repeat(1 << 20); let n = 0; \
        (function more() { if (n++ < 64) process.stdout.write(chunk, more) })()";
    let project = Project::shop().build_script("storefront-middleware", endless);
    let run = project
        .alokai("store build --store us --filter storefront-middleware-*")
        .succeeds();
    assert!(run.stderr.lines().all(|line| line.len() < 32 * 1024));
    let log = project.path(".alokai/logs/build/us/storefront-middleware.log");
    assert!(
        log.metadata().unwrap().len() >= 64 << 20,
        "the log has the whole output"
    );
}

#[test]
fn the_first_ctrl_c_lets_a_script_clean_up() {
    let careful = "process.on('SIGTERM', () => setTimeout(() => { require('fs').writeFileSync('cleaned', ''); process.exit(0) }, 700)); \
        console.log('begun'); setInterval(() => {}, 1000)";
    let project = Project::shop().build_script("storefront-middleware", careful);
    is_interrupted(&project, "store build --store us", 1);
    assert!(project.exists(".out/us/storefront-middleware/cleaned"));
}

#[test]
fn a_missing_package_manager_is_named() {
    let project = Project::shop();
    let mut command = project.command("store build --store us");
    let run: crate::support::Run = command.env("PATH", "/nonexistent").output().unwrap().into();
    let run = run.fails_with(3);
    insta::assert_snapshot!(run.diagnostic(&project));
}

#[test]
fn output_is_prefixed_in_ci_grouped_on_github_and_objects_as_json() {
    let project = Project::shop().build_script(
        "storefront-middleware",
        "console.log('::error::not a command')",
    );
    let arguments = "store build --store us --filter storefront-middleware-*";
    let plain = project.alokai(arguments).succeeds();
    plain.stderr_contains("storefront-middleware-us:build: ::error::not a command");

    let project = project.env("GITHUB_ACTIONS", "true");
    let grouped = project.alokai(arguments).succeeds().stderr;
    let open = grouped
        .find("::group::build us/storefront-middleware")
        .expect("a group");
    let stop = grouped
        .find("::stop-commands::")
        .expect("the group stops commands");
    let line = grouped.find("::error::not a command").expect("the line");
    let close = grouped.find("::endgroup::").expect("the end");
    assert!(open < stop && stop < line && line < close, "{grouped}");

    let failing = Project::shop()
        .build_script("storefront-middleware", "process.exit(3)")
        .env("GITHUB_ACTIONS", "true");
    let annotated = failing.alokai(arguments).fails_with(1).stderr;
    let wanted = "::error title=build us/storefront-middleware::`npm run build` exited with code 3";
    assert!(annotated.contains(wanted), "{annotated}");

    let json = project.alokai(&format!("{arguments} --json")).succeeds();
    let events: Vec<serde_json::Value> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let last = events.last().expect("a summary");
    assert_eq!(
        (last["event"].as_str(), last["ok"].as_bool()),
        (Some("summary"), Some(true))
    );
    let output = events
        .iter()
        .find(|event| event["event"] == "output" && event["line"] == "::error::not a command");
    let output = output.expect("the line is an event");
    assert_eq!(
        (output["stage"].as_str(), output["store"].as_str()),
        (Some("build"), Some("us"))
    );
    assert!(json.stderr.is_empty(), "{}", json.stderr);
}

/// Waits for a child up to a time limit.
fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < limit, "it still runs after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes whose working folder is below a folder, without zombies.
pub fn processes_in(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let inside =
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if inside && !status.contains("State:\tZ") {
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push(command.replace('\0', " "));
        }
    }
    found
}

/// Fails if a process works below the project.
#[track_caller]
pub fn has_no_process(project: &Project) {
    assert_eq!(processes_in(project.root()), Vec::<String>::new());
}

/// Starts the program, waits for a line of its output, and interrupts it this many times. Returns
/// the exit code.
pub fn interrupt_when(
    project: &Project,
    arguments: impl Arguments,
    seen: &str,
    times: usize,
    limit: Duration,
) -> i32 {
    let mut child = project.start(arguments);
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains(seen)), "`{seen}` never came");
    let rest = std::thread::spawn(move || lines.count());
    for time in 0..times {
        if time > 0 {
            std::thread::sleep(Duration::from_millis(500));
        }
        interrupt(&child);
    }
    let status = wait(&mut child, limit);
    rest.join().unwrap();
    status.code().unwrap_or(-1)
}

/// Interrupts a build this many times after its script has printed `begun`. Fails unless the run
/// then ends with exit code 130 and leaves no process behind.
#[track_caller]
fn is_interrupted(project: &Project, arguments: &str, times: usize) {
    let limit = Duration::from_secs(8);
    let code = interrupt_when(project, arguments, "build: begun", times, limit);
    assert_eq!(code, 130);
    has_no_process(project);
}

/// The command that sends the signal of Ctrl-C.
fn kill(child: &Child) -> Command {
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    kill
}

fn interrupt(child: &Child) {
    output_of(&mut kill(child));
}

/// A script that ends at SIGTERM, with a child that survives it.
const ENDLESS: &str = "require('child_process').spawn('sleep', ['300'], { stdio: 'inherit' }); console.log('begun'); setInterval(() => {}, 1000)";
/// The same, but the script ignores SIGTERM.
const DEAF: &str = "process.on('SIGTERM', () => {}); require('child_process').spawn('sleep', ['300'], { stdio: 'inherit' }); console.log('begun'); setInterval(() => {}, 1000)";

#[test]
fn ctrl_c_ends_every_child_and_exits_130() {
    let project = Project::shop().build_script("storefront-middleware", ENDLESS);
    is_interrupted(&project, "store build --all", 1);
}

#[test]
fn ctrl_c_ends_a_run_whose_output_is_not_read() {
    let chatty = "setInterval(() => console.log('x'.repeat(1000)), 0)";
    let project = Project::shop().build_script("storefront-middleware", chatty);
    let mut child = project.start("store build --store us");
    // Both pipes stay open and unread, so the run fills them and then blocks.
    std::thread::sleep(Duration::from_secs(3));
    interrupt(&child);
    // The summary and the error have no reader either and may block the run. Its children must end
    // after the first signal, and the run after the next ones.
    let start = Instant::now();
    while !processes_in(&project.path(".out")).is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            processes_in(&project.path(".out"))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..2 {
        // Signals in quick succession count as one.
        std::thread::sleep(Duration::from_millis(500));
        // The run may have ended, so `kill` may fail.
        let _ = kill(&child).status();
    }
    assert_eq!(wait(&mut child, Duration::from_secs(8)).code(), Some(130));
}

#[test]
fn a_second_ctrl_c_kills_scripts_that_ignore_the_first() {
    let project = Project::shop().build_script("storefront-middleware", DEAF);
    is_interrupted(&project, "store build --all", 2);
}

#[test]
fn child_processes_of_a_script_end_with_it() {
    let daemon = "require('child_process').spawn('sleep', ['300'], { stdio: 'inherit' }).unref(); require('fs').mkdirSync('lib', { recursive: true })";
    let project = Project::shop().build_script("storefront-middleware", daemon);
    project
        .alokai("store build --store us --filter storefront-middleware-*")
        .succeeds();
    has_no_process(&project);
}

#[test]
fn a_second_run_waits_and_names_the_first() {
    let slow = "const fs = require('fs'); if (fs.existsSync('busy')) throw new Error('two at once'); fs.writeFileSync('busy', ''); setTimeout(() => fs.unlinkSync('busy'), 1500)";
    let project = Project::shop().build_script("storefront-middleware", slow);
    let arguments = "store build --store us --filter storefront-middleware-*";
    let first = project.start(arguments);
    let pid = first.id();
    while !project.exists(".out/us/storefront-middleware/busy") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = project.alokai(arguments).succeeds();
    let wanted = format!("waiting for another run in `[project]` to end (pid {pid}, since ");
    assert!(
        filtered(&second.stderr, &project).contains(&wanted),
        "{}",
        second.stderr
    );
    let first: crate::support::Run = first.wait_with_output().unwrap().into();
    first.succeeds();
}
