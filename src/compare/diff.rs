//! The differences between two compositions: of two stores, or of one store in two revisions. Each
//! difference has the layer that causes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::patch::{FileDifference, FileVersion, Patch};
use super::snapshot::{is_absent, repository};
use super::{Error, ProjectSnapshot};
use crate::config::{Project, nearest};
use crate::git::Repository;
use crate::overlay::{Composer, Composition, ContentId, Entry, LayerReader, Owner};
use crate::store::{AppName, Store};

/// Size in bytes of the largest file whose lines are compared. A larger file is not read and counts
/// as binary, as a file above `core.bigFileThreshold` does in git.
pub(super) const LARGEST: u64 = 16 << 20;

/// The differences between two compositions.
#[derive(Debug, Clone)]
pub struct Diff {
    /// Name of the old side, for people.
    pub old: String,
    /// Name of the new side, for people.
    pub new: String,
    /// The files that differ, by path.
    pub files: Vec<FileDiff>,
    /// The patch of their content; paths are `<app>/<path>`.
    pub patch: Patch,
}

/// One file that differs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileDiff {
    /// The letter that git uses: `A`, `D`, `M`, `R` or `T`.
    pub status: char,
    /// `<app>/<path>`; for a removed file, the old path.
    pub path: String,
    /// The old path of a renamed file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// Similarity of a renamed file, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<u16>,
    /// Whether the content is binary.
    pub binary: bool,
    /// Old size in bytes, for a binary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_bytes: Option<u64>,
    /// New size in bytes, for a binary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// Number of lines added.
    pub added: usize,
    /// Number of lines removed.
    pub removed: usize,
    /// Owner of the layer that gave it; `None` for an added file.
    pub old_layer: Option<Owner>,
    /// Owner of the layer that gives it; `None` for a removed file.
    pub new_layer: Option<Owner>,
    /// The cause of the difference: a layer, a rule, or the unit's name.
    pub because: String,
}

/// The compositions of one side, by app.
type CompositionsByApp = BTreeMap<AppName, Composition>;

/// Compares two stores in the working tree; with `app`, only that app.
pub fn between_stores(
    project: &Project,
    a: &Store,
    b: &Store,
    app: Option<&str>,
) -> Result<Diff, Error> {
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?;
    let mut compositions = Composer::new(project, &reader).compose(&[a, b])?;
    let second = compositions.split_off(project.apps_of(a).count());
    let names = (a.id.to_string(), b.id.to_string());
    compare(names, &side(compositions), &side(second), app)
}

/// Compares a store of the project in `root` at a revision with a store at a later revision, or in the
/// working tree; with `app`, only that app.
pub fn across_revisions(
    root: &Path,
    (old_store, since): (&str, &str),
    (store, to): (&str, Option<&str>),
    app: Option<&str>,
) -> Result<Diff, Error> {
    let repository = repository(root)?;
    let objects = repository.objects();
    let at = |revision| ProjectSnapshot::commit(root, &repository, &objects, revision);
    let old = match at(since) {
        Err(error) if is_absent(&error) => None,
        other => Some(other?),
    };
    let new = match to {
        Some(to) => at(to)?,
        None => ProjectSnapshot::working_tree(root, &repository)?,
    };
    let before = old
        .as_ref()
        .map(|old| compose(old, old_store))
        .transpose()?;
    let (before, after) = (before.flatten(), compose(&new, store)?);
    if before.is_none() && after.is_none() {
        let known = new
            .project
            .stores
            .deployables()
            .map(|store| store.id.as_str());
        return Err(Error::NoStore {
            store: store.to_owned(),
            since: since.to_owned(),
            nearest: nearest(store, known).map(str::to_owned),
            to: new.name,
        });
    }
    let names = (
        format!("{old_store} at {since}"),
        match to {
            Some(to) => format!("{store} at {to}"),
            None => format!("{store} in {}", new.name),
        },
    );
    compare(
        names,
        &before.unwrap_or_default(),
        &after.unwrap_or_default(),
        app,
    )
}

fn compare(
    names: (String, String),
    old: &CompositionsByApp,
    new: &CompositionsByApp,
    app: Option<&str>,
) -> Result<Diff, Error> {
    if let Some(app) = app {
        let known: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        if !known.iter().any(|name| name.as_str() == app) {
            return Err(Error::NoSuchApp {
                app: app.to_owned(),
                apps: known.iter().map(ToString::to_string).collect(),
            });
        }
    }
    let chosen = |(name, _): &(&AppName, &Composition)| app.is_none_or(|app| name.as_str() == app);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (_, composition) in old.iter().filter(chosen) {
        versions(composition, new.get(&composition.unit.app), &mut before)?;
    }
    for (_, composition) in new.iter().filter(chosen) {
        versions(composition, old.get(&composition.unit.app), &mut after)?;
    }
    let patch = Patch::between(&before, &after)?;
    let files = patch.files.iter().map(|file| explain(file, old, new));
    Ok(Diff {
        files: files.collect(),
        old: names.0,
        new: names.1,
        patch,
    })
}

fn side(compositions: Vec<Composition>) -> CompositionsByApp {
    let by_app = compositions.into_iter();
    by_app.map(|it| (it.unit.app.clone(), it)).collect()
}

/// Composes the store; `None` where it is not deployable in the snapshot.
fn compose(snapshot: &ProjectSnapshot, store: &str) -> Result<Option<CompositionsByApp>, Error> {
    let then = snapshot.project.stores.get(store);
    let then = then.filter(|store| store.deployment.is_some());
    then.map(|store| Ok(side(snapshot.composer().compose(&[store])?)))
        .transpose()
}

/// Adds the files that the other side does not have, or not with the same content.
fn versions(
    composition: &Composition,
    other: Option<&Composition>,
    into: &mut Vec<FileVersion>,
) -> Result<(), Error> {
    let same = |path: &Arc<str>, entry: &Entry| {
        let other = other.and_then(|other| other.entries.get(path));
        other.is_some_and(|other| other.is_like(entry))
    };
    let app = &composition.unit.app;
    for (path, entry) in &composition.entries {
        if same(path, entry) {
            continue;
        }
        let path = format!("{app}/{path}");
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let size = entry.size().map_err(failed)?;
        let content = if size > LARGEST {
            placeholder(entry.id())
        } else {
            entry.read().map_err(failed)?
        };
        into.push(FileVersion {
            path,
            mode: entry.mode(),
            content,
            size,
        });
    }
    Ok(())
}

/// Replaces content that is too large to compare. Git takes it for binary, and it is equal where the
/// content is equal.
fn placeholder(id: ContentId) -> Vec<u8> {
    format!("\0{id}").into_bytes()
}

fn explain(file: &FileDifference, old: &CompositionsByApp, new: &CompositionsByApp) -> FileDiff {
    let before = find(old, &file.old).filter(|_| file.status != 'A');
    let after = find(new, &file.new).filter(|_| file.status != 'D');
    let old_layer = before.map(|it| owner(it).clone());
    let new_layer = after.map(|it| owner(it).clone());
    let is_rename = file.status == 'R';
    FileDiff {
        status: file.status,
        path: if file.status == 'D' {
            &file.old
        } else {
            &file.new
        }
        .clone(),
        old_path: is_rename.then(|| file.old.clone()),
        similarity: file.similarity,
        binary: file.is_binary,
        old_bytes: file.old_size.filter(|_| file.is_binary),
        new_bytes: file.new_size.filter(|_| file.is_binary),
        added: file.added,
        removed: file.removed,
        because: cause(file, before, after, old, new),
        old_layer,
        new_layer,
    }
}

/// The cause of a difference: the nearer of the two layers, or the rule that drops the file on one
/// side.
fn cause(
    file: &FileDifference,
    before: Option<(&Composition, &Entry)>,
    after: Option<(&Composition, &Entry)>,
    old: &CompositionsByApp,
    new: &CompositionsByApp,
) -> String {
    match (before, after) {
        (Some(before), Some(after)) => {
            let (was, is) = (owner(before), owner(after));
            if was != is && before.1.winner() == after.1.winner() {
                return format!("{was} and {is}");
            }
            if file.old.ends_with("/package.json") && was == is && was == &Owner::Base {
                let unit = |(composition, _): (&Composition, _)| composition.unit.package_name();
                let (was, is) = (unit(before), unit(after));
                if was != is {
                    return "the unit's name".into();
                }
            }
            let nearer = if before.1.winner() > after.1.winner() {
                was
            } else {
                is
            };
            nearer.to_string()
        }
        (Some(only), None) | (None, Some(only)) => {
            let (path, other) = if before.is_some() {
                (&file.old, new)
            } else {
                (&file.new, old)
            };
            let rule = path.split_once('/').and_then(|(app, path)| {
                let other = other.iter().find(|(name, _)| name.as_str() == app)?.1;
                let dropped = other.dropped.get(path)?;
                let origin = &dropped.origin;
                Some(format!(
                    "`{}`, ignorePaths of {}",
                    origin.rule, origin.store
                ))
            });
            rule.unwrap_or_else(|| owner(only).to_string())
        }
        (None, None) => String::new(),
    }
}

fn owner<'a>((composition, entry): (&'a Composition, &Entry)) -> &'a Owner {
    &composition.layers[entry.winner()]
}

fn find<'a>(side: &'a CompositionsByApp, path: &str) -> Option<(&'a Composition, &'a Entry)> {
    let (app, path) = path.split_once('/')?;
    let composition = side.iter().find(|(name, _)| name.as_str() == app)?.1;
    Some((composition, composition.entries.get(path)?))
}
