//! Three-way merges, and the distance between two versions of a file.

use git2::{MergeFileInput, MergeFileOptions};

use crate::compare::Error;

/// Whether a merge leaves the override (`ours`) unchanged.
pub fn is_merged(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<bool, Error> {
    if is_binary(base) || is_binary(ours) || is_binary(theirs) {
        return Ok(false);
    }
    let merged = three_way(base, ours, theirs, ("", ""))?;
    Ok(merged.is_clean && merged.content == ours)
}

/// The result of a merge.
pub struct MergeResult {
    /// The merged content, with conflict markers around conflicts.
    pub content: Vec<u8>,
    /// Whether there are no conflicts.
    pub is_clean: bool,
}

/// Merges as git does. `names` are the names of our and their file in conflict markers.
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
        is_clean: merged.is_automergeable(),
    })
}

/// Merges, and takes our side of every conflict.
pub fn keep_ours(base: &[u8], ours: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Error> {
    let mut options = MergeFileOptions::new();
    options.favor(git2::FileFavor::Ours);
    Ok(merge(base, ours, theirs, &mut options)?.content)
}

/// Our side of every marked conflict.
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

/// How many lines are added and removed between two versions.
pub fn distance(from: &[u8], to: &[u8]) -> Result<usize, Error> {
    git2::Patch::from_buffers(from, None, to, None, None)
        .and_then(|patch| patch.line_stats())
        .map(|(_, added, removed)| added + removed)
        .map_err(|source| Error::Patch { source })
}

/// Whether the content is binary. As in git, it is if one of the first 8000 bytes is NUL.
pub fn is_binary(content: &[u8]) -> bool {
    content.iter().take(8000).any(|byte| *byte == 0)
}

/// Whether the content has conflict markers of an earlier merge.
pub fn has_markers(content: &[u8]) -> bool {
    !ours_in_conflicts(content).is_empty()
}

/// How often the bytes occur in the content.
pub fn count(content: &[u8], wanted: &[u8]) -> usize {
    let windows = content.windows(wanted.len());
    windows.filter(|window| *window == wanted).count()
}
