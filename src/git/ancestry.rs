//! The commits that are reachable from HEAD, and their parents.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use git2::Oid;

use super::Repository;

/// A commit's index in the history of HEAD. A newer commit has a smaller index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitIndex(u32);

impl CommitIndex {
    /// The commit of HEAD.
    pub const HEAD: Self = Self(0);

    /// The index at a position of the history, counted from HEAD.
    pub fn new(position: usize) -> Self {
        // A history with so many commits does not fit into memory.
        Self(u32::try_from(position).unwrap_or(u32::MAX))
    }

    /// The next older commit.
    pub(super) fn older(self) -> Self {
        Self(self.0 + 1)
    }

    fn position(self) -> usize {
        self.0 as usize
    }
}

/// A commit of the history.
#[derive(Debug)]
pub(super) struct CommitNode {
    pub(super) id: Oid,
    pub(super) tree: Oid,
    /// Its parents. The oldest commits of a shallow clone have none.
    pub(super) parents: Vec<CommitIndex>,
    /// Commit time in seconds since the epoch.
    time: i64,
}

/// Every commit that is reachable from HEAD, in the order of `git log --date-order`: newest first,
/// and each commit after all of its children.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    commits: Vec<CommitNode>,
}

impl Ancestry {
    pub(super) fn of_head(repository: &Repository) -> Result<Self, git2::Error> {
        let head = repository.inner.head();
        let Ok(head) = head.and_then(|head| head.peel_to_commit()) else {
            return Ok(Self::default());
        };
        let mut commits = read(&repository.inner, head.id())?;
        let order = sorted(&commits);
        let mut indices = vec![CommitIndex::HEAD; commits.len()];
        for (position, read_at) in order.iter().enumerate() {
            indices[*read_at] = CommitIndex::new(position);
        }
        for commit in &mut commits {
            for parent in &mut commit.parents {
                *parent = indices[parent.position()];
            }
        }
        let mut found: Vec<_> = commits.into_iter().zip(&indices).collect();
        found.sort_unstable_by_key(|(_, index)| **index);
        Ok(Self {
            commits: found.into_iter().map(|(commit, _)| commit).collect(),
        })
    }

    /// The commit at an index.
    pub(super) fn commit(&self, index: CommitIndex) -> &CommitNode {
        &self.commits[index.position()]
    }

    /// The index of every commit, newest first.
    pub(super) fn indices(&self) -> impl DoubleEndedIterator<Item = CommitIndex> + use<> {
        (0..self.commits.len()).map(CommitIndex::new)
    }

    /// How many commits there are.
    pub(super) fn len(&self) -> usize {
        self.commits.len()
    }

    /// Whether the later commit has the earlier one among its ancestors.
    pub(super) fn reaches(&self, later: CommitIndex, earlier: CommitIndex) -> bool {
        let mut seen = HashSet::new();
        let mut ahead = vec![later];
        while let Some(commit) = ahead.pop() {
            if commit == earlier {
                return true;
            }
            // All ancestors of a commit have a larger index.
            if commit < earlier && seen.insert(commit) {
                ahead.extend(&self.commit(commit).parents);
            }
        }
        false
    }
}

/// Reads every commit once, `head` first. Parents are indices into the returned list, which is not yet
/// in the order of the history.
fn read(inner: &git2::Repository, head: Oid) -> Result<Vec<CommitNode>, git2::Error> {
    let mut known = HashMap::from([(head, CommitIndex::HEAD)]);
    let mut ids = vec![head];
    let mut commits = Vec::new();
    while let Some(id) = ids.get(commits.len()) {
        let commit = inner.find_commit(*id)?;
        let parents = commit.parent_ids().map(|parent| {
            let next = CommitIndex::new(ids.len());
            *known.entry(parent).or_insert_with(|| {
                ids.push(parent);
                next
            })
        });
        let parents = parents.collect();
        commits.push(CommitNode {
            id: commit.id(),
            tree: commit.tree_id(),
            parents,
            time: commit.time().seconds(),
        });
    }
    Ok(commits)
}

/// Sorts commits: newest first, and each after all of its children. Of two commits with the same time,
/// the one that was read first is first. Returns positions in `commits`.
fn sorted(commits: &[CommitNode]) -> Vec<usize> {
    let mut children = vec![0_u32; commits.len()];
    for parent in commits.iter().flat_map(|commit| &commit.parents) {
        children[parent.position()] += 1;
    }
    let mut ready = BinaryHeap::from([(commits[0].time, Reverse(0_usize))]);
    let mut order = Vec::with_capacity(commits.len());
    while let Some((_, Reverse(index))) = ready.pop() {
        order.push(index);
        for parent in &commits[index].parents {
            let parent = parent.position();
            children[parent] -= 1;
            if children[parent] == 0 {
                ready.push((commits[parent].time, Reverse(parent)));
            }
        }
    }
    order
}
