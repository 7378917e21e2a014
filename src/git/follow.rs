//! Follows paths back through commits, and opens only the trees that lead to them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use git2::{Delta, DiffOptions, OdbObject, Oid};

use super::Repository;
use super::ancestry::Ancestry;
use super::entries::{RawChanges, RawEntries, RawEntry};
use super::history::{FollowedPath, PathChange};
use super::tree::GitObjects;

/// How many trees are remembered at least. Neighbouring commits have most of theirs in common.
const TREES: usize = 512;

/// Names that are followed, as a tree of their components, and which paths have them. Several
/// may have one, as what has two names now may have been one file once.
#[derive(Debug, Default)]
pub(super) struct FollowedNames {
    below: BTreeMap<Vec<u8>, FollowedNames>,
    paths: Vec<usize>,
}

impl FollowedNames {
    pub(super) fn add(&mut self, name: &str, path: usize) {
        let parts = name.split('/').filter(|part| !part.is_empty());
        let leaf = parts.fold(self, |names, part| {
            names.below.entry(part.into()).or_default()
        });
        leaf.paths.push(path);
    }

    fn remove(&mut self, name: &str, path: usize) {
        let parts = name.split('/').filter(|part| !part.is_empty());
        self.remove_at(&mut parts.map(str::as_bytes), path);
    }

    fn remove_at<'a>(&mut self, rest: &mut impl Iterator<Item = &'a [u8]>, path: usize) {
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

    fn all(&self, found: &mut Vec<usize>) {
        found.extend(&self.paths);
        self.below.values().for_each(|below| below.all(found));
    }
}

/// Trees of the repository, the ones used last in memory.
struct TreeCache<'r> {
    odb: &'r git2::Odb<'r>,
    recent: HashMap<Oid, Rc<OdbObject<'r>>>,
    /// Those that were recent before; forgotten when there are enough of the others.
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
        if self.recent.len() >= TREES {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(id, Rc::clone(&tree));
        Ok(tree)
    }

    /// Adds the followed paths whose file is another one in the new tree.
    fn differing(
        &mut self,
        old: Option<Oid>,
        new: Option<Oid>,
        names: &FollowedNames,
        found: &mut Vec<usize>,
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

    /// The blob at a path of a tree; none where no file is.
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

/// Goes back through all commits once. A path is at one commit at a time, and goes on to the
/// parent in which it is the same, as `git log -- <path>` does: what a merge has left behind on
/// another branch is no part of its history.
pub(super) struct Follower<'r> {
    repository: &'r Repository,
    ancestry: &'r Ancestry,
    /// Where renames are looked for, relative to the repository.
    folder: String,
    trees: TreeCache<'r>,
    objects: Arc<GitObjects>,
    followed: Vec<FollowedPath>,
    /// Which names are followed at which commit.
    at: HashMap<usize, FollowedNames>,
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
            names.add(&format!("{}{path}", repository.prefix), index);
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
            at: HashMap::from([(0, names)]),
        }
    }

    pub(super) fn follow(mut self) -> Result<Vec<FollowedPath>, git2::Error> {
        for commit in 0..self.ancestry.commits.len() {
            let Some(names) = self.at.remove(&commit) else {
                continue;
            };
            self.take(commit, names)?;
        }
        Ok(self.followed)
    }

    /// Takes all names over a commit. Those that are the same in the first parent, which are
    /// nearly always all, go on together and are not looked at one by one.
    fn take(&mut self, commit: usize, mut names: FollowedNames) -> Result<(), git2::Error> {
        let ancestry = self.ancestry;
        let parents = &ancestry.commits[commit].parents;
        let mut changed = Vec::new();
        match parents.first() {
            Some(first) => self.differing(commit, *first as usize, &names, &mut changed)?,
            None => names.all(&mut changed),
        }
        if changed.is_empty() {
            self.go_on(parents[0] as usize, names);
            return Ok(());
        }
        let mut apart = FollowedNames::default();
        for path in &changed {
            let name = self.name(*path);
            names.remove(&name, *path);
            apart.add(&name, *path);
        }
        if let Some(first) = parents.first().filter(|_| !names.is_empty()) {
            self.go_on(*first as usize, names);
        }
        let mut differs = Vec::new();
        for parent in parents.iter().skip(1) {
            let mut found = Vec::new();
            self.differing(commit, *parent as usize, &apart, &mut found)?;
            found.sort_unstable();
            differs.push(found);
        }
        let mut step = ChangingCommit::new(commit, parents);
        for path in changed {
            let same = differs
                .iter()
                .position(|it| it.binary_search(&path).is_err());
            let next = match same {
                Some(other) => Some(parents[other + 1] as usize),
                None => self.touch(&mut step, path)?,
            };
            if let Some(next) = next {
                let name = self.name(path);
                self.at.entry(next).or_default().add(&name, path);
            }
        }
        Ok(())
    }

    fn differing(
        &mut self,
        commit: usize,
        parent: usize,
        names: &FollowedNames,
        found: &mut Vec<usize>,
    ) -> Result<(), git2::Error> {
        let tree = |commit: usize| Some(self.ancestry.commits[commit].tree);
        let (old, new) = (tree(parent), tree(commit));
        self.trees.differing(old, new, names, found)
    }

    fn go_on(&mut self, parent: usize, names: FollowedNames) {
        match self.at.entry(parent) {
            std::collections::hash_map::Entry::Vacant(none) => {
                none.insert(names);
            }
            std::collections::hash_map::Entry::Occupied(mut there) => there.get_mut().merge(names),
        }
    }

    /// The name that a path has now, relative to the repository.
    fn name(&self, path: usize) -> String {
        format!("{}{}", self.repository.prefix, self.followed[path].name())
    }

    /// Notes that the commit changed the path, and says to which parent it goes on.
    fn touch(
        &mut self,
        step: &mut ChangingCommit,
        path: usize,
    ) -> Result<Option<usize>, git2::Error> {
        let name = self.name(path);
        let commits = &self.ancestry.commits;
        let now = self.trees.blob(commits[step.commit].tree, &name)?;
        if step.parents.is_empty() && now.is_none() {
            return Ok(None);
        }
        self.followed[path].touches.push(PathChange {
            commit: step.commit,
            blob: now,
        });
        for (parent, _) in &step.parents {
            if self.trees.blob(commits[*parent].tree, &name)?.is_some() {
                return Ok(Some(*parent));
            }
        }
        // Added here, or renamed.
        for (parent, renames) in &mut step.parents {
            let known = match renames.take() {
                Some(known) => known,
                None => self.renames(*parent, step.commit)?,
            };
            let before = renames.insert(known).get(&name);
            if let Some(inside) =
                before.and_then(|before| before.strip_prefix(&self.repository.prefix))
            {
                let names = &mut self.followed[path].names;
                names.push((step.commit + 1, inside.to_owned()));
                return Ok(Some(*parent));
            }
        }
        Ok(step.parents.first().map(|(parent, _)| *parent))
    }

    /// New names with the old ones, as git's library finds them. Without a removed file there
    /// is none.
    fn renames(&self, old: usize, new: usize) -> Result<BTreeMap<String, String>, git2::Error> {
        let inner = &self.repository.inner;
        let commit = |index: usize| inner.find_commit(self.ancestry.commits[index].id);
        let (old, new) = (commit(old)?, commit(new)?);
        let tree = |commit| self.repository.tree_of(&self.objects, commit);
        let differences = tree(&new)
            .since(&tree(&old), Path::new(&self.folder))
            .map_err(|error| git2::Error::from_str(&error.to_string()))?;
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

/// A commit that changed paths, with its parents.
struct ChangingCommit {
    commit: usize,
    /// With new names and the old ones, looked for when the first path asks.
    parents: Vec<(usize, Option<BTreeMap<String, String>>)>,
}

impl ChangingCommit {
    fn new(commit: usize, parents: &[u32]) -> Self {
        let parents = parents.iter();
        Self {
            commit,
            parents: parents.map(|parent| (*parent as usize, None)).collect(),
        }
    }
}
