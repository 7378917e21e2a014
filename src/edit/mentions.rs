//! Files outside of a store's folder that seem to name the store. An edit does not change them.

use crate::config::{FILE, Project};

/// Size in bytes of the largest file that is searched.
const LARGEST: u64 = 1 << 20;

/// Folders whose files are searched besides those at the top of the project.
const FOLDERS: [&str; 3] = ["", ".github/workflows", "scripts"];

/// Places `file:line` that seem to name the store: its folder, a unit, or an option with its id; and
/// in the config the id as a whole value of a key that alokai does not know.
fn mentions(project: &Project, id: &str) -> Vec<String> {
    let units = project.apps.iter().map(|app| format!("{}-{id}", app.name));
    let options = ["--store ", "--store=", "--store-id ", "--store-id=", "-s "];
    let options = options.iter().map(|option| format!("{option}{id}"));
    let mut wanted = vec![format!("stores/{id}"), format!(".out/{id}")];
    wanted.extend(units.chain(options));
    let mut found = Vec::new();
    for folder in FOLDERS {
        let Ok(entries) = std::fs::read_dir(project.root.join(folder)) else {
            continue;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let is_small = path
                .symlink_metadata()
                .is_ok_and(|it| it.is_file() && it.len() <= LARGEST);
            let Some(text) = is_small
                .then(|| std::fs::read_to_string(&path).ok())
                .flatten()
            else {
                continue;
            };
            let is_config = path.file_name().is_some_and(|name| name == FILE);
            let name = path.strip_prefix(&project.root).unwrap_or(&path).display();
            for (index, line) in text.lines().enumerate() {
                let names = if is_config {
                    is_value(line, id)
                } else {
                    wanted.iter().any(|wanted| has_word(line, wanted))
                };
                if names {
                    found.push(format!("{name}:{}", index + 1));
                }
            }
        }
    }
    found
}

/// Whether the line has the text, and no letter, digit, `-` or `_` next to it.
fn has_word(line: &str, text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + text.len()..].chars().next();
        let starts = text.starts_with('-') || !before.is_some_and(is_part);
        starts && !after.is_some_and(is_part)
    })
}

/// Whether the id is a string in the line that is not a key.
fn is_value(line: &str, id: &str) -> bool {
    let quoted = serde_json::Value::from(id).to_string();
    line.match_indices(&quoted).any(|(at, _)| {
        let after = line[at + quoted.len()..].trim_start();
        !after.starts_with(':')
    })
}

/// A note about files that name a store.
pub fn note(project: &Project, id: &str) -> Option<String> {
    let places = mentions(project, id);
    (!places.is_empty()).then(|| {
        format!(
            "these lines seem to name `{id}`, and are not changed: {}",
            places.join(", ")
        )
    })
}
