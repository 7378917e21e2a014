//! Random projects with few names and few contents, so that layers, rules and edits often concern
//! the same paths.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A pseudo-random sequence of numbers from a seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("it is below a usize")
    }

    /// True once in `of` calls on average.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The content at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    File { content: String, executable: bool },
    Link(&'static str),
}

/// A store in the config and in the folders.
#[derive(Debug, Clone, Default)]
struct Shop {
    parent: Option<&'static str>,
    deployable: bool,
    nuxt: bool,
    ignore: Vec<&'static str>,
    /// The files by `<app>/<path>`.
    files: BTreeMap<String, Thing>,
}

/// A project and its files.
#[derive(Debug, Clone, Default)]
pub struct RandomProject {
    stores: BTreeMap<&'static str, Shop>,
    /// The files by path relative to the project.
    base: BTreeMap<String, Thing>,
}

const APPS: [&str; 3] = ["web", "shop", "server"];
const STORES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "eps"];
const NAMES: [&str; 8] = [
    "a.ts",
    "b.ts",
    "app/[x]/page.tsx",
    "app/page.tsx",
    "lib/c.js",
    "tsconfig.json",
    "package.json",
    ".env",
];
const RULES: [&str; 9] = [
    "a.ts",
    "*.tsx",
    "app/[x]/page.tsx",
    "!app/page.tsx",
    "lib",
    "/b.ts",
    "!*.ts",
    "app/",
    "**/c.js",
];
const LINKS: [&str; 5] = [
    "b.ts",
    "../server/a.ts",
    "../../packages/theme/t.css",
    "lib/c.js",
    "../../packages/theme",
];

impl RandomProject {
    pub fn new(random: &mut Random) -> Self {
        let mut project = Self::default();
        for (app, dependency) in APPS.iter().zip(["next", "nuxt", "express"]) {
            let package = format!(
                "{{ \"name\": \"{app}\", \"dependencies\": {{ \"{dependency}\": \"1\" }} }}\n"
            );
            project.put(format!("apps/{app}/package.json"), &package);
        }
        project.put("packages/theme/t.css".into(), "t\n");
        project.put(
            "packages/theme/package.json".into(),
            "{ \"name\": \"theme\" }\n",
        );
        project.put("packages/theme/u/v.css".into(), "v\n");
        for _ in 0..25 {
            project.mutate(random);
        }
        project
    }

    fn put(&mut self, path: String, content: &str) {
        let (content, executable) = (content.to_owned(), false);
        self.base.insert(
            path,
            Thing::File {
                content,
                executable,
            },
        );
    }

    /// One random edit of a file, of a rule or of a store's parent.
    pub fn mutate(&mut self, random: &mut Random) {
        let id = random.pick(&STORES);
        match random.below(20) {
            0..=4 => self.edit_base(random),
            5..=11 => {
                if let Some(store) = self.stores.get_mut(id) {
                    let app = random.pick(&APPS);
                    let path = format!("{app}/{}", random.pick(&NAMES));
                    change(&mut store.files, path, random);
                } else {
                    self.add_store(id, random);
                }
            }
            12 | 13 => {
                if let Some(store) = self.stores.get_mut(id) {
                    if store.ignore.is_empty() || random.once_in(2) {
                        store.ignore.push(random.pick(&RULES));
                    } else {
                        store.ignore.remove(random.below(store.ignore.len()));
                    }
                }
            }
            14 => self.move_store(id, random),
            15 => {
                if self.stores.values().all(|store| store.parent != Some(id)) {
                    self.stores.remove(id);
                }
            }
            16 => {
                if let Some(store) = self.stores.get_mut(id) {
                    store.nuxt = !store.nuxt;
                }
            }
            17 => {
                if let Some(store) = self.stores.get_mut(id) {
                    store.deployable = !store.deployable;
                }
            }
            18 => self.rename_file(id, random),
            _ => {
                let content = random.below(3).to_string();
                let path = random.pick(&["t.css", "u/v.css"]);
                self.put(format!("packages/theme/{path}"), &content);
            }
        }
    }

    fn add_store(&mut self, id: &'static str, random: &mut Random) {
        let known: Vec<_> = self.stores.keys().copied().collect();
        let parent = (!known.is_empty() && random.once_in(2)).then(|| random.pick(&known));
        let shop = Shop {
            parent,
            deployable: !random.once_in(3),
            ..Shop::default()
        };
        self.stores.insert(id, shop);
    }

    fn edit_base(&mut self, random: &mut Random) {
        let app = random.pick(&APPS);
        let name = random.pick(&NAMES);
        if name == "package.json" {
            return;
        }
        change(&mut self.base, format!("apps/{app}/{name}"), random);
    }

    /// Moves a store below another one, unless that makes it its own ancestor.
    fn move_store(&mut self, id: &'static str, random: &mut Random) {
        let to = random.pick(&STORES);
        let mut above = Some(to);
        while let Some(link) = above {
            if link == id || !self.stores.contains_key(link) {
                return;
            }
            above = self.stores[link].parent;
        }
        if let Some(store) = self.stores.get_mut(id) {
            store.parent = (!random.once_in(3)).then_some(to);
        }
    }

    fn rename_file(&mut self, id: &'static str, random: &mut Random) {
        let Some(store) = self.stores.get_mut(id) else {
            return;
        };
        let paths: Vec<_> = store.files.keys().cloned().collect();
        if paths.is_empty() {
            return;
        }
        let thing = store.files.remove(&paths[random.below(paths.len())]);
        let to = format!("{}/{}", random.pick(&APPS), random.pick(&NAMES));
        store.files.extend(thing.map(|thing| (to, thing)));
    }

    fn folder(&self, id: &str) -> String {
        match self.stores[id].parent {
            Some(parent) => format!("{}/stores/{id}", self.folder(parent)),
            None => format!("apps/stores/{id}"),
        }
    }

    fn config(&self) -> String {
        let mut stores = String::new();
        for (id, shop) in &self.stores {
            if !stores.is_empty() {
                stores.push_str(",\n");
            }
            let framework = if shop.nuxt { "nuxt" } else { "nextjs" };
            let deployment = if shop.deployable {
                format!(
                    "\"deployment\": {{ \"projectName\": \"{id}\", \"cloudRegion\": \"r\", \"framework\": \"{framework}\" }}, "
                )
            } else {
                String::new()
            };
            let ignore = serde_json::json!(shop.ignore);
            // Writing to a string cannot fail.
            let _ = write!(
                stores,
                "  \"{id}\": {{ {deployment}\"ignorePaths\": {ignore} }}"
            );
        }
        format!("{{ \"stores\": {{\n{stores}\n}} }}\n")
    }

    /// Every file of the project.
    pub fn files(&self) -> BTreeMap<String, Thing> {
        let mut files = self.base.clone();
        for (id, shop) in &self.stores {
            let folder = self.folder(id);
            for (path, thing) in &shop.files {
                files.insert(format!("{folder}/{path}"), thing.clone());
            }
        }
        let config = Thing::File {
            content: self.config(),
            executable: false,
        };
        files.insert("alokai.config.json".into(), config);
        files
    }

    /// Writes the project into a folder. Equal files are not touched.
    pub fn write(&self, root: &Path, before: &BTreeMap<String, Thing>) -> BTreeMap<String, Thing> {
        let files = self.files();
        for path in before.keys().filter(|path| !files.contains_key(*path)) {
            let path = root.join(path);
            std::fs::remove_file(&path).expect("it was written");
            let mut folder = path.parent();
            while let Some(empty) = folder.filter(|folder| std::fs::remove_dir(folder).is_ok()) {
                folder = empty.parent();
            }
        }
        for (path, thing) in &files {
            if before.get(path) == Some(thing) {
                continue;
            }
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("it is below")).expect("folders");
            let _ = std::fs::remove_file(&path);
            match thing {
                Thing::Link(target) => std::os::unix::fs::symlink(target, path).expect("a link"),
                Thing::File {
                    content,
                    executable,
                } => {
                    std::fs::write(&path, content).expect("a file");
                    let mode = if *executable { 0o755 } else { 0o644 };
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                        .expect("it is ours");
                }
            }
        }
        files
    }
}

/// Writes, links, makes executable or removes.
fn change(files: &mut BTreeMap<String, Thing>, path: String, random: &mut Random) {
    let is_json = path.contains(".json");
    match random.below(8) {
        0 | 1 => {
            files.remove(&path);
        }
        2 if !is_json => {
            files.insert(path, Thing::Link(random.pick(&LINKS)));
        }
        _ => {
            let number = random.below(3);
            let content = if is_json {
                format!("{{ \"extends\": \"../../{number}.json\" }}\n")
            } else {
                format!("{number}\n")
            };
            let executable = random.once_in(8);
            files.insert(
                path,
                Thing::File {
                    content,
                    executable,
                },
            );
        }
    }
}
