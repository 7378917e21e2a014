//! `--stat` and names as git prints them.
//!
//! An own drawing: the one of git's library gives a file that was only added a line removed.

use crate::compare::{FileDiff, PatchLineKind};

use super::show::Page;

/// Draws the statistics in so many columns, as `git diff --stat` does.
pub fn stat(files: &[FileDiff], columns: usize, page: &mut Page) {
    let names: Vec<_> = files.iter().map(name).collect();
    let most = files.iter().map(|file| file.added + file.removed).max();
    let most = most.unwrap_or(0);
    let digits = most.to_string().len().max(
        // `Bin` stands where the number stands.
        if files.iter().any(|file| file.binary) {
            3
        } else {
            0
        },
    );
    let longest = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    // A blank before and after the name, a bar, blanks around the number.
    let frame = digits + 6;
    let mut width = longest;
    let mut graph = most;
    if width + frame + graph > columns {
        graph = graph.min((columns * 3 / 8).saturating_sub(frame).max(6));
        width = width.min(columns.saturating_sub(frame + graph));
    }
    for (file, name) in files.iter().zip(&names) {
        let name = shortened(name, width);
        page.plain(&format!(" {name:width$} | "));
        if file.binary {
            let (old, new) = (file.old_bytes, file.new_bytes);
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            page.plain(&format!("{:>digits$} {old} -> {new} bytes\n", "Bin"));
            continue;
        }
        let (added, removed) = (file.added, file.removed);
        page.plain(&format!("{:>digits$}", added + removed));
        let (plus, minus) = bars(added, removed, most, graph);
        if plus + minus > 0 {
            page.plain(" ");
            page.coloured(PatchLineKind::Added, &"+".repeat(plus));
            page.coloured(PatchLineKind::Removed, &"-".repeat(minus));
        }
        page.plain("\n");
    }
    if !files.is_empty() {
        page.plain(&sum(files));
    }
}

/// How long the bars are, in so many columns for the most that changed.
fn bars(added: usize, removed: usize, most: usize, columns: usize) -> (usize, usize) {
    let scale = |count: usize| match count {
        0 => 0,
        count if most <= columns => count,
        count => 1 + count * (columns - 1) / most,
    };
    let total = scale(added + removed);
    if added > 0 && removed > 0 {
        let total = total.max(2);
        let smaller = scale(added.min(removed)).clamp(1, total - 1);
        return if added < removed {
            (smaller, total - smaller)
        } else {
            (total - smaller, smaller)
        };
    }
    (scale(added), scale(removed))
}

fn sum(files: &[FileDiff]) -> String {
    let many = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let added: usize = files.iter().map(|file| file.added).sum();
    let removed: usize = files.iter().map(|file| file.removed).sum();
    let mut sum = format!(" {}", many(files.len(), "file changed", "files changed"));
    if added > 0 || removed == 0 {
        sum.push_str(", ");
        sum.push_str(&many(added, "insertion(+)", "insertions(+)"));
    }
    if removed > 0 || added == 0 {
        sum.push_str(", ");
        sum.push_str(&many(removed, "deletion(-)", "deletions(-)"));
    }
    sum + "\n"
}

/// The path, or the way from the old to the new one: `app/{old => new}/page.tsx`.
fn name(file: &FileDiff) -> String {
    let Some(old) = &file.old_path else {
        return quoted(&file.path);
    };
    let new = &file.path;
    let same = old
        .bytes()
        .zip(new.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let start = old[..old.floor_char_boundary(same)]
        .rfind('/')
        .map_or(0, |slash| slash + 1);
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let same = old_rest.bytes().rev().zip(new_rest.bytes().rev());
    let same = same.take_while(|(a, b)| a == b).count();
    let tail = &old_rest[old_rest.ceil_char_boundary(old_rest.len() - same)..];
    let tail = tail.find('/').map_or("", |slash| &tail[slash..]);
    if start == 0 && tail.is_empty() {
        return format!("{} => {}", quoted(old), quoted(new));
    }
    let middle = |rest: &str| rest[..rest.len() - tail.len()].to_owned();
    quoted(&format!(
        "{}{{{} => {}}}{tail}",
        &old[..start],
        middle(old_rest),
        middle(new_rest)
    ))
}

/// Cut at its front, best at a slash.
fn shortened(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(length + 3 - width.max(3)).collect();
    let tail = tail.find('/').map_or(tail.as_str(), |slash| &tail[slash..]);
    format!("...{tail}")
}

/// As `core.quotePath` has it: what is no printable ASCII in octal, and then in quotes.
pub fn quoted(path: &str) -> String {
    use std::fmt::Write as _;
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if path.bytes().all(is_plain) {
        return path.to_owned();
    }
    let mut quoted = String::from("\"");
    for byte in path.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b'\n' => quoted.push_str("\\n"),
            b'\t' => quoted.push_str("\\t"),
            byte if is_plain(byte) => quoted.push(char::from(byte)),
            // Writing to a string cannot fail.
            byte => drop(write!(quoted, "\\{byte:03o}")),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::{bars, quoted, shortened};

    #[test]
    fn bars_and_names_are_gits() {
        assert_eq!(bars(4, 0, 12, 40), (4, 0));
        assert_eq!(bars(300, 0, 300, 20), (20, 0));
        assert_eq!(bars(1, 299, 300, 20), (1, 19));
        assert_eq!(shortened("some/long/way/page.tsx", 15), ".../page.tsx");
        assert_eq!(quoted("é x.tsx"), "\"\\303\\251 x.tsx\"");
    }
}
