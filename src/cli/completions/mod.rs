//! `completions`: prints a script for a shell. The script calls the hidden command `__complete`,
//! which prints the candidates for the word at the cursor.
//!
//! clap's engine knows commands, flags and values. The scripts are part of this program, because those
//! of `clap_complete` do not quote candidates: a path with `(shop)` breaks the line in bash.

mod bash;
mod candidates;

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::CommandFactory;
use clap_complete::engine::{CompletionCandidate, complete};

use super::arguments::{Arguments, CompleteOptions, CompletionsOptions, Shell};
use super::{answer, environment};
use crate::error::Error as AnyError;

/// Prints the script of a shell.
pub fn completions(options: &CompletionsOptions) -> Result<(), AnyError> {
    answer(match options.shell {
        Shell::Bash => include_str!("alokai.bash"),
        Shell::Zsh => include_str!("alokai.zsh"),
        Shell::Fish => include_str!("alokai.fish"),
        Shell::Powershell => include_str!("alokai.ps1"),
    })
}

/// Prints one candidate a line. Errors print nothing: a shell shows them in the middle of the line
/// that is being typed.
pub fn candidates(options: &CompleteOptions) -> Result<(), AnyError> {
    let mut out = String::new();
    match (options.shell, options.words.as_slice()) {
        (Shell::Bash, [line, replaced]) => {
            let line = bash::Line::read(&line.to_string_lossy(), &replaced.to_string_lossy());
            for found in found(&line.words) {
                let _ = writeln!(out, "{}", line.replacement(&found.value));
            }
        }
        (Shell::Bash, _) => {}
        (shell, words) => {
            let mut words: Vec<String> = words
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            if let (Shell::Fish, Some(last)) = (shell, words.last_mut()) {
                // fish passes the word at the cursor as it was typed.
                *last = bash::unquoted(last);
            }
            for Found { value, help } in found(&words) {
                let _ = match help {
                    Some(help) => writeln!(out, "{value}\t{help}"),
                    None => writeln!(out, "{value}"),
                };
            }
        }
    }
    answer(&out)
}

/// A candidate: a whole word, and the first line of its help.
struct Found {
    value: String,
    help: Option<String>,
}

/// The candidates for the last word. The first word is the program.
fn found(words: &[String]) -> Vec<Found> {
    let Some(last) = words.last().filter(|_| words.len() > 1) else {
        return Vec::new();
    };
    let mut command = candidates::with_values(Arguments::command(), words);
    let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    let here = environment::start(None).ok();
    let found = complete(&mut command, arguments, words.len() - 1, here.as_deref());
    let found = found.unwrap_or_default();
    // clap offers hidden commands and flags if it has no other candidate.
    let found = found.iter().filter(|one| !one.is_hide_set());
    let mut found: Vec<Found> = found.filter_map(readable).collect();
    // Flags are offered after a `-`, or if there are no other candidates.
    let is_flag = |one: &Found| one.value.starts_with('-');
    if !last.starts_with('-') && !found.iter().all(is_flag) {
        found.retain(|one| !is_flag(one));
    }
    found
}

/// A candidate that fits one line; a name with a line break cannot be typed anyway.
fn readable(candidate: &CompletionCandidate) -> Option<Found> {
    let value = candidate.get_value().to_str()?;
    let help = candidate.get_help().map(ToString::to_string);
    let help = help.and_then(|help| help.lines().next().map(str::to_owned));
    let is_plain = !value.is_empty() && !value.contains(char::is_control);
    is_plain.then(|| Found {
        value: value.to_owned(),
        help: help.filter(|help| !help.contains(char::is_control)),
    })
}
