//! Lists of records: one line for each, the newest first, in columns that fit 80 characters.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::ledger::RecordListOptions;
use super::builds::makes_build;
use super::environment::{self, tell};
use super::run::document;
use super::{Error, answer};
use crate::config::{Project, nearest};
use crate::error::Error as AnyError;
use crate::ledger::{
    self, EventRecord, LogFolder, RecordFolder, RecordId, RecordSet, StoreEvent, folder_id,
};
use crate::pipeline::ProjectLock;
use crate::store::StoreId;

use super::shared_records::RegistryAccess;

/// The least characters of ids in lists.
pub const ID_CHARACTERS: usize = 11;

/// A line of a list.
pub trait ListLine {
    /// The id of the record.
    fn id(&self) -> &RecordId;
    /// The id of another record that the line names.
    fn other_id(&self) -> Option<&RecordId> {
        None
    }
    /// Its store.
    fn store(&self) -> &StoreId;
    /// Its status.
    fn status(&self) -> &'static str;
    /// Its time, by which lists are sorted.
    fn at(&self) -> Timestamp;
    /// The cells after the id.
    fn cells(&self, format: &CellFormat) -> Vec<String>;
    /// The line as JSON.
    fn json(&self) -> Value;
}

/// How ids and times are shown in a list.
pub struct CellFormat {
    id_characters: usize,
    now: Timestamp,
}

impl CellFormat {
    /// The format for lines with these ids: ids are as long as they have to be to differ.
    pub fn new<'a>(ids: impl Iterator<Item = &'a RecordId>) -> Self {
        Self {
            id_characters: RecordId::distinct_length(ids, ID_CHARACTERS),
            now: Timestamp::now(),
        }
    }

    /// The first characters of an id.
    pub fn id(&self, id: &RecordId) -> String {
        id.as_str().chars().take(self.id_characters).collect()
    }

    /// `12 s ago`, `3 min ago`, `2 h ago`, `5 days ago`.
    pub fn age(&self, at: Timestamp) -> String {
        match self.now.duration_since(at).as_secs().max(0) {
            seconds @ ..60 => format!("{seconds} s ago"),
            seconds @ ..3600 => format!("{} min ago", seconds / 60),
            seconds @ ..86_400 => format!("{} h ago", seconds / 3600),
            seconds @ ..172_800 => format!("{} day ago", seconds / 86_400),
            seconds => format!("{} days ago", seconds / 86_400),
        }
    }
}

/// The words of a list.
pub struct ListWords {
    /// The key of the lines in the JSON document.
    pub key: &'static str,
    /// The titles of the columns after `ID`.
    pub columns: &'static [&'static str],
    /// The answer if there is no record.
    pub none: &'static str,
    /// The answer if no record matches the options.
    pub no_match: &'static str,
}

/// Prints the lines that the options ask for.
pub fn list<L: ListLine>(
    words: &ListWords,
    mut lines: Vec<L>,
    options: &RecordListOptions,
    status: Option<&str>,
) -> Result<(), AnyError> {
    let is_empty = lines.is_empty();
    // Ids are shortened so that they differ from those of lines that are not shown.
    let ids = lines.iter();
    let format =
        CellFormat::new(ids.flat_map(|line| [line.id()].into_iter().chain(line.other_id())));
    lines.retain(|line| {
        let stores = &options.stores;
        (stores.is_empty() || stores.iter().any(|id| id == line.store().as_str()))
            && status.is_none_or(|status| status == line.status())
    });
    lines.sort_by(|a, b| (b.at(), b.id()).cmp(&(a.at(), a.id())));
    let hidden = lines.len().saturating_sub(options.limit);
    lines.truncate(options.limit);
    if options.json {
        let lines: Vec<_> = lines.iter().map(L::json).collect();
        return document(&json!({ "schemaVersion": 1, words.key: lines }));
    }
    if lines.is_empty() && hidden == 0 {
        tell(if is_empty { words.none } else { words.no_match });
        return Ok(());
    }
    let titles = ["ID"].iter().chain(words.columns);
    let mut rows = vec![titles.map(|title| (*title).to_owned()).collect()];
    rows.extend(lines.iter().map(|line| {
        let mut cells = line.cells(&format);
        cells.insert(0, format.id(line.id()));
        cells
    }));
    answer(&table(&rows))?;
    if hidden > 0 {
        tell(&format!(
            "{hidden} more; use `--limit` to list more of them"
        ));
    }
    Ok(())
}

/// A text of a record without control characters, which a terminal obeys: they are escaped. A record
/// may be of another machine.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        // Unicode direction marks can disguise a line.
        let is_hidden = matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        if character.is_control() || is_hidden {
            plain.extend(character.escape_debug());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Rows in columns. On a terminal, lines are cut at its width.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows = rows.iter();
    let rows = rows.map(|row| row.iter().map(|cell| plain(cell)).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths = (0..columns).map(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    });
    let mut widths: Vec<usize> = widths.collect();
    if environment::is_terminal() {
        fit(&mut widths, environment::columns());
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{:<width$}", shortened(cell, *width)))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", cut(line.join("  ").trim_end()));
    }
    text
}

/// The least width to which a column is cut.
const LEAST_WIDTH: usize = 8;

/// Cuts columns, the widest first, until a row fits. So every column keeps a part.
fn fit(widths: &mut [usize], columns: usize) {
    let between = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + between > columns {
        let widest = widths.iter_mut().max();
        match widest {
            Some(width) if *width > LEAST_WIDTH => *width -= 1,
            _ => return,
        }
    }
}

/// A cell with at most so many characters. The last one of a cell that was cut is `…`.
fn shortened(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept = cell.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// A line, cut at the width of the terminal.
pub fn cut(line: &str) -> String {
    if environment::is_terminal() {
        line.chars().take(environment::columns()).collect()
    } else {
        line.to_owned()
    }
}

/// The first characters of a commit.
pub fn short_commit(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

/// A time for people.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The records of the project, with those of other machines. Files that are not valid records are
/// named on standard error.
pub fn records(project: &Project, registry: &RegistryAccess) -> Result<Arc<RecordSet>, AnyError> {
    registry.pull(project);
    stored_records(project)
}

/// The records of this machine. Files that are not valid records are named on standard error.
pub fn stored_records(project: &Project) -> Result<Arc<RecordSet>, AnyError> {
    let (records, damaged) = RecordFolder::of_project(&project.root)
        .read()
        .map_err(ledger::Error::from)?;
    for damaged in damaged {
        tell(&format!(
            "note: `{}` is ignored: {}",
            damaged.path.display(),
            plain(&damaged.reason)
        ));
    }
    Ok(records)
}

/// Fails if a store does not exist and no record names it. Records outlive the store.
pub fn check_stores(
    project: &Project,
    records: &RecordSet,
    ids: &[String],
) -> Result<(), AnyError> {
    let existing = project.stores.iter().map(|store| &store.id);
    let recorded = records.iter().map(|stored| stored.record.store());
    let known = existing.chain(recorded);
    let known: BTreeSet<&str> = known.map(StoreId::as_str).collect();
    match ids.iter().find(|id| !known.contains(id.as_str())) {
        None => Ok(()),
        Some(id) => Err(Error::NoStore {
            id: id.clone(),
            nearest: nearest(id, known.iter().copied()).map(str::to_owned),
        }
        .into()),
    }
}

/// Tells runs that are under way from runs that were killed.
pub struct RunningRuns {
    host: String,
    now: Timestamp,
    /// The id of the project's folder.
    folder: String,
    /// Whether no run holds the lock of the project.
    is_idle: bool,
    /// The starts whose process has ended without recording the end.
    killed: BTreeSet<RecordId>,
}

impl RunningRuns {
    /// Asks for the lock of the project, which a run with a build holds until it ends, and for those of the
    /// logs of runs.
    pub fn of_project(project: &Project) -> Self {
        let left_behind = LogFolder::of_project(&project.root).left_behind();
        Self {
            host: environment::actor().host,
            now: Timestamp::now(),
            folder: folder_id(&project.root),
            is_idle: ProjectLock::take_now(&project.root).is_ok(),
            killed: left_behind.into_iter().map(|(start, _)| start).collect(),
        }
    }

    /// Whether a run without a recorded end is under way.
    pub fn has(&self, start: &EventRecord) -> bool {
        let StoreEvent::Started { lease, folder, .. } = &start.what else {
            return false;
        };
        // The clock of another machine may be ahead.
        let age = self.now.duration_since(start.id.made_at()).as_secs().max(0);
        let is_here = start.actor.host == self.host && *folder == self.folder;
        let has_ended = if makes_build(start) {
            self.is_idle
        } else {
            self.killed.contains(&start.id)
        };
        let was_killed = is_here && has_ended;
        u64::try_from(age).is_ok_and(|age| age < *lease) && !was_killed
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{RunningRuns, fit, shortened};
    use crate::ledger::{Actor, EventRecord, RecordId, RecordKind, SCHEMA_VERSION, StoreEvent};
    use crate::store::StoreId;

    /// The start of an operation this many seconds ago.
    fn start(operation: &str, seconds: i64) -> EventRecord {
        let at = Timestamp::now() - SignedDuration::from_secs(seconds);
        EventRecord {
            schema_version: SCHEMA_VERSION,
            id: RecordId::new(RecordKind::Event, at),
            store: StoreId::new("us").unwrap(),
            target: None,
            release: None,
            run: None,
            what: StoreEvent::Started {
                operation: operation.into(),
                lease: 600,
                folder: "here".into(),
                plan: None,
            },
            seconds: None,
            detail: None,
            actor: Actor {
                host: "a".into(),
                ..Actor::default()
            },
            log: None,
        }
    }

    #[test]
    fn a_run_of_this_folder_without_its_lock_was_killed() {
        let (rollback, release) = (start("rollback", 5), start("release", 5));
        let idle = RunningRuns {
            host: "a".into(),
            now: Timestamp::now(),
            folder: "here".into(),
            is_idle: true,
            killed: [release.id.clone()].into(),
        };
        let has = |operation, seconds| idle.has(&start(operation, seconds));
        assert!(!has("deploy", 5) && !has("deploy --until push", 5));
        assert!(idle.has(&rollback) && has("settings set", 5));
        assert!(!idle.has(&release));
        assert!(!has("rollback", 700), "its lease has ended");
        let busy = RunningRuns {
            is_idle: false,
            ..idle
        };
        assert!(busy.has(&start("deploy", 5)));
        assert!(busy.has(&start("deploy", -5)), "a clock that is ahead");
        assert!(!busy.has(&release));
        let elsewhere = RunningRuns {
            folder: "there".into(),
            ..busy
        };
        assert!(elsewhere.has(&release));
    }

    #[test]
    fn every_column_of_a_list_that_is_too_wide_keeps_a_part() {
        let mut widths = [11, 26, 8, 7, 7, 10, 8, 40];
        fit(&mut widths, 80);
        assert_eq!(widths.iter().sum::<usize>() + 14, 80);
        assert!(widths.iter().all(|width| *width >= 7));
        // A row that fits is not changed.
        let mut widths = [11, 10];
        fit(&mut widths, 80);
        assert_eq!(widths, [11, 10]);
        // A terminal that is too narrow for the least widths does not loop.
        let mut widths = [20, 20];
        fit(&mut widths, 5);
        assert_eq!(widths, [8, 8]);
        assert_eq!(shortened("storefront", 8), "storefr…");
    }
}
