//! Random sequences of edits against a model of the tree: the project stays valid, composes as the same
//! tree made by hand, and every simulation equals what then happens.
//!
//! A usual run takes a share of the seeds, `ALOKAI_LONG=1` all of them. The seed is printed on failure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Project, Random};

const NEXT: &str = "storefront-unified-nextjs";
const MIDDLEWARE: &str = "storefront-middleware";
const IDS: [&str; 8] = ["us", "eu", "uk", "fashion", "brand", "outlet", "b2b", "x1"];
const PATHS: [&str; 5] = ["a.tsx", "b.tsx", "c/d.tsx", "c/e.tsx", "f.txt"];

/// A store as it should be.
#[derive(Debug, Clone, Default)]
struct ModelStore {
    parent: Option<&'static str>,
    deployable: bool,
    /// Files by path relative to the store's folder.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    stores: BTreeMap<&'static str, ModelStore>,
}

impl Model {
    fn folder(&self, id: &str) -> String {
        match self.stores[id].parent {
            Some(parent) => format!("{}/stores/{id}", self.folder(parent)),
            None => format!("apps/stores/{id}"),
        }
    }

    fn is_below(&self, id: &str, above: &str) -> bool {
        id == above
            || self.stores[id]
                .parent
                .is_some_and(|parent| self.is_below(parent, above))
    }

    /// The files below `apps/stores`.
    fn tree(&self) -> BTreeMap<String, String> {
        let files = self.stores.iter().flat_map(|(id, store)| {
            let folder = self.folder(id);
            let files = store.files.iter();
            files.map(move |(path, content)| (format!("{folder}/{path}"), content.clone()))
        });
        let below = |path: String| path.strip_prefix("apps/stores/").unwrap().to_owned();
        files
            .map(|(path, content)| (below(path), content))
            .collect()
    }

    /// As the program does for a store that a child has left.
    fn left(&mut self, parent: Option<&'static str>) {
        let Some(id) = parent.filter(|id| self.stores.contains_key(id)) else {
            return;
        };
        let has_children = self.stores.values().any(|store| store.parent == Some(id));
        let store = self.stores.get_mut(id).unwrap();
        let needs_folder = !store.deployable || store.parent.is_some();
        if store.files.is_empty() && !has_children && needs_folder {
            store.files.insert(".gitkeep".into(), String::new());
        }
    }

    fn config(&self) -> Value {
        let stores = self.stores.iter().filter(|(_, store)| store.deployable);
        let stores: serde_json::Map<_, _> = stores
            .map(|(id, _)| {
                let deployment =
                    json!({ "projectName": id, "cloudRegion": "r", "framework": "nextjs" });
                ((*id).to_owned(), json!({ "deployment": deployment }))
            })
            .collect();
        json!({ "stores": stores })
    }

    /// The same tree, written by hand.
    fn by_hand(&self) -> Project {
        let project = base().config(&self.config().to_string());
        for (path, content) in self.tree() {
            project.write(&format!("apps/stores/{path}"), content);
        }
        project
    }
}

fn base() -> Project {
    let project = Project::new()
        .file(".gitignore", "node_modules\n.out\n.env\n")
        .app(NEXT, "")
        .app(MIDDLEWARE, "");
    PATHS.iter().fold(project, |project, path| {
        project.file(&format!("apps/{NEXT}/{path}"), "import './c/e';\n")
    })
}

/// A project with three stores with random files.
fn start(random: &mut Random) -> (Project, Model) {
    let mut model = Model::default();
    for (id, parent, deployable) in [
        ("fashion", None, false),
        ("us", Some("fashion"), true),
        ("eu", Some("us"), true),
    ] {
        let mut files = BTreeMap::new();
        for _ in 0..3 {
            let path = format!(
                "{}/{}",
                random.pick(&[NEXT, MIDDLEWARE]),
                random.pick(&PATHS)
            );
            files.insert(
                path,
                random.pick(&["1\n", "2\n", "import './c/e';\n"]).to_owned(),
            );
        }
        model.stores.insert(
            id,
            ModelStore {
                parent,
                deployable,
                files,
            },
        );
    }
    let project = model.by_hand();
    project.commit();
    (project, model)
}

/// A random command, and the model after it. `None` where the command is not possible.
fn command(random: &mut Random, model: &Model) -> Option<(String, Model)> {
    let known: Vec<&'static str> = model.stores.keys().copied().collect();
    let free: Vec<&'static str> = IDS
        .iter()
        .copied()
        .filter(|id| !known.contains(id))
        .collect();
    let mut after = model.clone();
    let parent = (!known.is_empty() && !random.once_in(3)).then(|| random.pick(&known));
    let parent_name = parent.unwrap_or("root");
    match random.below(if known.is_empty() { 1 } else { 6 }) {
        0 | 1 if !free.is_empty() => {
            let id = random.pick(&free);
            let deployable = !random.once_in(3);
            let files = [(".gitkeep".to_owned(), String::new())].into();
            after.stores.insert(
                id,
                ModelStore {
                    parent,
                    deployable,
                    files,
                },
            );
            let kind = if deployable { "" } else { "--template" };
            Some((format!("add {id} --parent {parent_name} {kind}"), after))
        }
        2 | 3 => {
            let mut ids = vec![random.pick(&known)];
            if random.once_in(2) {
                ids.push(random.pick(&known));
            }
            if ids
                .iter()
                .any(|id| parent.is_some_and(|parent| model.is_below(parent, id)))
            {
                return None;
            }
            for id in &ids {
                after.stores.get_mut(id).unwrap().parent = parent;
            }
            for id in &ids {
                let former = model.stores[id].parent;
                // A store whose parent leaves too leaves no folder behind.
                let leaves_too = former.is_some_and(|former| ids.contains(&former));
                if former != parent && !leaves_too {
                    after.left(former);
                }
            }
            Some((
                format!("move {} --parent {parent_name}", ids.join(" ")),
                after,
            ))
        }
        4 => {
            let id = random.pick(&known);
            if parent.is_some_and(|parent| model.is_below(parent, id)) {
                return None;
            }
            let former = model.stores[id].parent;
            let children: Vec<_> = known
                .iter()
                .filter(|other| model.stores[*other].parent == Some(id))
                .collect();
            for child in &children {
                after.stores.get_mut(*child).unwrap().parent = parent;
            }
            after.stores.remove(id);
            after.left(former);
            Some((format!("remove {id} --reparent {parent_name}"), after))
        }
        _ if !free.is_empty() => {
            let (old, new) = (random.pick(&known), random.pick(&free));
            let store = after.stores.remove(old).unwrap();
            after.stores.insert(new, store);
            for store in after.stores.values_mut() {
                if store.parent == Some(old) {
                    store.parent = Some(new);
                }
            }
            Some((format!("rename {old} {new}"), after))
        }
        _ => None,
    }
}

/// Adds, changes or removes a file of a store, as a developer does between edits.
fn touch(random: &mut Random, project: &Project, model: &mut Model) {
    let known: Vec<&'static str> = model.stores.keys().copied().collect();
    if known.is_empty() {
        return;
    }
    let id = random.pick(&known);
    let path = format!(
        "{}/{}",
        random.pick(&[NEXT, MIDDLEWARE]),
        random.pick(&PATHS)
    );
    let content = random.pick(&["1\n", "2\n", "import './c/e';\n"]);
    project.write(&format!("{}/{path}", model.folder(id)), content);
    let store = model.stores.get_mut(id).unwrap();
    store.files.insert(path, content.to_owned());
}

/// The composed files of a store by `<app>/<path>`, without `package.json`, whose name differs.
fn composed(project: &Project, id: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for app in [NEXT, MIDDLEWARE] {
        let folder = format!(".out/{id}/{app}");
        if project.exists(&folder) {
            for (path, content) in project.tree(&folder) {
                if path != "package.json" && !path.starts_with("node_modules") {
                    files.insert(format!("{app}/{path}"), content);
                }
            }
        }
    }
    files
}

fn all_composed(
    project: &Project,
    model: &Model,
) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    if !model.stores.values().any(|store| store.deployable) {
        return BTreeMap::new();
    }
    project.alokai("store compose --all").succeeds();
    let deployable = model.stores.iter().filter(|(_, store)| store.deployable);
    deployable
        .map(|(id, _)| (*id, composed(project, id)))
        .collect()
}

fn names(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["path"].as_str().unwrap().to_owned())
        .collect()
}

/// Fails unless the simulated impact is the difference between the compositions.
fn is_as_simulated(
    shown: &Value,
    renamed: Option<(&str, &str)>,
    before: &BTreeMap<&'static str, BTreeMap<String, String>>,
    after: &BTreeMap<&'static str, BTreeMap<String, String>>,
    context: &str,
) {
    let stores = shown["impact"]["stores"].as_array().unwrap();
    for (id, now) in after {
        let former = renamed
            .filter(|(_, new)| new == id)
            .map_or(*id, |(old, _)| old);
        let Some(then) = before.get(former) else {
            continue;
        };
        let gained: BTreeSet<_> = now
            .keys()
            .filter(|path| !then.contains_key(*path))
            .cloned()
            .collect();
        let lost: BTreeSet<_> = then
            .keys()
            .filter(|path| !now.contains_key(*path))
            .cloned()
            .collect();
        let changed: BTreeSet<_> = now
            .iter()
            .filter(|(path, content)| then.get(*path).is_some_and(|then| then != *content))
            .map(|(path, _)| path.clone())
            .collect();
        let Some(store) = stores.iter().find(|store| store["storeId"] == *id) else {
            assert!(
                gained.is_empty() && lost.is_empty() && changed.is_empty(),
                "{context}: `{id}` changes and is not shown"
            );
            continue;
        };
        assert_eq!(names(&store["gained"]), gained, "{context}: {id}");
        assert_eq!(names(&store["lost"]), lost, "{context}: {id}");
        assert_eq!(names(&store["changed"]), changed, "{context}: {id}");
    }
}

#[test]
fn any_sequence_of_edits_leaves_a_valid_project() {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    let (seeds, length) = if is_long { (150, 25) } else { (6, 12) };
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let (project, mut model) = start(&mut random);
        let mut before = all_composed(&project, &model);
        let mut done = Vec::new();
        while done.len() < length {
            let Some((line, after)) = command(&mut random, &model) else {
                continue;
            };
            done.push(line.clone());
            let context = format!("seed {seed}: {}", done.join("; "));
            let shown = project
                .alokai(&format!("store {line} --dry-run --json"))
                .succeeds()
                .json();
            project.alokai(&format!("store {line} --yes")).succeeds();
            model = after;
            let tree = if project.exists("apps/stores") {
                project.tree("apps/stores")
            } else {
                BTreeMap::new()
            };
            assert_eq!(tree, model.tree(), "{context}");
            let list = project.alokai("store list --json").succeeds().json();
            let listed: BTreeMap<_, _> = list["stores"]
                .as_array()
                .unwrap()
                .iter()
                .map(|store| (store["storeId"].as_str().unwrap(), store["parent"].as_str()))
                .collect();
            let expected: BTreeMap<_, _> = model
                .stores
                .iter()
                .map(|(id, store)| (*id, store.parent))
                .collect();
            assert_eq!(listed, expected, "{context}");
            let now = all_composed(&project, &model);
            let words: Vec<_> = line.split(' ').collect();
            let renamed = (words[0] == "rename").then(|| (words[1], words[2]));
            is_as_simulated(&shown, renamed, &before, &now, &context);
            if random.once_in(3) {
                touch(&mut random, &project, &mut model);
            }
            if random.once_in(3) {
                project.git("add --all");
                project.git("commit --quiet --allow-empty --message step");
            }
            before = all_composed(&project, &model);
        }
        let oracle = model.by_hand();
        assert_eq!(
            before,
            all_composed(&oracle, &model),
            "seed {seed}: {done:?}"
        );
        // Everything that is tracked exists, and nothing is tracked that does not.
        project.git("add --all");
        assert_eq!(project.git("ls-files --deleted"), "", "seed {seed}");
        // A clone of it is the same project.
        project.git("commit --quiet --allow-empty --message end");
        let clone = project.shallow_clone("1");
        assert_eq!(all_composed(&clone, &model), before, "seed {seed}: a clone");
    }
}

#[test]
fn a_move_there_and_back_is_the_identity() {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    for seed in 0..if is_long { 200 } else { 12 } {
        let mut random = Random::new(1000 + seed);
        let (project, model) = start(&mut random);
        project.write("apps/stores/fashion/.gitkeep", "");
        project.write("apps/stores/fashion/untracked.txt", "untracked");
        let folders = |project: &Project| -> BTreeSet<String> {
            let walk = walkdir::WalkDir::new(project.path("apps")).into_iter();
            walk.map(|entry| entry.unwrap().path().display().to_string())
                .collect()
        };
        let state = |project: &Project| {
            (
                project.tree("apps"),
                folders(project),
                project.read("alokai.config.json"),
                project.git("ls-files --stage"),
                project.git("status --short"),
            )
        };
        let before = state(&project);
        let known: Vec<_> = model.stores.keys().copied().collect();
        let id = random.pick(&known);
        let to = random.pick(&["root", "us", "eu", "fashion"]);
        if to != "root" && model.is_below(to, id) {
            continue;
        }
        let back = model.stores[id].parent.unwrap_or("root");
        for parent in [to, back] {
            project
                .alokai(&format!("store move {id} --parent {parent} --yes"))
                .succeeds();
        }
        assert_eq!(
            state(&project),
            before,
            "seed {seed}: {id} to {to} and back"
        );
    }
}
