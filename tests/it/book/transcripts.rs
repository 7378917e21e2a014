//! Every `console` block is run, in a copy of `fixtures/shop` for each page.
//!
//! The blocks of a page run in order, in one shell, so that folders, variables and files carry
//! over. A comment `<!-- $ command -->` is a command that readers do not see; it has to succeed.
//! `$REGISTRY` and `$CONSOLE` are addresses of a registry and a console in this process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::compare::{renewed, stands_for};
use super::pages::{Page, pages, root};
use super::{RENEW, renews};
use crate::support::{Console, PERSONALITIES, Personality};

/// A command of a page.
struct Step {
    command: String,
    /// The lines that the page shows below it, and where they begin; nothing for a hidden one.
    shown: Option<(usize, Vec<String>)>,
}

/// The commands of a page, in order.
fn steps(page: &Page) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    let mut lines = page.text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            in_console = language == "console";
        } else if let Some(command) = line.strip_prefix("<!-- $ ") {
            let command = command.strip_suffix("-->").expect("it ends in its line");
            steps.push(Step {
                command: command.trim().to_owned(),
                shown: None,
            });
        } else if in_console && let Some(command) = line.strip_prefix("$ ") {
            let mut command = command.to_owned();
            let mut first = index + 1;
            while command.ends_with('\\') {
                let (index, more) = lines.next().expect("the command goes on");
                command = format!("{command}\n{more}");
                first = index + 1;
            }
            steps.push(Step {
                command,
                shown: Some((first, Vec::new())),
            });
        } else if in_console {
            let step = steps.last_mut().expect("a command comes first");
            let (_, shown) = step.shown.as_mut().expect("a command comes first");
            shown.push(line.to_owned());
        }
    }
    steps
}

/// A small project in a repository of its own, with one commit.
pub fn shop(folder: &Path) -> PathBuf {
    let shop = folder.join("shop");
    let copied = Command::new("cp")
        .arg("-R")
        .arg(root().join("fixtures/shop"))
        .arg(&shop)
        .status();
    assert!(copied.unwrap().success());
    // What somebody's own run has left in the fixture is no part of it.
    for made in [".out", ".alokai"] {
        let _ = std::fs::remove_dir_all(shop.join(made));
    }
    // The same id every time.
    let commit = "git init --quiet --initial-branch=main && git add --all && git commit --quiet -m 'The shop'";
    let committed = shell(folder, &shop).args(["-c", commit]).status();
    assert!(committed.unwrap().success());
    base_image(&shop);
    shop
}

/// Puts a base image where the run looks first, so that no network is needed: a folder with a
/// list of users is all that making images reads of it.
fn base_image(shop: &Path) {
    let work = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir etc && echo 'node:x:1000:1000::/home/node:/bin/sh' >etc/passwd && echo 'node:x:1000:' >etc/group
        tar -cf layer.tar etc && gzip -n <layer.tar >layer.tar.gz
        node "$1" . node:22-alpine && mkdir "$2/.alokai" && mv layout "$2/.alokai/registry"
    "#;
    let made = Command::new("sh")
        .args(["-euc", script, "sh"])
        .arg(root().join("scripts/base-image/layout.js"))
        .arg(shop)
        .current_dir(work.path())
        .status();
    assert!(made.unwrap().success());
}

/// A shell that finds `alokai`, in an environment that says nothing of this machine's user.
pub fn shell(folder: &Path, shop: &Path) -> Command {
    let programs = folder.join("bin");
    std::fs::create_dir_all(&programs).unwrap();
    let program = programs.join("alokai");
    if !program.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_alokai"), &program).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell
        .current_dir(shop)
        .env_clear()
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", folder)
        .env("npm_config_update_notifier", "false")
        // One thread composes, so that lines come in the same order every time.
        .env("RAYON_NUM_THREADS", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "You"), ("GIT_COMMITTER_NAME", "You")])
        .env("GIT_AUTHOR_EMAIL", "you@example.com")
        .env("GIT_COMMITTER_EMAIL", "you@example.com")
        .env("GIT_AUTHOR_DATE", "2026-02-03T04:05:06Z")
        .env("GIT_COMMITTER_DATE", "2026-02-03T04:05:06Z");
    shell
}

/// What each step prints, on standard output and standard error together.
fn run(page: &Page, steps: &[Step]) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(&folder.path().canonicalize().unwrap());
    let registry = Personality::start(PERSONALITIES[1]);
    let console = Console::start();
    // A character that no output has begins each step.
    let lines = steps.iter().map(|step| {
        let check = "test $? = 0 || echo 'hidden command failed'\n";
        let check = if step.shown.is_none() { check } else { "" };
        format!("printf '\\036'\n{}\n{check}", step.command)
    });
    let script = format!("exec 2>&1\n{}", lines.collect::<String>());
    let output = shell(folder.path(), &shop)
        .args(["-c", &script])
        .env("REGISTRY", &registry.address)
        .env("CONSOLE", &console.address)
        .env("CLI_CONSOLE_NO_WAIT", "1")
        .output()
        .unwrap();
    // Stores of this page may still run.
    let mut ending = shell(folder.path(), &shop);
    ending.args(["-c", "alokai store stop"]);
    assert!(ending.output().unwrap().status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(&shop.display().to_string(), "/shop");
    let printed: Vec<Vec<String>> = text
        .split('\u{1e}')
        .skip(1)
        .map(|part| {
            part.lines()
                .map(|line| line.trim_end().to_owned())
                .collect()
        })
        .collect();
    assert_eq!(
        printed.len(),
        steps.len(),
        "{}: the shell did not reach every command:\n{text}",
        page.path
    );
    for (step, printed) in steps.iter().zip(&printed) {
        let failed = printed
            .last()
            .is_some_and(|line| line.starts_with("hidden command"));
        assert!(!failed, "{}: `{}`: {printed:#?}", page.path, step.command);
    }
    printed
}

/// Runs a page; gives what differs, after renewing it if that is wanted.
fn check(page: &Page) -> Vec<String> {
    let steps = steps(page);
    if steps.is_empty() {
        return Vec::new();
    }
    let printed = run(page, &steps);
    let mut lines: Vec<String> = page.text.lines().map(str::to_owned).collect();
    let mut wrong = Vec::new();
    for (step, printed) in steps.iter().zip(&printed).rev() {
        let Some((first, shown)) = &step.shown else {
            continue;
        };
        if stands_for(shown, printed) {
            continue;
        }
        wrong.push(format!(
            "{}:{first}: `{}` prints\n{}\nand not\n{}",
            page.path,
            step.command,
            printed.join("\n"),
            shown.join("\n")
        ));
        lines.splice(*first..first + shown.len(), renewed(shown, printed));
    }
    if renews() && !wrong.is_empty() {
        page.write(&(lines.join("\n") + "\n"));
        return Vec::new();
    }
    wrong
}

#[test]
fn every_transcript_is_what_the_program_prints() {
    let pages = pages();
    // As many at once as there are cores, so that the times in a renewed page are not of a crowd.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = || pages.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(taken).flat_map(check).collect()
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join().unwrap());
        results.flat_map(|wrong: Vec<String>| wrong).collect()
    });
    assert!(wrong.is_empty(), "{}\n\n{RENEW}", wrong.join("\n\n"));
}
