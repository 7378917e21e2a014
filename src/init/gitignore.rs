//! The lines of `.gitignore` for the folders that this program writes.

use super::{Error, ProposedFile, Survey, read_if_there};

const NAME: &str = ".gitignore";

/// The lines for the folders that this program writes in a project. Folders `.alokai` of apps have files
/// of the user, so only that of the project is ignored.
const LINES: [&str; 2] = [".out/", "/.alokai/"];

/// The change of `.gitignore`. `None` if git already ignores the folders.
pub fn propose(survey: &Survey, notes: &mut Vec<String>) -> Result<Option<ProposedFile>, Error> {
    let path = survey.root.join(NAME);
    let old = read_if_there(&path)?;
    let mut missing = Vec::new();
    for line in LINES {
        let folder = line.trim_start_matches('/');
        let is_ignored = match &survey.repository {
            Some(repository) => repository.ignores(folder)?,
            None => has_line(old.as_deref().unwrap_or_default(), folder),
        };
        if !is_ignored {
            missing.push(line);
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    if path.is_symlink() {
        notes.push(format!(
            "add {} to `.gitignore` yourself: it is a symbolic link, which git does not follow",
            missing.join(" and ")
        ));
        return Ok(None);
    }
    let new = with_lines(old.as_deref().unwrap_or_default(), &missing);
    Ok(Some(survey.file(path, old, new)))
}

/// Whether a file ignores the folder literally. Other patterns are not evaluated, because only git can
/// evaluate them, and only in a repository.
fn has_line(text: &[u8], folder: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    let name = folder.trim_end_matches('/');
    text.lines().any(|line| {
        let line = line.trim_end();
        line.strip_prefix('/').unwrap_or(line).trim_end_matches('/') == name
    })
}

/// The text with more lines at its end, with the line ends that it has.
fn with_lines(old: &[u8], lines: &[&str]) -> Vec<u8> {
    let crlf = old.windows(2).filter(|pair| pair == b"\r\n").count();
    let all = old.split(|byte| *byte == b'\n').count().saturating_sub(1);
    let end: &[u8] = if crlf * 2 > all { b"\r\n" } else { b"\n" };
    let mut new = old.to_vec();
    if !old.is_empty() && !old.ends_with(b"\n") {
        new.extend_from_slice(end);
    }
    for line in lines {
        new.extend_from_slice(line.as_bytes());
        new.extend_from_slice(end);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::{has_line, with_lines};

    #[test]
    fn lines_are_appended_with_the_line_ends_of_the_file() {
        for (old, new) in [
            ("", ".out/\n"),
            ("lib\n", "lib\n.out/\n"),
            ("lib", "lib\n.out/\n"),
            ("lib\r\nx\r\n", "lib\r\nx\r\n.out/\r\n"),
            ("lib\r\nx", "lib\r\nx\r\n.out/\r\n"),
            ("a\nb\nlib\r\n", "a\nb\nlib\r\n.out/\n"),
        ] {
            assert_eq!(
                with_lines(old.as_bytes(), &[".out/"]),
                new.as_bytes(),
                "{old:?}"
            );
        }
    }

    #[test]
    fn a_literal_line_is_found() {
        for text in [".out", ".out/", "/.out", "/.out/", "lib\r\n.out/\r\n"] {
            assert!(has_line(text.as_bytes(), ".out/"), "{text:?}");
        }
        for text in ["", "# .out", "x.out", ".outer"] {
            assert!(!has_line(text.as_bytes(), ".out/"), "{text:?}");
        }
    }
}
