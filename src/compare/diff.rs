//! Composed output against composed output: store against store, or one store across
//! revisions; each difference with the layer that gives it.

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

/// Bytes of the largest file whose lines are compared. Of a larger one nothing is read: it counts
/// as binary, as one above `core.bigFileThreshold` does for git.
const LARGEST: u64 = 16 << 20;

/// Everything in which two compositions differ.
#[derive(Debug, Clone)]
pub struct Diff {
    /// What the first side is called.
    pub old: String,
    /// What the second side is called.
    pub new: String,
    /// The files, by path.
    pub files: Vec<FileDiff>,
    /// Their content; paths are `<app>/<path>`.
    pub patch: Patch,
}

/// One file that differs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileDiff {
    /// Git's letter: `A`, `D`, `M`, `R`, `T`.
    pub status: char,
    /// `<app>/<path>`; before, where nothing is any more.
    pub path: String,
    /// Where it was, for a rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_path: Option<String>,
    /// How alike a renamed file is, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<u16>,
    /// Whether its content is no text.
    pub binary: bool,
    /// Bytes before, of a binary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_bytes: Option<u64>,
    /// Bytes now, of a binary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
    /// Whose it was.
    pub old_layer: Option<Owner>,
    /// Whose it is.
    pub new_layer: Option<Owner>,
    /// What gives the difference: a layer, a rule, or what is always edited.
    pub because: String,
}

/// Both sides' compositions, by app.
type CompositionsByApp = BTreeMap<AppName, Composition>;

/// Compares two stores as they are; `app` leaves only one app.
pub fn between_stores(
    project: &Project,
    a: &Store,
    b: &Store,
    app: Option<&str>,
) -> Result<Diff, Error> {
    let around = Repository::around(&project.root)?;
    let lister = LayerReader::new(&project.root, around.as_ref())?;
    let mut compositions = Composer::new(project, &lister).compose(&[a, b])?;
    let second = compositions.split_off(project.apps_of(a).count());
    let names = (a.id.to_string(), b.id.to_string());
    compare(names, &side(compositions), &side(second), app)
}

/// Compares a store of the project in `root` as it was in a revision, and as it is in a later
/// one or in the working tree.
pub fn across_revisions(
    root: &Path,
    store: &str,
    (since, to): (&str, Option<&str>),
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
    let before = old.as_ref().map(|old| compose(old, store)).transpose()?;
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
        format!("{store} at {since}"),
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

/// The store as the snapshot has it; nothing where it was not deployable.
fn compose(snapshot: &ProjectSnapshot, store: &str) -> Result<Option<CompositionsByApp>, Error> {
    let then = snapshot.project.stores.get(store);
    let then = then.filter(|store| store.deployment.is_some());
    then.map(|store| Ok(side(snapshot.composer().compose(&[store])?)))
        .transpose()
}

/// Contents of what the other side does not have just so.
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
            stand_in(entry.id())
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

/// What stands for content that is too large to be compared: binary, as git calls such files,
/// and equal where the content is.
fn stand_in(id: ContentId) -> Vec<u8> {
    format!("\0{id}").into_bytes()
}

fn explain(file: &FileDifference, old: &CompositionsByApp, new: &CompositionsByApp) -> FileDiff {
    let before = find(old, &file.old).filter(|_| file.status != 'A');
    let after = find(new, &file.new).filter(|_| file.status != 'D');
    let owner = |found: &Option<(&Composition, &Entry)>| {
        found.map(|(composition, entry)| composition.layers[entry.winner()].clone())
    };
    let (old_layer, new_layer) = (owner(&before), owner(&after));
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
        because: because(file, before, after, old, new),
        old_layer,
        new_layer,
    }
}

/// What gives the difference: the nearer of the two layers, or the rule without which there
/// would be none.
fn because(
    file: &FileDifference,
    before: Option<(&Composition, &Entry)>,
    after: Option<(&Composition, &Entry)>,
    old: &CompositionsByApp,
    new: &CompositionsByApp,
) -> String {
    match (before, after) {
        (Some(before), Some(after)) => {
            let (was, is) = (name(before), name(after));
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
            rule.unwrap_or_else(|| name(only).to_string())
        }
        (None, None) => String::new(),
    }
}

fn name<'a>((composition, entry): (&'a Composition, &Entry)) -> &'a Owner {
    &composition.layers[entry.winner()]
}

fn find<'a>(side: &'a CompositionsByApp, path: &str) -> Option<(&'a Composition, &'a Entry)> {
    let (app, path) = path.split_once('/')?;
    let composition = side.iter().find(|(name, _)| name.as_str() == app)?.1;
    Some((composition, composition.entries.get(path)?))
}
