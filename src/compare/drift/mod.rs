//! Which overrides have fallen behind the file they were made from.
//!
//! An override is a copy that went its own way. What it was made from is the *base version*: the
//! content that the inherited file had at the commit that added the override, or at the last one
//! that took over what had changed in it since. An override is behind when a three-way merge of
//! base version, override and inherited file would bring something.

mod base;
mod three_way;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use self::base::OverrideHistory;
use self::three_way::{brings_nothing, has_markers, is_binary, ours_in_conflicts, three_way};
use super::patch::{FileVersion, Patch, PatchLine};
use super::snapshot::repository;
use super::{Error, OFFERED};
use crate::config::Project;
use crate::git::{Commit, PathChange, PathHistory, Repository};
use crate::overlay::{ContentSource, Layer, LayerFile, LayerReader, Owner, is_from_base};
use crate::store::{AppName, Store, StoreId};

/// Where layers lie, relative to the project.
const APPS: &str = "apps";

/// How an override stands to the file it overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The inherited file has changed, and the override has not taken it over.
    Behind,
    /// The same content as the inherited file: needless.
    Identical,
    /// What it was made to override is not there any more.
    Orphan,
    /// Nothing is missed.
    Current,
}

impl std::fmt::Display for Standing {
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
    /// Whose it is.
    pub store_id: StoreId,
    /// The app.
    pub app: AppName,
    /// Relative to the app.
    pub path: String,
    /// Relative to the project.
    pub file: String,
    /// How it stands.
    pub standing: Standing,
    /// Whose file it overrides; for an orphan, whose it was.
    pub inherits_from: Option<Owner>,
    /// The overridden file, relative to the project.
    pub inherited_file: Option<String>,
    /// Blob id of the content it was made from, if it is known.
    pub base: Option<String>,
    /// Commits that it misses, newest first; for an orphan, the one that removed the file.
    pub commits: Vec<Commit>,
    /// Whether the inherited file has changes, or was removed, in no commit.
    pub uncommitted: bool,
    /// Whether history ends before the override was made, so that changes before that end are
    /// not seen.
    pub cut_off: bool,
    /// What it missed, as a patch of the override; only where that was asked for.
    #[serde(skip)]
    pub missed: Vec<PatchLine>,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Every override, by file.
    pub overrides: Vec<Override>,
    /// How many commits were looked at.
    pub commits: usize,
    /// The oldest of them.
    pub oldest: Option<Commit>,
    /// Whether the clone is shallow, so that there are older ones elsewhere.
    pub shallow: bool,
}

/// The outcome of a merge into an override.
#[derive(Debug, Clone)]
pub struct MergedOverride {
    /// The override, relative to the project.
    pub file: String,
    /// Its content from now on; none when there is nothing to take over.
    pub content: Option<Vec<u8>>,
    /// How many conflicts are marked in it.
    pub conflicts: usize,
}

/// Where a file of a layer lies.
struct LayerPath {
    owner: Owner,
    /// Relative to the project.
    file: String,
}

/// An override together with everything it could inherit, nearest first.
struct OverrideCandidate<'a> {
    store: &'a Store,
    app: &'a AppName,
    path: Arc<str>,
    place: LayerPath,
    content: Arc<LayerFile>,
    above: Vec<LayerPath>,
    /// The nearest file above that is there now: its place in `above`, and its content.
    inherited: Option<(usize, Arc<LayerFile>)>,
}

/// How every override of these stores stands; `with_patches` adds what was missed.
pub fn drift(project: &Project, stores: &[&Store], with_patches: bool) -> Result<Drift, Error> {
    let repository = repository(&project.root)?;
    let candidates = candidates(project, &repository, stores)?;
    let history = follow(&repository, &candidates)?;
    let mut overrides = Vec::new();
    for candidate in &candidates {
        let Some((mut one, base)) = judge(candidate, &history)? else {
            continue;
        };
        if let (true, Standing::Behind, Some(base), Some((_, inherited))) =
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
        commits: history.len(),
        oldest: (!history.is_empty())
            .then(|| history.commit(history.len() - 1))
            .transpose()?,
        shallow: repository.is_shallow(),
    })
}

/// Merges into the override `file` (relative to the project) what it misses. Writes nothing.
pub fn merge(project: &Project, file: &str) -> Result<MergedOverride, Error> {
    let repository = repository(&project.root)?;
    let stores: Vec<&Store> = project.stores.iter().collect();
    let mut candidates = candidates(project, &repository, &stores)?;
    let Some(position) = candidates.iter().position(|one| one.place.file == file) else {
        let known = candidates.iter().filter(|one| one.inherited.is_some());
        return Err(Error::NoOverride {
            path: file.to_owned(),
            nearest: nearest(file, known.map(|one| one.place.file.as_str())),
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
            Standing::Orphan => Err(Error::NothingInherited {
                path: file.to_owned(),
            }),
            _ => Ok(nothing),
        };
    };
    if one.standing != Standing::Behind {
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
        conflicts: if merged.clean {
            0
        } else {
            ours_in_conflicts(&merged.content).len()
        },
        content: Some(checked_out(merged.content, &candidate, &ours)?),
        ..nothing
    })
}

/// Merged content as it goes to the working tree, where a file may have other line ends than
/// git stores. What a filter has made of the file cannot be merged.
fn checked_out(
    merged: Vec<u8>,
    candidate: &OverrideCandidate,
    ours: &[u8],
) -> Result<Vec<u8>, Error> {
    let ContentSource::Stored(_, file) = &candidate.content.source else {
        return Ok(merged);
    };
    let path = &candidate.place.file;
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

/// Every file of the stores that some layer above has, or may have had.
fn candidates<'a>(
    project: &'a Project,
    repository: &Repository,
    stores: &[&'a Store],
) -> Result<Vec<OverrideCandidate<'a>>, Error> {
    let lister = LayerReader::new(&project.root, Some(repository))?.as_stored();
    let mut known = BTreeMap::<String, Arc<Layer>>::new();
    let mut list = |owner: &Owner, folder: &str| -> Result<Arc<Layer>, Error> {
        if let Some(layer) = known.get(folder) {
            return Ok(Arc::clone(layer));
        }
        // What cannot be composed overrides nothing.
        let (layer, _) = lister.layer(owner.clone(), folder)?;
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
            let own = list(&Owner::Store(store.id.clone()), &own_folder)?;
            // Nearest first. A folder that is not there now may have been.
            let ancestors = lineage[..lineage.len() - 1].iter().rev();
            let ancestors = ancestors.filter_map(|link| {
                let folder = link.folder.as_ref()?;
                Some((Owner::Store(link.id.clone()), format!("{folder}/{app}")))
            });
            let base = (Owner::Base, format!("{APPS}/{app}"));
            let mut layers = Vec::new();
            for (owner, folder) in ancestors.chain([base]) {
                let layer = list(&owner, &folder)?;
                layers.push((folder, layer));
            }
            for (path, file) in &own.files {
                let file_path = format!("{own_folder}/{path}");
                // What a link has led to lies elsewhere, and its history too.
                let is_here = match &file.source {
                    ContentSource::Disk(from, _) | ContentSource::Stored(_, from) => {
                        **from == *lister.project().join(&file_path)
                    }
                    ContentSource::Blob(_) | ContentSource::Link => false,
                };
                if is_from_base(path) || !is_here {
                    continue;
                }
                let place = |owner: &Owner, folder: &str| LayerPath {
                    owner: owner.clone(),
                    file: format!("{folder}/{path}"),
                };
                let inherited = layers.iter().enumerate().find_map(|(index, (_, layer))| {
                    Some((index, Arc::clone(layer.files.get(path)?)))
                });
                candidates.push(OverrideCandidate {
                    store,
                    app,
                    path: Arc::clone(path),
                    place: place(&own.owner, &own_folder),
                    content: Arc::clone(file),
                    above: layers
                        .iter()
                        .map(|(folder, layer)| place(&layer.owner, folder))
                        .collect(),
                    inherited,
                });
            }
        }
    }
    Ok(candidates)
}

fn follow<'r>(
    repository: &'r Repository,
    candidates: &[OverrideCandidate],
) -> Result<PathHistory<'r>, Error> {
    let mut paths: Vec<String> = candidates
        .iter()
        .flat_map(|one| one.above.iter().chain([&one.place]))
        .map(|place| place.file.clone())
        .collect();
    paths.sort();
    paths.dedup();
    Ok(repository.history(&paths, APPS)?)
}

/// An override, and the content it was made from.
type Judged = (Override, Option<Vec<u8>>);

/// How the override stands; nothing for a file that never overrode any.
fn judge(candidate: &OverrideCandidate, history: &PathHistory) -> Result<Option<Judged>, Error> {
    let answer = |standing: Standing, from: Option<usize>| Override {
        store_id: candidate.store.id.clone(),
        app: candidate.app.clone(),
        path: candidate.path.to_string(),
        file: candidate.place.file.clone(),
        standing,
        inherits_from: from.map(|index| candidate.above[index].owner.clone()),
        inherited_file: from.map(|index| candidate.above[index].file.clone()),
        base: None,
        commits: Vec::new(),
        uncommitted: false,
        cut_off: history.is_cut_off(&candidate.place.file),
        missed: Vec::new(),
    };
    let Some((above, inherited)) = &candidate.inherited else {
        let Some((index, removal)) = removed(candidate, history)? else {
            return Ok(None);
        };
        let mut orphan = answer(Standing::Orphan, Some(index));
        match removal {
            Some(touch) => orphan.commits.push(history.commit(touch.commit)?),
            None => orphan.uncommitted = true,
        }
        return Ok(Some((orphan, None)));
    };
    if candidate.content.id == inherited.id {
        return Ok(Some((answer(Standing::Identical, Some(*above)), None)));
    }
    let ours = read(&candidate.content, &candidate.place.file)?;
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
    // Without a base version there is nothing to measure from.
    let is_behind =
        base.is_some() && base != Some(inherited.id) && !brings_nothing(&content, &ours, &theirs)?;
    let standing = if is_behind {
        Standing::Behind
    } else {
        Standing::Current
    };
    let mut one = answer(standing, Some(*above));
    one.base = base.map(|id| id.to_string());
    if is_behind {
        let place = &candidate.above[*above].file;
        let touches = history.touches(place);
        let committed = touches.first().and_then(|touch| touch.blob);
        one.uncommitted = committed != Some(inherited.id.oid());
        let mut missed = BTreeSet::new();
        for place in &candidate.above {
            for touch in history.touches(&place.file) {
                let is_base = base.is_some_and(|base| touch.blob == Some(base.oid()));
                let was_known = since.is_some_and(|since| history.has_seen(since, touch.commit));
                if is_base || was_known {
                    break;
                }
                missed.insert(touch.commit);
            }
        }
        for commit in missed {
            one.commits.push(history.commit(commit)?);
        }
    }
    Ok(Some((one, Some(content))))
}

/// What the override overrode, if it is gone: its place in `above`, and the commit that removed
/// it; none where no commit has yet.
fn removed(
    candidate: &OverrideCandidate,
    history: &PathHistory,
) -> Result<Option<(usize, Option<PathChange>)>, Error> {
    let Some(added) = history.touches(&candidate.place.file).last() else {
        return Ok(None);
    };
    for (index, place) in candidate.above.iter().enumerate() {
        if history.blob_at(&place.file, added.commit)?.is_none() {
            continue;
        }
        let newest = history.touches(&place.file).first();
        match newest.filter(|touch| touch.blob.is_none()) {
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
