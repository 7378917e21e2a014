//! `store releases diff`: commits, composed files, images and names of settings of two releases.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::arguments::questions::ReleaseDiffOptions;
use super::builds;
use super::diff::by_layer;
use super::listing::{plain, short_commit};
use super::releases::release;
use super::run::document;
use super::show::Page;
use crate::compare::{self, FileDiff};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::git::{CommitsBetween, Repository};
use crate::ledger::{BuildRecord, RecordSet, ReleaseRecord};
use crate::store::AppName;

/// The most commits of each side that are listed.
const MOST_COMMITS: usize = 20;

/// Two releases, with their builds if the records have them.
struct Pair<'a> {
    old: (&'a ReleaseRecord, Option<&'a BuildRecord>),
    new: (&'a ReleaseRecord, Option<&'a BuildRecord>),
}

/// The images of one app.
struct ImagePair<'a> {
    app: &'a AppName,
    old: Option<&'a str>,
    new: Option<&'a str>,
}

/// What differs between two releases.
struct ReleaseDifference<'a> {
    commits: Option<CommitsBetween>,
    files: Option<Vec<FileDiff>>,
    images: Vec<ImagePair<'a>>,
    /// Names of settings that only the new release has.
    added: Vec<&'a str>,
    /// Names of settings that only the old release has.
    removed: Vec<&'a str>,
    /// Why something cannot be compared.
    notes: Vec<String>,
}

pub fn diff(
    project: &Project,
    records: &RecordSet,
    options: &ReleaseDiffOptions,
) -> Result<(), AnyError> {
    let (old, new) = (
        release(records, &options.old)?,
        release(records, &options.new)?,
    );
    let pair = Pair {
        old: (old, records.build(&old.build)),
        new: (new, records.build(&new.build)),
    };
    let difference = compare(project, &pair);
    if options.json {
        return document(&difference.json(&pair));
    }
    let mut page = Page::new(&project.root);
    difference.show(&pair, &mut page);
    page.show()
}

fn compare<'a>(project: &Project, pair: &Pair<'a>) -> ReleaseDifference<'a> {
    let mut notes = Vec::new();
    let mut commit = |(release, build): (&ReleaseRecord, Option<&'a BuildRecord>)| {
        let Some(build) = build else {
            notes.push(format!(
                "the build {} of the release {} is not recorded here",
                release.build, release.id
            ));
            return None;
        };
        let Some(commit) = &build.commit else {
            notes.push(format!("the build {} was made without git", build.id));
            return None;
        };
        if commit.dirty {
            notes.push(format!(
                "the build {} has uncommitted changes, which are not compared",
                build.id
            ));
        }
        Some(commit.sha.as_str())
    };
    let shas = (commit(pair.old), commit(pair.new));
    let (mut commits, mut files) = (None, None);
    if let (Some(old), Some(new)) = shas {
        let between = Repository::open(&project.root)
            .and_then(|repository| repository.commits_between(old, new, MOST_COMMITS));
        match between {
            Ok(between) => commits = Some(between),
            Err(error) => notes.push(format!("the commits cannot be compared: {error}")),
        }
        let stores = (pair.old.0.store.as_str(), pair.new.0.store.as_str());
        let (old, new) = ((stores.0, old), (stores.1, Some(new)));
        match compare::across_revisions(&project.root, old, new, None) {
            Ok(diff) => files = Some(diff.files),
            // The commits name the same cause.
            Err(_) if commits.is_none() => {}
            Err(error) => notes.push(format!("the composed files cannot be compared: {error}")),
        }
    }
    let names = |release: &'a ReleaseRecord| {
        let names = release.setting_names.iter();
        names.map(String::as_str).collect::<BTreeSet<&str>>()
    };
    let (old, new) = (names(pair.old.0), names(pair.new.0));
    ReleaseDifference {
        commits,
        files,
        images: images(pair),
        added: new.difference(&old).copied().collect(),
        removed: old.difference(&new).copied().collect(),
        notes,
    }
}

/// The digests of the apps of both releases.
fn images<'a>(pair: &Pair<'a>) -> Vec<ImagePair<'a>> {
    let digest = |build: Option<&'a BuildRecord>, app: &AppName| {
        let app = build?.apps.get(app)?;
        app.digest.as_deref()
    };
    let (old, new) = (pair.old.1, pair.new.1);
    let builds = [old, new].into_iter().flatten();
    let apps: BTreeSet<&AppName> = builds.flat_map(|build| build.apps.keys()).collect();
    let apps = apps.into_iter();
    apps.map(|app| ImagePair {
        app,
        old: digest(old, app),
        new: digest(new, app),
    })
    .collect()
}

impl ReleaseDifference<'_> {
    fn json(&self, pair: &Pair) -> Value {
        let side = |(release, build): (&ReleaseRecord, Option<&BuildRecord>)| {
            json!({
                "id": release.id,
                "storeId": release.store,
                "target": release.target,
                "build": release.build,
                "commit": build.and_then(|build| build.commit.as_ref()),
                "settings": release.settings,
            })
        };
        let images = self
            .images
            .iter()
            .map(|image| json!({ "app": image.app, "old": image.old, "new": image.new }));
        json!({
            "schemaVersion": 1,
            "old": side(pair.old),
            "new": side(pair.new),
            "commits": self.commits,
            "files": self.files,
            "images": images.collect::<Vec<_>>(),
            "settings": { "added": self.added, "removed": self.removed },
            "notes": self.notes,
        })
    }

    fn show(&self, pair: &Pair, page: &mut Page) {
        let side = |name: &str, (release, build): (&ReleaseRecord, Option<&BuildRecord>)| {
            let description = build.map(builds::description).unwrap_or_default();
            format!(
                "{name} {}  {}  {}  {description}",
                release.id, release.store, release.target
            )
        };
        page.plain(&format!("{}\n", side("old", pair.old).trim_end()));
        page.plain(&format!("{}\n", side("new", pair.new).trim_end()));
        if let Some(between) = &self.commits {
            show_commits(between, page);
        }
        if let Some(files) = &self.files {
            page.plain("\n");
            page.title(&match files.len() {
                0 => "no composed file differs".to_owned(),
                1 => "1 composed file differs".to_owned(),
                count => format!("{count} composed files differ"),
            });
            by_layer(files, page);
        }
        self.show_images(page);
        self.show_settings(pair, page);
        for note in &self.notes {
            page.plain("\n");
            page.paragraph("note: ", note);
        }
    }

    fn show_images(&self, page: &mut Page) {
        page.plain("\n");
        page.title("images");
        let width = self.images.iter().map(|image| image.app.as_str().len());
        let width = width.max().unwrap_or_default();
        for image in &self.images {
            let digest = |digest: Option<&str>| match digest {
                // As many characters as Docker shows.
                Some(digest) => digest.get(..19).unwrap_or(digest).to_owned(),
                None => "no image".to_owned(),
            };
            let app = image.app.as_str();
            let text = if image.old == image.new {
                format!("{} in both", digest(image.old))
            } else {
                format!("{} → {}", digest(image.old), digest(image.new))
            };
            page.plain(&format!("  {app:<width$}  {text}\n"));
        }
        if self.images.is_empty() {
            page.plain("  no image is recorded\n");
        }
    }

    fn show_settings(&self, pair: &Pair, page: &mut Page) {
        let (old, new) = (&pair.old.0.settings, &pair.new.0.settings);
        page.plain("\n");
        page.title("settings");
        if old == new && old.is_none() {
            page.plain("  no settings in both\n");
            return;
        }
        if old == new {
            page.plain("  the same version in both\n");
            return;
        }
        for name in &self.removed {
            page.plain(&format!("  - {name}\n"));
        }
        for name in &self.added {
            page.plain(&format!("  + {name}\n"));
        }
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".into());
        page.plain(&format!("  version {} → {}\n", version(old), version(new)));
    }
}

fn show_commits(between: &CommitsBetween, page: &mut Page) {
    page.plain("\n");
    page.title(&match (between.added_count, between.removed_count) {
        (0, 0) => "the same commit".to_owned(),
        (added, 0) => format!("commits added: {added}"),
        (0, removed) => format!("commits removed: {removed}"),
        (added, removed) => format!("commits added: {added}, removed: {removed}"),
    });
    let sides = [
        ("+", &between.added, between.added_count),
        ("-", &between.removed, between.removed_count),
    ];
    for (sign, commits, count) in sides {
        for commit in commits {
            let (sha, subject) = (short_commit(&commit.sha), plain(&commit.subject));
            page.plain(&format!("  {sign} {sha} {subject}\n"));
        }
        if count > commits.len() {
            page.plain(&format!("  {sign} {} more\n", count - commits.len()));
        }
    }
}
