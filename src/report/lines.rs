//! Reports as plain lines, for pipes and CI. On GitHub Actions the output of each unit is a group.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, IntoInnerError, Seek, Write};

use indexmap::IndexMap;
use tempfile::SpooledTempFile;

use super::{Detail, Reporter, duration};
use crate::event::{Event, EventSubject, Outcome, ServerState, Stage, bytes};

/// A reporter that prints `<unit>:<stage>: <line>`, with the prefixes that turbo uses.
pub struct Lines<W> {
    out: W,
    detail: Detail,
}

impl<W: Write + Send> Lines<W> {
    /// Writes to `out`, which is standard error.
    pub fn new(out: W, detail: Detail) -> Self {
        Self { out, detail }
    }

    /// What was written to.
    pub fn written(&self) -> &W {
        &self.out
    }

    /// What is written to.
    pub fn written_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

impl<W: Write + Send> Reporter for Lines<W> {
    fn report(&mut self, event: &Event) {
        // The run continues when nobody reads its output.
        let _ = match event {
            Event::Output { unit, line } => writeln!(self.out, "{}: {line}", prefix(unit)),
            other => write_line(&mut self.out, other, self.detail),
        };
    }

    fn finish(&mut self) {
        let _ = self.out.flush();
    }
}

/// A reporter that prints the output of a unit as one group when the unit has ended. GitHub
/// does not support interleaved groups.
pub struct Groups<W> {
    out: W,
    detail: Detail,
    held: HashMap<EventSubject, BufWriter<SpooledTempFile>>,
}

/// The most bytes of a unit's output that are held in memory. The rest is in a temporary file.
const HELD_IN_MEMORY: usize = 64 << 10;

impl<W: Write + Send> Groups<W> {
    /// Writes to `out`, which is standard error.
    pub fn new(out: W, detail: Detail) -> Self {
        Self {
            out,
            detail,
            held: HashMap::new(),
        }
    }

    fn group(&mut self, unit: &EventSubject) -> std::io::Result<()> {
        let Some(held) = self.held.remove(unit) else {
            return Ok(());
        };
        writeln!(self.out, "::group::{} {unit}", unit.work())?;
        // The runner executes commands that it finds in output. Between these two marks it
        // ignores them.
        let token = format!("alokai-{:x}", RandomState::new().hash_one(unit));
        writeln!(self.out, "::stop-commands::{token}")?;
        // The second mark is printed even if the output cannot be read. The unit's log file has
        // all lines.
        let copied = held
            .into_inner()
            .map_err(IntoInnerError::into_error)
            .and_then(|mut lines| {
                lines.rewind()?;
                std::io::copy(&mut lines, &mut self.out)
            });
        writeln!(self.out, "::{token}::")?;
        writeln!(self.out, "::endgroup::")?;
        copied.map(drop)
    }
}

impl<W: Write + Send> Reporter for Groups<W> {
    fn report(&mut self, event: &Event) {
        let _ = match event {
            Event::Output { unit, line } => {
                if !self.held.contains_key(unit) {
                    let held = BufWriter::new(SpooledTempFile::new(HELD_IN_MEMORY));
                    self.held.insert(unit.clone(), held);
                }
                let held = self.held.get_mut(unit);
                held.map_or(Ok(()), |held| writeln!(held, "{line}"))
            }
            Event::Finished { unit, outcome, .. } => self
                .group(unit)
                .and_then(|()| write_line(&mut self.out, event, self.detail))
                .and_then(|()| match outcome {
                    Outcome::Failed { message } => annotate(&mut self.out, unit, message),
                    _ => Ok(()),
                }),
            other => write_line(&mut self.out, other, self.detail),
        };
    }

    fn finish(&mut self) {
        let units: Vec<_> = self.held.keys().cloned().collect();
        for unit in units {
            let _ = self.group(&unit);
        }
        let _ = self.out.flush();
    }
}

/// Prints an annotation, which GitHub shows beside the commit.
fn annotate(out: &mut impl Write, unit: &EventSubject, message: &str) -> std::io::Result<()> {
    let escape = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let title = escape(&format!("{} {unit}", unit.work()))
        .replace(':', "%3A")
        .replace(',', "%2C");
    writeln!(out, "::error title={title}::{}", escape(message))
}

fn prefix(unit: &EventSubject) -> String {
    match (&unit.store, &unit.name) {
        (Some(store), Some(name)) => format!("{name}-{store}:{}", unit.work()),
        _ => format!("{unit}:{}", unit.work()),
    }
}

fn write_line(out: &mut impl Write, event: &Event, detail: Detail) -> std::io::Result<()> {
    match line(event, detail) {
        Some(line) => writeln!(out, "{line}"),
        None => Ok(()),
    }
}

/// The text of an event other than [`Event::Output`]. `None` for an event that is not shown.
pub fn line(event: &Event, detail: Detail) -> Option<String> {
    Some(match event {
        Event::StageStarted {
            stage,
            units,
            script,
        } => {
            let work = script.clone().unwrap_or_else(|| stage.to_string());
            format!(
                "== {work} ({units} {})",
                if *units == 1 { "unit" } else { "units" }
            )
        }
        Event::Sync { sync } => sync.text(detail == Detail::Full)?,
        Event::Notice { message } => format!("note: {message}"),
        Event::Sizes {
            unit,
            own,
            dependencies,
            ..
        } => sizes(unit, *own, dependencies)?,
        // These units end soon, or their start is reported by `Missed`.
        Event::Started { unit } if unit.stage <= Stage::Prune && unit.hook.is_none() => {
            return None;
        }
        Event::Started { unit } => format!("   {} {unit}", unit.work()),
        Event::Missed {
            unit,
            miss,
            tool_cache,
        } => {
            let miss = miss.text(detail == Detail::Full);
            let with = tool_cache.map_or_else(String::new, |it| {
                format!(", with a tool cache from {}", ago(it.age_seconds))
            });
            format!("   {} {unit}: {miss}{with}", unit.work())
        }
        Event::Finished {
            unit,
            outcome,
            seconds,
        } => {
            let stage = unit.work();
            let time = duration(*seconds);
            match outcome {
                Outcome::Done { note: None } => format!("ok {stage} {unit} ({time})"),
                Outcome::Done { note: Some(note) } => format!("ok {stage} {unit} ({time}): {note}"),
                Outcome::Failed { message } => format!("FAILED {stage} {unit} ({time}): {message}"),
                Outcome::Skipped { because } => {
                    format!("skipped {stage} {unit} because of {because}")
                }
            }
        }
        Event::Server { server, state } => format!("{server}: {}", state_text(state)?),
        Event::Tested {
            tests,
            counts,
            seconds,
        } => format!("{tests}: {counts} ({})", duration(*seconds)),
        Event::ServerOutput { server, line } => format!("{server} | {line}"),
        Event::StageFinished { .. } | Event::Output { .. } => return None,
    })
}

/// The state of a server as text. `None` for a state that is not shown.
fn state_text(state: &ServerState) -> Option<String> {
    Some(match state {
        ServerState::Waiting { .. } => return None,
        ServerState::Starting => "starting".into(),
        ServerState::Ready { url: None, .. } => "running".into(),
        ServerState::Ready {
            url: Some(url),
            seconds,
        } => format!("ready at {url} ({})", duration(*seconds)),
        ServerState::Ended { how } => format!("ended: {how}"),
        ServerState::CannotStart { how, help: None } => format!("cannot start: {how}"),
        ServerState::CannotStart {
            how,
            help: Some(help),
        } => format!("cannot start: {how}; {help}"),
        ServerState::Restarting { in_seconds } => format!("next start in {in_seconds} s"),
        ServerState::Stopped => "stopped".into(),
    })
}

/// A time before now, as text: `40 s ago`, `2 h ago`.
fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

/// The number of dependencies that are named. The others are one sum.
const NAMED_DEPENDENCIES: usize = 5;

/// The largest dependencies of a unit. `None` if it has no dependencies.
fn sizes(unit: &EventSubject, own: u64, dependencies: &IndexMap<String, u64>) -> Option<String> {
    if dependencies.is_empty() {
        return None;
    }
    let size = |name: &str, size: u64| format!("{name} {}", bytes(size));
    let largest = dependencies.iter().take(NAMED_DEPENDENCIES);
    let mut parts: Vec<_> = largest.map(|(name, bytes)| size(name, *bytes)).collect();
    let rest = dependencies.len().saturating_sub(NAMED_DEPENDENCIES);
    if rest > 0 {
        let sum = dependencies.values().skip(NAMED_DEPENDENCIES).sum();
        parts.push(size(&format!("{rest} more"), sum));
    }
    parts.push(size("own files", own));
    // A line is not broken between a name and its size.
    let parts: Vec<_> = parts
        .iter()
        .map(|part| part.replace(' ', "\u{a0}"))
        .collect();
    let text = format!("   {unit}: {}", parts.join(", "));
    let options = textwrap::Options::new(80)
        .subsequent_indent("     ")
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    Some(textwrap::fill(&text, options).replace('\u{a0}', " "))
}
