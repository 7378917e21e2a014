//! Three versions of a file: what a merge brings, and how far two of them are apart.

use git2::{MergeFileInput, MergeFileOptions};

use crate::compare::Error;

/// Whether merging would leave the override as it is.
pub fn brings_nothing(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<bool, Error> {
    if is_binary(base) || is_binary(ours) || is_binary(theirs) {
        return Ok(false);
    }
    let merged = three_way(base, ours, theirs, ("", ""))?;
    Ok(merged.clean && merged.content == ours)
}

/// What a merge gave.
pub struct MergeResult {
    /// With conflict markers where it had to.
    pub content: Vec<u8>,
    /// Whether it had to nowhere.
    pub clean: bool,
}

/// Merges, as git does. The names are ours and theirs, for conflict markers.
pub fn three_way(
    base: &[u8],
    ours: &[u8],
    theirs: &[u8],
    names: (&str, &str),
) -> Result<MergeResult, Error> {
    let mut options = MergeFileOptions::new();
    options.our_label(names.0).their_label(names.1);
    merge(base, ours, theirs, &mut options)
}

fn merge(
    base: &[u8],
    ours: &[u8],
    theirs: &[u8],
    options: &mut MergeFileOptions,
) -> Result<MergeResult, Error> {
    let input = |content| {
        let mut input = MergeFileInput::new();
        input.content(content);
        input
    };
    let (base, ours, theirs) = (input(base), input(ours), input(theirs));
    let merged = git2::merge_file(&base, &ours, &theirs, Some(options))
        .map_err(|source| Error::Patch { source })?;
    Ok(MergeResult {
        content: merged.content().to_vec(),
        clean: merged.is_automergeable(),
    })
}

/// Merges, with ours wherever the two are in conflict.
pub fn keep_ours(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Error> {
    let mut options = MergeFileOptions::new();
    options.favor(git2::FileFavor::Ours);
    Ok(merge(base, ours, theirs, &mut options)?.content)
}

/// Our side of every conflict that is marked.
pub fn ours_in_conflicts(merged: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut ours: Option<Vec<u8>> = None;
    for line in merged.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b"<<<<<<<") {
            ours = Some(Vec::new());
        } else if line.starts_with(b"=======") {
            found.extend(ours.take());
        } else if let Some(ours) = &mut ours {
            ours.extend_from_slice(line);
        }
    }
    found
}

/// How many lines have to be added and removed to get from one to the other.
pub fn distance(from: &[u8], to: &[u8]) -> Result<usize, Error> {
    git2::Patch::from_buffers(from, None, to, None, None)
        .and_then(|patch| patch.line_stats())
        .map(|(_, added, removed)| added + removed)
        .map_err(|source| Error::Patch { source })
}

/// As git tells it: a NUL in the first 8000 bytes.
pub fn is_binary(content: &[u8]) -> bool {
    content.iter().take(8000).any(|byte| *byte == 0)
}

/// Whether conflicts of an earlier merge are still marked.
pub fn has_markers(content: &[u8]) -> bool {
    !ours_in_conflicts(content).is_empty()
}

/// How often the bytes occur.
pub fn count(content: &[u8], wanted: &[u8]) -> usize {
    let windows = content.windows(wanted.len());
    windows.filter(|window| *window == wanted).count()
}
