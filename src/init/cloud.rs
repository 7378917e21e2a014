//! Names of the console's projects and cloud regions, in the files of CI systems and in `.env` files.
//!
//! The files are searched line by line and not parsed: they have several formats, and only the value
//! and its line are needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::Found;
use crate::config::is_project_name;

/// Files of CI systems other than GitHub, and settings, at the top of a repository or a project.
const FILES: [&str; 9] = [
    ".gitlab-ci.yml",
    "bitbucket-pipelines.yml",
    "azure-pipelines.yml",
    ".circleci/config.yml",
    "Jenkinsfile",
    ".env",
    ".env.production",
    ".env.example",
    ".env.sample",
];

const WORKFLOWS: &str = ".github/workflows";

/// Files larger than this are not searched.
const LARGEST: u64 = 1 << 20;

/// The cloud projects and regions that the files name.
#[derive(Debug, Default)]
pub struct CloudHints {
    /// Projects, each where it was found first, with the region that was found with it.
    pub projects: Vec<CloudProject>,
    /// Regions, each where it was found first.
    pub regions: Vec<Found<String>>,
    /// The framework that a workflow passes to the vendor's action: `next` or `nuxt`.
    pub frontend: Option<Found<String>>,
    /// The expression that a file has in place of a project's name, such as a secret.
    pub hidden_project: Option<Found<String>>,
}

/// A project of the console.
#[derive(Debug, Clone)]
pub struct CloudProject {
    /// Its name.
    pub name: Found<String>,
    /// Its region, if the same text or the same file has one.
    pub region: Option<Found<String>>,
}

impl CloudHints {
    /// What was found, as titles and texts.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let project = |it: &CloudProject| ("cloud project", shown(&it.name));
        let mut facts: Vec<_> = self.projects.iter().map(project).collect();
        facts.extend(self.regions.iter().map(|it| ("cloud region", shown(it))));
        facts
    }
}

fn shown(found: &Found<String>) -> String {
    format!("{} ({})", found.value, found.place)
}

/// Searches the files of the repository's root and of the project.
pub fn search(top: &Path, root: &Path) -> CloudHints {
    let mut hints = CloudHints::default();
    let mut folders = vec![root];
    if top != root {
        folders.push(top);
    }
    for folder in folders {
        for path in files(folder) {
            let is_small = path
                .metadata()
                .is_ok_and(|it| it.is_file() && it.len() <= LARGEST);
            let text = is_small.then(|| std::fs::read(&path).ok()).flatten();
            let name = path.strip_prefix(top).unwrap_or(&path);
            let name = name.to_string_lossy().escape_debug().to_string();
            if let Some(text) = text {
                file(&name, &String::from_utf8_lossy(&text), &mut hints);
            }
        }
    }
    hints
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join(WORKFLOWS))
        .into_iter()
        .flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let is_yaml = |path: &PathBuf| {
        path.extension()
            .is_some_and(|it| it == "yml" || it == "yaml")
    };
    let mut found: Vec<_> = paths.filter(is_yaml).collect();
    found.sort();
    found.extend(FILES.map(|name| folder.join(name)));
    found
}

/// The value of a key: `project_name: acme`, `CLOUD_REGION=europe-west1`, `--cloud-region=x`.
fn value<'a>(pattern: &Regex, line: &'a str) -> Option<&'a str> {
    let found = pattern.captures(line)?.get(1)?.as_str();
    Some(found.trim().trim_matches(['"', '\'', '`', ',', ';', ')']))
}

/// Searches one file.
fn file(name: &str, text: &str, hints: &mut CloudHints) {
    static PROJECT: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r#"(?:^|[\s"'{,(-])(?:cloud[_-]?)?project[_-]?name["']?\s*[:=]\s*(.+)$"#)
    });
    static REGION: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(?:^|[\s"'{,(-])cloud[_-]?region["']?\s*[:=]\s*(.+)$"#));
    static FRONTEND: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(?:^|\s)frontend\s*:\s*["']?(next|nuxt)(?:js)?\b"#));
    static INSTANCE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(r"\b([a-z0-9][a-z0-9-]*?)[-.]([a-z]+-[a-z]+\d)[-.]gcp[-.]storefrontcloud[-.]io\b")
    });
    static IMAGE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?:^|[/\s:='])([a-z0-9][a-z0-9-]*)-storefrontcloud-io/"));
    let (mut projects, mut regions) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || line.starts_with("//") {
            continue;
        }
        let at = |value: &str| Found {
            value: value.to_owned(),
            place: format!("{name}:{}", index + 1),
        };
        if let Some(found) = value(&PROJECT, line) {
            let word = found
                .split([' ', '#', '"', '\''])
                .next()
                .unwrap_or_default();
            if is_project_name(word) {
                projects.push((at(word), None));
            } else if found.contains("${{") || found.starts_with('$') {
                hints
                    .hidden_project
                    .get_or_insert_with(|| at(&expression(found)));
            }
        }
        if let Some(found) = value(&REGION, line) {
            let word = found
                .split([' ', '#', '"', '\''])
                .next()
                .unwrap_or_default();
            if is_region(word) {
                regions.push(at(word));
            }
        }
        for found in INSTANCE
            .captures_iter(line)
            .filter(|found| is_project_name(&found[1]))
        {
            projects.push((at(&found[1]), Some(at(&found[2]))));
            regions.push(at(&found[2]));
        }
        for found in IMAGE.captures_iter(line) {
            if !found[1].ends_with("-gcp") && is_project_name(&found[1]) {
                projects.push((at(&found[1]), None));
            }
        }
        if let Some(found) = FRONTEND.captures(line) {
            hints
                .frontend
                .get_or_insert_with(|| at(&found[1].to_lowercase()));
        }
    }
    merge(projects, regions, hints);
}

/// Adds what was found in one file. If it has one region, this is the region of all of its projects.
fn merge(
    projects: Vec<(Found<String>, Option<Found<String>>)>,
    regions: Vec<Found<String>>,
    hints: &mut CloudHints,
) {
    let distinct: BTreeMap<&str, &Found<String>> = regions
        .iter()
        .rev()
        .map(|it| (it.value.as_str(), it))
        .collect();
    let only = distinct.values().next().filter(|_| distinct.len() == 1);
    for (name, region) in projects {
        let region = region.or_else(|| only.map(|it| (*it).clone()));
        let known = hints
            .projects
            .iter_mut()
            .find(|it| it.name.value == name.value);
        match known {
            Some(known) => known.region = known.region.take().or(region),
            None => hints.projects.push(CloudProject { name, region }),
        }
    }
    for region in regions {
        if !hints.regions.iter().any(|it| it.value == region.value) {
            hints.regions.push(region);
        }
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(&format!("(?i){text}")).expect("a test uses this constant")
}

/// `${{ secrets.PROJECT_NAME }}` as `secrets.PROJECT_NAME`, safe in a comment.
fn expression(text: &str) -> String {
    let inside = text
        .split("${{")
        .nth(1)
        .and_then(|it| it.split("}}").next());
    let text = inside.unwrap_or(text).trim();
    let short: String = text.chars().take(80).collect();
    short.escape_debug().to_string()
}

fn is_region(text: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.len() <= 40 && text.chars().all(is_inside) && text.contains('-')
}
