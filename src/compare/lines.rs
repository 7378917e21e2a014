//! How many lines two contents differ by.

use std::collections::HashSet;

use git2::{DiffOptions, Patch};

use super::Error;
use super::drift::is_binary;

/// How many lines two contents differ by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCounts {
    /// Both are text.
    Lines {
        /// Number of lines that only the new content has.
        added: usize,
        /// Number of lines that only the old content has.
        removed: usize,
    },
    /// One of the two is binary.
    Binary,
}

/// Lines of both contents together up to which the smallest difference is searched. The time of the
/// search grows with the square of their number.
const SEARCHED_LINES: usize = 20_000;

/// Counts the lines that differ, as `git diff --minimal --numstat` does. In contents of very many lines a
/// few more lines may count as different.
///
/// Most pairs need no search: lines at the start and at the end that are equal, and lines that only one
/// side has, are counted without it. This does not change the smallest difference.
pub fn line_counts(old: &[u8], new: &[u8]) -> Result<LineCounts, Error> {
    if is_binary(old) || is_binary(new) {
        return Ok(LineCounts::Binary);
    }
    let split = |content| <[u8]>::split_inclusive(content, |byte| *byte == b'\n').collect();
    let (old, new): (Vec<&[u8]>, Vec<&[u8]>) = (split(old), split(new));
    let (old, new) = without_equal_ends(&old, &new);
    let (old_shared, new_shared) = (shared(old, new), shared(new, old));
    let (mut added, mut removed) = (new.len() - new_shared.len(), old.len() - old_shared.len());
    let (old, new) = without_equal_ends(&old_shared, &new_shared);
    if old.is_empty() || new.is_empty() {
        (added, removed) = (added + new.len(), removed + old.len());
    } else {
        let counts = searched(old, new).map_err(|source| Error::Patch { source })?;
        (added, removed) = (added + counts.0, removed + counts.1);
    }
    Ok(LineCounts::Lines { added, removed })
}

/// The lines between the equal lines at the start and at the end.
fn without_equal_ends<'l, 'c>(
    old: &'l [&'c [u8]],
    new: &'l [&'c [u8]],
) -> (&'l [&'c [u8]], &'l [&'c [u8]]) {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let end = pairs.take_while(|(a, b)| a == b).count();
    (&old[..old.len() - end], &new[..new.len() - end])
}

/// The lines that the other side has too, in any place.
fn shared<'c>(lines: &[&'c [u8]], other: &[&[u8]]) -> Vec<&'c [u8]> {
    let other: HashSet<&[u8]> = other.iter().copied().collect();
    let lines = lines.iter().copied();
    lines.filter(|line| other.contains(line)).collect()
}

/// The lines added and removed, by libgit2's search.
fn searched(old: &[&[u8]], new: &[&[u8]]) -> Result<(usize, usize), git2::Error> {
    let is_small = old.len() + new.len() <= SEARCHED_LINES;
    let (old, new) = (old.concat(), new.concat());
    let mut options = DiffOptions::new();
    options.context_lines(0).force_text(true).minimal(is_small);
    let patch = Patch::from_buffers(&old, None, &new, None, Some(&mut options))?;
    let (_, added, removed) = patch.line_stats()?;
    Ok((added, removed))
}

#[cfg(test)]
mod tests {
    use super::{LineCounts, line_counts};

    fn counts(old: &str, new: &str) -> (usize, usize) {
        match line_counts(old.as_bytes(), new.as_bytes()).unwrap() {
            LineCounts::Lines { added, removed } => (added, removed),
            LineCounts::Binary => panic!("it is text"),
        }
    }

    /// The smallest difference by the table of the longest common subsequence.
    fn by_table(old: &str, new: &str) -> (usize, usize) {
        let old: Vec<_> = old.split_inclusive('\n').collect();
        let new: Vec<_> = new.split_inclusive('\n').collect();
        let mut table = vec![vec![0; new.len() + 1]; old.len() + 1];
        for (i, a) in old.iter().enumerate() {
            for (j, b) in new.iter().enumerate() {
                table[i + 1][j + 1] = if a == b {
                    table[i][j] + 1
                } else {
                    table[i][j + 1].max(table[i + 1][j])
                };
            }
        }
        let common = table[old.len()][new.len()];
        (new.len() - common, old.len() - common)
    }

    #[test]
    fn the_difference_is_the_smallest_one() {
        proptest::proptest!(|(old in "[abc\n]{0,40}", new in "[abc\n]{0,40}")| {
            assert_eq!(counts(&old, &new), by_table(&old, &new), "{old:?} {new:?}");
        });
        assert_eq!(counts("a\nb\n\n\n\nc\nb\n", "c\nc\nc\n"), (2, 6));
    }

    #[test]
    fn a_nul_makes_content_binary_and_a_missing_line_end_counts() {
        assert_eq!(line_counts(b"a", b"a\0").unwrap(), LineCounts::Binary);
        assert_eq!(counts("a\nb", "a\nb\n"), (1, 1));
        assert_eq!(counts("a\n", "a\r\n"), (1, 1));
    }
}
