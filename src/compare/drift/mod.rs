//! Which overrides miss changes of the file that they override.
//!
//! An override starts as a copy of the inherited file. Its *base version* is the content of the
//! inherited file at the commit that added the override, or at the last commit that took over changes
//! of the inherited file. An override is behind when a three-way merge of base version, override and
//! inherited file changes the override.

mod base;
mod three_way;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use self::base::OverrideHistory;
pub use self::three_way::is_binary;
use self::three_way::{has_markers, is_merged, ours_in_conflicts, three_way};
use super::patch::{FileVersion, Patch, PatchLine};
use super::snapshot::repository;
use super::{Error, OFFERED};
use crate::config::Project;
use crate::git::{Commit, CommitIndex, PathChange, PathHistory, Repository};
use crate::overlay::{
    ContentId, ContentSource, Layer, LayerFile, LayerReader, Owner, is_from_base,
};
use crate::store::{AppName, Store, StoreId};

/// The folder of all layers, relative to the project.
const APPS: &str = "apps";

/// The state of an override compared to the file that it overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OverrideState {
    /// The inherited file has changes that the override misses.
    Behind,
    /// The override has the same content as the inherited file, so it is not needed.
    Identical,
    /// The file that it was made to override was removed.
    Orphan,
    /// The override misses no changes.
    Current,
}

impl std::fmt::Display for OverrideState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Behind => "behind",
            Self::Identical => "identical",
            Self::Orphan => "orphan",
            Self::Current => "current",
        })
    }
}

/// One override.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The store that has it.
    pub store_id: StoreId,
    /// The app.
    pub app: AppName,
    /// Path relative to the app.
    pub path: String,
    /// Path relative to the project.
    pub file: String,
    /// Its state.
    pub standing: OverrideState,
    /// The owner of the overridden file; for an orphan, the former owner.
    pub inherits_from: Option<Owner>,
    /// The overridden file, relative to the project.
    pub inherited_file: Option<String>,
    /// Blob id of the base version, if it is known.
    pub base: Option<String>,
    /// The missed commits, newest first; for an orphan, the commit that removed the overridden file.
    pub commits: Vec<Commit>,
    /// Whether the inherited file has uncommitted changes, or an uncommitted removal.
    pub uncommitted: bool,
    /// Whether the clone is shallow and its history starts after the override was made, so that
    /// earlier changes are unknown.
    pub cut_off: bool,
    /// The missed changes as a patch, if requested.
    #[serde(skip)]
    pub missed: Vec<PatchLine>,
}

/// The result of [`drift`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Every override, by file.
    pub overrides: Vec<Override>,
    /// How many commits the history has.
    pub commits: usize,
    /// The oldest of these commits.
    pub oldest: Option<Commit>,
    /// Whether the clone is shallow, so that older commits are missing.
    pub shallow: bool,
}

/// The result of [`merge`].
#[derive(Debug, Clone)]
pub struct MergedOverride {
    /// The override, relative to the project.
    pub file: String,
    /// The merged content; `None` when no changes are missed.
    pub content: Option<Vec<u8>>,
    /// How many conflicts are marked in the content.
    pub conflicts: usize,
}

/// A file of a layer, which may not exist.
struct LayerPath {
    owner: Owner,
    /// Path relative to the project.
    file: String,
}

impl LayerPath {
    fn new(owner: &Owner, folder: &str, path: &str) -> Self {
        Self {
            owner: owner.clone(),
            file: format!("{folder}/{path}"),
        }
    }
}

/// A file of a store that may be an override.
struct OverrideCandidate<'a> {
    store: &'a Store,
    app: &'a AppName,
    path: Arc<str>,
    own: LayerPath,
    content: Arc<LayerFile>,
    /// The same path in the layers that the store inherits from, nearest first.
    above: Vec<LayerPath>,
    /// The nearest existing file of `above`: its index there, and its content.
    inherited: Option<(usize, Arc<LayerFile>)>,
}

/// The state of every override of these stores; with `with_patches` also the missed changes.
pub fn drift(project: &Project, stores: &[&Store], with_patches: bool) -> Result<Drift, Error> {
    let repository = repository(&project.root)?;
    let candidates = candidates(project, &repository, stores)?;
    let history = follow(&repository, &candidates)?;
    let mut overrides = Vec::new();
    for candidate in &candidates {
        let Some((mut one, base)) = judge(candidate, &history)? else {
            continue;
        };
        if let (true, OverrideState::Behind, Some(base), Some((_, inherited))) =
            (with_patches, one.standing, base, &candidate.inherited)
        {
            let version = |content: Vec<u8>| FileVersion {
                path: one.file.clone(),
                mode: "100644",
                size: content.len() as u64,
                content,
            };
            let now = version(read(inherited, &one.file)?);
            one.missed = Patch::between(&[version(base)], &[now])?.lines;
        }
        overrides.push(one);
    }
    overrides.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(Drift {
        overrides,
        commits: history.commit_count(),
        oldest: history.oldest()?,
        shallow: repository.is_shallow(),
    })
}

/// Merges the missed changes into the override `file`, whose path is relative to the project. The
/// result is not written.
pub fn merge(project: &Project, file: &str) -> Result<MergedOverride, Error> {
    let repository = repository(&project.root)?;
    let stores: Vec<&Store> = project.stores.iter().collect();
    let mut candidates = candidates(project, &repository, &stores)?;
    let Some(position) = candidates.iter().position(|one| one.own.file == file) else {
        let known = candidates.iter().filter(|one| one.inherited.is_some());
        return Err(Error::NoOverride {
            path: file.to_owned(),
            nearest: nearest(file, known.map(|one| one.own.file.as_str())),
        });
    };
    let candidate = candidates.swap_remove(position);
    let history = follow(&repository, std::slice::from_ref(&candidate))?;
    let nothing = MergedOverride {
        file: file.to_owned(),
        content: None,
        conflicts: 0,
    };
    let Some((one, base)) = judge(&candidate, &history)? else {
        return Err(Error::NothingInherited {
            path: file.to_owned(),
        });
    };
    let (Some(base), Some((_, inherited))) = (base, &candidate.inherited) else {
        return match one.standing {
            OverrideState::Orphan => Err(Error::NothingInherited {
                path: file.to_owned(),
            }),
            _ => Ok(nothing),
        };
    };
    if one.standing != OverrideState::Behind {
        return Ok(nothing);
    }
    let (ours, theirs) = (read(&candidate.content, file)?, read(inherited, file)?);
    if is_binary(&base) || is_binary(&ours) || is_binary(&theirs) {
        return Err(Error::BinaryMerge {
            path: file.to_owned(),
        });
    }
    if has_markers(&ours) {
        return Err(Error::Unresolved {
            path: file.to_owned(),
        });
    }
    let theirs_name = one.inherited_file.unwrap_or_default();
    let merged = three_way(&base, &ours, &theirs, (file, &theirs_name))?;
    Ok(MergedOverride {
        conflicts: if merged.is_clean {
            0
        } else {
            ours_in_conflicts(&merged.content).len()
        },
        content: Some(checked_out(merged.content, &candidate, &ours)?),
        ..nothing
    })
}

/// Converts merged content to the line ends that the file has in the working tree, where they differ
/// from the stored ones. A file that a git filter converts cannot be merged.
fn checked_out(
    merged: Vec<u8>,
    candidate: &OverrideCandidate,
    ours: &[u8],
) -> Result<Vec<u8>, Error> {
    let ContentSource::Stored(_, file) = &candidate.content.source else {
        return Ok(merged);
    };
    let path = &candidate.own.file;
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let on_disk = std::fs::read(file).map_err(failed)?;
    if on_disk == ours {
        return Ok(merged);
    }
    let with_crlf = |content: &[u8]| -> Vec<u8> {
        let lines = content.split_inclusive(|byte| *byte == b'\n');
        lines
            .flat_map(|line| match line.strip_suffix(b"\n") {
                Some(line) => [line.strip_suffix(b"\r").unwrap_or(line), b"\r\n"].concat(),
                None => line.to_vec(),
            })
            .collect()
    };
    if on_disk == with_crlf(ours) {
        return Ok(with_crlf(&merged));
    }
    Err(Error::BinaryMerge { path: path.clone() })
}

/// Every file of the stores that can be an override of another layer's file.
fn candidates<'a>(
    project: &'a Project,
    repository: &Repository,
    stores: &[&'a Store],
) -> Result<Vec<OverrideCandidate<'a>>, Error> {
    let reader = LayerReader::new(&project.root, Some(repository))?.as_stored();
    let mut known = BTreeMap::<String, Arc<Layer>>::new();
    let mut read = |owner: &Owner, folder: &str| -> Result<Arc<Layer>, Error> {
        if let Some(layer) = known.get(folder) {
            return Ok(Arc::clone(layer));
        }
        // Files that cannot be composed override no other file.
        let (layer, _) = reader.layer(owner.clone(), folder)?;
        let layer = Arc::new(layer);
        known.insert(folder.to_owned(), Arc::clone(&layer));
        Ok(layer)
    };
    let mut candidates = Vec::new();
    for store in stores {
        for app in &store.apps {
            let lineage = project.stores.lineage(store);
            let Some(own_folder) = store.folder_of(app) else {
                continue;
            };
            let own = read(&Owner::Store(store.id.clone()), &own_folder)?;
            // Nearest first. A folder that does not exist now may have existed before.
            let ancestors = lineage[..lineage.len() - 1].iter().rev();
            let ancestors = ancestors.filter_map(|link| {
                let folder = link.folder.as_ref()?;
                Some((Owner::Store(link.id.clone()), format!("{folder}/{app}")))
            });
            let base = (Owner::Base, format!("{APPS}/{app}"));
            let mut layers = Vec::new();
            for (owner, folder) in ancestors.chain([base]) {
                let layer = read(&owner, &folder)?;
                layers.push((folder, layer));
            }
            let own_files = own.files.iter().filter(|(path, file)| {
                !is_from_base(path)
                    && is_at(file, &reader.project().join(&own_folder).join(&***path))
            });
            candidates.extend(own_files.map(|(path, file)| {
                OverrideCandidate {
                    store,
                    app,
                    path: Arc::clone(path),
                    own: LayerPath::new(&own.owner, &own_folder, path),
                    content: Arc::clone(file),
                    above: layers
                        .iter()
                        .map(|(folder, layer)| LayerPath::new(&layer.owner, folder, path))
                        .collect(),
                    inherited: layers.iter().enumerate().find_map(|(index, (_, layer))| {
                        Some((index, Arc::clone(layer.files.get(path)?)))
                    }),
                }
            }));
        }
    }
    Ok(candidates)
}

/// Whether the content comes from this path of the working tree. The content behind a link is another
/// file, with another history.
fn is_at(file: &LayerFile, path: &Path) -> bool {
    match &file.source {
        ContentSource::Disk(from, _) | ContentSource::Stored(_, from) => **from == *path,
        ContentSource::Blob(_) | ContentSource::Memory(_) | ContentSource::Link => false,
    }
}

fn follow<'r>(
    repository: &'r Repository,
    candidates: &[OverrideCandidate],
) -> Result<PathHistory<'r>, Error> {
    let mut paths: Vec<String> = candidates
        .iter()
        .flat_map(|one| one.above.iter().chain([&one.own]))
        .map(|path| path.file.clone())
        .collect();
    paths.sort();
    paths.dedup();
    Ok(repository.history(&paths, APPS)?)
}

/// An override, and the content of its base version.
type OverrideWithBase = (Override, Option<Vec<u8>>);

/// The state of the override; `None` for a file that never was one.
fn judge(
    candidate: &OverrideCandidate,
    history: &PathHistory,
) -> Result<Option<OverrideWithBase>, Error> {
    let answer = |standing: OverrideState, from: Option<usize>| Override {
        store_id: candidate.store.id.clone(),
        app: candidate.app.clone(),
        path: candidate.path.to_string(),
        file: candidate.own.file.clone(),
        standing,
        inherits_from: from.map(|index| candidate.above[index].owner.clone()),
        inherited_file: from.map(|index| candidate.above[index].file.clone()),
        base: None,
        commits: Vec::new(),
        uncommitted: false,
        cut_off: history.is_cut_off(&candidate.own.file),
        missed: Vec::new(),
    };
    let Some((above, inherited)) = &candidate.inherited else {
        let Some((index, removal)) = removed(candidate, history)? else {
            return Ok(None);
        };
        let mut orphan = answer(OverrideState::Orphan, Some(index));
        match removal {
            Some(change) => orphan.commits.push(history.commit(change.commit)?),
            None => orphan.uncommitted = true,
        }
        return Ok(Some((orphan, None)));
    };
    if candidate.content.id == inherited.id {
        return Ok(Some((answer(OverrideState::Identical, Some(*above)), None)));
    }
    let ours = read(&candidate.content, &candidate.own.file)?;
    let theirs = read(inherited, &candidate.above[*above].file)?;
    let versions = OverrideHistory { history, candidate };
    let base = versions.base((candidate.content.id, &ours), (inherited.id, &theirs))?;
    let since = base.as_ref().and_then(|base| base.commit);
    let base = base.map(|base| base.id);
    let content = match base {
        Some(id) if id == inherited.id => theirs.clone(),
        Some(id) => history.content(id.oid())?,
        None => Vec::new(),
    };
    // Without a base version, missed changes are unknown.
    let is_behind =
        base.is_some() && base != Some(inherited.id) && !is_merged(&content, &ours, &theirs)?;
    let standing = if is_behind {
        OverrideState::Behind
    } else {
        OverrideState::Current
    };
    let mut one = answer(standing, Some(*above));
    one.base = base.map(|id| id.to_string());
    if is_behind {
        let changes = history.changes(&candidate.above[*above].file);
        let committed = changes.first().and_then(|change| change.blob);
        one.uncommitted = committed != Some(inherited.id.oid());
        for commit in missed(candidate, history, base, since) {
            one.commits.push(history.commit(commit)?);
        }
    }
    Ok(Some((one, Some(content))))
}

/// The commits that changed what the override inherits since its base version.
fn missed(
    candidate: &OverrideCandidate,
    history: &PathHistory,
    base: Option<ContentId>,
    since: Option<CommitIndex>,
) -> BTreeSet<CommitIndex> {
    let is_known = |change: &PathChange| {
        let is_base = base.is_some_and(|base| change.blob == Some(base.oid()));
        is_base || since.is_some_and(|since| history.has_seen(since, change.commit))
    };
    let changes = candidate.above.iter().flat_map(|inherited| {
        let changes = history.changes(&inherited.file).iter();
        changes.take_while(|change| !is_known(change))
    });
    changes.map(|change| change.commit).collect()
}

/// The removed file that the override was made to override: its index in `above`, and the commit that
/// removed it; `None` for an uncommitted removal.
fn removed(
    candidate: &OverrideCandidate,
    history: &PathHistory,
) -> Result<Option<(usize, Option<PathChange>)>, Error> {
    let Some(added) = history.changes(&candidate.own.file).last() else {
        return Ok(None);
    };
    for (index, inherited) in candidate.above.iter().enumerate() {
        if history.blob_at(&inherited.file, added.commit)?.is_none() {
            continue;
        }
        let newest = history.changes(&inherited.file).first();
        match newest.filter(|change| change.blob.is_none()) {
            Some(removal) if removal.commit < added.commit => {
                return Ok(Some((index, Some(*removal))));
            }
            Some(_) => {}
            None => return Ok(Some((index, None))),
        }
    }
    Ok(None)
}

fn read(file: &LayerFile, path: &str) -> Result<Vec<u8>, Error> {
    file.read().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

fn nearest<'a>(path: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<_> = known
        .map(|known| (strsim::normalized_levenshtein(path, known), known))
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let nearest = all.into_iter().take(OFFERED);
    nearest.map(|(_, path)| path.to_owned()).collect()
}
