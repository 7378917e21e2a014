//! Random projects and edits: answers of the program must agree with the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use alokai::compare::{Comparison, ProjectSnapshot, changed};
use alokai::config::Project;
use alokai::git::Repository;
use alokai::overlay::{Composer, LayerReader};

use crate::support::{Project as Shop, Random, RandomProject};

/// The number of histories that are compared.
const HISTORIES: u64 = 1_000;

/// A usual run takes a quarter of the histories and of the edits, `ALOKAI_LONG=1` all of them.
fn share(whole: u64) -> u64 {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        whole
    } else {
        whole / 4
    }
}

/// A repository that commits everything in its folder.
struct Workbench {
    folder: tempfile::TempDir,
    repository: git2::Repository,
}

impl Workbench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init(folder.path()).unwrap();
        Self { folder, repository }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn commit(&self) {
        let mut index = self.repository.index().unwrap();
        index
            .add_all(["*"], git2::IndexAddOption::FORCE, None)
            .unwrap();
        index.update_all(["*"], None).unwrap();
        index.write().unwrap();
        let tree = index.write_tree().unwrap();
        let tree = self.repository.find_tree(tree).unwrap();
        let author = git2::Signature::now("Test", "test@example.com").unwrap();
        let head = self
            .repository
            .head()
            .and_then(|head| head.peel_to_commit());
        let parents: Vec<_> = head.iter().collect();
        self.repository
            .commit(Some("HEAD"), &author, &author, "change", &tree, &parents)
            .unwrap();
    }
}

/// For each store: the path, the mode and the content id of every composed file.
type Composed = BTreeMap<String, BTreeMap<String, String>>;

fn composed(project: &Project, lister: &LayerReader) -> Result<Composed, String> {
    let stores: Vec<_> = project.stores.deployables().collect();
    let compositions = Composer::new(project, lister)
        .compose(&stores)
        .map_err(|error| format!("{error:?}"))?;
    let mut composed: Composed = stores
        .iter()
        .map(|store| (store.id.to_string(), BTreeMap::new()))
        .collect();
    for composition in compositions {
        let store = composed.get_mut(composition.unit.store.as_str()).unwrap();
        for (path, entry) in composition.entries {
            let path = format!("{}/{path}", composition.unit.app);
            store.insert(path, format!("{} {}", entry.mode(), entry.id()));
        }
    }
    Ok(composed)
}

/// From disk without git, so that every file is read.
fn on_disk(root: &Path) -> Result<Composed, String> {
    let project = Project::load(root).unwrap();
    composed(&project, &LayerReader::new(root, None).unwrap())
}

/// The stores of `new` whose composition differs from `old`.
fn differing(old: &Composed, new: &Composed) -> BTreeSet<String> {
    let differing = new
        .iter()
        .filter(|(store, files)| old.get(*store) != Some(*files));
    differing.map(|(store, _)| store.clone()).collect()
}

/// Paths in which the stores differ, as `changed` lists them.
fn differing_files(old: &Composed, new: &Composed) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let nothing = BTreeMap::new();
    for (store, files) in new {
        let before = old.get(store).unwrap_or(&nothing);
        let all: BTreeSet<_> = before.keys().chain(files.keys()).collect();
        let differing = all
            .into_iter()
            .filter(|path| before.get(*path) != files.get(*path));
        paths.extend(differing.map(|path| format!("{store}/{path}")));
    }
    paths
}

/// What `changed` says: stores, and their files.
fn said(root: &Path, since: &str, to: Option<&str>) -> (BTreeSet<String>, BTreeSet<String>) {
    let comparison = Comparison {
        since: since.into(),
        to: to.map(str::to_owned),
        global_dependencies: Vec::new(),
    };
    let answer = changed(root, &comparison).unwrap();
    let mut files = BTreeSet::new();
    for store in &answer.stores {
        let listed = store.files.iter();
        files.extend(listed.map(|file| format!("{}/{}/{}", store.store_id, file.app, file.path)));
    }
    let ids = answer.stores.iter().map(|store| store.store_id.to_string());
    (ids.collect(), files)
}

#[test]
fn changed_is_exact_on_random_histories() {
    let histories = share(HISTORIES);
    let mut compared = 0;
    let mut found = BTreeSet::new();
    for seed in 0..histories * 2 {
        let random = &mut Random::new(seed);
        let bench = Workbench::new();
        let mut project = RandomProject::new(random);
        let files = project.write(bench.root(), &BTreeMap::new());
        bench.commit();
        let before = on_disk(bench.root());
        for _ in 0..=random.below(4) {
            project.mutate(random);
        }
        project.write(bench.root(), &files);
        let after = on_disk(bench.root());
        let (Ok(before), Ok(after)) = (before, after) else {
            // A broken link: a store that cannot be composed is not compared.
            continue;
        };
        let expected = (differing(&before, &after), differing_files(&before, &after));
        let working_tree = said(bench.root(), "HEAD", None);
        assert_eq!(working_tree, expected, "seed {seed}, working tree");
        bench.commit();
        let commits = said(bench.root(), "HEAD~1", Some("HEAD"));
        assert_eq!(commits, expected, "seed {seed}, commits");
        compared += 1;
        found.insert(expected.0);
        if compared == histories {
            break;
        }
    }
    assert_eq!(
        compared, histories,
        "too few of the random projects can be composed"
    );
    assert!(
        found.len() > 10,
        "the histories are too much alike: {found:?}"
    );
}

#[test]
fn a_commit_lists_the_same_as_a_clean_working_tree() {
    let mut compared = 0;
    for seed in 0..300 {
        let random = &mut Random::new(1_000_000 + seed);
        let bench = Workbench::new();
        RandomProject::new(random).write(bench.root(), &BTreeMap::new());
        bench.commit();
        let root = bench.root();
        let repository = Repository::open(root).unwrap();
        let objects = repository.objects();
        let snapshot = ProjectSnapshot::commit(root, &repository, &objects, "HEAD").unwrap();
        let committed = composed(&snapshot.project, &snapshot.reader);
        let indexed = LayerReader::new(root, Some(&repository)).unwrap();
        let indexed = composed(&Project::load(root).unwrap(), &indexed);
        let read = on_disk(root);
        compared += usize::from(read.is_ok());
        assert_eq!(indexed.is_ok(), read.is_ok(), "seed {seed}");
        assert_eq!(
            committed.is_ok(),
            read.is_ok(),
            "seed {seed}: {committed:?}"
        );
        if let Ok(read) = read {
            assert_eq!(indexed.unwrap(), read, "seed {seed}, with the index");
            assert_eq!(committed.unwrap(), read, "seed {seed}, from the commit");
        }
    }
    assert!(compared > 100, "only {compared} projects could be composed");
}

/// Every file below `.out` with its kind, permissions and content.
fn out(root: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let mut tree = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root.join(".out"))
        .into_iter()
        .flatten()
    {
        let path = entry.path().strip_prefix(root).unwrap();
        let path = path.to_string_lossy().into_owned();
        if entry.file_type().is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            tree.insert(path, format!("-> {}", target.display()));
        } else if entry.file_type().is_file() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o111;
            let content = std::fs::read_to_string(entry.path()).unwrap();
            tree.insert(path, format!("{mode:o} {content}"));
        }
    }
    tree
}

#[test]
fn composing_after_any_edits_gives_what_composing_from_nothing_gives() {
    let projects = share(60);
    let mut composed = 0;
    for seed in 0..projects {
        let random = &mut Random::new(5_000 + seed);
        let mut random_project = RandomProject::new(random);
        let project = Shop::new();
        let mut files = random_project.write(project.root(), &BTreeMap::new());
        for step in 0..6 {
            let before = out(project.root());
            let run = project.alokai("store compose --all");
            if run.code == 0 {
                composed += 1;
                let after = out(project.root());
                let again = project.alokai("store compose --all --check");
                assert_eq!(again.code, 0, "seed {seed}, step {step}: {}", again.stdout);
                let scratch = Shop::new();
                random_project.write(scratch.root(), &BTreeMap::new());
                scratch.alokai("store compose --all").succeeds();
                let anew = out(scratch.root());
                // Stores that are no longer deployable are removed by `clean`.
                let stores: BTreeSet<_> = anew.keys().map(|path| store_of(path)).collect();
                let after: BTreeMap<_, _> = after
                    .into_iter()
                    .filter(|(path, _)| stores.contains(&store_of(path)))
                    .collect();
                assert_eq!(after, anew, "seed {seed}, step {step}");
            } else {
                assert_eq!(before, out(project.root()), "seed {seed}, step {step}");
            }
            for _ in 0..=random.below(3) {
                random_project.mutate(random);
            }
            files = random_project.write(project.root(), &files);
        }
    }
    assert!(
        composed * 2 > projects * 5,
        "only {composed} could be composed"
    );
}

/// `us` of `.out/us/web/a.ts`.
fn store_of(path: &str) -> String {
    path.split('/').nth(1).unwrap_or_default().to_owned()
}
