//! Commands that edit the tree of stores: each shows its edit, asks, and makes it.

use std::path::PathBuf;

use serde_json::json;

use super::arguments::{EditOptions, Global};
use super::environment::{self, tell};
use super::run::{check_not_served, document};
use super::show::Page;
use super::{Error, answer, lock, project};
use crate::compare::{FileVersion, OverrideChange, Patch, PatchLineKind, PathImpact, StoreImpact};
use crate::config::Project;
use crate::disk;
use crate::edit::{self, Change, EditProposal, TreeEdit};
use crate::error::Error as AnyError;
use crate::overlay::Owner;
use crate::pipeline::ProjectLock;
use crate::plan;

/// The number of files of one kind that are listed without `--verbose`.
const SHOWN: usize = 10;

/// Makes the proposal of a command, shows it, asks, and makes its changes.
pub fn edit_tree(
    global: &Global,
    options: &EditOptions,
    propose: &dyn Fn(&Project) -> Result<EditProposal, AnyError>,
) -> Result<(), AnyError> {
    let checked = |project: &Project| {
        let proposal = propose(project)?;
        reserved_ids(project, &proposal)?;
        let outdated = proposal.outdated.iter();
        let folders = outdated.filter_map(|path| path.strip_prefix(".out/"));
        check_not_served(&project.root, folders)?;
        Ok(proposal)
    };
    let show = |proposal: &EditProposal, applied: bool| show(proposal, options, applied);
    let Some(made) = confirmed(global, options, &checked, |it| &it.edit, &show)? else {
        return Ok(());
    };
    for path in &made.proposal.outdated {
        // It is made again when it is needed, so a failure is no failure of the edit.
        let _ = disk::remove(&made.root.join(path));
    }
    tell(&format!("done: {}", made.proposal.edit.command));
    for next in &made.proposal.next {
        tell(&format!("next: {next}"));
    }
    Ok(())
}

/// An edit that was made. The project is locked as long as this exists.
pub struct MadeEdit<P> {
    /// What was shown and made.
    pub proposal: P,
    /// The project.
    pub root: PathBuf,
    _lock: ProjectLock,
}

impl<P> MadeEdit<P> {
    /// Releases the lock. Returns the proposal and the project.
    pub fn release(self) -> (P, PathBuf) {
        (self.proposal, self.root)
    }
}

/// Makes a proposal, shows it, asks, and makes its changes; `None` where nothing is changed.
///
/// The proposal is made again under the project's lock. If the project has changed in the meantime, so
/// that the edit is another one, nothing is changed.
pub fn confirmed<P>(
    global: &Global,
    options: &EditOptions,
    propose: &dyn Fn(&Project) -> Result<P, AnyError>,
    edit_of: fn(&P) -> &TreeEdit,
    show: &dyn Fn(&P, bool) -> Result<(), AnyError>,
) -> Result<Option<MadeEdit<P>>, AnyError> {
    let (project, _) = project(global)?;
    let proposal = propose(&project)?;
    let is_empty = edit_of(&proposal).changes.is_empty();
    if options.dry_run || is_empty {
        show(&proposal, false)?;
        if !options.json {
            answer(if is_empty {
                "Nothing to change.\n"
            } else {
                "Dry run: nothing was changed.\n"
            })?;
        }
        return Ok(None);
    }
    if !options.json {
        show(&proposal, false)?;
    }
    if !options.yes {
        // A document is for a script, which cannot answer.
        if options.json || !environment::can_ask() {
            return Err(Error::UnconfirmedEdit.into());
        }
        if !environment::confirms("Make these changes? [y/N] ") {
            answer("Nothing was changed.\n")?;
            return Ok(None);
        }
    }
    let held = lock(&project.root)?;
    let now = Project::load(&project.root)?;
    let again = propose(&now)?;
    if edit_of(&again) != edit_of(&proposal) {
        return Err(Error::EditChanged.into());
    }
    edit::apply(edit_of(&again), &project.root)?;
    if options.json {
        show(&again, true)?;
    }
    Ok(Some(MadeEdit {
        proposal: again,
        root: project.root,
        _lock: held,
    }))
}

/// Fails if the edit gives a store the name of something at the top of the project.
pub fn reserved_ids(project: &Project, proposal: &EditProposal) -> Result<(), AnyError> {
    if plan::check_store_ids(project).is_ok() {
        plan::check_store_ids(&proposal.after)?;
    }
    Ok(())
}

fn show(proposal: &EditProposal, options: &EditOptions, applied: bool) -> Result<(), AnyError> {
    if options.json {
        return document(&json!({
            "schemaVersion": 1,
            "command": proposal.edit.command,
            "applied": applied,
            "changes": proposal.edit.document(),
            "impact": proposal.impact,
            "onlyHere": proposal.only_here,
            "leftBehind": proposal.left_behind,
            "outdated": proposal.outdated,
            "notes": proposal.notes,
            "next": proposal.next,
        }));
    }
    let mut page = Page::unpaged();
    page.title(&proposal.edit.command);
    for change in &proposal.edit.changes {
        page.plain(&format!("  {}\n", change.line()));
    }
    for path in &proposal.outdated {
        page.plain(&format!("  remove       {path} (made by alokai)\n"));
    }
    for change in &proposal.edit.changes {
        patch(change, &mut page)?;
    }
    let limit = if options.verbose { usize::MAX } else { SHOWN };
    let stores = proposal.impact.stores.iter();
    let (same, other): (Vec<_>, Vec<_>) = stores.partition(|store| store.is_none());
    for store in other {
        store_impact(store, limit, &mut page);
    }
    unchanged_stores(&same, limit, &mut page);
    let overrides = [
        (
            "needless afterwards, the same as the file of",
            &proposal.impact.needless,
        ),
        (
            "orphans afterwards, they hid a file of",
            &proposal.impact.orphaned,
        ),
    ];
    for (title, changes) in overrides {
        override_changes(title, changes, limit, &mut page);
    }
    if !proposal.only_here.is_empty() {
        page.title(&format!(
            "only here: {}",
            count(proposal.only_here.len(), "file")
        ));
        let lines = proposal.only_here.iter();
        list(
            lines.map(|file| file.escape_debug().to_string()),
            limit,
            &mut page,
        );
    }
    if !proposal.left_behind.is_empty() {
        page.title("left behind");
        for text in &proposal.left_behind {
            page.paragraph("  ", text);
        }
    }
    for note in &proposal.notes {
        page.paragraph("note: ", note);
    }
    page.show()
}

/// The lines that an edit changes in a file. New files are only named.
fn patch(change: &Change, page: &mut Page) -> Result<(), AnyError> {
    let Change::Write {
        path,
        old: Some(old),
        new,
    } = change
    else {
        return Ok(());
    };
    let version = |content: &[u8]| FileVersion {
        path: path.clone(),
        mode: "100644",
        content: content.to_vec(),
        size: content.len() as u64,
    };
    let patch = Patch::between(&[version(old)], &[version(new.bytes())])?;
    let lines = patch.lines.into_iter();
    let lines: Vec<_> = lines
        .filter(|line| line.kind != PatchLineKind::Header)
        .collect();
    page.title(&format!("change of {}", path.escape_debug()));
    page.patch(&lines);
    Ok(())
}

fn store_impact(store: &StoreImpact, limit: usize, page: &mut Page) {
    let counts: Vec<_> = [
        (store.gained.len(), "gained"),
        (store.lost.len(), "lost"),
        (store.changed.len(), "changed"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} {what}", count(number, "file")))
    .collect();
    page.title(&format!("{}: {}", store.store_id, counts.join(", ")));
    let owner = |path: &PathImpact| {
        let name = |owner: &Option<Owner>| owner.as_ref().map(ToString::to_string);
        match (name(&path.before), name(&path.after)) {
            (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
            (Some(owner), _) | (None, Some(owner)) => owner,
            (None, None) => String::new(),
        }
    };
    for (sign, paths) in [
        ('+', &store.gained),
        ('-', &store.lost),
        ('~', &store.changed),
    ] {
        let lines = paths
            .iter()
            .map(|path| format!("{sign} {}  ({})", path.path.escape_debug(), owner(path)));
        list(lines, limit, page);
    }
    let broken = store.broken_imports.iter().map(|import| {
        format!(
            "! {}:{} ({}) imports `{}`, which does not resolve afterwards",
            import.path.escape_debug(),
            import.line,
            import.owner,
            import.import.escape_debug()
        )
    });
    list(broken, limit, page);
}

/// The stores whose compositions stay the same.
fn unchanged_stores(stores: &[&StoreImpact], limit: usize, page: &mut Page) {
    if stores.is_empty() {
        return;
    }
    let ids = stores.iter().take(limit);
    let ids: Vec<_> = ids.map(|store| store.store_id.as_str()).collect();
    let more = match stores.len().saturating_sub(limit) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    page.paragraph("no composed file changes: ", &(ids.join(", ") + &more));
}

fn override_changes(title: &str, changes: &[OverrideChange], limit: usize, page: &mut Page) {
    if changes.is_empty() {
        return;
    }
    page.title(&format!("{} {title}:", count(changes.len(), "override")));
    let lines = changes
        .iter()
        .map(|change| format!("{}  ({})", change.file.escape_debug(), change.hides));
    list(lines, limit, page);
}

fn list(lines: impl ExactSizeIterator<Item = String>, limit: usize, page: &mut Page) {
    let rest = lines.len().saturating_sub(limit);
    for line in lines.take(limit) {
        page.plain(&format!("  {line}\n"));
    }
    if rest > 0 {
        page.plain(&format!("  … {rest} more; `--verbose` lists all\n"));
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}
