//! Properties that hold for every input.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alokai::disk::Stamp;
use alokai::overlay::{
    ContentId, ContentSource, FileKind, IgnoreRules, Layer, LayerFile, Owner, merge, winner,
};
use alokai::store::{Store, StoreId};
use proptest::prelude::*;

use crate::support::Random;

fn layer(paths: BTreeMap<String, u8>) -> Layer {
    let files = paths.into_iter().map(|(path, content)| {
        let file = LayerFile {
            kind: FileKind::File { executable: false },
            id: ContentId::of(&[content]),
            source: ContentSource::Disk(Path::new("x").into(), Stamp::default()),
        };
        (Arc::from(path), Arc::new(file))
    });
    Layer {
        owner: Owner::Base,
        is_closed: true,
        folders: std::collections::BTreeSet::new(),
        files: files.collect(),
    }
}

/// Layers with few names, so that they often have the same paths.
fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let path = prop::collection::vec("[ab]", 1..4).prop_map(|parts| parts.join("/"));
    let one = prop::collection::btree_map(path, any::<u8>(), 0..8).prop_map(layer);
    prop::collection::vec(one, 0..6)
}

/// The result of a merge as a layer.
fn merged(layers: &[&Layer]) -> BTreeMap<Arc<str>, ContentId> {
    let (merged, _) = merge(layers, |_, _| true);
    merged
        .into_iter()
        .map(|(path, entry)| (path, entry.file.id))
        .collect()
}

fn as_layer(layers: &[&Layer]) -> Layer {
    let (merged, _) = merge(layers, |_, _| true);
    Layer {
        owner: Owner::Base,
        is_closed: true,
        folders: std::collections::BTreeSet::new(),
        files: merged
            .into_iter()
            .map(|(path, entry)| (path, Arc::clone(entry.file)))
            .collect(),
    }
}

proptest! {
    #[test]
    fn merging_is_associative_has_an_identity_and_the_nearest_wins(layers in layers(), split in 0_usize..6) {
        let all: Vec<&Layer> = layers.iter().collect();
        let split = split.min(all.len());
        let (left, right) = (as_layer(&all[..split]), as_layer(&all[split..]));
        prop_assert_eq!(merged(&all), merged(&[&left, &right]));

        let empty = layer(BTreeMap::new());
        let padded: Vec<&Layer> = [&empty].into_iter().chain(all.iter().copied()).chain([&empty]).collect();
        prop_assert_eq!(merged(&all), merged(&padded));

        for (path, id) in merged(&all) {
            let nearest = all.iter().rev().find_map(|layer| layer.files.get(&path)).unwrap();
            prop_assert_eq!(id, nearest.id);
            prop_assert_eq!(id, winner(&all, |_, _| true, &path).unwrap().file.id);
        }
    }

    #[test]
    fn a_clash_is_found_exactly_where_a_file_lies_above_another(layers in layers()) {
        let all: Vec<&Layer> = layers.iter().collect();
        let (merged, clashes) = merge(&all, |_, _| true);
        for path in merged.keys() {
            let above = merged.keys().any(|other| other.starts_with(&format!("{path}/")));
            prop_assert_eq!(above, clashes.iter().any(|clash| clash.path == *path));
        }
    }

    #[test]
    fn a_bracket_in_a_rule_means_itself(name in "[a-z]{1,6}") {
        let rules = rules_of(&[format!("app/[{name}]/page.tsx")]);
        let dropped = |path: String| rules.drops(&path).is_some();
        let (meant, other) = (format!("app/[{name}]/page.tsx"), format!("app/{}/page.tsx", &name[..1]));
        prop_assert!(dropped(meant) && !dropped(other));
    }
}

/// The parts of paths and rules: a few letters, and all special characters of gitignore.
const NAMES: [&str; 14] = [
    "a",
    "b",
    "ab",
    "a.ts",
    "b.tsx",
    "[x]",
    "[[...slug]]",
    "{c}",
    "docs",
    "a b",
    "#h",
    "!n",
    "é",
    "a*b",
];
const GLOBS: [&str; 24] = [
    "a",
    "b",
    "*",
    "**",
    "?",
    "a*",
    "*b",
    "*.ts",
    "*.ts*",
    "a**",
    "**b",
    "a**b",
    "***",
    "?b",
    "[x]",
    "[*]",
    "[[...slug]]",
    "{c}",
    "{a,b}",
    "docs",
    "a b",
    "\\a",
    "é",
    "a\\*b",
];

fn random_path(random: &mut Random) -> String {
    let parts = 1 + random.below(4);
    let parts: Vec<_> = (0..parts).map(|_| random.pick(&NAMES)).collect();
    parts.join("/")
}

fn random_rule(random: &mut Random) -> String {
    let parts = 1 + random.below(3);
    let parts: Vec<_> = (0..parts).map(|_| random.pick(&GLOBS)).collect();
    let mut rule = parts.join("/");
    if random.once_in(4) {
        rule.insert(0, '/');
    }
    if random.once_in(4) {
        rule.push('/');
    }
    if random.once_in(4) {
        rule.insert(0, '!');
    }
    match random.below(24) {
        0 => rule.push(' '),
        1 => rule.push_str("\\ "),
        2 => rule.push('\t'),
        3 => rule.insert(0, '#'),
        4 => rule.insert_str(0, "\\#"),
        5 => rule.insert_str(0, "\\!"),
        6 => rule.push('\\'),
        _ => {}
    }
    rule
}

/// The rule in git's syntax, in which brackets must be escaped.
fn for_git(rule: &str) -> String {
    let mut escaped = String::new();
    let mut chars = rule.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                escaped.push(char);
                escaped.extend(chars.next());
            }
            '[' | ']' => escaped.extend(['\\', char]),
            other => escaped.push(other),
        }
    }
    escaped
}

fn rules_of(patterns: &[String]) -> IgnoreRules {
    let store = Store {
        id: StoreId::new("us").unwrap(),
        parent: None,
        folder: None,
        apps: Vec::new(),
        deployment: None,
        ignore_paths: patterns.to_vec(),
    };
    IgnoreRules::new(&[&store])
}

/// The paths that git ignores.
fn ignored_by_git(root: &Path, patterns: &[String], paths: &[String]) -> Vec<bool> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let lines: Vec<_> = patterns.iter().map(|rule| for_git(rule)).collect();
    std::fs::write(root.join(".gitignore"), lines.join("\n") + "\n").unwrap();
    let mut git = Command::new("git")
        .args([
            "check-ignore",
            "--no-index",
            "--verbose",
            "--non-matching",
            "-z",
            "--stdin",
        ])
        .current_dir(root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = git.stdin.take().unwrap();
    stdin.write_all(paths.join("\0").as_bytes()).unwrap();
    drop(stdin);
    let output = git.wait_with_output().unwrap().stdout;
    let output = String::from_utf8(output).unwrap();
    // Git prints four fields for a path: file, line, pattern, path.
    let fields: Vec<_> = output.split('\0').collect();
    let answers: Vec<_> = fields.chunks_exact(4).collect();
    assert_eq!(answers.len(), paths.len());
    answers
        .iter()
        .zip(paths)
        .map(|(answer, path)| {
            assert_eq!(answer[3], path);
            !answer[2].is_empty() && !answer[2].starts_with('!')
        })
        .collect()
}

#[test]
fn rules_are_gits_on_twenty_thousand_random_pairs() {
    let folder = tempfile::tempdir().unwrap();
    git2::Repository::init(folder.path()).unwrap();
    let random = &mut Random::new(7);
    let (mut compared, mut dropped) = (0, 0);
    let mut differences = Vec::new();
    for _ in 0..500 {
        let patterns: Vec<_> = (0..=random.below(4)).map(|_| random_rule(random)).collect();
        let mut paths: Vec<_> = (0..50).map(|_| random_path(random)).collect();
        paths.sort();
        paths.dedup();
        let rules = rules_of(&patterns);
        let expected = ignored_by_git(folder.path(), &patterns, &paths);
        for (path, expected) in paths.iter().zip(expected) {
            compared += 1;
            dropped += usize::from(expected);
            if rules.drops(path).is_some() != expected {
                differences.push(format!("{patterns:?} {path:?}: git says {expected}"));
            }
        }
    }
    assert!(
        compared >= 20_000 && dropped > 2_000,
        "{compared}, {dropped} of them dropped"
    );
    assert!(
        differences.is_empty(),
        "{} of {compared} differ:\n{}",
        differences.len(),
        differences[..differences.len().min(30)].join("\n")
    );
}
