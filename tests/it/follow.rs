//! Follows paths back through random histories with branches, merges and renames. Opening only what
//! differs must find the same as comparing every file of every commit.

use std::collections::BTreeMap;
use std::io::Write;

use alokai::git::{CommitIndex, PathChange, Repository};
use git2::{Delta, DiffOptions, Oid, Signature, Sort, Time};

use crate::support::Random;

const HISTORIES: u64 = 150;
const COMMITS: i64 = 40;
const FOLDER: &str = "apps";

/// Each name is used repeatedly: as a file, as a folder and as a link.
const PATHS: [&str; 12] = [
    "apps/a",
    "apps/a/b",
    "apps/a/b.ts",
    "apps/a-b",
    "apps/web/x.ts",
    "apps/web/y.ts",
    "apps/web/app/x.ts",
    "apps/stores/us/web/x.ts",
    "apps/stores/us/web/y.ts",
    "apps/stores/at/web/x.ts",
    "apps/stores/at/web/y.ts",
    "outside/x.ts",
];

/// The content and the mode of each path in a commit.
type Files = BTreeMap<String, (Oid, i32)>;

/// A repository with a random history.
struct World {
    folder: tempfile::TempDir,
    inner: git2::Repository,
}

/// A history that is being built.
struct Growing<'a> {
    inner: &'a git2::Repository,
    /// The heads of all branches, each with its files.
    heads: Vec<(Oid, Files)>,
    time: i64,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = git2::Repository::init(folder.path()).unwrap();
        {
            // Objects are written to memory and then to one pack, because writing thousands of
            // small files is slow.
            let odb = inner.odb().unwrap();
            let memory = odb.add_new_mempack_backend(1_000).unwrap();
            let head = Growing::head(&inner, random);
            let mut pack = git2::Buf::new();
            memory.dump(&inner, &mut pack).unwrap();
            let mut writer = odb.packwriter().unwrap();
            writer.write_all(&pack).unwrap();
            writer.commit().unwrap();
            inner.set_head_detached(head).unwrap();
        }
        Self { folder, inner }
    }

    /// Every file of a commit.
    fn files(&self, commit: Oid) -> Files {
        let tree = self.inner.find_commit(commit).unwrap().tree().unwrap();
        let mut files = Files::new();
        tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if entry.kind() == Some(git2::ObjectType::Blob) {
                let path = format!("{folder}{}", entry.name().unwrap());
                files.insert(path, (entry.id(), entry.filemode()));
            }
            git2::TreeWalkResult::Ok
        })
        .unwrap();
        files
    }

    fn renames(&self, old: Oid, new: Oid) -> BTreeMap<String, String> {
        let tree = |id: Oid| self.inner.find_commit(id).unwrap().tree().unwrap();
        let mut options = DiffOptions::new();
        options.disable_pathspec_match(true).pathspec(FOLDER);
        let mut diff = self
            .inner
            .diff_tree_to_tree(Some(&tree(old)), Some(&tree(new)), Some(&mut options))
            .unwrap();
        diff.find_similar(None).unwrap();
        let path = |file: git2::DiffFile| file.path().unwrap().to_str().unwrap().to_owned();
        diff.deltas()
            .filter(|delta| delta.status() == Delta::Renamed)
            .map(|delta| (path(delta.new_file()), path(delta.old_file())))
            .collect()
    }

    /// The commits in order, and what each one did to each path, found by reading every file of
    /// every commit; and how many paths were renamed.
    fn slowly(&self, paths: &[String]) -> (Vec<Oid>, BTreeMap<String, Vec<PathChange>>, usize) {
        let mut walk = self.inner.revwalk().unwrap();
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME).unwrap();
        walk.push_head().unwrap();
        let order: Vec<Oid> = walk.map(Result::unwrap).collect();
        let files: BTreeMap<Oid, Files> = order.iter().map(|id| (*id, self.files(*id))).collect();
        let mut touches = BTreeMap::new();
        let mut renamed = 0;
        for path in paths {
            let mut found = Vec::new();
            let mut name = path.clone();
            let mut at = Some(order[0]);
            while let Some(commit) = at {
                at = self.back(commit, &files, &order, &mut name, &mut found);
            }
            touches.insert(path.clone(), found);
            renamed += usize::from(name != *path);
        }
        (order, touches, renamed)
    }

    /// The parent in which the history of a path continues, and the path's name there.
    fn back(
        &self,
        commit: Oid,
        files: &BTreeMap<Oid, Files>,
        order: &[Oid],
        name: &mut String,
        found: &mut Vec<PathChange>,
    ) -> Option<Oid> {
        let parents: Vec<Oid> = self
            .inner
            .find_commit(commit)
            .unwrap()
            .parent_ids()
            .collect();
        let now = files[&commit].get(name);
        if let Some(same) = parents.iter().find(|it| files[it].get(name) == now) {
            return Some(*same);
        }
        if parents.is_empty() && now.is_none() {
            return None;
        }
        found.push(PathChange {
            commit: CommitIndex::new(order.iter().position(|id| *id == commit).unwrap()),
            blob: now.map(|(id, _)| *id),
        });
        if let Some(changed) = parents.iter().find(|it| files[it].contains_key(name)) {
            return Some(*changed);
        }
        for parent in &parents {
            // Only a removed file can be the source of a rename, although git also pairs a file
            // that became a link with an added file.
            let is_gone =
                |path: &String| path.starts_with(FOLDER) && !files[&commit].contains_key(path);
            if !files[parent].keys().any(is_gone) {
                continue;
            }
            if let Some(before) = self.renames(*parent, commit).get(name) {
                name.clone_from(before);
                return Some(*parent);
            }
        }
        parents.first().copied()
    }
}

impl<'a> Growing<'a> {
    fn head(inner: &'a git2::Repository, random: &mut Random) -> Oid {
        let mut growing = Self {
            inner,
            heads: Vec::new(),
            time: 1_700_000_000,
        };
        for _ in 0..COMMITS {
            growing.step(random);
        }
        // All heads are merged, so that HEAD reaches every commit.
        while growing.heads.len() > 1 {
            growing.merge(random);
        }
        growing.heads[0].0
    }

    fn step(&mut self, random: &mut Random) {
        if self.heads.is_empty() || random.once_in(25) {
            // A history with its own root commit.
            let mut files = Files::new();
            for _ in 0..random.below(6) {
                self.edit(&mut files, random);
            }
            let head = self.commit(&files, &[], random);
            self.heads.push((head, files));
        } else if self.heads.len() > 1 && random.once_in(5) {
            self.merge(random);
        } else {
            let branch = random.below(self.heads.len());
            let (parent, mut files) = self.heads[branch].clone();
            for _ in 0..=random.below(3) {
                self.edit(&mut files, random);
            }
            let head = self.commit(&files, &[parent], random);
            if random.once_in(5) && self.heads.len() < 4 {
                self.heads.push((head, files));
            } else {
                self.heads[branch] = (head, files);
            }
        }
    }

    /// Takes each path from one of the two sides.
    fn merge(&mut self, random: &mut Random) {
        let (one, other) = (self.heads.remove(0), self.heads.remove(0));
        let mut files = Files::new();
        for path in one.1.keys().chain(other.1.keys()) {
            let side = if random.once_in(3) { &other.1 } else { &one.1 };
            if let Some(file) = side.get(path) {
                put(&mut files, path, *file);
            }
        }
        let head = self.commit(&files, &[one.0, other.0], random);
        self.heads.push((head, files));
    }

    fn edit(&self, files: &mut Files, random: &mut Random) {
        let path = random.pick(&PATHS);
        match random.below(5) {
            0 => {
                files.remove(path);
            }
            1 => {
                let from = random.pick(&PATHS);
                if let Some(file) = files.remove(from) {
                    put(files, path, file);
                }
            }
            // Renames a folder, as when a store is renamed.
            2 if random.once_in(3) => {
                let moved: Vec<_> = files
                    .keys()
                    .filter(|it| it.contains("/us/"))
                    .cloned()
                    .collect();
                for from in moved {
                    let file = files.remove(&from).unwrap();
                    put(files, &from.replace("/us/", "/at/"), file);
                }
            }
            _ => {
                // Long enough for rename detection, and few enough that contents recur.
                let version = random.below(4);
                let text = format!("{}{version}\n", format!("{path} again\n").repeat(20));
                let blob = self.inner.blob(text.as_bytes()).unwrap();
                let mode = random.pick(&[0o100_644, 0o100_644, 0o100_755, 0o120_000]);
                put(files, path, (blob, mode));
            }
        }
    }

    fn commit(&mut self, files: &Files, parents: &[Oid], random: &mut Random) -> Oid {
        // No two commits have the same time, and some clocks are wrong.
        self.time += 1_000;
        let wrong = if random.once_in(6) { 5_000 } else { 0 };
        let time = self.time - wrong - i64::try_from(random.below(900)).unwrap();
        let author = Signature::new("Test", "test@example.com", &Time::new(time, 0)).unwrap();
        let mut index = git2::Index::new().unwrap();
        for (path, (id, mode)) in files {
            let entry = git2::IndexEntry {
                ctime: git2::IndexTime::new(0, 0),
                mtime: git2::IndexTime::new(0, 0),
                dev: 0,
                ino: 0,
                mode: u32::try_from(*mode).unwrap(),
                uid: 0,
                gid: 0,
                file_size: 0,
                id: *id,
                flags: 0,
                flags_extended: 0,
                path: path.clone().into_bytes(),
            };
            index.add(&entry).unwrap();
        }
        let tree = index.write_tree_to(self.inner).unwrap();
        let tree = self.inner.find_tree(tree).unwrap();
        let parents: Vec<_> = parents
            .iter()
            .map(|id| self.inner.find_commit(*id).unwrap())
            .collect();
        let parents: Vec<_> = parents.iter().collect();
        let message = format!("at {time}");
        self.inner
            .commit(None, &author, &author, &message, &tree, &parents)
            .unwrap()
    }
}

/// Adds a file and removes the entries that conflict with its path.
fn put(files: &mut Files, path: &str, file: (Oid, i32)) {
    files.retain(|other, _| {
        !other.starts_with(&format!("{path}/")) && !path.starts_with(&format!("{other}/"))
    });
    files.insert(path.to_owned(), file);
}

#[test]
fn paths_are_followed_as_by_looking_at_every_file_of_every_commit() {
    let paths = PATHS.map(str::to_owned);
    let paths = &paths[..PATHS.len() - 1];
    let (mut removals, mut merges, mut renames) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let random = &mut Random::new(7_000_000 + seed);
        let world = World::new(random);
        let (order, expected, moved) = world.slowly(paths);
        renames += moved;
        let repository = Repository::open(world.folder.path()).unwrap();
        let history = repository.history(paths, FOLDER).unwrap();
        assert_eq!(history.commit_count(), order.len(), "seed {seed}");
        for (index, id) in order.iter().enumerate() {
            let commit = history.commit(CommitIndex::new(index)).unwrap();
            assert_eq!(commit.sha, id.to_string(), "seed {seed}, commit {index}");
            let parents = world.inner.find_commit(*id).unwrap().parent_count();
            merges += usize::from(parents > 1);
        }
        for (path, changes) in &expected {
            assert_eq!(history.changes(path), changes, "seed {seed}, `{path}`");
            removals += usize::from(changes.iter().any(|change| change.blob.is_none()));
        }
        for _ in 0..50 {
            let (one, other) = (random.below(order.len()), random.below(order.len()));
            let descends = world.inner.graph_descendant_of(order[one], order[other]);
            assert_eq!(
                history.has_seen(CommitIndex::new(one), CommitIndex::new(other)),
                one == other || descends.unwrap(),
                "seed {seed}: {one} and {other}"
            );
        }
    }
    assert!(removals > 100, "only {removals} paths were ever removed");
    assert!(merges > 100, "only {merges} merges");
    assert!(renames > 100, "only {renames} paths were renamed");
}
