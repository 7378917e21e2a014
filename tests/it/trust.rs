//! After a build, `.out` equals the result of a forced build in a fresh copy: for random projects,
//! edits (also while scripts run), orders of stores, machines and caches.
//!
//! Scripts and the `npm` that runs them are shell scripts, so that a step takes a fraction of a
//! second. A file of the app lists what its script reads, so that edits change that as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Random, RemoteCache};

/// The number of steps in CI and in a long run.
const STEPS: usize = 60;
const LONG: usize = 2_000;

const MIDDLEWARE: &str = "storefront-middleware";
const FRONTEND: &str = "storefront-unified-nextjs";
const STORES: [&str; 3] = ["us", "eu", "outlet"];

/// An `npm` that runs `sh build.sh` for `npm run build`.
const NPM: &str = "#!/bin/sh\nexec sh ./build.sh\n";

/// A `node` that only prints its version.
const NODE: &str = "#!/bin/sh\necho v20.0.0\n";

/// A build script that writes what it reads, and edits a file meanwhile if the test wants that.
const BUILD: &str = r#"
mkdir -p OUT/deep
exec > OUT/deep/all
[ -e names ] && basename "$(dirname "$PWD")"
if [ -n "$DISTURBED" ] && [ -e "$DISTURBED" ]; then
  file=$(cat "$DISTURBED")
  [ -f "$file" ] && cp -p "$file" "$DISTURBED.kept" && echo disturbed > "$file"
fi
while read -r path; do
  printf '%s: ' "$path"
  if [ -f "$path" ]; then cat "$path"; else echo none; fi
done < reads
ls ../storefront-middleware 2>/dev/null | grep -c . > /dev/null
if [ -n "$DISTURBED" ] && [ -f "$DISTURBED.kept" ]; then cp -p "$DISTURBED.kept" "$file"; rm "$DISTURBED.kept"; fi
echo done > OUT/end
"#;

/// Files that every script may read, relative to its app.
const AROUND: [&str; 13] = [
    "../../../top.txt",
    "../../../.env",
    "../../../README.md",
    "../../../config/prices.json",
    "../../../secrets/key",
    "../../../patches/a.patch",
    "../../../libs/ui/index.js",
    "../../../libs/built/lib/deep/all",
    "../../../types/base.json",
    // The same places, as they are seen from `apps/<app>`.
    "../../top.txt",
    "../../libs/ui/index.js",
    "../../tools/rates.json",
    "../../../tools/rates.json",
];
const OWN: [&str; 4] = ["a.txt", "src/b.txt", ".env", "reads"];
const OF_MIDDLEWARE: [&str; 4] = [
    "../storefront-middleware/types.ts",
    "../storefront-middleware/src/b.txt",
    "../storefront-middleware/lib/deep/all",
    // By its package name.
    "../node_modules/storefront-middleware/types.ts",
];

struct World {
    folder: tempfile::TempDir,
    random: Random,
    /// The files of the project, for all folders in which it is built.
    files: BTreeMap<String, String>,
    shared: Vec<&'static str>,
    remote: RemoteCache,
    machines: Vec<PathBuf>,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for (name, text) in [("npm", NPM), ("node", NODE)] {
            std::fs::write(bin.join(name), text).unwrap();
            std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut files = BTreeMap::new();
        let mut put = |path: &str, text: &str| files.insert(path.to_owned(), text.to_owned());
        put("package.json", r#"{ "workspaces": ["apps/*", "libs/*"] }"#);
        put(
            ".gitignore",
            "node_modules\n.out\n.alokai\nlib\n.next\n.env\nsecrets\n",
        );
        put("libs/ui/package.json", r#"{ "name": "@acme/ui" }"#);
        put(
            "libs/built/package.json",
            r#"{ "name": "@acme/built", "scripts": { "build": "sh build.sh" }, "dependencies": { "@acme/ui": "*" } }"#,
        );
        put("libs/built/build.sh", &BUILD.replace("OUT", "lib"));
        put("libs/built/reads", "a.txt\n../ui/index.js\n../../top.txt\n");
        for (app, out) in [(MIDDLEWARE, "lib"), (FRONTEND, ".next"), ("cms", "lib")] {
            put(
                &format!("apps/{app}/package.json"),
                &format!(
                    r#"{{ "name": "{app}", "scripts": {{ "build": "sh build.sh", "start": "node lib/end" }}, "devDependencies": {{ "@acme/ui": "*", "@acme/built": "*" }} }}"#
                ),
            );
            put(&format!("apps/{app}/build.sh"), &BUILD.replace("OUT", out));
            put(&format!("apps/{app}/reads"), "a.txt\n../../../top.txt\n");
            put(
                &format!("apps/{app}/tsconfig.json"),
                r#"{ "extends": "../../types/base.json" }"#,
            );
        }
        put("types/base.json", "{}");
        put("tools/rates.json", "{}");
        Self {
            random: Random::new(seed),
            files,
            shared: Vec::new(),
            remote: RemoteCache::start(None),
            machines: (0..2)
                .map(|number| folder.path().join(format!("machine-{number}")))
                .collect(),
            log: Vec::new(),
            folder,
        }
    }

    fn config(&self) -> String {
        let shared: Vec<_> = self.shared.iter().map(|app| format!("{app:?}")).collect();
        let deployment = |store: &str| {
            format!(
                r#""{store}": {{ "deployment": {{ "projectName": "acme-{store}", "cloudRegion": "x" }} }}"#
            )
        };
        let stores: Vec<_> = STORES.iter().map(|store| deployment(store)).collect();
        format!(
            r#"{{ "stores": {{ {} }}, "build": {{ "shared": [{}], "env": {{ "*": ["DISTURBED"] }}, "globalDependencies": ["config/**", "secrets"] }} }}"#,
            stores.join(", "),
            shared.join(", ")
        )
    }

    /// Writes the files of the project into a folder. Equal files are not touched.
    fn write(&self, root: &Path) {
        let mut files = self.files.clone();
        files.insert("alokai.config.json".into(), self.config());
        for store in ["fashion/stores/us", "fashion/stores/eu", "outlet"] {
            std::fs::create_dir_all(root.join("apps/stores").join(store)).unwrap();
        }
        if !root.join(".git").exists() {
            crate::support::git(root, &["init", "--quiet"]);
        }
        let there = listed(root);
        for path in there.iter().filter(|path| !files.contains_key(*path)) {
            std::fs::remove_file(root.join(path)).unwrap();
        }
        for (path, text) in &files {
            let path = root.join(path);
            if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, text).unwrap();
            }
        }
        let modules = root.join("node_modules/@acme");
        if !modules.exists() {
            std::fs::create_dir_all(&modules).unwrap();
            for name in ["ui", "built"] {
                let target = format!("../../libs/{name}");
                std::os::unix::fs::symlink(target, modules.join(name)).unwrap();
            }
        }
    }

    fn alokai(&self, root: &Path, arguments: &[&str], remote: bool, disturbed: bool) -> String {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_alokai"));
        command
            .args(arguments)
            .current_dir(root)
            .env_clear()
            .env(
                "PATH",
                format!("{}:{path}", self.folder.path().join("bin").display()),
            )
            .env("HOME", self.folder.path());
        // Every run has the same value, since it is part of keys.
        command.env("DISTURBED", self.folder.path().join("disturbed"));
        if !disturbed {
            let _ = std::fs::remove_file(self.folder.path().join("disturbed"));
        }
        if remote {
            command
                .env("TURBO_API", &self.remote.address)
                .env("TURBO_TOKEN", RemoteCache::TOKEN)
                .env("TURBO_TEAM", "acme");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {text}\n{}",
            self.log.join("\n")
        );
        text
    }

    /// A random path for an edit.
    fn a_path(&mut self) -> String {
        let around = [
            "top.txt",
            ".env",
            "README.md",
            "config/prices.json",
            "secrets/key",
            "patches/a.patch",
            "libs/ui/index.js",
            "libs/ui/more.js",
            "libs/built/a.txt",
            "types/base.json",
            "tools/rates.json",
        ];
        if self.random.once_in(2) {
            return self.random.pick(&around).to_owned();
        }
        let layer = self.random.pick(&[
            "apps",
            "apps/stores/fashion",
            "apps/stores/fashion/stores/us",
            "apps/stores/fashion/stores/eu",
            "apps/stores/outlet",
        ]);
        let app = self.random.pick(&[MIDDLEWARE, FRONTEND, "cms"]);
        let file = self
            .random
            .pick(&["a.txt", "src/b.txt", "types.ts", ".env", "names", "reads"]);
        format!("{layer}/{app}/{file}")
    }

    fn content(&mut self, path: &str) -> String {
        if path.ends_with("/reads") {
            let mut text = String::new();
            let is_middleware = path.contains(MIDDLEWARE);
            for _ in 0..=self.random.below(4) {
                let path = match self.random.below(3) {
                    0 => self.random.pick(&OWN),
                    1 if !is_middleware => self.random.pick(&OF_MIDDLEWARE),
                    _ => self.random.pick(&AROUND),
                };
                let _ = writeln!(text, "{path}");
            }
            return text;
        }
        match path {
            "types/base.json" => format!("{{ \"x\": {} }}", self.random.below(3)),
            _ => format!("{}\n", self.random.below(3)),
        }
    }

    fn edit(&mut self) {
        let path = self.a_path();
        // The user promises that a shared app does not depend on its store.
        let asks = path.ends_with("/names") && self.shared.iter().any(|app| path.contains(app));
        if asks
            || (self.files.contains_key(&path)
                && path != "types/base.json"
                // A script that only asks for a file that does not exist is a documented limit.
                && path != "tools/rates.json"
                && self.random.once_in(4))
        {
            if !(path.starts_with("apps/storefront") || path.starts_with("apps/cms"))
                || !path.ends_with("/reads")
            {
                self.log.push(format!("remove {path}"));
                self.files.remove(&path);
            }
            return;
        }
        let content = self.content(&path);
        self.log.push(format!("write {path}: {content:?}"));
        self.files.insert(path, content);
    }

    fn step(&mut self, number: usize) {
        for _ in 0..=self.random.below(2) {
            self.edit();
        }
        if self.random.once_in(10) {
            let app = self.random.pick(&[MIDDLEWARE, FRONTEND, "cms"]);
            if self.shared.contains(&app) {
                self.shared.retain(|other| *other != app);
            } else {
                self.shared.push(app);
                self.files
                    .retain(|path, _| !(path.ends_with("/names") && path.contains(app)));
            }
            self.log.push(format!("shared {:?}", self.shared));
        }
        let machine = self.machines[self.random.below(self.machines.len())].clone();
        std::fs::create_dir_all(&machine).unwrap();
        self.write(&machine);
        for folder in [".out", ".alokai", ".alokai/cache", ".alokai/results"] {
            if self.random.once_in(25) {
                self.log.push(format!("without {folder}"));
                let _ = std::fs::remove_dir_all(machine.join(folder));
            }
        }
        if self.random.once_in(12) {
            self.log.push("a file beside a result".into());
            for path in [
                ".out/us/storefront-middleware/lib/deep/evil",
                ".out/eu/storefront-unified-nextjs/.next/evil",
            ] {
                let path = machine.join(path);
                if path.parent().unwrap().exists() {
                    std::fs::write(path, "evil").unwrap();
                }
            }
        }
        let mut stores = STORES.to_vec();
        if self.random.once_in(2) {
            stores.swap(0, 2);
        }
        stores.truncate(1 + self.random.below(3));
        let remote = self.random.once_in(2);
        let list = stores.join(",");
        let build = ["store", "build", "--store", &list, "--concurrency", "2"];
        if self.random.once_in(4) {
            let disturbed = self.random.pick(&AROUND[..6]);
            self.log.push(format!(
                "{}: {build:?} while {disturbed} is edited",
                machine.display()
            ));
            std::fs::write(self.folder.path().join("disturbed"), disturbed).unwrap();
            self.alokai(&machine, &build, remote, true);
            // The edit that a script did not carry out.
            self.write(&machine);
        }
        self.log
            .push(format!("{}: {build:?}, remote {remote}", machine.display()));
        let said = self.alokai(&machine, &build, remote, false);
        let fresh = self.folder.path().join(format!("fresh-{number}"));
        std::fs::create_dir(&fresh).unwrap();
        self.write(&fresh);
        self.alokai(&fresh, &[&build[..], &["--force"]].concat(), false, false);
        for store in stores {
            let (made, right) = (tree(&machine, store), tree(&fresh, store));
            assert!(
                made == right,
                "step {number}, {store}: {:?}\nis other in the fresh copy: {:?}\n{said}\n{}",
                made.iter()
                    .find(|(path, text)| right.get(*path) != Some(text))
                    .or_else(|| right.iter().find(|(path, _)| !made.contains_key(*path))),
                right
                    .iter()
                    .find(|(path, text)| made.get(*path) != Some(text)),
                self.log.join("\n")
            );
        }
        std::fs::remove_dir_all(&fresh).unwrap();
    }
}

/// The files of a project without builds, installed packages and `.git`.
fn listed(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let walk = walkdir::WalkDir::new(root)
        .into_iter()
        .filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            ![".git", ".out", ".alokai", "node_modules", "lib", ".next"].contains(&&*name)
        });
    for entry in walk
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
    {
        let path = entry.path().strip_prefix(root).unwrap();
        files.push(path.to_str().unwrap().to_owned());
    }
    files
}

/// The composed and built files of a store.
fn tree(root: &Path, store: &str) -> BTreeMap<String, String> {
    let root = root.join(".out").join(store);
    let files = walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let path = entry.path().strip_prefix(&root).unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (path.to_str().unwrap().to_owned(), text)
        })
        .collect()
}

#[test]
fn a_build_is_what_a_forced_build_in_a_fresh_copy_is() {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    let seed = std::env::var("ALOKAI_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let steps = if is_long { LONG } else { STEPS };
    // A new world from time to time keeps the log of a failure short.
    for world in 0..steps.div_ceil(50) {
        let mut world = World::new(seed + world as u64);
        for number in 0..50.min(steps) {
            world.step(number);
        }
    }
}
