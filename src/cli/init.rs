//! `init`: shows the first config of a project and its pipeline, asks, and writes them.

use super::arguments::{Global, InitOptions, PipelineOption};
use super::environment::{self, tell};
use super::show::Page;
use super::{Error, answer};
use crate::compare::{FileVersion, Patch, PatchLineKind};
use crate::error::Error as AnyError;
use crate::init::{CiSystem, Proposal, ProposedFile, propose};

pub fn init(global: &Global, options: &InitOptions) -> Result<(), AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    let ci = options.ci.map(|it| match it {
        PipelineOption::Github => CiSystem::GitHub,
        PipelineOption::Gitlab => CiSystem::GitLab,
    });
    let proposal = propose(&start, ci)?;
    show(&proposal)?;
    if options.dry_run {
        return answer("Dry run: no file was changed.\n");
    }
    if !options.yes {
        if !environment::can_ask() {
            return Err(Error::Unconfirmed.into());
        }
        let count = proposal.files.len();
        let files = if count == 1 {
            "this file"
        } else {
            "these files"
        };
        if !environment::confirms(&format!("Write {files}? [y/N] ")) {
            return answer("No file was changed.\n");
        }
    }
    proposal.write()?;
    for file in &proposal.files {
        tell(&format!("wrote {}", file.name.escape_debug()));
    }
    let cwd = if proposal.root == start {
        String::new()
    } else {
        format!(" (in {})", proposal.root.display())
    };
    tell(&format!(
        "next: `alokai doctor` checks what a deploy needs, `alokai store list` shows the stores{cwd}"
    ));
    Ok(())
}

fn show(proposal: &Proposal) -> Result<(), AnyError> {
    let mut page = Page::unpaged();
    page.title(&proposal.root.display().to_string());
    let width = proposal.facts.iter().map(|(title, _)| title.len()).max();
    let width = width.unwrap_or(0);
    for (title, fact) in &proposal.facts {
        page.paragraph(&format!("  {title:width$}  "), fact);
    }
    for file in &proposal.files {
        page.plain("\n");
        show_file(file, &mut page)?;
    }
    page.plain("\n");
    for note in &proposal.notes {
        page.paragraph("note: ", note);
    }
    page.show()
}

/// A new file with all of its lines, and the change of an existing one as a patch.
fn show_file(file: &ProposedFile, page: &mut Page) -> Result<(), AnyError> {
    let name = file.name.escape_debug();
    let Some(old) = &file.old else {
        page.title(&format!("new file {name}"));
        for line in String::from_utf8_lossy(&file.new).lines() {
            page.coloured(PatchLineKind::Added, &format!("+{line}"));
            page.plain("\n");
        }
        return Ok(());
    };
    page.title(&format!("change of {name}"));
    let version = |content: &[u8]| FileVersion {
        path: file.name.clone(),
        mode: "100644",
        content: content.to_vec(),
        size: content.len() as u64,
    };
    let patch = Patch::between(&[version(old)], &[version(&file.new)])?;
    let lines = patch.lines.into_iter();
    let lines: Vec<_> = lines
        .filter(|line| line.kind != PatchLineKind::Header)
        .collect();
    page.patch(&lines);
    Ok(())
}
