//! No edit loses content that exists nowhere else, and none shows a secret to git or to other users.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";
const US: &str = "apps/stores/fashion/stores/us";

#[test]
fn an_override_that_moves_up_replaces_no_file_that_no_commit_has() {
    let project = Project::shop();
    for store in ["us", "eu"] {
        let path = format!("apps/stores/fashion/stores/{store}/{NEXT}/wip.tsx");
        project.write(&path, "same\n");
    }
    project.commit();
    let parent = format!("apps/stores/fashion/{NEXT}/wip.tsx");
    project.write(&parent, "the only copy\n");
    let raise = format!("store override --up us {NEXT}/wip.tsx --yes");
    let run = project.alokai(raise.as_str()).fails_with(2);
    run.stderr_contains("no commit has its content");
    assert_eq!(project.read(&parent), "the only copy\n");
    project.commit();
    project.alokai(raise.as_str()).succeeds();
    assert_eq!(project.read(&parent), "same\n");
}

#[test]
fn git_sees_edits_after_the_index_was_rewritten_as_it_saw_them_before() {
    let project = Project::shop();
    let file = "apps/storefront-middleware/src/index.js";
    // The edit has the size, the inode and the second of the commit: only its content differs.
    for round in 0..5 {
        let (one, two) = (format!("price = {round}1\n"), format!("price = {round}2\n"));
        project.write(file, &one);
        project.commit();
        project.write(file, &two);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let to = ["root", "fashion"][round % 2];
        let arguments = format!("store move us --parent {to} --yes");
        project.alokai(arguments.as_str()).succeeds();
        let changed = project.git("diff --name-only");
        assert!(changed.contains(file), "round {round}: {changed:?}");
    }
}

/// Starts an undo with the journal of a rename of `us` that was killed after its first step.
fn interrupted_rename(project: &Project, removed_to: &str) {
    let moved = json!([[US, removed_to]]);
    let steps = json!([{ "step": "rename", "from": US, "to": removed_to }]);
    let journal = json!({
        "version": 1, "command": "alokai store rename us usa",
        "steps": steps, "moved": moved, "removed": [],
    });
    for folder in ["new", "old", "removed"] {
        std::fs::create_dir_all(project.path(&format!(".alokai/edit/{folder}"))).unwrap();
    }
    project.write(".alokai/.gitignore", "*\n");
    project.write(".alokai/edit/journal.json", journal.to_string());
    std::fs::rename(project.path(US), project.path(removed_to)).unwrap();
}

#[test]
fn an_undo_keeps_what_was_made_again_and_what_it_replaces() {
    let texts = format!("{US}/{NEXT}/texts.txt");
    for to in ["apps/stores/fashion/stores/usa", ".alokai/edit/removed/0"] {
        // An empty folder is no obstacle.
        let project = Project::shop();
        interrupted_rename(&project, to);
        std::fs::create_dir(project.path(US)).unwrap();
        let run = project.alokai("store list").succeeds();
        run.stderr_contains("it is undone now\n");
        assert_eq!(project.read(&texts), "texts of us\n");

        // A folder with files stays, and what the edit had moved stays, too.
        let project = Project::shop();
        interrupted_rename(&project, to);
        project.write(&texts, "made again\n");
        let run = project.alokai("store list").succeeds();
        run.stderr_contains("which was made again; its content before the edit is in `");
        let stays = run.stderr.split("is in `").nth(1).unwrap();
        let stays = stays.split('`').next().unwrap();
        assert_eq!(project.read(&texts), "made again\n");
        let kept = project.read(&format!("{stays}/{NEXT}/texts.txt"));
        assert_eq!(kept, "texts of us\n");
    }
}

#[test]
fn a_journal_changes_nothing_outside_of_the_project() {
    let project = Project::shop();
    let outside = project.root().with_file_name("outside.txt");
    std::fs::write(&outside, "data").unwrap();
    for (from, to) in [
        ("../stolen.txt", "../outside.txt"),
        (".alokai/edit/../../../stolen.txt", "../outside.txt"),
        (".git/hooks/pre-commit", "apps/x"),
    ] {
        let step = json!({ "step": "rename", "from": from, "to": to });
        let journal = json!({
            "version": 1, "command": "alokai store list", "steps": [step], "moved": [], "removed": [],
        });
        project.write(".alokai/edit/journal.json", journal.to_string());
        let run = project.alokai("store list");
        assert_ne!(run.code, 0, "{from}");
        assert!(outside.exists(), "{}", run.stderr);
    }
}

#[test]
fn a_store_with_content_that_only_the_index_has_is_not_removed() {
    let project = Project::shop();
    let file = format!("{US}/{NEXT}/texts.txt");
    project.write(&file, "staged\n");
    project.git("add -A");
    project.write(&file, "texts of us\n");
    let run = project.alokai("store remove us --yes").fails_with(2);
    run.stderr_contains(&format!("git's index has content of `{file}`"));
    assert!(project.exists(&file));
    project.git(&["restore", "--staged", &file]);
    project.alokai("store remove us --yes").succeeds();
}

#[test]
fn an_ignored_file_does_not_become_a_file_that_git_adds() {
    let project = Project::shop();
    let secret = format!("{US}/storefront-middleware/sa.json");
    let rules = project.read(".gitignore");
    project.write(".gitignore", format!("{rules}/{secret}\n"));
    project.commit();
    project.write(&secret, "{}");
    for arguments in [
        "store rename us usa --yes",
        "store move us --parent root --yes",
        "store rename fashion brand --yes",
    ] {
        let run = project.alokai(arguments).fails_with(2);
        run.stderr_contains(&format!("git ignores `{secret}` now, and no rule"));
    }
    // A rule in the store's own folder moves along.
    project.write(
        &format!("{US}/storefront-middleware/.gitignore"),
        "sa.json\n",
    );
    project.alokai("store rename us usa --yes").succeeds();
    let status = project.git("status --short --untracked-files=all");
    assert!(!status.contains("sa.json"), "{status}");
}

#[test]
fn a_copied_file_with_secrets_is_for_its_owner_only() {
    let project = Project::shop();
    let env = "apps/storefront-middleware/.env";
    project.write(env, "TOKEN=x\n");
    let mode = |path: &str| project.path(path).metadata().unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(project.path(env), PermissionsExt::from_mode(0o600)).unwrap();
    project
        .alokai("store flatten us --to shop-us --yes")
        .succeeds();
    assert_eq!(mode("shop-us/storefront-middleware/.env"), 0o600);
    let arguments = "store override us storefront-middleware/.env --yes";
    project.alokai(arguments).succeeds();
    assert_eq!(mode(&format!("{US}/storefront-middleware/.env")), 0o600);
}
