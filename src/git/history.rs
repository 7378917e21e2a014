//! What earlier commits did to paths, and what they had at them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use git2::{Delta, DiffOptions, ErrorCode, Oid, Sort};

use super::tree::{Difference, Objects};
use super::{Error, Repository};

/// A commit, as far as people want to know it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Commit {
    /// Full SHA.
    pub sha: String,
    /// Author date in the author's own time, `2026-01-31T12:00:00`.
    pub date: String,
    /// First line of its message.
    pub subject: String,
}

impl Commit {
    fn new(commit: &git2::Commit) -> Self {
        let author = commit.author().when();
        let offset = jiff::tz::Offset::from_seconds(author.offset_minutes() * 60);
        let date = jiff::Timestamp::from_second(author.seconds()).map(|time| {
            offset
                .unwrap_or(jiff::tz::Offset::UTC)
                .to_datetime(time)
                .to_string()
        });
        Self {
            sha: commit.id().to_string(),
            date: date.unwrap_or_default(),
            subject: commit
                .summary()
                .ok()
                .flatten()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// A commit that changed a followed path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// The commit; smaller is newer.
    pub commit: usize,
    /// What the path had from then on; none where it was removed.
    pub blob: Option<Oid>,
}

/// What every commit that can be reached from HEAD did to some paths. A path is followed through
/// renames, as far as git's library finds them.
pub struct History<'a> {
    repository: &'a Repository,
    /// Newest first, children before parents.
    commits: Vec<Oid>,
    /// Commits without a parent, or whose parents are not here.
    ends: BTreeSet<usize>,
    followed: HashMap<String, Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    /// Newest first.
    touches: Vec<Touch>,
    /// The names it had, with the newest commit at which it had them; newest first.
    names: Vec<(usize, String)>,
}

impl History<'_> {
    /// Commits that changed the path, newest first.
    pub fn touches(&self, path: &str) -> &[Touch] {
        self.followed
            .get(path)
            .map_or(&[], |followed| &followed.touches)
    }

    /// What the path, under the name it had then, had in the commit.
    pub fn blob_at(&self, path: &str, commit: usize) -> Result<Option<Oid>, Error> {
        let Some(followed) = self.followed.get(path) else {
            return Ok(None);
        };
        let names = followed.names.iter().rev();
        let Some((_, name)) = names.into_iter().find(|(since, _)| *since <= commit) else {
            return Ok(None);
        };
        let inside = format!("{}{name}", self.repository.prefix);
        let blob = self
            .repository
            .inner
            .find_commit(self.commits[commit])
            .and_then(|commit| blob(&commit, &inside));
        blob.map_err(|source| self.repository.failed("the history", source))
    }

    /// What people want to know of a commit.
    pub fn commit(&self, index: usize) -> Result<Commit, Error> {
        let commit = self.repository.inner.find_commit(self.commits[index]);
        commit
            .map(|commit| Commit::new(&commit))
            .map_err(|source| self.repository.failed("the history", source))
    }

    /// Whether the path was there already where a shallow clone's history ends.
    pub fn is_cut_off(&self, path: &str) -> bool {
        let oldest = self.touches(path).last();
        self.repository.is_shallow()
            && oldest.is_some_and(|touch| self.ends.contains(&touch.commit))
    }

    /// How many commits it has.
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Whether there is no commit.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// The content of a blob.
    pub fn content(&self, blob: Oid) -> Result<Vec<u8>, Error> {
        let found = self.repository.inner.find_blob(blob);
        found
            .map(|blob| blob.content().to_vec())
            .map_err(|source| self.repository.failed("the history", source))
    }
}

/// The blob at a path of the repository in a commit.
fn blob(commit: &git2::Commit, path: &str) -> Result<Option<Oid>, git2::Error> {
    match commit.tree()?.get_path(Path::new(path)) {
        Ok(entry) => Ok(Some(entry.id())),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Repository {
    /// The commit that last changed a path, as `git log -1 -- <path>` finds it: back from HEAD,
    /// always to a parent in which the path is the same.
    pub fn last_commit(&self, path: &str) -> Result<Option<Commit>, Error> {
        let failed = |source| self.failed("the history", source);
        let path = format!("{}{path}", self.prefix);
        let Ok(head) = self.inner.head() else {
            return Ok(None);
        };
        let mut commit = head.peel_to_commit().map_err(failed)?;
        let Some(wanted) = blob(&commit, &path).map_err(failed)? else {
            return Ok(None);
        };
        'back: loop {
            // In a shallow clone the history ends where the parents are not there.
            for parent in commit.parents() {
                if blob(&parent, &path).map_err(failed)? == Some(wanted) {
                    commit = parent;
                    continue 'back;
                }
            }
            break;
        }
        Ok(Some(Commit::new(&commit)))
    }

    /// Follows paths (relative to the project, all below `folder`) through the whole history.
    pub fn history(&self, paths: &[String], folder: &str) -> Result<History<'_>, Error> {
        self.walk(paths, folder)
            .map_err(|source| self.failed("the history", source))
    }

    fn walk(&self, paths: &[String], folder: &str) -> Result<History<'_>, git2::Error> {
        let mut history = History {
            repository: self,
            commits: Vec::new(),
            ends: BTreeSet::new(),
            followed: HashMap::new(),
        };
        // Which followed paths a name stands for at present; several, after renames.
        let mut names = BTreeMap::<String, Vec<String>>::new();
        for path in paths {
            names.insert(path.clone(), vec![path.clone()]);
            let followed = Followed {
                touches: Vec::new(),
                names: vec![(0, path.clone())],
            };
            history.followed.insert(path.clone(), followed);
        }
        if self.inner.is_empty()? || self.inner.head().is_err() {
            return Ok(history);
        }
        let objects = self.objects();
        let mut walk = self.inner.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
        walk.push_head()?;
        for id in walk {
            let id = id?;
            let index = history.commits.len();
            history.commits.push(id);
            let commit = self.inner.find_commit(id)?;
            if commit.parents().len() == 0 {
                history.ends.insert(index);
            }
            for change in self.changes(&commit, folder, &names, &objects)? {
                for key in names.get(&change.path).cloned().unwrap_or_default() {
                    let Some(followed) = history.followed.get_mut(&key) else {
                        continue;
                    };
                    followed.touches.push(Touch {
                        commit: index,
                        blob: change.blob,
                    });
                    if let Some(before) = &change.renamed_from {
                        followed.names.push((index + 1, before.clone()));
                        if let Some(keys) = names.get_mut(&change.path) {
                            keys.retain(|other| *other != key);
                        }
                        names.entry(before.clone()).or_default().push(key);
                    }
                }
            }
        }
        Ok(history)
    }

    /// What a commit changed of the names that are followed; a merge only what none of its
    /// parents has just so, as `git log` has it.
    fn changes(
        &self,
        commit: &git2::Commit,
        folder: &str,
        names: &BTreeMap<String, Vec<String>>,
        objects: &Arc<Objects>,
    ) -> Result<Vec<Change>, git2::Error> {
        let tree = self.tree_of(objects, commit);
        let folder = format!("{}{folder}", self.prefix);
        let parents: Vec<_> = commit.parents().collect();
        let none = [None];
        let parents: Vec<_> = parents.iter().map(Some).collect();
        let mut found: Option<Vec<Change>> = None;
        for parent in if parents.is_empty() {
            &none[..]
        } else {
            &parents
        } {
            let before = parent.map(|parent| self.tree_of(objects, parent));
            let differences = tree
                .since(before.as_ref(), Path::new(&folder))
                .map_err(|error| git2::Error::from_str(&error.to_string()))?;
            let is_added = |it: &&Difference| it.old.is_none();
            let is_removed = |it: &&Difference| it.new.is_none();
            let mut changes: Vec<_> = differences
                .iter()
                .filter_map(|it| {
                    let path = it.path.to_str()?.strip_prefix(&self.prefix)?.to_owned();
                    let is_followed = names.get(&path).is_some_and(|keys| !keys.is_empty());
                    is_followed.then_some(Change {
                        path,
                        blob: it.new,
                        renamed_from: None,
                    })
                })
                .collect();
            let added = differences.iter().filter(is_added);
            let added: BTreeSet<_> = added.filter_map(|it| it.path.to_str()).collect();
            let may_be_renamed = differences.iter().any(|it| is_removed(&it))
                && changes
                    .iter()
                    .any(|it| added.contains(format!("{}{}", self.prefix, it.path).as_str()));
            if let (true, Some(parent)) = (may_be_renamed, parent) {
                let renames = self.renames(parent, commit, &folder)?;
                for change in &mut changes {
                    change.renamed_from = renames.get(&change.path).cloned();
                }
            }
            found = Some(match found {
                None => changes,
                Some(mut before) => {
                    before.retain(|one| changes.iter().any(|other| other.path == one.path));
                    before
                }
            });
        }
        Ok(found.unwrap_or_default())
    }

    /// New names with the old ones, as git's library finds them.
    fn renames(
        &self,
        old: &git2::Commit,
        new: &git2::Commit,
        folder: &str,
    ) -> Result<BTreeMap<String, String>, git2::Error> {
        let mut options = DiffOptions::new();
        options.disable_pathspec_match(true).pathspec(folder);
        let (old, new) = (old.tree()?, new.tree()?);
        let mut diff = self
            .inner
            .diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
        diff.find_similar(None)?;
        let renamed = diff
            .deltas()
            .filter(|delta| delta.status() == Delta::Renamed);
        Ok(renamed
            .filter_map(|delta| {
                Some((
                    self.inside(&delta.new_file())?,
                    self.inside(&delta.old_file())?,
                ))
            })
            .collect())
    }

    /// The path relative to the project; none for what lies outside.
    fn inside(&self, file: &git2::DiffFile) -> Option<String> {
        let path = std::str::from_utf8(file.path_bytes()?).ok()?;
        path.strip_prefix(&self.prefix).map(str::to_owned)
    }
}

/// What a commit did to a followed name.
struct Change {
    path: String,
    blob: Option<Oid>,
    renamed_from: Option<String>,
}
