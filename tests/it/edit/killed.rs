//! An edit whose process is killed: the next command leaves the old tree or the new tree, whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::commands::shop;
use crate::support::{Project, Random, copy_of};

/// Files, config and tracked paths.
type State = (BTreeMap<String, String>, String, String);

fn state(project: &Project) -> State {
    (
        project.tree("apps"),
        project.read("alokai.config.json"),
        project.git("ls-files --stage"),
    )
}

/// A project in which an edit has many steps: 40 stores with a file that is tracked and one that is not.
fn large() -> Project {
    let project = (0..40).fold(shop(), |project, number| {
        let app = format!("apps/stores/fashion/stores/s{number}/storefront-unified-nextjs");
        project.file(&format!("{app}/a.txt"), "tracked\n")
    });
    project.commit();
    for number in 0..40 {
        project.write(
            &format!("apps/stores/fashion/stores/s{number}/untracked.md"),
            "untracked\n",
        );
    }
    project
}

/// Whether a journal exists: the edit has begun, and is not finished.
fn is_begun(project: &Project) -> bool {
    project.exists(".alokai/edit/journal.json")
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new_tree() {
    let is_long = std::env::var_os("ALOKAI_LONG").is_some();
    let rounds = if is_long { 120 } else { 12 };
    let template = large();
    let old = state(&template);
    for arguments in [
        "store remove fashion --reparent root --yes",
        "store rename fashion brand --yes",
    ] {
        let (_done, done) = copy(&template);
        done.alokai(arguments).succeeds();
        let new = state(&done);
        assert_ne!(old, new);
        let mut interrupted = 0;
        for round in 0..rounds {
            let mut random = Random::new(round);
            let (_folder, project) = copy(&template);
            let mut child = project.start(arguments);
            // The journal exists for some milliseconds; the kill comes at a random moment in them.
            let begin = Instant::now();
            while !is_begun(&project) && child.try_wait().unwrap().is_none() {
                assert!(begin.elapsed() < Duration::from_secs(60), "it hangs");
                std::hint::spin_loop();
            }
            let wait = Duration::from_micros(random.below(9000) as u64);
            let begun = Instant::now();
            while begun.elapsed() < wait {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let was_begun = is_begun(&project);
            interrupted += usize::from(was_begun);
            let run = project.alokai("store list --json").succeeds();
            let now = state(&project);
            assert!(
                now == old || now == new,
                "round {round}: neither old nor new: {}",
                project.git("status --short")
            );
            assert_eq!(
                run.stderr.contains("was interrupted"),
                was_begun,
                "{}",
                run.stderr
            );
            assert!(!is_begun(&project));
            // The project can be edited again.
            if now == old {
                project.alokai(arguments).succeeds();
                assert!(state(&project) == new, "round {round}: the second attempt");
            }
        }
        assert!(interrupted > 0, "no kill came while the edit was made");
    }
}

/// A copy of the project. Its folder is removed with the first value.
fn copy(project: &Project) -> (tempfile::TempDir, Project) {
    let (folder, path) = copy_of(project.root());
    let copied = Project::at(path);
    // The index of the copy has the stamps of the original.
    copied.git("update-index -q --refresh");
    (folder, copied)
}

/// The journal of an edit, from a process that was killed while it made the edit.
fn journal_of(project: &Project, arguments: &str) -> Value {
    for _ in 0..200 {
        let (_folder, killed) = copy(project);
        let mut child = killed.start(arguments);
        while !is_begun(&killed) && child.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if is_begun(&killed) {
            return serde_json::from_str(&killed.read(".alokai/edit/journal.json")).unwrap();
        }
    }
    panic!("no process was killed in time");
}

/// Makes a step as the program does.
fn make(project: &Project, step: &Value) {
    let at = |key: &str| project.path(step[key].as_str().unwrap());
    match step["step"].as_str().unwrap() {
        "makeFolder" => std::fs::create_dir(at("path")).unwrap(),
        "rename" => std::fs::rename(at("from"), at("to")).unwrap(),
        "create" | "replace" => std::fs::rename(at("staged"), at("path")).unwrap(),
        "removeEmptyFolder" => std::fs::remove_dir(at("path")).unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_kill_after_each_step_is_undone_and_after_the_last_one_completed() {
    let template = shop();
    template.write("apps/stores/fashion/notes.txt", "untracked");
    let old = state(&template);
    for arguments in [
        "store remove fashion --reparent root --yes",
        "store rename fashion brand --yes",
        "store rename us usa --yes",
        "store move us eu --parent root --yes",
        "store add uk --parent us --yes",
    ] {
        let (_done, done) = copy(&template);
        done.alokai(arguments).succeeds();
        let new = state(&done);
        let journal = journal_of(&template, arguments);
        let steps = journal["steps"].as_array().unwrap();
        for made in 0..=steps.len() + 1 {
            let (_folder, project) = copy(&template);
            for folder in ["new", "old", "removed"] {
                std::fs::create_dir_all(project.path(&format!(".alokai/edit/{folder}"))).unwrap();
            }
            project.write(".alokai/.gitignore", "*\n");
            project.write(".alokai/edit/journal.json", journal.to_string());
            for step in steps {
                let Some(staged) = step["staged"].as_str() else {
                    continue;
                };
                let path = step["path"].as_str().unwrap();
                project.write(staged, done.read(path));
                if let Some(backup) = step["backup"].as_str() {
                    project.write(backup, project.read(path));
                }
            }
            for step in steps.iter().take(made) {
                make(&project, step);
            }
            let is_made = made > steps.len();
            if is_made {
                project.write(".alokai/edit/made", "");
            }
            let run = project.alokai("store list").succeeds();
            let text = if is_made {
                "it is completed"
            } else {
                "it is undone"
            };
            run.stderr_contains(text);
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
            let expected = if is_made { &new } else { &old };
            let now = state(&project);
            assert!(now == *expected, "{arguments}: {made} steps:\n{now:#?}");
            assert!(!project.exists(".alokai/edit"));
        }
    }
}

#[test]
fn a_file_that_is_edited_after_the_kill_stays() {
    let template = shop();
    let journal = journal_of(&template, "store rename us usa --yes");
    let steps = journal["steps"].as_array().unwrap();
    let replace = steps.iter().find(|step| step["step"] == "replace").unwrap();
    let project = template;
    let old = project.read("alokai.config.json");
    for folder in ["new", "old", "removed"] {
        std::fs::create_dir_all(project.path(&format!(".alokai/edit/{folder}"))).unwrap();
    }
    project.write(".alokai/edit/journal.json", journal.to_string());
    project.write(replace["backup"].as_str().unwrap(), &old);
    let edited = old.replace("// Our stores.", "// My stores.");
    project.write("alokai.config.json", &edited);
    let run = project.alokai("store list").succeeds();
    run.stderr_contains("alokai.config.json");
    assert_eq!(project.read("alokai.config.json"), edited);
}
