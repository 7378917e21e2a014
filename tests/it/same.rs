//! A clean working tree and its commit give the same answer, for all conversions of git, all
//! targets of links and every state of git's index. Real git makes the commits, checks them out,
//! and decides whether a tree is clean.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use alokai::compare::{Comparison, ProjectSnapshot, across_revisions, changed};
use alokai::git::Repository;
use alokai::overlay::{LayerFile, LayerProblem};

use crate::support::{FRONTEND, Project, Random, git};

/// The number of projects that are compared.
const PROJECTS: u64 = 60;

const CONFIG: &str = r#"{ "stores": {
  "us": { "deployment": { "projectName": "a", "cloudRegion": "r" } },
  "eu": { "deployment": { "projectName": "b", "cloudRegion": "r" } }
} }
"#;

const CONTENTS: [&str; 7] = [
    "one\ntwo\n",
    "one\r\ntwo\r\n",
    "one\r\ntwo\n",
    "no end",
    "",
    "$Id$\nkeyword\n",
    "zero\0byte\r\n",
];

const PATHS: [&str; 12] = [
    "apps/web/a.txt",
    "apps/web/b.bin",
    "apps/web/c.ts",
    "apps/web/sub/d.txt",
    "apps/web/tsconfig.json",
    "apps/stores/us/web/a.txt",
    "apps/stores/us/web/b.bin",
    "apps/stores/eu/web/sub/d.txt",
    "apps/stores/eu/web/dist/kept.js",
    "packages/theme/t.txt",
    "packages/theme/u/v.bin",
    "packages/theme/dist/kept.js",
];

/// Paths that git ignores, except `kept.js`.
const IGNORED: [&str; 7] = [
    "apps/web/dist/x.js",
    "apps/web/.env",
    "apps/stores/us/web/.env.local",
    "packages/theme/dist/made.js",
    "node_modules/pkg/index.js",
    "shared.log",
    ".env",
];

const ATTRIBUTES: [&str; 9] = [
    "* text=auto",
    "* text=auto eol=crlf",
    "*.txt text",
    "*.txt text eol=crlf",
    "*.txt -text",
    "*.bin filter=pointer",
    "*.bin filter=pointer -text",
    "*.ts ident",
    "*.bin filter=unknown",
];

/// Link targets that can be composed from every place.
const GOOD_TARGETS: [&str; 6] = [
    "sub/d.txt",
    "../../packages/theme",
    "../../packages/theme/t.txt",
    "../../packages/link/t.txt",
    "../../packages/link",
    "../../packages/theme/again",
];

const TARGETS: [&str; 8] = [
    "../../packages/theme/dist",
    "../../packages/theme/dist/made.js",
    "../../packages/theme/dist/kept.js",
    "../../node_modules/pkg",
    "../../node_modules/pkg/index.js",
    "../../ignored-link/t.txt",
    "../../shared.log",
    "../../.env",
];

/// Targets with `..` after a name. If the name is a link, `..` is not the folder that contains the
/// name.
const DETOURS: [&str; 3] = [
    "sub/../a.txt",
    "theme/../other/o.txt",
    "theme/../theme/t.txt",
];

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.is_symlink() {
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(path, content).unwrap();
}

fn link(root: &Path, path: &str, target: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&path);
    std::os::unix::fs::symlink(target, path).unwrap();
}

/// A random project that is committed and sometimes cloned.
struct World {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("made");
        std::fs::create_dir(&root).unwrap();
        git(&root, &["init", "--quiet"]);
        let settings = settings(random);
        for (name, value) in &settings {
            git(&root, &["config", name, value]);
        }
        write(&root, "alokai.config.json", CONFIG);
        write(&root, "package.json", "{ \"name\": \"root\" }\r\n");
        let package =
            "{\r\n  \"name\": \"web\",\r\n  \"dependencies\": { \"next\": \"1\" }\r\n}\r\n";
        write(&root, "apps/web/package.json", package);
        write(
            &root,
            ".gitignore",
            "dist/\n*.log\n.env*\nignored-link\nnode_modules\n",
        );
        write(&root, "packages/other/o.txt", "other\n");
        if !random.once_in(4) {
            attributes(&root, random);
        }
        for path in PATHS {
            if !random.once_in(4) {
                file(&root, path, random);
            }
        }
        file(&root, "packages/theme/t.txt", random);
        link(&root, "packages/theme/again", "t.txt");
        link(&root, "packages/link", "theme");
        link(&root, "ignored-link", "packages/theme");
        let is_good = !random.once_in(3);
        for name in ["x", "y", "z"] {
            let target = match random.below(6) {
                _ if is_good => random.pick(&GOOD_TARGETS),
                0 => random.pick(&DETOURS),
                1 => random.pick(&GOOD_TARGETS),
                _ => random.pick(&TARGETS),
            };
            let from = if is_good {
                "apps/web"
            } else {
                random.pick(&["apps/web", "apps/stores/us/web"])
            };
            link(&root, &format!("{from}/{name}"), target);
        }
        if random.once_in(2) {
            link(&root, "apps/web/theme", "../../packages/theme");
        }
        ignored(&root);
        commit(&root, "first");
        // Attributes that are committed after the files to which they apply.
        if random.once_in(3) {
            attributes(&root, random);
            git(&root, &["add", ".gitattributes"]);
            git(
                &root,
                &["commit", "--quiet", "--allow-empty", "-m", "attributes"],
            );
        }
        let mut world = Self { folder, root };
        if !random.once_in(3) {
            world.check_out(&settings);
        }
        world
    }

    /// A fresh clone: its files are what git checks out of the commit.
    fn check_out(&mut self, settings: &[(&str, &str)]) {
        let to = self.folder.path().canonicalize().unwrap().join("clone");
        let mut arguments = vec!["clone".to_owned(), "--quiet".to_owned()];
        for (name, value) in settings {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments.extend(["made".to_owned(), "clone".to_owned()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        git(self.folder.path(), &arguments);
        self.root = to;
        link(&self.root, "ignored-link", "packages/theme");
        ignored(&self.root);
    }
}

fn settings(random: &mut Random) -> Vec<(&'static str, &'static str)> {
    vec![
        (
            "core.autocrlf",
            random.pick(&["false", "false", "true", "input"]),
        ),
        ("core.fileMode", random.pick(&["true", "false"])),
        ("filter.pointer.clean", "sed 's/^/pointer:/'"),
        ("filter.pointer.smudge", "sed 's/^pointer://'"),
    ]
}

fn attributes(root: &Path, random: &mut Random) {
    let lines: Vec<_> = (0..=random.below(3))
        .map(|_| random.pick(&ATTRIBUTES))
        .collect();
    write(root, ".gitattributes", &(lines.join("\n") + "\n"));
    if random.once_in(3) {
        let line = random.pick(&ATTRIBUTES);
        write(root, "apps/web/.gitattributes", &format!("{line}\n"));
    }
}

fn file(root: &Path, path: &str, random: &mut Random) {
    let content = if path.contains(".json") {
        random.pick(&[
            "{ \"extends\": \"../../x\" }\n",
            "{\r\n\"extends\": \"../../x\" }\r\n",
        ])
    } else {
        random.pick(&CONTENTS)
    };
    write(root, path, content);
    if random.once_in(3) {
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.join(path), executable).unwrap();
    }
}

fn ignored(root: &Path) {
    for path in IGNORED {
        write(root, path, "git does not see it\n");
    }
}

fn commit(root: &Path, message: &str) {
    git(root, &["add", "--all"]);
    for path in PATHS.iter().filter(|path| path.contains("dist/")) {
        if root.join(path).exists() {
            git(root, &["add", "--force", path]);
        }
    }
    git(root, &["commit", "--quiet", "--allow-empty", "-m", message]);
}

/// All that a snapshot lists: the content id and the mode of each path, and the paths with
/// problems.
type Listing = (BTreeMap<String, String>, BTreeSet<String>);

fn listing(snapshot: &ProjectSnapshot) -> Listing {
    let stores: Vec<_> = snapshot.project.stores.deployables().collect();
    let (layers, problems) = snapshot.composer().layers(&stores, |_, _| None).unwrap();
    let mut files = BTreeMap::new();
    for (owner, app) in layers.keys() {
        let layer = layers.get(owner, app).unwrap();
        for (path, file) in &layer.files {
            let identity = format!("{} {}", file.mode(), file.id);
            assert_eq!(
                alokai::overlay::ContentId::of(&read(file)),
                file.id,
                "{path}"
            );
            files.insert(format!("{owner}/{app}/{path}"), identity);
        }
    }
    let problems = problems.iter().map(|problem| match problem {
        LayerProblem::LinkOutside { path, .. }
        | LayerProblem::LinkDangling { path, .. }
        | LayerProblem::LinkIgnored { path, .. }
        | LayerProblem::LinkCycle { path, .. }
        | LayerProblem::Special { path } => path.clone(),
        other => panic!("{other:?}"),
    });
    (files, problems.collect())
}

fn read(file: &LayerFile) -> Vec<u8> {
    file.read().expect("it can be read")
}

fn of_commit(root: &Path) -> Listing {
    let repository = Repository::open(root).unwrap();
    let objects = repository.objects();
    listing(&ProjectSnapshot::commit(root, &repository, &objects, "HEAD").unwrap())
}

fn of_working_tree(root: &Path) -> Listing {
    let repository = Repository::open(root).unwrap();
    listing(&ProjectSnapshot::working_tree(root, &repository).unwrap())
}

/// Changes the time of every file that git tracks.
fn touch(root: &Path) {
    for path in git(root, &["ls-files", "-z"]).split_terminator('\0') {
        let path = root.join(path);
        if !path.is_symlink() {
            let times = SystemTime::now() - Duration::from_secs(100);
            let file = std::fs::File::options().append(true).open(path).unwrap();
            file.set_modified(times).unwrap();
        }
    }
}

fn said(root: &Path, since: &str, to: Option<&str>) -> Option<BTreeSet<String>> {
    let comparison = Comparison {
        since: since.into(),
        to: to.map(str::to_owned),
        global_dependencies: vec!["packages".into(), "package.json".into()],
    };
    let answer = changed(root, &comparison).ok()?;
    let mut files = BTreeSet::new();
    for store in &answer.stores {
        let id = &store.store_id;
        files.extend(
            store
                .files
                .iter()
                .map(|it| format!("{id} {}/{}", it.app, it.path)),
        );
        files.extend(store.dependencies.iter().map(|it| format!("{id} {it}")));
    }
    Some(files)
}

fn scramble_modes(root: &Path, random: &mut Random) {
    if git(root, &["config", "core.fileMode"]).trim() != "false" {
        return;
    }
    for path in git(root, &["ls-files", "-z"]).split_terminator('\0') {
        let path = root.join(path);
        if !path.is_symlink() && random.once_in(2) {
            let mode = std::fs::Permissions::from_mode(random.pick(&[0o644, 0o755]));
            std::fs::set_permissions(path, mode).unwrap();
        }
    }
}

#[test]
fn a_clean_working_tree_answers_as_its_commit_does() {
    let (mut clean, mut composable, mut edited) = (0, 0, 0);
    for seed in 0..PROJECTS {
        let random = &mut Random::new(77_000 + seed);
        let world = World::new(random);
        let root = world.root.as_path();
        if !git(root, &["status", "--porcelain"]).is_empty() {
            continue;
        }
        clean += 1;
        let expected = of_commit(root);
        assert_eq!(of_working_tree(root), expected, "seed {seed}, as it is");
        scramble_modes(root, random);
        assert_eq!(of_working_tree(root), expected, "seed {seed}, modes");
        touch(root);
        assert_eq!(of_working_tree(root), expected, "seed {seed}, touched");
        git(root, &["read-tree", "HEAD"]);
        assert_eq!(of_working_tree(root), expected, "seed {seed}, no stat data");
        let refresh = ["update-index", "-q", "--refresh"];
        let _ = Command::new("git").args(refresh).current_dir(root).output();
        assert_eq!(of_working_tree(root), expected, "seed {seed}, refreshed");
        if !expected.1.is_empty() {
            continue;
        }
        composable += 1;
        assert_eq!(
            said(root, "HEAD", None).unwrap(),
            BTreeSet::new(),
            "seed {seed}"
        );
        let diff = across_revisions(root, ("us", "HEAD"), ("us", None), None).unwrap();
        assert!(diff.files.is_empty(), "seed {seed}: {:?}", diff.files);
        // An edit gives the same answer before and after its commit.
        git(root, &["add", "--renormalize", "."]);
        git(
            root,
            &["commit", "--quiet", "--allow-empty", "-m", "renormalized"],
        );
        for _ in 0..2 {
            file(root, random.pick(&PATHS), random);
        }
        for path in PATHS.iter().filter(|path| path.contains("dist/")) {
            let _ = std::fs::remove_file(root.join(path));
        }
        let before = said(root, "HEAD", None);
        commit(root, "edit");
        let after = said(root, "HEAD~1", Some("HEAD"));
        edited += usize::from(before.as_ref().is_some_and(|files| !files.is_empty()));
        assert_eq!(before, after, "seed {seed}, edit");
    }
    let enough = clean > 40 && composable > 10 && edited > 5;
    assert!(
        enough,
        "{clean} clean, {composable} composable, {edited} edited"
    );
}

fn configure(project: &Project, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        project.git(&["config", name, value]);
    }
}

const POINTERS: [(&str, &str); 2] = [
    ("filter.pointer.clean", "sed 's/^/pointer:/'"),
    ("filter.pointer.smudge", "sed 's/^pointer://'"),
];

#[test]
fn filtered_content_is_composed_and_is_not_a_change() {
    let project = Project::shop();
    configure(&project, &POINTERS);
    configure(&project, &[("core.autocrlf", "true")]);
    let picture = format!("apps/{FRONTEND}/public/hero.bin");
    let project = project
        .file(".gitattributes", "*.bin filter=pointer -text\n")
        .file(&picture, "the picture itself\n")
        .file(&format!("apps/{FRONTEND}/crlf.txt"), "one\r\ntwo\r\n");
    project.commit();
    assert!(
        project
            .git(&["show", &format!("HEAD:{picture}")])
            .starts_with("pointer:")
    );
    for step in ["as it is", "touched", "no stat data"] {
        match step {
            "touched" => touch(project.root()),
            "no stat data" => drop(project.git("read-tree HEAD")),
            _ => {}
        }
        let run = project.alokai("store changed --since HEAD");
        assert_eq!(run.succeeds().json(), serde_json::json!([]), "{step}");
        project.alokai("store compose --all").succeeds();
        let composed = |path: &str| project.read(&format!(".out/us/{FRONTEND}/{path}"));
        assert_eq!(
            composed("public/hero.bin"),
            "the picture itself\n",
            "{step}"
        );
        assert_eq!(composed("crlf.txt"), "one\r\ntwo\r\n", "{step}");
        project.alokai("store compose --all --check").succeeds();
        // Git sees a clean tree, so the deploy is not refused.
        let revision = Repository::open(project.root())
            .unwrap()
            .revision()
            .unwrap();
        assert_eq!(revision.dirty, Vec::<String>::new(), "{step}");
    }
    // The diff compares what git stores: one line differs, and not every line for its line ending.
    project.write(&format!("apps/{FRONTEND}/crlf.txt"), b"one\r\nthree\r\n");
    let diff = "store diff us --since HEAD --json";
    let told = project.alokai(diff).succeeds().json();
    let files = told["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{told}");
    assert_eq!(
        (&files[0]["added"], &files[0]["removed"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn executable_bits_come_from_the_index_where_git_does_not_trust_the_disk() {
    let project = Project::shop();
    configure(&project, &[("core.fileMode", "false")]);
    let large = format!("apps/{FRONTEND}/large.bin");
    project.write(&large, vec![0; 3 << 20]);
    project.commit();
    let script = format!("apps/{FRONTEND}/build.js");
    project.git(&["update-index", "--chmod=+x", &script]);
    project.git("commit --quiet -m executable");
    for path in ["texts.txt", "large.bin", "untracked.sh"] {
        let path = format!("apps/{FRONTEND}/{path}");
        if !project.exists(&path) {
            project.write(&path, b"#!/bin/sh\n");
        }
        project.make_executable(&path);
    }
    project.alokai("store compose --all").succeeds();
    let is_executable = |path: &str| {
        let path = project.path(&format!(".out/eu/{FRONTEND}/{path}"));
        path.metadata().unwrap().permissions().mode() & 0o111 != 0
    };
    assert!(is_executable("build.js"));
    for path in ["texts.txt", "large.bin", "untracked.sh"] {
        assert!(!is_executable(path), "{path}");
    }
    project.alokai("store compose --all --check").succeeds();
    project.remove(&format!("apps/{FRONTEND}/untracked.sh"));
    let run = project.alokai("store changed --since HEAD");
    assert_eq!(run.succeeds().json(), serde_json::json!([]));
}

#[test]
fn what_git_ignores_is_not_reached_by_links() {
    let installed = "node_modules/pkg/index.js";
    let project = Project::shop()
        .file(installed, "installed\n")
        .file("shared/lib/made.js", "made\n")
        .file("shared/t.txt", "shared\n")
        .link("shared/again", "t.txt")
        .link(
            &format!("apps/{FRONTEND}/modules"),
            "../../node_modules/pkg",
        )
        .link(
            &format!("apps/{FRONTEND}/module.js"),
            "../../node_modules/pkg/index.js",
        )
        .link(&format!("apps/{FRONTEND}/made"), "../../shared/lib")
        .link(
            &format!("apps/{FRONTEND}/made.js"),
            "../../shared/lib/made.js",
        )
        .link(&format!("apps/{FRONTEND}/again.txt"), "../../shared/again");
    project.commit();
    let run = project.alokai("store compose --all").fails_with(2);
    for path in ["modules", "module.js", "made", "made.js"] {
        let told = format!("`apps/{FRONTEND}/{path}` is a link to");
        assert!(run.stderr.contains(&told), "{path}: {}", run.stderr);
    }
    run.stderr_contains("alokai::overlay::link_ignored");
    run.stderr_lacks("again.txt");
    for path in ["modules", "module.js", "made", "made.js"] {
        project.remove(&format!("apps/{FRONTEND}/{path}"));
    }
    project.alokai("store compose --all").succeeds();
    assert_eq!(
        project.read(&format!(".out/us/{FRONTEND}/again.txt")),
        "shared\n"
    );
}
