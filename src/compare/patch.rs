//! Two sets of files, compared by git's own library in memory: renames, binary files, hunks
//! and statistics are git's and not ours.

use std::collections::HashMap;

use git2::{
    Delta, Diff, DiffFindOptions, DiffFormat, DiffOptions, IndexEntry, IndexTime, Odb, Oid,
    Repository,
};

use super::Error;

/// A file of one side.
#[derive(Debug, Clone)]
pub struct FileVersion {
    /// With `/`.
    pub path: String,
    /// Git's mode, in octal.
    pub mode: &'static str,
    /// The content; a link's target.
    pub content: Vec<u8>,
    /// Bytes of the file, for which something shorter may stand in `content`.
    pub size: u64,
}

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Git's letter: `A`, `D`, `M`, `R`, `T`.
    pub status: char,
    /// Its path before; the same as `new` but for renames.
    pub old: String,
    /// Its path now.
    pub new: String,
    /// Whether its content is no text.
    pub is_binary: bool,
    /// Bytes before; none where it was not there.
    pub old_size: Option<u64>,
    /// Bytes now; none where it is not there.
    pub new_size: Option<u64>,
    /// How alike a renamed file is, in percent.
    pub similarity: Option<u16>,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// One line of a patch.
#[derive(Debug, Clone)]
pub struct PatchLine {
    /// What it is.
    pub kind: PatchLineKind,
    /// With its sign and its end.
    pub text: Vec<u8>,
}

/// What a line of a patch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchLineKind {
    /// Names and modes.
    Header,
    /// Where a hunk lies.
    Hunk,
    /// Added.
    Added,
    /// Removed.
    Removed,
    /// On both sides.
    Context,
}

/// Everything in which two sets of files differ.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// The files, by path.
    pub files: Vec<FileDifference>,
    /// A patch that `git apply` takes; binary files are not in it.
    pub lines: Vec<PatchLine>,
}

impl Patch {
    /// Compares. Files that are the same on both sides may be left out.
    pub fn between(old: &[FileVersion], new: &[FileVersion]) -> Result<Self, Error> {
        make(old, new).map_err(|source| Error::Patch { source })
    }
}

fn make(old: &[FileVersion], new: &[FileVersion]) -> Result<Patch, git2::Error> {
    let odb = Odb::new()?;
    // Objects live in memory, and only as long as this comparison.
    odb.add_new_mempack_backend(1)?;
    let repository = Repository::from_odb(odb)?;
    let sizes = |versions: &[FileVersion]| -> HashMap<String, u64> {
        let sizes = versions.iter().map(|it| (it.path.clone(), it.size));
        sizes.collect()
    };
    let (old_sizes, new_sizes) = (sizes(old), sizes(new));
    let (old, new) = (tree(&repository, old)?, tree(&repository, new)?);
    let (old, new) = (repository.find_tree(old)?, repository.find_tree(new)?);
    let mut options = DiffOptions::new();
    options.include_typechange(true);
    let mut diff = repository.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
    diff.find_similar(Some(DiffFindOptions::new().renames(true)))?;
    let lines = lines(&diff)?;
    // Whether a file is binary is known once its content has been looked at.
    let path = |file: &git2::DiffFile| {
        let bytes = file.path_bytes().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut files = Vec::new();
    for (index, delta) in diff.deltas().enumerate() {
        let status = match delta.status() {
            Delta::Added => 'A',
            Delta::Deleted => 'D',
            Delta::Renamed => 'R',
            Delta::Typechange => 'T',
            _ => 'M',
        };
        let looked_at = git2::Patch::from_diff(&diff, index)?;
        let is_binary = looked_at
            .as_ref()
            .is_none_or(|patch| patch.delta().flags().is_binary());
        let counts = looked_at.map(|patch| patch.line_stats()).transpose()?;
        let (_, added, removed) = counts.unwrap_or_default();
        let (before, after) = (
            repository.find_blob(delta.old_file().id()).ok(),
            repository.find_blob(delta.new_file().id()).ok(),
        );
        let (old, new) = (path(&delta.old_file()), path(&delta.new_file()));
        files.push(FileDifference {
            status,
            old_size: old_sizes.get(&old).copied().filter(|_| status != 'A'),
            new_size: new_sizes.get(&new).copied().filter(|_| status != 'D'),
            old,
            new,
            is_binary,
            added,
            removed,
            similarity: before
                .zip(after)
                .filter(|_| status == 'R')
                .map(|(before, after)| alike(before.content(), after.content())),
        });
    }
    Ok(Patch { files, lines })
}

/// Percent of the bytes in lines that both have, of the longer one.
fn alike(old: &[u8], new: &[u8]) -> u16 {
    let longer = old.len().max(new.len());
    if longer == 0 || old == new {
        return 100;
    }
    let mut known = HashMap::<&[u8], usize>::new();
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        *known.entry(line).or_default() += 1;
    }
    let mut shared = 0;
    for line in new.split_inclusive(|byte| *byte == b'\n') {
        if let Some(count) = known.get_mut(line).filter(|count| **count > 0) {
            *count -= 1;
            shared += line.len();
        }
    }
    u16::try_from(shared * 100 / longer).unwrap_or(100)
}

fn tree(repository: &Repository, files: &[FileVersion]) -> Result<Oid, git2::Error> {
    let mut index = git2::Index::new()?;
    let never = IndexTime::new(0, 0);
    for file in files {
        index.add(&IndexEntry {
            ctime: never,
            mtime: never,
            dev: 0,
            ino: 0,
            mode: u32::from_str_radix(file.mode, 8).unwrap_or(0o100_644),
            uid: 0,
            gid: 0,
            file_size: 0,
            id: repository.blob(&file.content)?,
            flags: 0,
            flags_extended: 0,
            path: file.path.clone().into_bytes(),
        })?;
    }
    index.write_tree_to(repository)
}

fn lines(diff: &Diff) -> Result<Vec<PatchLine>, git2::Error> {
    let mut lines: Vec<PatchLine> = Vec::new();
    // Where the present file's lines begin: a binary file's header is taken back.
    let mut start = 0;
    diff.print(DiffFormat::Patch, |_, _, line| {
        let kind = match line.origin() {
            'F' => {
                start = lines.len();
                PatchLineKind::Header
            }
            'H' => PatchLineKind::Hunk,
            '+' | '>' => PatchLineKind::Added,
            '-' | '<' => PatchLineKind::Removed,
            'B' => {
                lines.truncate(start);
                return true;
            }
            _ => PatchLineKind::Context,
        };
        let mut text = Vec::new();
        if matches!(line.origin(), '+' | '-' | ' ') {
            text.push(line.origin() as u8);
        }
        text.extend_from_slice(line.content());
        lines.push(PatchLine { kind, text });
        true
    })?;
    Ok(lines)
}
