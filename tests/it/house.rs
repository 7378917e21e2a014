//! The house: who may import whom, who may print, and that generated files are fresh.

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

/// The room of a file: its first folder, or its own name.
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
    ("workspace", &["files"]),
    ("cache", &["http_client", "oci"]),
    ("event", &["store", "cache"]),
    ("files", &["virtual_path"]),
    ("config", &["store", "files", "oci", "workspace"]),
    ("git", &["files"]),
    (
        "overlay",
        &["store", "config", "files", "git", "virtual_path"],
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
            "config",
            "files",
            "overlay",
            "plan",
            "event",
            "virtual_path",
            "cache",
            "oci",
            "http_client",
            "oci_distribution",
            "registry",
            "workspace",
        ],
    ),
    ("registry", &["oci_distribution"]),
    ("report", &["event"]),
    (
        "cli",
        &[
            "compare",
            "virtual_path",
            "store",
            "config",
            "git",
            "overlay",
            "plan",
            "pipeline",
            "event",
            "report",
            "error",
            "cache",
            "http_client",
            "oci_distribution",
            "registry",
        ],
    ),
    (
        "error",
        &[
            "compare",
            "cli",
            "config",
            "git",
            "overlay",
            "plan",
            "pipeline",
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
