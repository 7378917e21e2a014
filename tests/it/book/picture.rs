//! The picture of a terminal in the README: made from a run in a terminal, and still true.
//!
//! Renewing needs `tmux`, which is the terminal.

use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;

use super::compare::stands_for;
use super::pages::root;
use super::transcripts::{shell, shop};
use super::{RENEW, renews};

const PICTURE: &str = "docs/src/terminal.svg";

/// What is typed in the picture.
const COMMANDS: [&str; 4] = [
    "alokai store list",
    "echo '// more' >> apps/stores/fashion/storefront-middleware/src/products.js",
    "alokai store build --all --filter 'storefront-middleware-*'",
    "alokai store why us storefront-middleware/src/products.js",
];

/// A script that prints each command after a prompt, and then runs it. Everything was built before.
fn script() -> String {
    let steps = COMMANDS.map(|command| {
        let shown = command.replace('\'', r"'\''");
        let prompt = format!("printf '\\033[1;32m$\\033[0m \\033[1m%s\\033[0m\\n' '{shown}'");
        format!("{prompt}\n{command}\n")
    });
    let steps = steps.join("printf '\\n'\n");
    format!("alokai store build --all >/dev/null 2>&1\n{steps}")
}

/// What a terminal shows after the script, with its colours.
fn in_a_terminal() -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let shop = shop(&path);
    let file = path.join("picture.sh");
    std::fs::write(
        &file,
        format!("{}touch {}/done\nsleep 60\n", script(), path.display()),
    )
    .unwrap();
    let socket = path.join("tmux");
    let tmux = |arguments: &[&str]| {
        let mut command = shell(&path, &shop);
        let program = std::mem::replace(&mut command, Command::new("tmux"));
        command
            .current_dir(&shop)
            .env_clear()
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        for (name, value) in program.get_envs() {
            command.envs(value.map(|value| (name, value)));
        }
        let output = command.arg("-S").arg(&socket).args(arguments).output();
        let output = output.expect("tmux is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let run = format!("sh {}", file.display());
    tmux(&["new-session", "-d", "-x", "96", "-y", "80", &run]);
    let start = Instant::now();
    while !path.join("done").exists() {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "{}",
            tmux(&["capture-pane", "-p"])
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let screen = tmux(&["capture-pane", "-e", "-p"]);
    tmux(&["kill-server"]);
    screen.trim_end().to_owned()
}

/// The lines of text in a picture.
fn text(svg: &str) -> Vec<String> {
    static TAG: LazyLock<Regex> = LazyLock::new(|| Regex::new("<[^>]*>").unwrap());
    let start = svg.find("<text").expect("text");
    let lines = svg[start..]
        .lines()
        .skip(1)
        .filter(|line| line.contains("<tspan"));
    lines
        .map(|line| {
            let line = TAG.replace_all(line.strip_prefix("    ").unwrap_or(line), "");
            let line = line
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"");
            line.replace("&#x27;", "'")
                .replace("&amp;", "&")
                .trim_end()
                .to_owned()
        })
        .collect()
}

/// What the same script prints where there is no terminal: standard output only, since progress
/// is drawn otherwise there.
fn without_a_terminal() -> Vec<String> {
    static COLOUR: LazyLock<Regex> = LazyLock::new(|| Regex::new("\u{1b}\\[[0-9;]*m").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let shop = shop(&path);
    let output = shell(&path, &shop)
        .args(["-c", &script()])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let plain = COLOUR.replace_all(&printed, "");
    plain
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn the_picture_shows_what_the_program_prints() {
    let path = root().join(PICTURE);
    let mut printed = without_a_terminal();
    // Drawing progress takes empty lines away.
    printed.retain(|line| !line.is_empty());
    // Progress, which goes to standard error, stands between.
    let is_true = |svg: &str| {
        let shown = text(svg);
        let mut rest = shown.iter();
        printed.iter().all(|line| {
            rest.any(|shown| stands_for(std::slice::from_ref(line), std::slice::from_ref(shown)))
        })
    };
    let mut svg = std::fs::read_to_string(&path).unwrap_or_else(|_| "<text".into());
    if renews() && !is_true(&svg) {
        svg = anstyle_svg::Term::new().render_svg(&in_a_terminal());
        std::fs::write(&path, &svg).unwrap();
    }
    assert!(
        is_true(&svg),
        "{PICTURE} does not show\n{}\n\n{RENEW}",
        printed.join("\n")
    );
}
