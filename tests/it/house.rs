//! The structure of the source: which room may import which, which room may print, and that the
//! generated schema is up to date.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(&root)
        .into_iter()
        .map(|entry| entry.unwrap().into_path());
    let rust = files.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    rust.map(read).collect()
}

/// The room of a file: its first folder, or its name.
fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The crates of this workspace that a file of the program uses.
fn crates_used(text: &str) -> impl Iterator<Item = &'static str> {
    let starts_a_path = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !(c == ':' || c == '_' || c.is_alphanumeric()))
    };
    let is_used = move |name: &&str| {
        let path = format!("{name}::");
        text.match_indices(&path).any(|(at, _)| starts_a_path(at))
    };
    let crates = ["http_client", "oci", "oci_distribution", "virtual_path"];
    crates.into_iter().filter(move |name| is_used(name))
}

/// What each room may see: other rooms, and crates of this workspace.
const TABLE: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("disk", &[]),
    ("dotenv", &[]),
    ("workspace", &["files"]),
    ("cache", &["disk", "http_client", "oci"]),
    ("event", &["store", "cache"]),
    ("files", &["disk", "virtual_path"]),
    ("config", &["store", "files", "oci", "workspace"]),
    ("git", &["disk", "files"]),
    (
        "overlay",
        &["store", "config", "disk", "files", "git", "virtual_path"],
    ),
    (
        "compare",
        &[
            "store",
            "config",
            "files",
            "git",
            "overlay",
            "virtual_path",
            "workspace",
        ],
    ),
    (
        "plan",
        &[
            "store",
            "config",
            "disk",
            "dotenv",
            "files",
            "git",
            "overlay",
            "event",
            "cache",
            "oci",
            "virtual_path",
            "workspace",
        ],
    ),
    (
        "pipeline",
        &[
            "store",
            "edit",
            "config",
            "disk",
            "files",
            "overlay",
            "plan",
            "event",
            "virtual_path",
            "cache",
            "oci",
            "http_client",
            "oci_distribution",
            "redaction",
            "registry",
            "workspace",
        ],
    ),
    (
        "doctor",
        &[
            "cache",
            "config",
            "event",
            "files",
            "git",
            "http_client",
            "oci_distribution",
            "pipeline",
            "plan",
            "registry",
            "store",
            "target",
            "workspace",
        ],
    ),
    (
        "edit",
        &[
            "cache", "store", "config", "disk", "files", "git", "overlay", "compare",
        ],
    ),
    (
        "init",
        &["store", "config", "disk", "files", "git", "workspace"],
    ),
    (
        "ledger",
        &[
            "disk",
            "event",
            "oci",
            "oci_distribution",
            "registry",
            "store",
        ],
    ),
    ("proxy", &["store", "disk"]),
    ("serve", &["store", "event", "plan", "pipeline"]),
    (
        "target",
        &[
            "store",
            "config",
            "disk",
            "event",
            "ledger",
            "plan",
            "pipeline",
            "proxy",
            "redaction",
            "registry",
            "serve",
            "http_client",
            "oci",
            "oci_distribution",
        ],
    ),
    (
        "release",
        &[
            "store",
            "config",
            "event",
            "git",
            "ledger",
            "plan",
            "pipeline",
            "redaction",
            "registry",
            "target",
            "http_client",
            "oci",
            "oci_distribution",
        ],
    ),
    (
        "watch",
        &[
            "store", "config", "disk", "event", "files", "git", "overlay", "pipeline", "plan",
        ],
    ),
    ("redaction", &["http_client"]),
    ("registry", &["oci_distribution"]),
    ("report", &["event", "store"]),
    (
        "cli",
        &[
            "compare",
            "doctor",
            "edit",
            "init",
            "ledger",
            "disk",
            "dotenv",
            "virtual_path",
            "store",
            "config",
            "git",
            "overlay",
            "plan",
            "pipeline",
            "proxy",
            "serve",
            "event",
            "report",
            "error",
            "cache",
            "http_client",
            "oci_distribution",
            "redaction",
            "registry",
            "release",
            "target",
            "watch",
        ],
    ),
    (
        "error",
        &[
            "release",
            "target",
            "watch",
            "compare",
            "cli",
            "config",
            "edit",
            "git",
            "init",
            "ledger",
            "overlay",
            "plan",
            "pipeline",
            "proxy",
            "serve",
            "oci_distribution",
            "registry",
        ],
    ),
    ("main", &[]),
    ("lib", &[]),
];

#[test]
fn imports_go_downward() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let own = room(&file);
        let allowed = TABLE.iter().find(|(name, _)| *name == own).expect(&file).1;
        for name in crates_used(&text).filter(|name| !allowed.contains(name)) {
            wrong.push(format!("src/{file} sees the crate `{name}`"));
        }
        for (start, _) in text.match_indices("crate::") {
            let rest = &text[start + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list[..list.find(';').unwrap()]
                    .split([',', '{', '}'])
                    .map(|name| name.trim().split("::").next().unwrap())
                    .filter(|name| TABLE.iter().any(|(room, _)| room == name))
                    .collect(),
                None => vec![
                    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .next()
                        .unwrap(),
                ],
            };
            for name in names {
                if name != own && !allowed.contains(&name) {
                    wrong.push(format!("src/{file} sees `{name}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_edge_prints() {
    for (file, text) in sources() {
        let prints = ["println!(", "print!(", "io::stdout", "io::stderr"]
            .iter()
            .any(|word| text.contains(word));
        assert!(
            !prints || ["cli", "report"].contains(&room(&file)),
            "src/{file} prints"
        );
    }
}

#[test]
fn rayon_and_tokio_never_meet_in_a_file() {
    for (file, text) in sources() {
        assert!(
            !(text.contains("rayon::") && text.contains("tokio::")),
            "src/{file} has both"
        );
    }
}

#[test]
fn the_committed_schema_is_the_types_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("alokai.config.schema.json");
    let fresh = format!("{:#}\n", alokai::config::schema());
    if std::env::var_os("ALOKAI_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == fresh,
        "alokai.config.schema.json differs from src/config/raw.rs; renew it: \
         ALOKAI_UPDATE_SCHEMA=1 cargo test --test it the_committed_schema"
    );
}

/// The names of the types that a file shows to other files.
fn visible_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim_start().strip_prefix("pub")?;
        let line = match line.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1,
            None => line,
        };
        let mut words = line.split_whitespace();
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&words.next()?);
        let name = words.next()?;
        let end = name.find(|c: char| !c.is_ascii_alphanumeric());
        is_type.then(|| &name[..end.unwrap_or(name.len())])
    })
}

#[test]
fn each_visible_type_has_a_name_of_its_own() {
    let mut files = sources();
    for entry in walkdir::WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")) {
        let path = entry.unwrap().into_path();
        if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path.to_string_lossy().into_owned(), text));
        }
    }
    let mut found = BTreeMap::<&str, Vec<&str>>::new();
    for (file, text) in &files {
        for name in visible_types(text) {
            let files = found.entry(name).or_default();
            // Two variants of one type, for two systems, are in one file.
            if !files.contains(&file.as_str()) {
                files.push(file);
            }
        }
    }
    assert!(found.len() > 200, "the types were not found: {found:?}");
    // The one error of a module is named `Error` by convention.
    let repeated: Vec<_> = found
        .iter()
        .filter(|(name, files)| **name != "Error" && files.len() > 1)
        .collect();
    assert!(repeated.is_empty(), "{repeated:#?}");
}
