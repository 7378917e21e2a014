//! Links lead to files and headings that exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::pages::{Page, pages, root};

static LINK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"\]\(([^)\s]+)\)|(?:src|href)="([^"]+)""#).unwrap());

/// The anchors of a page, as mdBook and GitHub make them of headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line, is_code) in page.lines() {
        let title = line.trim_start_matches('#');
        if is_code || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|character| match character {
                ' ' => Some('-'),
                '-' | '_' => Some(character),
                _ => character.is_alphanumeric().then_some(character),
            })
            .collect();
        anchors.insert(slug);
    }
    anchors
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

/// Why a link leads nowhere.
fn broken(page: &Page, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match file {
        "" => page.path.clone(),
        file => {
            let folder = Path::new(&page.path).parent().unwrap();
            plain(&folder.join(file)).display().to_string()
        }
    };
    if !root().join(&target).exists() {
        return Some("does not exist".into());
    }
    // The rendered book has nothing else.
    if page.path.starts_with("docs/src/") && !target.starts_with("docs/src/") {
        return Some("is outside of the book".into());
    }
    let has_anchor = || {
        let is_here = target == page.path;
        let there = (!is_here).then(|| Page::read(&target));
        anchors(there.as_ref().unwrap_or(page)).contains(anchor)
    };
    if anchor.is_empty() || has_anchor() {
        return None;
    }
    Some(format!("has no heading `#{anchor}`"))
}

fn check(page: &Page) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line, is_code) in page.lines() {
        if is_code {
            continue;
        }
        for found in LINK.captures_iter(line) {
            let link = found.get(1).or(found.get(2)).unwrap().as_str();
            if let Some(reason) = broken(page, link) {
                wrong.push(format!("{}:{number}: `{link}` {reason}", page.path));
            }
        }
    }
    wrong
}

#[test]
fn every_link_leads_somewhere() {
    let mut all = pages();
    all.extend(
        [
            "BENCHMARKS.md",
            "apps-example/README.md",
            "fixtures/shop/README.md",
        ]
        .map(Page::read),
    );
    let wrong: Vec<_> = all.iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a file or folder of the repository has this path, or a path that ends with it.
fn is_somewhere(path: &str) -> bool {
    let folders = ["src", "crates", "tests"];
    let end = Path::new(path.trim_end_matches('/'));
    let folders = folders.map(|folder| root().join(folder));
    root().join(end).exists()
        || folders
            .iter()
            .filter(|folder| folder.is_dir())
            .flat_map(walkdir::WalkDir::new)
            .any(|entry| entry.unwrap().path().ends_with(end))
}

#[test]
fn every_room_and_file_that_the_architecture_names_exists() {
    let page = Page::read("ARCHITECTURE.md");
    let is_place = |span: &String| {
        let inside = span.trim_end_matches('/');
        let is_path =
            inside.contains('/') || Path::new(inside).extension().is_some_and(|end| end == "rs");
        let is_here = !span.starts_with('.');
        is_path && is_here && !span.contains(['<', ' ', ':'])
    };
    let places = page.spans().into_iter().filter(|(_, span)| is_place(span));
    let missing: Vec<_> = places.filter(|(_, span)| !is_somewhere(span)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md: {missing:?}");
    assert!(!is_somewhere("overlay/nothing.rs"));
}

#[test]
fn a_broken_link_is_found() {
    let page = |text: &str| Page {
        path: "docs/src/start.md".into(),
        text: text.into(),
    };
    let good = "# A `b` c, d\n[x](#a-b-c-d) [y](images.md) [z](https://example.com)\n```sh\n[w](no.md)\n```";
    assert_eq!(check(&page(good)), Vec::<String>::new());
    for bad in [
        "[x](no.md)",
        "[x](#nothing)",
        "[x](../../Cargo.toml)",
        r#"<img src="no.svg">"#,
    ] {
        assert_eq!(check(&page(bad)).len(), 1, "{bad}");
    }
}
