//! Comparing a printed transcript with a documented one.
//!
//! Two lines are equal when they differ only in times, sizes, digests, dates and ports. In a
//! documented transcript a line `…` stands for any number of lines, and `…` inside of a line for
//! any text.

use std::sync::LazyLock;

use regex::Regex;

static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // The word boundary keeps words such as `defaced` and numbers such as `20000` apart.
        (
            r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b|\b[0-9a-f]{12}\b",
            "<hex>",
        ),
        (r"\b\d+(\.\d+)? (s|ms)\b", "<time>"),
        (r#"("(?:seconds|\w+Seconds)":)[0-9.e-]+"#, "$1<time>"),
        (r#"("(?:\w+Bytes|total|own)":)\d+"#, "$1<size>"),
        (r"\b\d+(\.\d+)? (B|kB|MB|GB)\b", "<size>"),
        (r"\b(127\.0\.0\.1|localhost):\d{5}\b", "$1:<port>"),
        // The proxy takes the first free port.
        (r"(\w\.localhost)(:\d+)?", "$1:<port>"),
        // Columns are as wide as what stands in them.
        (r"(\S) {2,}", "$1  "),
        (r" {2,}(<time>|<size>)", "  $1"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
    .into()
});

/// A line without what differs from run to run.
pub fn normal(line: &str) -> String {
    let line = line.trim_end().to_owned();
    VARYING.iter().fold(line, |line, (pattern, name)| {
        pattern.replace_all(&line, *name).into_owned()
    })
}

/// Whether a documented line stands for a printed one.
fn is_same(documented: &str, printed: &str) -> bool {
    let (documented, printed) = (normal(documented), normal(printed));
    if !documented.contains('…') {
        return documented == printed;
    }
    let parts: Vec<_> = documented.split('…').map(regex::escape).collect();
    let pattern = format!("^{}$", parts.join(".*"));
    documented == printed || Regex::new(&pattern).unwrap().is_match(&printed)
}

/// Whether a documented transcript stands for a printed one.
pub fn stands_for(documented: &[String], printed: &[String]) -> bool {
    match documented.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| stands_for(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, after)| is_same(first, line) && stands_for(rest, after)),
    }
}

/// The transcript to document: what was printed, with the lines left out that the old one leaves
/// out, and with the old spelling of lines that are the same.
pub fn renewed(old: &[String], printed: &[String]) -> Vec<String> {
    let pairs = common(old, printed);
    let mut new = Vec::new();
    let mut last = (0, 0);
    let ends = [(old.len(), printed.len())];
    for (in_old, in_printed) in pairs.into_iter().chain(ends) {
        let gap = &old[last.0..in_old];
        let lines = &printed[last.1..in_printed];
        match gap.iter().position(|line| line.trim() == "…") {
            None => new.extend_from_slice(lines),
            Some(place) => {
                let shown = place.min(lines.len());
                let tail = (gap.len() - place - 1).min(lines.len() - shown);
                new.extend_from_slice(&lines[..shown]);
                new.push("…".to_owned());
                new.extend_from_slice(&lines[lines.len() - tail..]);
            }
        }
        new.extend(old.get(in_old).cloned());
        last = (in_old + 1, (in_printed + 1).min(printed.len()));
    }
    new
}

/// Places of a longest common subsequence.
fn common(old: &[String], printed: &[String]) -> Vec<(usize, usize)> {
    let same = |i: usize, j: usize| old[i].trim() != "…" && is_same(&old[i], &printed[j]);
    let mut longest = vec![vec![0_usize; printed.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..printed.len()).rev() {
            longest[i][j] = if same(i, j) {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < old.len() && j < printed.len() {
        if same(i, j) && longest[i][j] == longest[i + 1][j + 1] + 1 {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{renewed, stands_for};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn times_sizes_and_digests_may_differ_and_nothing_else() {
        let documented = lines("ok build us (0.5 s)\nus  3.4 s   2.1 MB  96c9d9aa430c");
        let printed = lines("ok build us (12.0 s)\nus  12.0 s  30 kB  1f5870a59b8e");
        assert!(stands_for(&documented, &printed));
        for other in [
            "ok build eu (0.5 s)\nus  3.4 s  2.1 MB  96c9d9aa430c",
            "ok build us (0.5 s)",
            "ok build us (0.5 s)\nus  3.4 s  2.1 MB  96c9d9aa430c\nmore",
            "ok build us (hit)\nus  3.4 s  2.1 MB  96c9d9aa430c",
        ] {
            assert!(!stands_for(&documented, &lines(other)), "{other}");
        }
    }

    #[test]
    fn an_ellipsis_leaves_out_lines_or_a_part_of_one() {
        let printed = lines("a\nb 1\nb 2\nc");
        assert!(stands_for(&lines("a\n…\nc"), &printed));
        assert!(stands_for(&lines("…"), &printed));
        assert!(stands_for(&lines("a\nb …\n…"), &printed));
        assert!(!stands_for(&lines("a\n…\nd"), &printed));
        assert!(!stands_for(&lines("…\nb 1"), &printed));
        assert!(!stands_for(&lines("a\nc …\n…"), &printed));
    }

    #[test]
    fn renewing_keeps_what_is_left_out() {
        let printed = lines("== build\n1\n2\n3\nok us (0.7 s)\ntotal");
        let old = lines("== compile\n…\nok us (0.1 s)\nsum");
        let new = renewed(&old, &printed);
        assert_eq!(new, lines("== build\n…\nok us (0.1 s)\ntotal"));
        assert!(stands_for(&new, &printed));
        assert_eq!(renewed(&[], &printed), printed);
    }
}
