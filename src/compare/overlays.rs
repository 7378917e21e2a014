//! Which paths are overridden, by which stores, and how far each override is from the file that it
//! hides.
//!
//! The layers alone decide what an override is, as for `store list`: a file of a store whose path also
//! exists in a layer above it. `ignorePaths` rules do not matter, since they differ between
//! descendants. `package.json` and `tsconfig.json` always come from the base app and are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::diff::LARGEST;
use super::lines::{LineCounts, line_counts};
use super::{Error, owner_folder};
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::{
    Composer, ContentId, FileKind, LayerFile, LayerReader, Layers, Owner, is_from_base,
};
use crate::store::{AppName, Store, StoreId};

/// A path of an app that stores override.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverriddenPath {
    /// The app.
    pub app: AppName,
    /// Relative to the app.
    pub path: String,
    /// How many different files the overrides are. It is less than their number where several stores
    /// have the same file.
    pub versions: usize,
    /// Lines that the overrides add, all together.
    pub added: usize,
    /// Lines that the overrides remove, all together.
    pub removed: usize,
    /// The overrides, parents before children.
    pub overrides: Vec<OverlayFile>,
}

/// One store's override of a path.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayFile {
    /// The store.
    pub store_id: StoreId,
    /// The override, relative to the project.
    pub file: String,
    /// The owner of the file that the override hides.
    pub hides: Owner,
    /// The hidden file, relative to the project.
    pub hidden_file: String,
    /// How far they are apart.
    #[serde(flatten)]
    pub difference: OverlayDifference,
}

/// How far an override is from the file that it hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "camelCase")]
pub enum OverlayDifference {
    /// Content and mode are the same, so the override is not needed.
    Identical,
    /// The content is the same, and one of the two is executable.
    Mode,
    /// Text that differs by these lines.
    Lines {
        /// Number of lines that only the override has.
        added: usize,
        /// Number of lines that only the hidden file has.
        removed: usize,
    },
    /// Content that differs and is binary, or larger than 16 MiB.
    Binary,
    /// One of the two is a symbolic link, or both are links with different targets.
    Link,
}

impl From<LineCounts> for OverlayDifference {
    fn from(counts: LineCounts) -> Self {
        match counts {
            LineCounts::Binary => Self::Binary,
            LineCounts::Lines { added, removed } => Self::Lines { added, removed },
        }
    }
}

impl std::fmt::Display for OverlayDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identical => f.write_str("identical"),
            Self::Mode => f.write_str("the same content; one of the two is executable"),
            Self::Lines { added, removed } => write!(f, "+{added} -{removed}"),
            Self::Binary => f.write_str("binary"),
            Self::Link => f.write_str("a symbolic link"),
        }
    }
}

/// An override before its difference is known.
struct FoundOverride<'a> {
    store: &'a Store,
    app: &'a AppName,
    path: &'a Arc<str>,
    own: &'a LayerFile,
    hides: &'a Owner,
    hidden: &'a LayerFile,
}

/// Every path that is overridden, the most overridden first; among paths that are overridden equally
/// often, the one with the most changed lines. `is_wanted` selects overrides by store and app.
pub fn overlays(
    project: &Project,
    is_wanted: impl Fn(&Store, &AppName) -> bool,
) -> Result<Vec<OverriddenPath>, Error> {
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?.as_stored();
    let stores: Vec<&Store> = project.stores.iter().collect();
    // A file that cannot be composed overrides no other file.
    let (layers, _) = Composer::new(project, &reader).layers(&stores, |_, _| None)?;
    let mut found = Vec::new();
    for store in &stores {
        for app in store.apps.iter().filter(|app| is_wanted(store, app)) {
            add_overrides(project, store, app, &layers, &mut found);
        }
    }
    let counts = count_lines(project, &found)?;
    let mut paths = by_path(project, &found, &counts);
    paths.sort_by(|a, b| {
        let weight = |it: &OverriddenPath| (it.overrides.len(), it.added + it.removed);
        weight(b).cmp(&weight(a))
    });
    Ok(paths)
}

/// Adds the overrides in a store's own layer of an app.
fn add_overrides<'a>(
    project: &Project,
    store: &'a Store,
    app: &'a AppName,
    layers: &'a Layers,
    found: &mut Vec<FoundOverride<'a>>,
) {
    // There is no layer for an app that neither the store nor a descendant uses.
    let Some(own) = layers.get(&Owner::Store(store.id.clone()), app) else {
        return;
    };
    let lineage = project.stores.lineage(store);
    let ancestors = lineage.iter().rev().skip(1);
    let above: Vec<_> = ancestors
        .map(|link| Owner::Store(link.id.clone()))
        .chain([Owner::Base])
        .filter_map(|owner| layers.get(&owner, app))
        .collect();
    let files = own.files.iter().filter(|(path, _)| !is_from_base(path));
    found.extend(files.filter_map(|(path, file)| {
        let (hides, hidden) = above
            .iter()
            .find_map(|layer| Some((&layer.owner, layer.files.get(path)?)))?;
        Some(FoundOverride {
            store,
            app,
            path,
            own: file,
            hides,
            hidden,
        })
    }));
}

/// The line counts of two contents: hidden, override.
type CountsByContent = HashMap<(ContentId, ContentId), LineCounts>;

/// Counts the lines of each pair of different contents once. A hidden file is read once, however many
/// overrides hide it.
fn count_lines(project: &Project, found: &[FoundOverride]) -> Result<CountsByContent, Error> {
    let is_file = |file: &LayerFile| matches!(file.kind, FileKind::File { .. });
    let mut pairs = HashMap::<ContentId, HashMap<ContentId, &FoundOverride>>::new();
    for one in found {
        if is_file(one.own) && is_file(one.hidden) && one.own.id != one.hidden.id {
            let overrides = pairs.entry(one.hidden.id).or_default();
            overrides.entry(one.own.id).or_insert(one);
        }
    }
    let counted: Vec<_> = pairs
        .into_par_iter()
        .map(|(hidden, overrides)| {
            let mut content = None;
            let count = |(own, one): (ContentId, &FoundOverride)| {
                let old = match content.take() {
                    Some(old) => old,
                    None => read(one.hidden, || file_of(project, one.hides, one))?,
                };
                let new = read(one.own, || own_file(project, one))?;
                let counts = match (&old, &new) {
                    (Some(old), Some(new)) => line_counts(old, new)?,
                    _ => LineCounts::Binary,
                };
                content = Some(old);
                Ok(((hidden, own), counts))
            };
            overrides.into_iter().map(count).collect()
        })
        .collect::<Result<Vec<Vec<_>>, Error>>()?;
    Ok(counted.into_iter().flatten().collect())
}

/// The content; `None` where the file is too large to compare.
fn read(file: &LayerFile, path: impl Fn() -> String) -> Result<Option<Vec<u8>>, Error> {
    let content = || {
        if file.size()? > LARGEST {
            return Ok(None);
        }
        file.read().map(Some)
    };
    content().map_err(|source| Error::Read {
        path: path(),
        source,
    })
}

/// The file of the override's path in a layer, relative to the project.
fn file_of(project: &Project, owner: &Owner, one: &FoundOverride) -> String {
    format!("{}/{}", owner_folder(project, owner, one.app), one.path)
}

fn own_file(project: &Project, one: &FoundOverride) -> String {
    file_of(project, &Owner::Store(one.store.id.clone()), one)
}

/// The paths with their overrides, by app and path.
fn by_path(
    project: &Project,
    found: &[FoundOverride],
    counts: &CountsByContent,
) -> Vec<OverriddenPath> {
    let mut by_path = BTreeMap::<(&AppName, &str), Vec<&FoundOverride>>::new();
    for one in found {
        by_path.entry((one.app, one.path)).or_default().push(one);
    }
    let described = |((app, path), found): ((&AppName, &str), Vec<&FoundOverride>)| {
        let versions: BTreeSet<_> = found
            .iter()
            .map(|one| (one.own.id, one.own.mode()))
            .collect();
        let (mut all_added, mut all_removed) = (0, 0);
        let overrides = found.iter().map(|one| {
            let difference = counted_difference(one, counts);
            if let OverlayDifference::Lines { added, removed } = difference {
                all_added += added;
                all_removed += removed;
            }
            OverlayFile {
                store_id: one.store.id.clone(),
                file: own_file(project, one),
                hides: one.hides.clone(),
                hidden_file: file_of(project, one.hides, one),
                difference,
            }
        });
        OverriddenPath {
            overrides: overrides.collect(),
            app: app.clone(),
            path: path.to_owned(),
            versions: versions.len(),
            added: all_added,
            removed: all_removed,
        }
    };
    by_path.into_iter().map(described).collect()
}

fn counted_difference(one: &FoundOverride, counts: &CountsByContent) -> OverlayDifference {
    without_lines(one.own, one.hidden).unwrap_or_else(|| {
        match counts.get(&(one.hidden.id, one.own.id)) {
            None => OverlayDifference::Mode,
            Some(counts) => OverlayDifference::from(*counts),
        }
    })
}

/// How far an override is from the file that it hides. `file` is its path, for error messages.
pub fn difference(
    own: &LayerFile,
    hidden: &LayerFile,
    file: &str,
) -> Result<OverlayDifference, Error> {
    if let Some(difference) = without_lines(own, hidden) {
        return Ok(difference);
    }
    if own.id == hidden.id {
        return Ok(OverlayDifference::Mode);
    }
    let contents = (
        read(hidden, || file.to_owned())?,
        read(own, || file.to_owned())?,
    );
    Ok(match contents {
        (Some(old), Some(new)) => line_counts(&old, &new)?.into(),
        _ => OverlayDifference::Binary,
    })
}

/// The difference, if it does not depend on lines.
fn without_lines(own: &LayerFile, hidden: &LayerFile) -> Option<OverlayDifference> {
    let is_link = |file: &LayerFile| matches!(file.kind, FileKind::Link { .. });
    if own.is_like(hidden) {
        Some(OverlayDifference::Identical)
    } else if is_link(own) || is_link(hidden) {
        Some(OverlayDifference::Link)
    } else {
        None
    }
}
