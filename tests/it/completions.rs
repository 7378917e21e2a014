//! Completion of words: what real shells insert at a tab, and what the program offers them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Project, folder, is_there, run};

const PAGE: &str = "storefront-unified-nextjs/app/(shop)/[...slug]/page one.tsx";
const HOSTILE: &str = "storefront-unified-nextjs/app/(shop)/[...slug]/it's $HOME;.tsx";

/// A project with files whose names mean something to shells.
fn shop() -> Project {
    Project::shop()
        .file(&format!("apps/{PAGE}"), "")
        .file(
            &format!("apps/stores/fashion/stores/us/{HOSTILE}"),
            "only in us",
        )
        .file("apps/storefront-unified-nextjs/a:b=c.txt", "")
}

/// Lines with tabs, and the words with which the shell then calls alokai.
fn cases() -> Vec<(&'static str, Vec<String>)> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let path = |path: &str| [words("store why us"), vec![path.to_owned()]].concat();
    vec![
        (
            "alokai store build --store u\t",
            words("store build --store us"),
        ),
        (
            "alokai store build --store=e\t",
            words("store build --store=eu"),
        ),
        (
            "alokai store comp\t-s us,e\t",
            words("store compose -s us,eu"),
        ),
        ("alokai store diff us e\t", words("store diff us eu")),
        // The template is a store too, where templates can be named.
        (
            "alokai store drift -s fa\t",
            words("store drift -s fashion"),
        ),
        (
            "alokai store overlays -s fa\t",
            words("store overlays -s fashion"),
        ),
        (
            "alokai store override fash\tstorefront-unified-nextjs/a:\t--from ba\t",
            words("store override fashion storefront-unified-nextjs/a:b=c.txt --from base"),
        ),
        (
            "alokai store why us storefront-u\tap\t\\(\t\\[...s\tpa\t",
            path(PAGE),
        ),
        (
            "alokai store why us \"storefront-unified-nextjs/app/(shop)/[...slug]/pa\t",
            path(PAGE),
        ),
        (
            "alokai store why us storefront-unified-nextjs/app/\\(shop\\)/\\[...slug\\]/it\t",
            path(HOSTILE),
        ),
        (
            "alokai store why us storefront-unified-nextjs/a:\t",
            path("storefront-unified-nextjs/a:b=c.txt"),
        ),
        // Nothing is inserted, and nothing is printed into the line.
        (
            "alokai --cwd /nonexistent store build -s u\t",
            words("--cwd /nonexistent store build -s u"),
        ),
    ]
}

/// Types the cases into an interactive shell on a terminal. In place of alokai, a program answers
/// that records its arguments.
fn type_into(shell: &str, command: &str, setup: &str) {
    if !is_there(shell) || !is_there("script") {
        return;
    }
    let project = shop();
    let programs = folder();
    let record = programs.path().join("record");
    let program = env!("CARGO_BIN_EXE_alokai");
    let recorder = format!(
        "#!/bin/sh\ncase \"$1\" in __complete | completions) exec '{program}' \"$@\" ;; esac\n\
         for word; do printf '%s\\n' \"$word\"; done >>'{0}'; echo >>'{0}'\n",
        record.display()
    );
    let alokai = programs.path().join("alokai");
    std::fs::write(&alokai, recorder).unwrap();
    run("chmod", &["+x", alokai.to_str().unwrap()]);
    let path = format!(
        "{}:{}",
        programs.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut terminal = Command::new("timeout")
        .args(["60", "script", "--quiet", "--command", command, "/dev/null"])
        .current_dir(project.root())
        .env_clear()
        .env("PATH", path)
        .env("HOME", programs.path())
        .env("TERM", "xterm")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines: Vec<_> = cases().iter().map(|(line, _)| *line).collect();
    let typed = format!("{setup}\n{}\nexit\n", lines.join("\n"));
    terminal
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    let output = terminal.wait_with_output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout);
    let calls = std::fs::read_to_string(&record).unwrap_or_default();
    let calls: Vec<Vec<&str>> = calls
        .split_terminator("\n\n")
        .map(|call| call.lines().collect())
        .collect();
    let expected: Vec<_> = cases().into_iter().map(|(_, words)| words).collect();
    assert_eq!(calls, expected, "{screen}");
    assert!(!screen.contains("is not a folder"), "{screen}");
}

#[test]
fn bash_completes_what_is_typed() {
    type_into(
        "bash",
        "bash --norc --noprofile -i",
        "source <(alokai completions bash)",
    );
}

#[test]
fn zsh_completes_what_is_typed() {
    type_into(
        "zsh",
        "zsh -f -i",
        "autoload -Uz compinit; compinit -u -D; source <(alokai completions zsh)",
    );
}

#[test]
fn fish_completes_what_is_typed() {
    type_into(
        "fish",
        "fish --no-config -i",
        "alokai completions fish | source",
    );
}

/// The candidates for the last of these words.
fn offered(project: &Project, words: &[&str]) -> Vec<String> {
    let arguments = [&["__complete", "fish", "--", "alokai"], words].concat();
    let run = project.alokai(&arguments).succeeds();
    assert_eq!(run.stderr, "");
    let first = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    run.stdout.lines().map(first).collect()
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words
}

#[test]
fn stores_apps_units_and_flags_are_offered_where_they_fit() {
    let project = shop();
    let stores = ["eu", "us"];
    assert_eq!(offered(&project, &["store", "build", "-s", ""]), stores);
    assert_eq!(offered(&project, &["store", "why", ""]), stores);
    let apps = offered(&project, &["store", "why", "us", ""]);
    assert!(
        apps.contains(&"storefront-middleware/".to_owned()),
        "{apps:?}"
    );
    let units = offered(&project, &["store", "build", "--filter", "play"]);
    assert_eq!(units, ["playwright-eu", "playwright-us"]);
    // Edits also concern templates.
    let all = ["eu", "fashion", "us"];
    for words in [["move", ""], ["remove", ""], ["rename", ""]] {
        assert_eq!(
            sorted(offered(&project, &[&["store"], &words[..]].concat())),
            all
        );
    }
    let parents = ["eu", "fashion", "root", "us"];
    for words in [
        &["add", "uk", "--parent", ""][..],
        &["move", "us", "--parent", ""],
        &["remove", "us", "--reparent", ""],
    ] {
        assert_eq!(
            sorted(offered(&project, &[&["store"], words].concat())),
            parents
        );
    }
    let flags = offered(&project, &["store", "build", "--al"]);
    assert_eq!(flags, ["--all", "--allow-insecure"]);
    // The file of `us` belongs to no other store.
    let folder = "storefront-unified-nextjs/app/(shop)/[...slug]/";
    assert_eq!(offered(&project, &["store", "why", "us", folder]).len(), 2);
    assert_eq!(offered(&project, &["store", "why", "eu", folder]).len(), 1);
    // A path does not leave its app.
    let out = "storefront-unified-nextjs/../../";
    assert!(offered(&project, &["store", "why", "us", out]).is_empty());
    let hidden = offered(&project, &["_"]);
    assert!(hidden.is_empty(), "{hidden:?}");
    let elsewhere = Project::new();
    let root = project.root().to_str().unwrap();
    let there = ["--cwd", root, "store", "build", "-s", ""];
    assert_eq!(offered(&elsewhere, &there), stores);
}

#[test]
fn a_project_with_errors_offers_no_stores_and_prints_no_error() {
    let project = shop().config("{ \"stores\": ");
    let none = offered(&project, &["store", "build", "-s", ""]);
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(offered(&project, &["store", "comp"]), ["compose"]);
}

#[test]
fn each_shell_has_a_script() {
    let project = Project::new();
    for (shell, line) in [
        ("bash", "complete -F _alokai alokai"),
        ("zsh", "#compdef alokai"),
        ("fish", "complete --command alokai"),
        (
            "powershell",
            "Register-ArgumentCompleter -Native -CommandName alokai",
        ),
    ] {
        let script = project.alokai(&["completions", shell]).succeeds().stdout;
        assert!(script.contains(line), "{script}");
    }
    project.alokai("completions tcsh").fails_with(2);
}
