//! The commits that HEAD has, and which of them have which.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use git2::Oid;

use super::Repository;

/// A commit, as far as following a path needs it.
#[derive(Debug)]
pub(super) struct CommitNode {
    pub(super) id: Oid,
    pub(super) tree: Oid,
    /// Positions of its parents. A shallow clone's oldest commits have none.
    pub(super) parents: Vec<u32>,
    /// Commit time in seconds since the epoch.
    time: i64,
}

/// Every commit that can be reached from HEAD, in the order of `git log --date-order`: newest
/// first, and no parent before all of its children.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    pub(super) commits: Vec<CommitNode>,
}

impl Ancestry {
    pub(super) fn of_head(repository: &Repository) -> Result<Self, git2::Error> {
        let head = repository.inner.head();
        let Ok(head) = head.and_then(|head| head.peel_to_commit()) else {
            return Ok(Self::default());
        };
        let mut commits = read(&repository.inner, head.id())?;
        let order = sorted(&commits);
        let mut positions = vec![0; commits.len()];
        for (position, index) in (0..).zip(&order) {
            positions[*index] = position;
        }
        for commit in &mut commits {
            for parent in &mut commit.parents {
                *parent = positions[*parent as usize];
            }
        }
        let mut found: Vec<_> = commits.into_iter().zip(&positions).collect();
        found.sort_unstable_by_key(|(_, position)| **position);
        Ok(Self {
            commits: found.into_iter().map(|(commit, _)| commit).collect(),
        })
    }

    /// Whether one commit can be reached from another one.
    pub(super) fn reaches(&self, later: usize, earlier: usize) -> bool {
        let mut seen = HashSet::new();
        let mut ahead = vec![later];
        while let Some(commit) = ahead.pop() {
            if commit == earlier {
                return true;
            }
            // A commit's ancestors all come after it.
            if commit < earlier && seen.insert(commit) {
                let parents = &self.commits[commit].parents;
                ahead.extend(parents.iter().map(|parent| *parent as usize));
            }
        }
        false
    }
}

/// Reads every commit once. Parents are positions in the answer, whose first is `head`.
fn read(inner: &git2::Repository, head: Oid) -> Result<Vec<CommitNode>, git2::Error> {
    let mut known = HashMap::from([(head, 0)]);
    let mut ids = vec![head];
    let mut commits = Vec::new();
    while let Some(id) = ids.get(commits.len()) {
        let commit = inner.find_commit(*id)?;
        let parents = commit.parent_ids().map(|parent| {
            let next = u32::try_from(ids.len()).expect("fewer commits than that");
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

/// Positions of the commits, newest first, each after all of its children. Of two with the same
/// time the one goes first that was found first.
fn sorted(commits: &[CommitNode]) -> Vec<usize> {
    let mut children = vec![0_u32; commits.len()];
    for parent in commits.iter().flat_map(|commit| &commit.parents) {
        children[*parent as usize] += 1;
    }
    let mut ready = BinaryHeap::from([(commits[0].time, Reverse(0_usize))]);
    let mut order = Vec::with_capacity(commits.len());
    while let Some((_, Reverse(index))) = ready.pop() {
        order.push(index);
        for parent in &commits[index].parents {
            let parent = *parent as usize;
            children[parent] -= 1;
            if children[parent] == 0 {
                ready.push((commits[parent].time, Reverse(parent)));
            }
        }
    }
    order
}
