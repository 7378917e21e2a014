//! Comparing two sets of files with libgit2, in memory. Renames, binary files, hunks and statistics
//! are libgit2's.

use std::collections::HashMap;

use git2::{
    Delta, Diff, DiffFindOptions, DiffFormat, DiffOptions, IndexEntry, IndexTime, Odb, Oid,
    Repository,
};

use super::Error;

/// One side's version of a file.
#[derive(Debug, Clone)]
pub struct FileVersion {
    /// The path, with `/`.
    pub path: String,
    /// The mode in git, in octal.
    pub mode: &'static str,
    /// The content; for a link, its target.
    pub content: Vec<u8>,
    /// Size of the file in bytes. `content` can be a shorter placeholder.
    pub size: u64,
}

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// The letter that git uses: `A`, `D`, `M`, `R` or `T`.
    pub status: char,
    /// The old path; it differs from `new` only for a rename.
    pub old: String,
    /// The new path.
    pub new: String,
    /// Whether the content is binary.
    pub is_binary: bool,
    /// Old size in bytes; `None` for an added file.
    pub old_size: Option<u64>,
    /// New size in bytes; `None` for a removed file.
    pub new_size: Option<u64>,
    /// Similarity of a renamed file, in percent.
    pub similarity: Option<u16>,
    /// Number of lines added.
    pub added: usize,
    /// Number of lines removed.
    pub removed: usize,
}

/// One line of a patch.
#[derive(Debug, Clone)]
pub struct PatchLine {
    /// Which part of the patch it belongs to.
    pub kind: PatchLineKind,
    /// The text, with sign and line end.
    pub text: Vec<u8>,
}

/// Which part of a patch a line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchLineKind {
    /// The file's header, with names and modes.
    Header,
    /// The header of a hunk, with line numbers.
    Hunk,
    /// An added line.
    Added,
    /// A removed line.
    Removed,
    /// A line of both sides.
    Context,
}

/// The differences between two sets of files.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// The files that differ, by path.
    pub files: Vec<FileDifference>,
    /// A patch for `git apply`, without binary files.
    pub lines: Vec<PatchLine>,
}

impl Patch {
    /// Compares two sets of files. Equal files may be left out of both.
    pub fn between(old: &[FileVersion], new: &[FileVersion]) -> Result<Self, Error> {
        make(old, new).map_err(|source| Error::Patch { source })
    }
}

fn make(old: &[FileVersion], new: &[FileVersion]) -> Result<Patch, git2::Error> {
    let odb = Odb::new()?;
    // Objects are kept in memory, for this comparison only.
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
        // Only a patch says whether a file is binary: making it reads the content.
        let compared = git2::Patch::from_diff(&diff, index)?;
        let is_binary = compared
            .as_ref()
            .is_none_or(|patch| patch.delta().flags().is_binary());
        let counts = compared.map(|patch| patch.line_stats()).transpose()?;
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
                .map(|(before, after)| similarity(before.content(), after.content())),
        });
    }
    Ok(Patch { files, lines })
}

/// Bytes in lines that both have, in percent of the longer content.
fn similarity(old: &[u8], new: &[u8]) -> u16 {
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
    // Where the current file's lines start. The header of a binary file is removed again.
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
