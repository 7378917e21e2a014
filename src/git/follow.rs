//! Following paths back through the history. Only the trees on the way to a followed path are opened.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use git2::{Delta, DiffOptions, OdbObject, Oid};

use super::Repository;
use super::ancestry::{Ancestry, CommitIndex};
use super::entries::{RawChanges, RawEntries, RawEntry};
use super::history::{FollowedPath, PathChange};
use super::tree::GitObjects;

/// How many trees the cache keeps at least. Consecutive commits share most of their trees.
const CACHED_TREES: usize = 512;

/// A followed path, by its position in the list of paths to follow. It stays the same when the path is
/// renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathId(usize);

/// The current names of followed paths, as a tree of their components. Several paths can have one name
/// in an older commit, since two files can be renamed copies of one.
#[derive(Debug, Default)]
pub(super) struct FollowedNames {
    below: BTreeMap<Vec<u8>, FollowedNames>,
    paths: Vec<PathId>,
}

impl FollowedNames {
    pub(super) fn add(&mut self, name: &str, path: PathId) {
        let parts = name.split('/').filter(|part| !part.is_empty());
        let leaf = parts.fold(self, |names, part| {
            names.below.entry(part.into()).or_default()
        });
        leaf.paths.push(path);
    }

    fn remove(&mut self, name: &str, path: PathId) {
        let parts = name.split('/').filter(|part| !part.is_empty());
        self.remove_at(&mut parts.map(str::as_bytes), path);
    }

    fn remove_at<'a>(&mut self, rest: &mut impl Iterator<Item = &'a [u8]>, path: PathId) {
        let Some(part) = rest.next() else {
            return self.paths.retain(|one| *one != path);
        };
        if let Some(below) = self.below.get_mut(part) {
            below.remove_at(rest, path);
            if below.is_empty() {
                self.below.remove(part);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.below.is_empty() && self.paths.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.paths.extend(other.paths);
        for (name, names) in other.below {
            self.below.entry(name).or_default().merge(names);
        }
    }

    fn all(&self, found: &mut Vec<PathId>) {
        found.extend(&self.paths);
        self.below.values().for_each(|below| below.all(found));
    }
}

/// Trees of the repository. The most recently used trees stay in memory.
struct TreeCache<'r> {
    odb: &'r git2::Odb<'r>,
    recent: HashMap<Oid, Rc<OdbObject<'r>>>,
    /// The generation before. It is dropped when the recent generation is full.
    older: HashMap<Oid, Rc<OdbObject<'r>>>,
}

impl<'r> TreeCache<'r> {
    fn tree(&mut self, id: Oid) -> Result<Rc<OdbObject<'r>>, git2::Error> {
        if let Some(tree) = self.recent.get(&id) {
            return Ok(Rc::clone(tree));
        }
        let tree = match self.older.remove(&id) {
            Some(tree) => tree,
            None => Rc::new(self.odb.read(id)?),
        };
        if self.recent.len() >= CACHED_TREES {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id, Rc::clone(&tree));
        Ok(tree)
    }

    /// Adds the followed paths whose file differs between the two trees.
    fn differing(
        &mut self,
        old: Option<Oid>,
        new: Option<Oid>,
        names: &FollowedNames,
        found: &mut Vec<PathId>,
    ) -> Result<(), git2::Error> {
        if old == new {
            return Ok(());
        }
        let mut open = |id: Option<Oid>| id.map(|id| self.tree(id)).transpose();
        let (old, new) = (open(old)?, open(new)?);
        let old = old.as_deref().map_or(&[][..], OdbObject::data);
        let new = new.as_deref().map_or(&[][..], OdbObject::data);
        for (name, was, is) in RawChanges::between(old, new) {
            let Some(names) = names.below.get(name) else {
                continue;
            };
            if RawEntry::file(was) != RawEntry::file(is) {
                found.extend(&names.paths);
            }
            self.differing(RawEntry::folder(was), RawEntry::folder(is), names, found)?;
        }
        Ok(())
    }

    /// The blob of the file at a path of a tree; `None` where there is no file.
    fn blob(&mut self, tree: Oid, path: &str) -> Result<Option<Oid>, git2::Error> {
        let mut at = Some(RawEntry::of_folder(tree));
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Some(folder) = RawEntry::folder(at) else {
                return Ok(None);
            };
            let folder = self.tree(folder)?;
            let mut entries = RawEntries(folder.data());
            at = entries
                .find(|(name, _)| *name == part.as_bytes())
                .map(|(_, item)| item);
        }
        Ok(RawEntry::file(at).map(|item| item.id))
    }
}

/// Visits all commits once, newest first. A path is followed from a commit to the one parent that has
/// the same content, as `git log -- <path>` does, so changes on a merged branch that the merge did not
/// take over are not part of its history.
pub(super) struct Follower<'r> {
    repository: &'r Repository,
    ancestry: &'r Ancestry,
    /// The folder in which renames are detected, relative to the repository.
    folder: String,
    trees: TreeCache<'r>,
    objects: Arc<GitObjects>,
    followed: Vec<FollowedPath>,
    /// The names to follow from each commit that is still to be visited.
    pending: HashMap<CommitIndex, FollowedNames>,
}

impl<'r> Follower<'r> {
    pub(super) fn new(
        repository: &'r Repository,
        ancestry: &'r Ancestry,
        odb: &'r git2::Odb<'r>,
        paths: &[String],
        folder: &str,
    ) -> Self {
        let mut names = FollowedNames::default();
        for (index, path) in paths.iter().enumerate() {
            names.add(&format!("{}{path}", repository.prefix), PathId(index));
        }
        let followed = paths.iter().map(|path| FollowedPath::new(path));
        Self {
            repository,
            ancestry,
            folder: format!("{}{folder}", repository.prefix),
            trees: TreeCache {
                odb,
                recent: HashMap::new(),
                older: HashMap::new(),
            },
            objects: repository.objects(),
            followed: followed.collect(),
            pending: HashMap::from([(CommitIndex::HEAD, names)]),
        }
    }

    pub(super) fn follow(mut self) -> Result<Vec<FollowedPath>, git2::Error> {
        for commit in self.ancestry.indices() {
            if let Some(names) = self.pending.remove(&commit) {
                self.visit(commit, names)?;
            }
        }
        Ok(self.followed)
    }

    /// Follows names from a commit to its parents. The names that are unchanged in the first parent,
    /// nearly always all of them, are followed together.
    fn visit(&mut self, commit: CommitIndex, mut names: FollowedNames) -> Result<(), git2::Error> {
        let ancestry = self.ancestry;
        let parents = &ancestry.commit(commit).parents;
        let mut changed = Vec::new();
        if let Some(first) = parents.first() {
            self.differing(commit, *first, &names, &mut changed)?;
            if changed.is_empty() {
                self.follow_to(*first, names);
                return Ok(());
            }
        } else {
            names.all(&mut changed);
        }
        let mut changed_names = FollowedNames::default();
        for path in &changed {
            let name = self.name(*path);
            names.remove(&name, *path);
            changed_names.add(&name, *path);
        }
        if let Some(first) = parents.first().filter(|_| !names.is_empty()) {
            self.follow_to(*first, names);
        }
        let mut differs = Vec::new();
        for parent in parents.iter().skip(1) {
            let mut found = Vec::new();
            self.differing(commit, *parent, &changed_names, &mut found)?;
            found.sort_unstable();
            differs.push(found);
        }
        let mut step = ChangingCommit::new(commit, parents);
        for path in changed {
            let same = differs
                .iter()
                .position(|it| it.binary_search(&path).is_err());
            let next = match same {
                Some(other) => Some(parents[other + 1]),
                None => self.record(&mut step, path)?,
            };
            if let Some(next) = next {
                let name = self.name(path);
                self.pending.entry(next).or_default().add(&name, path);
            }
        }
        Ok(())
    }

    fn differing(
        &mut self,
        commit: CommitIndex,
        parent: CommitIndex,
        names: &FollowedNames,
        found: &mut Vec<PathId>,
    ) -> Result<(), git2::Error> {
        let tree = |commit: CommitIndex| Some(self.ancestry.commit(commit).tree);
        let (old, new) = (tree(parent), tree(commit));
        self.trees.differing(old, new, names, found)
    }

    fn follow_to(&mut self, parent: CommitIndex, names: FollowedNames) {
        match self.pending.entry(parent) {
            std::collections::hash_map::Entry::Vacant(none) => {
                none.insert(names);
            }
            std::collections::hash_map::Entry::Occupied(mut there) => there.get_mut().merge(names),
        }
    }

    /// The name of a path at the commit reached so far, relative to the repository.
    fn name(&self, path: PathId) -> String {
        format!("{}{}", self.repository.prefix, self.followed[path.0].name())
    }

    /// Records that the commit changed the path, and returns the parent to follow it to.
    fn record(
        &mut self,
        step: &mut ChangingCommit,
        path: PathId,
    ) -> Result<Option<CommitIndex>, git2::Error> {
        let name = self.name(path);
        let ancestry = self.ancestry;
        let tree = |commit| ancestry.commit(commit).tree;
        let now = self.trees.blob(tree(step.commit), &name)?;
        if step.parents.is_empty() && now.is_none() {
            return Ok(None);
        }
        self.followed[path.0].changes.push(PathChange {
            commit: step.commit,
            blob: now,
        });
        for (parent, _) in &step.parents {
            if self.trees.blob(tree(*parent), &name)?.is_some() {
                return Ok(Some(*parent));
            }
        }
        // The commit added the file, or renamed it.
        for (parent, renames) in &mut step.parents {
            let known = match renames.take() {
                Some(known) => known,
                None => self.renames(*parent, step.commit)?,
            };
            let before = renames.insert(known).get(&name);
            if let Some(inside) =
                before.and_then(|before| before.strip_prefix(&self.repository.prefix))
            {
                let names = &mut self.followed[path.0].names;
                names.push((step.commit.older(), inside.to_owned()));
                return Ok(Some(*parent));
            }
        }
        Ok(step.parents.first().map(|(parent, _)| *parent))
    }

    /// The renames between two commits that libgit2 detects: the old name by the new one.
    fn renames(
        &self,
        old: CommitIndex,
        new: CommitIndex,
    ) -> Result<BTreeMap<String, String>, git2::Error> {
        let inner = &self.repository.inner;
        let commit = |index: CommitIndex| inner.find_commit(self.ancestry.commit(index).id);
        let (old, new) = (commit(old)?, commit(new)?);
        let tree = |commit| self.repository.tree_of(&self.objects, commit);
        let differences = tree(&new)
            .since(&tree(&old), Path::new(&self.folder))
            .map_err(|error| git2::Error::from_str(&error.to_string()))?;
        // Without a removed file there is no rename.
        if !differences.iter().any(|it| it.is_removed) {
            return Ok(BTreeMap::new());
        }
        let mut options = DiffOptions::new();
        options.disable_pathspec_match(true).pathspec(&self.folder);
        let (old, new) = (old.tree()?, new.tree()?);
        let mut diff = inner.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
        diff.find_similar(None)?;
        let path = |file: git2::DiffFile| {
            let path = std::str::from_utf8(file.path_bytes()?).ok()?;
            Some(path.to_owned())
        };
        let renamed = diff
            .deltas()
            .filter(|delta| delta.status() == Delta::Renamed);
        Ok(renamed
            .filter_map(|delta| Some((path(delta.new_file())?, path(delta.old_file())?)))
            .collect())
    }
}

/// A commit that changed followed paths.
struct ChangingCommit {
    commit: CommitIndex,
    /// Its parents, each with the renames since then, which are detected when first needed.
    parents: Vec<(CommitIndex, Option<BTreeMap<String, String>>)>,
}

impl ChangingCommit {
    fn new(commit: CommitIndex, parents: &[CommitIndex]) -> Self {
        let parents = parents.iter();
        Self {
            commit,
            parents: parents.map(|parent| (*parent, None)).collect(),
        }
    }
}
