//! What earlier commits did to paths, and what they had at them.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use git2::{Delta, DiffOptions, ErrorCode, Oid, Sort};

use super::tree::{Difference, Objects, Tree};
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

    /// Whether one commit can be reached from another one.
    pub fn has_seen(&self, later: usize, earlier: usize) -> Result<bool, Error> {
        let (later, earlier) = (self.commits[later], self.commits[earlier]);
        let reached = later == earlier
            || self
                .repository
                .inner
                .graph_descendant_of(later, earlier)
                .map_err(|source| self.repository.failed("the history", source))?;
        Ok(reached)
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

    /// One pass, children before parents. A path is at one commit at a time, and goes on to the
    /// parent in which it is the same, as `git log -- <path>` does: what a merge has left behind
    /// on another branch is no part of its history.
    fn walk(&self, paths: &[String], folder: &str) -> Result<History<'_>, git2::Error> {
        let mut history = History {
            repository: self,
            commits: Vec::new(),
            ends: BTreeSet::new(),
            followed: HashMap::new(),
        };
        for path in paths {
            let followed = Followed {
                touches: Vec::new(),
                names: vec![(0, path.clone())],
            };
            history.followed.insert(path.clone(), followed);
        }
        let Ok(head) = self.inner.head().and_then(|head| head.peel_to_commit()) else {
            return Ok(history);
        };
        let mut at = HashMap::<Oid, Vec<String>>::new();
        at.insert(head.id(), paths.to_vec());
        let objects = self.objects();
        let folder = format!("{}{folder}", self.prefix);
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
            let Some(paths) = at.remove(&id) else {
                continue;
            };
            let step = Step::new(self, &commit, &folder, &objects)?;
            for path in paths {
                let Some(followed) = history.followed.get_mut(&path) else {
                    continue;
                };
                if let Some(next) = step.take(index, followed)? {
                    at.entry(next).or_default().push(path);
                }
            }
        }
        Ok(history)
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
        let inside = |file: git2::DiffFile| {
            let path = std::str::from_utf8(file.path_bytes()?).ok()?;
            path.strip_prefix(&self.prefix).map(str::to_owned)
        };
        let renamed = diff
            .deltas()
            .filter(|delta| delta.status() == Delta::Renamed);
        Ok(renamed
            .filter_map(|delta| Some((inside(delta.new_file())?, inside(delta.old_file())?)))
            .collect())
    }
}

/// A commit, and in what it differs from each of its parents.
struct Step<'r> {
    repository: &'r Repository,
    commit: &'r git2::Commit<'r>,
    folder: &'r str,
    tree: Tree,
    parents: Vec<Parent<'r>>,
}

struct Parent<'r> {
    commit: git2::Commit<'r>,
    tree: Tree,
    /// By path relative to the repository.
    differences: HashMap<String, Difference>,
    /// New names with the old ones, looked for when the first path asks.
    renames: OnceCell<BTreeMap<String, String>>,
}

impl<'r> Step<'r> {
    fn new(
        repository: &'r Repository,
        commit: &'r git2::Commit<'r>,
        folder: &'r str,
        objects: &Arc<Objects>,
    ) -> Result<Self, git2::Error> {
        let tree = repository.tree_of(objects, commit);
        let parents = commit.parents().map(|commit| {
            let before = repository.tree_of(objects, &commit);
            let differences = tree.since(&before, Path::new(folder)).map_err(of_library)?;
            let by_path = differences.into_iter().filter_map(|difference| {
                let path = difference.path.to_str()?.to_owned();
                Some((path, difference))
            });
            Ok(Parent {
                commit,
                tree: before,
                differences: by_path.collect(),
                renames: OnceCell::new(),
            })
        });
        let parents = parents.collect::<Result<_, git2::Error>>()?;
        Ok(Self {
            repository,
            commit,
            folder,
            tree,
            parents,
        })
    }

    /// Takes a path over the commit, and says to which parent it goes on.
    fn take(&self, index: usize, followed: &mut Followed) -> Result<Option<Oid>, git2::Error> {
        let name = followed.names.last().map_or("", |(_, name)| name);
        let path = format!("{}{name}", self.repository.prefix);
        let is_same = |parent: &&Parent| !parent.differences.contains_key(&path);
        if let Some(parent) = self.parents.iter().find(is_same) {
            return Ok(Some(parent.commit.id()));
        }
        let blob = |tree: &Tree| tree.blob_at(&path).map_err(of_library);
        let now = blob(&self.tree)?;
        if self.parents.is_empty() && now.is_none() {
            return Ok(None);
        }
        followed.touches.push(Touch {
            commit: index,
            blob: now,
        });
        for parent in &self.parents {
            if blob(&parent.tree)?.is_some() {
                return Ok(Some(parent.commit.id()));
            }
        }
        // Added here, or renamed.
        for parent in &self.parents {
            if !parent.differences.values().any(|it| it.is_removed) {
                continue;
            }
            if parent.renames.get().is_none() {
                let found = self
                    .repository
                    .renames(&parent.commit, self.commit, self.folder)?;
                let _ = parent.renames.set(found);
            }
            let renames = parent.renames.get();
            if let Some(before) = renames.and_then(|renames| renames.get(name)) {
                followed.names.push((index + 1, before.clone()));
                return Ok(Some(parent.commit.id()));
            }
        }
        Ok(self.parents.first().map(|parent| parent.commit.id()))
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` takes"
)]
fn of_library(error: std::io::Error) -> git2::Error {
    git2::Error::from_str(&error.to_string())
}
