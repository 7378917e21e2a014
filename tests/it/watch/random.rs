//! A random script of edits against four stores: after each step `.out` becomes equal to a compose from
//! nothing in a copy of the project.
//!
//! A usual run has 40 steps, and one with `ALOKAI_LONG` has 500. `ALOKAI_WATCH_SEED` sets the seed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::follower::{Follower, eventually};
use crate::support::{Project, Random};

const APPS: [&str; 3] = ["web", "shop", "server"];
const STORES: [&str; 4] = ["us", "eu", "outlet", "asia"];
const NAMES: [&str; 8] = [
    "a.ts",
    "b.ts",
    "app/[x]/page.tsx",
    "app/page.tsx",
    "lib/c.js",
    "lib/deep/d.js",
    "tsconfig.json",
    ".env",
];
const FOLDERS: [&str; 4] = ["app", "lib", "lib/deep", "made"];
const RULES: [&str; 6] = ["a.ts", "*.tsx", "lib", "/b.ts", "made/", "**/c.js"];

/// The project and what the script knows of it.
struct Script {
    project: Project,
    random: Random,
    /// The `ignorePaths` of each store.
    rules: BTreeMap<&'static str, Vec<&'static str>>,
    /// The framework that a store names.
    without_web: Vec<&'static str>,
    commits: Vec<String>,
    number: usize,
}

/// Writes a file in place, as editors do. A link is replaced, so that its target stays.
fn write(path: &Path, content: &str) {
    if std::fs::create_dir_all(path.parent().expect("below")).is_ok() && !path.is_dir() {
        if path.is_symlink() {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::write(path, content);
    }
}

impl Script {
    fn new(seed: u64) -> Self {
        let project = Project::new()
            .file("package.json", "{ \"name\": \"root\" }\n")
            .file(".gitignore", "node_modules\n.out\n.alokai\n")
            .file(
                "apps/web/package.json",
                "{ \"name\": \"web\", \"dependencies\": { \"next\": \"1\" } }\n",
            )
            .file(
                "apps/web/tsconfig.json",
                "{ \"extends\": \"../../base.json\" }\n",
            )
            .file(
                "apps/shop/package.json",
                "{ \"name\": \"shop\", \"dependencies\": { \"nuxt\": \"1\" } }\n",
            )
            .file("apps/server/package.json", "{ \"name\": \"server\" }\n")
            .file("packages/theme/package.json", "{ \"name\": \"theme\" }\n")
            .file("packages/theme/t.css", "t\n")
            .file("packages/theme/u/v.css", "v\n")
            .file("apps/stores/fashion/web/a.ts", "fashion\n")
            .file("apps/stores/fashion/stores/us/web/b.ts", "us\n")
            .file("apps/stores/fashion/stores/eu/web/b.ts", "eu\n")
            .file("apps/stores/outlet/server/a.ts", "outlet\n")
            .file("apps/stores/outlet/stores/asia/web/lib/c.js", "asia\n");
        for (number, app) in APPS.iter().enumerate() {
            for name in NAMES.iter().filter(|name| **name != "tsconfig.json") {
                project.write(&format!("apps/{app}/{name}"), format!("base {number}\n"));
            }
        }
        let mut script = Self {
            project,
            random: Random::new(seed),
            rules: BTreeMap::new(),
            without_web: Vec::new(),
            commits: Vec::new(),
            number: 0,
        };
        script.write_config();
        script.commit();
        script
    }

    fn commit(&mut self) {
        self.project.git("add --all");
        self.project
            .git(&["commit", "--quiet", "--allow-empty", "--message", "step"]);
        self.commits.push(self.project.sha());
    }

    fn write_config(&self) {
        let stores = STORES.map(|id| {
            let framework = if self.without_web.contains(&id) { "nuxt" } else { "nextjs" };
            let rules = self.rules.get(id).cloned().unwrap_or_default();
            (id.to_owned(), serde_json::json!({
                "deployment": { "projectName": format!("a-{id}"), "cloudRegion": "r", "framework": framework },
                "ignorePaths": rules,
            }))
        });
        let stores: serde_json::Map<_, _> = stores.into_iter().collect();
        let config = serde_json::json!({ "stores": stores });
        self.project
            .write("alokai.config.json", format!("{config:#}\n"));
    }

    /// The folders of stores, by id.
    fn store_folders(&self) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.project.path("apps/stores")];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    let id = entry.file_name().to_string_lossy().into_owned();
                    waiting.push(entry.path().join("stores"));
                    found.insert(id, entry.path());
                }
            }
        }
        found
    }

    /// The folder of an app in a random layer.
    fn layer(&mut self) -> PathBuf {
        let app = self.random.pick(&APPS);
        let folders: Vec<_> = self.store_folders().into_values().collect();
        match self.random.below(folders.len() + 2) {
            it if it < folders.len() => folders[it].join(app),
            _ => self.project.path("apps").join(app),
        }
    }

    fn content(&mut self) -> String {
        self.number += 1;
        // Equal lengths, so that only the content and the time tell files apart.
        format!("{:06}\n", self.number)
    }

    /// One random step, named.
    fn step(&mut self) -> String {
        let layer = self.layer();
        let name = self.random.pick(&NAMES);
        let folder = self.random.pick(&FOLDERS);
        let (file, folder) = (layer.join(name), layer.join(folder));
        let json = name == "tsconfig.json";
        let content = if json {
            let number = self.random.below(100);
            format!("{{ \"extends\": \"../../{number}.json\" }}\n")
        } else {
            self.content()
        };
        match self.random.below(22) {
            0..=3 => {
                write(&file, &content);
                format!("write {}", file.display())
            }
            4 => {
                // In place, twice, with the same length.
                if file.is_file() && !json {
                    let _ = std::fs::write(&file, &content);
                    let again = self.content();
                    let _ = std::fs::write(&file, again);
                }
                format!("edit {} twice", file.display())
            }
            5 => {
                let _ = std::fs::remove_file(&file);
                format!("remove {}", file.display())
            }
            6 => {
                let to = self.layer().join(self.random.pick(&NAMES[..6]));
                if !json {
                    let _ = std::fs::create_dir_all(to.parent().expect("below"));
                    let _ = std::fs::rename(&file, &to);
                }
                format!("rename {} {}", file.display(), to.display())
            }
            7 => {
                let deep = folder.join("n/e/w");
                for number in 0..5 {
                    let content = self.content();
                    write(&deep.join(format!("{number}.ts")), &content);
                    write(&deep.join(format!("x{number}/y/z.ts")), &content);
                }
                format!("deep folder {}", deep.display())
            }
            8 => {
                for number in 0..300 {
                    let content = self.content();
                    write(
                        &folder.join(format!("burst/{}/{number}.ts", number % 7)),
                        &content,
                    );
                }
                format!("burst {}", folder.display())
            }
            9 => {
                let _ = std::fs::remove_dir_all(&folder);
                format!("remove the folder {}", folder.display())
            }
            10 => {
                let _ = std::fs::remove_dir_all(&folder);
                write(&folder.join("again.ts"), &content);
                write(&folder.join("inner/again.ts"), &content);
                format!("replace the folder {}", folder.display())
            }
            11 => {
                let to = layer.join("renamed");
                let _ = std::fs::remove_dir_all(&to);
                let _ = std::fs::rename(&folder, &to);
                // Through the new name.
                write(&to.join("after.ts"), &content);
                format!("rename the folder {}", folder.display())
            }
            12 => {
                self.commit();
                let commit = self.commits[self.random.below(self.commits.len())].clone();
                self.project
                    .git(&["checkout", "--quiet", "--force", &commit]);
                format!("git checkout {commit}")
            }
            13 | 14 => self.edit_config(),
            15 => {
                let rule = self.random.pick(&RULES);
                let ignore = if self.random.once_in(2) {
                    &layer
                } else {
                    &folder
                }
                .join(".gitignore");
                if self.random.once_in(3) {
                    let _ = std::fs::remove_file(&ignore);
                } else if layer.is_dir() {
                    write(&ignore, &format!("{rule}\n"));
                }
                format!("rule {rule} in {}", ignore.display())
            }
            16 => self.move_store(),
            17 => {
                let config = self.project.read("alokai.config.json");
                self.project
                    .write("alokai.config.json", &config[..config.len() / 2]);
                std::thread::sleep(Duration::from_millis(self.random.below(600) as u64));
                write(&file, &content);
                self.project.write("alokai.config.json", config);
                "break the config and mend it".into()
            }
            18 => {
                let mode = if self.random.once_in(2) { 0o755 } else { 0o644 };
                if file.is_file() {
                    let _ = std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
                }
                format!("mode {mode:o} of {}", file.display())
            }
            19 => {
                let target = self.random.pick(&[
                    "b.ts",
                    "../../packages/theme/t.css",
                    "../../packages/theme",
                ]);
                let link = layer.join("link");
                let _ = std::fs::remove_file(&link);
                if layer.is_dir() {
                    let _ = std::os::unix::fs::symlink(target, &link);
                }
                format!("link {} to {target}", link.display())
            }
            20 => {
                let path = self.random.pick(&["t.css", "u/v.css", "u/new.css"]);
                self.project
                    .write(&format!("packages/theme/{path}"), content);
                format!("packages/theme/{path}")
            }
            _ => {
                // A clash, mended at once or by a later step.
                let clash = layer.join("a.ts");
                let _ = std::fs::remove_file(&clash);
                write(&clash.join("inner.ts"), &content);
                if self.random.once_in(2) {
                    std::thread::sleep(Duration::from_millis(self.random.below(400) as u64));
                }
                let _ = std::fs::remove_dir_all(&clash);
                format!("clash at {}", clash.display())
            }
        }
    }

    fn edit_config(&mut self) -> String {
        let store = self.random.pick(&STORES);
        if self.random.once_in(4) {
            if let Some(at) = self.without_web.iter().position(|it| *it == store) {
                self.without_web.remove(at);
            } else {
                self.without_web.push(store);
            }
        } else {
            let rule = self.random.pick(&RULES);
            let rules = self.rules.entry(store).or_default();
            if rules.is_empty() || self.random.once_in(2) {
                rules.push(rule);
            } else {
                rules.pop();
            }
        }
        self.write_config();
        format!("config of {store}")
    }

    /// Moves the folder of a store below another store or to the top.
    fn move_store(&mut self) -> String {
        let folders = self.store_folders();
        let ids: Vec<_> = folders.keys().cloned().collect();
        let (id, to) = (
            &ids[self.random.below(ids.len())],
            &ids[self.random.below(ids.len())],
        );
        let from = &folders[id];
        let target = if self.random.once_in(3) || folders[to].starts_with(from) {
            self.project.path("apps/stores").join(id)
        } else {
            folders[to].join("stores").join(id)
        };
        if target != *from {
            let _ = std::fs::create_dir_all(target.parent().expect("below"));
            let _ = std::fs::rename(from, &target);
        }
        format!("move {id} to {}", target.display())
    }

    /// What a compose from nothing writes; none if the stores cannot be composed now.
    fn oracle(&self) -> Option<BTreeMap<String, String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = folder
            .path()
            .canonicalize()
            .expect("it exists")
            .join("project");
        std::fs::create_dir(&copy).expect("a folder");
        for entry in std::fs::read_dir(self.project.root()).expect("readable") {
            let entry = entry.expect("readable");
            if entry.file_name() != ".out" && entry.file_name() != ".alokai" {
                let status = Command::new("cp")
                    .arg("-a")
                    .arg(entry.path())
                    .arg(&copy)
                    .status();
                assert!(status.expect("cp runs").success());
            }
        }
        let copy = Project::at(copy);
        let run = copy.alokai("store compose --all");
        (run.code == 0).then(|| tree(&copy.path(".out")))
    }
}

/// Every file with its permissions and content, and every link with its target.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root) {
        // The program under test moves files.
        let Ok(entry) = entry else { continue };
        let path = entry
            .path()
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        if entry.file_type().is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            tree.insert(path, format!("-> {}", target.display()));
        } else if entry.file_type().is_file() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let content = std::fs::read(entry.path()).unwrap_or_default();
            let mode = metadata.permissions().mode() & 0o100;
            tree.insert(
                path,
                format!("{mode:o} {}", String::from_utf8_lossy(&content)),
            );
        }
    }
    tree
}

/// The paths at which two trees differ.
fn differences(is: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) -> Vec<String> {
    let all = is.keys().chain(expected.keys());
    let all = all.filter(|path| is.get(*path) != expected.get(*path));
    let mut all: Vec<_> = all
        .map(|path| {
            format!(
                "{path}: {:?} and not {:?}",
                is.get(path),
                expected.get(path)
            )
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn seed() -> u64 {
    let seed = std::env::var("ALOKAI_WATCH_SEED").ok();
    seed.map_or(1, |seed| seed.parse().expect("a number"))
}

/// The number of steps.
fn steps() -> usize {
    if std::env::var_os("ALOKAI_LONG").is_some() {
        500
    } else {
        40
    }
}

#[test]
fn after_every_step_of_a_random_script_out_equals_a_compose_from_nothing() {
    let seed = seed();
    let mut script = Script::new(seed);
    let follower = Follower::start(&script.project, "store compose --watch --all --json");
    let (mut compared, mut last) = (0, Vec::new());
    for step in 0..steps() {
        // Sometimes the next step comes while the last one is followed.
        for _ in 0..=script.random.below(3) {
            let name = script.step();
            println!("{step}: {name}");
            last.push(name);
        }
        let Some(expected) = script.oracle() else {
            println!("    cannot be composed");
            continue;
        };
        let out = script.project.path(".out");
        let mut found = Vec::new();
        eventually(
            || {
                found = differences(&tree(&out), &expected);
                found.is_empty()
            },
            || format!("seed {seed}, step {step}, after {last:#?}"),
        );
        compared += 1;
        last.clear();
    }
    assert!(compared > 10, "most states can be composed");
    let first = script.commits[0].clone();
    script
        .project
        .git(&["checkout", "--quiet", "--force", &first]);
    script.project.git("clean -dffxq -e .out -e .alokai");
    let mark = follower.mark();
    script.project.write("apps/server/last.ts", "last\n");
    follower.checked(mark);
    // Nothing but the sources had changed.
    let events = follower.events_since(0);
    let late = events.iter().filter_map(|event| event["late"].as_u64());
    println!("files that only a check has found: {}", late.sum::<u64>());
    let repaired = events
        .iter()
        .filter(|event| event["repaired"].as_u64() > Some(0));
    assert_eq!(repaired.count(), 0);
}
