//! Commands that the documentation tells its readers to type exist, with their flags.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use alokai::cli::Arguments;
use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use regex::Regex;

use super::pages::{Page, pages, root};

/// Programs that instructions may call beside alokai and the scripts of this repository.
const PROGRAMS: [&str; 18] = [
    "cargo", "cat", "cd", "cp", "curl", "docker", "echo", "eval", "export", "git", "head", "mkdir",
    "node", "npm", "npx", "rustup", "skopeo", "umoci",
];

/// Flags of other programs that the text speaks of.
const FOREIGN: [&str; 10] = [
    "--chown",
    "--omit=dev",
    "--max-old-space-size",
    "--continue",
    "--dry",
    "--grep",
    "--no-cache",
    "--oneline",
    "--renormalize",
    "--unshallow",
];

/// The words of a command line, as far as quotes go.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_word) = (String::new(), None, false);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => (quote, is_word) = (Some(character), true),
            (None, ' ') => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            _ => {
                word.push(character);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// Calls of alokai in a line of shell, as words without the program.
fn calls(line: &str) -> Vec<Vec<String>> {
    static CALL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?:^|[\s(;&])alokai ((?:'[^']*'|"[^"]*"|[^'")|;&>#])*)"#).unwrap()
    });
    static PLACEHOLDER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"<[^>]*>|\$\{\{[^}]*\}\}").unwrap());
    let line = PLACEHOLDER.replace_all(line, "x");
    CALL.captures_iter(&line)
        .map(|call| words(call[1].trim()))
        .collect()
}

/// What clap has against a call. A call in a sentence may leave out what is required.
fn refusal(call: &[String], may_be_short: bool) -> Option<String> {
    let words = std::iter::once("alokai".to_owned()).chain(call.iter().cloned());
    let error = Arguments::command().try_get_matches_from(words).err()?;
    let is_fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => may_be_short,
        _ => false,
    };
    (!is_fine).then(|| error.to_string())
}

/// Lines of a shell block, continued ones joined, without comments.
fn instructions(lines: &[String]) -> Vec<String> {
    let text = lines.join("\n").replace("\\\n", " ");
    let lines = text.lines().map(|line| match line.find(" #") {
        Some(comment) => line[..comment].trim().to_owned(),
        None => line.trim().to_owned(),
    });
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// What is wrong with the programs that a line of shell calls.
fn unknown_programs(line: &str) -> Vec<String> {
    let parts = line.split(['|', ';', '&']).map(str::trim);
    let firsts = parts.filter_map(|part| {
        let mut words = part.split_whitespace();
        words.find(|word| !word.contains('=')).map(str::to_owned)
    });
    firsts
        .filter(|first| {
            let is_script = first.contains('/') && root().join(first).is_file();
            first != "alokai" && !is_script && !PROGRAMS.contains(&first.as_str())
        })
        .collect()
}

fn check(page: &Page) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut refuse = |line: usize, call: &[String], may_be_short: bool| {
        if let Some(reason) = refusal(call, may_be_short) {
            wrong.push(format!("{}:{line}: {call:?}: {reason}", page.path));
        }
    };
    let mut unknown = Vec::new();
    for block in page.blocks() {
        for line in instructions(&block.lines) {
            let is_shell = block.language == "sh";
            for call in calls(&line) {
                if is_shell || block.language == "yaml" {
                    refuse(block.first, &call, false);
                }
            }
            if is_shell {
                let programs = unknown_programs(&line);
                unknown.extend(programs.iter().map(|name| {
                    format!(
                        "{}:{}: `{name}` is not a program that is there",
                        page.path, block.first
                    )
                }));
            }
        }
    }
    for (line, span) in page.spans() {
        for call in calls(&span) {
            refuse(line, &call, true);
        }
        if span.starts_with("scripts/") {
            let script = span.split_whitespace().next().unwrap_or_default();
            if !root().join(script).exists() {
                unknown.push(format!("{}:{line}: `{script}` does not exist", page.path));
            }
        }
    }
    wrong.extend(unknown);
    wrong
}

#[test]
fn every_instruction_is_a_command_that_exists() {
    let wrong: Vec<_> = pages().iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The commands in backticks that a source file names in its messages, with the line of each. The text of a
/// message may go on in the next line.
fn named_commands(text: &str) -> Vec<(usize, String)> {
    static CONTINUED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\\n\s*").unwrap());
    static SPAN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`alokai ([^`\n]*)`").unwrap());
    let text = CONTINUED.replace_all(text, " ");
    let spans = SPAN.captures_iter(&text);
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    spans
        .map(|span| {
            (
                line(span.get(0).unwrap().start()),
                span[1].replace("\\\"", "\""),
            )
        })
        .collect()
}

/// Why no value of its placeholders makes a command of a message valid. A placeholder is an argument, or
/// options with a store.
fn refusal_of_message(command: &str) -> Option<String> {
    static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{[^{}]*\}").unwrap());
    // A part that belongs to the shell.
    static SHELL: LazyLock<Regex> = LazyLock::new(|| Regex::new(" [|<>] .*").unwrap());
    let mut commands = vec![SHELL.replace(command, "").replace('…', "{}")];
    while PLACEHOLDER.is_match(&commands[0]) {
        let filled = commands.iter().flat_map(|command| {
            ["x", "--store x", ""].map(|value| PLACEHOLDER.replace(command, value).into_owned())
        });
        commands = filled.collect();
    }
    let mut refusals = commands
        .iter()
        .map(|command| refusal(&words(command), true));
    let first = refusals.next().flatten()?;
    refusals.all(|it| it.is_some()).then_some(first)
}

#[test]
fn every_command_that_a_message_names_exists() {
    let files = walkdir::WalkDir::new(root().join("src")).into_iter();
    let files = files.map(|file| file.unwrap().into_path());
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        for (line, command) in named_commands(&std::fs::read_to_string(&path).unwrap()) {
            count += 1;
            if let Some(reason) = refusal_of_message(&command) {
                wrong.push(format!(
                    "{}:{line}: `alokai {command}`: {reason}",
                    path.display()
                ));
            }
        }
    }
    assert!(count > 50, "only {count} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_of_messages_are_found_and_wrong_ones_are_refused() {
    let text =
        "help(\"run `alokai store release {id} {place}`, \\\n    or `alokai settings set`\")";
    let found = named_commands(text);
    let commands: Vec<_> = found.iter().map(|(_, command)| command.as_str()).collect();
    assert_eq!(commands, ["store release {id} {place}", "settings set"]);
    assert!(refusal_of_message(commands[0]).is_none());
    assert!(refusal_of_message(commands[1]).is_some());
}

/// All flags of a command and of those below it.
fn flags(command: &Command, into: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        into.extend(names.iter().map(|name| format!("--{name}")));
    }
    for below in command.get_subcommands() {
        flags(below, into);
    }
}

#[test]
fn every_flag_in_a_sentence_exists() {
    let mut known = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    flags(&Arguments::command(), &mut known);
    let mut wrong = Vec::new();
    for page in pages() {
        // The developers' page is about other programs too.
        if page.path == "CONTRIBUTING.md" {
            continue;
        }
        for (line, span) in page.spans() {
            let flag = span.split([' ', '=']).next().unwrap_or_default();
            let is_flag = flag.starts_with("--") && flag.len() > 2;
            if is_flag && !known.contains(flag) && !FOREIGN.contains(&flag) {
                wrong.push(format!("{}:{line}: `{flag}` is not a flag", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn calls_are_found_and_wrong_ones_are_refused() {
    let line = r#"npm ci && echo "m=$(alokai store changed --matrix github)" && alokai store build --store <id>"#;
    let found = calls(line);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], ["store", "changed", "--matrix", "github"]);
    assert_eq!(found[1], ["store", "build", "--store", "x"]);
    assert!(found.iter().all(|call| refusal(call, false).is_none()));
    for wrong in ["store bild", "store build --al", "store run"] {
        assert!(refusal(&words(wrong), false).is_some(), "{wrong}");
    }
    let filter = words("store build --filter '!playwright-*' --all");
    assert_eq!(filter[3], "!playwright-*");
    assert_eq!(unknown_programs("A=1 nosuch x | scripts/demo"), ["nosuch"]);
}
