//! What the commands refuse, and that the project stays as it was.

use super::commands::shop;
use crate::support::Project;

#[track_caller]
fn refused(project: &Project, arguments: &str, code: i32, text: &str) {
    let before = (project.tree("apps"), project.read("alokai.config.json"));
    let index = project.git("ls-files --stage");
    let run = project.alokai(arguments).fails_with(code);
    let printed = run.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(printed.contains(text), "{arguments}: {}", run.stderr);
    let after = (project.tree("apps"), project.read("alokai.config.json"));
    assert_eq!(before, after, "{arguments}");
    assert_eq!(project.git("ls-files --stage"), index, "{arguments}");
}

#[test]
fn wrong_ids_and_parents_are_refused() {
    let project = shop();
    std::fs::create_dir(project.path("docs")).unwrap();
    for (arguments, text) in [
        ("store add ../x --yes", "is not a valid store id"),
        ("store add a/b --yes", "is not a valid store id"),
        ("store add --yes -- -x", "is not a valid store id"),
        ("store add .hidden --yes", "is not a valid store id"),
        ("store add us --yes", "is in use"),
        ("store add US --yes", "only by case"),
        ("store add fashion --yes", "is in use"),
        ("store add root --yes", "reserved"),
        ("store add base --yes", "reserved"),
        ("store add Stores --yes", "reserved"),
        ("store add docs --yes", "docs"),
        (
            "store add uk --parent nobody --yes",
            "there is no store `nobody`",
        ),
        (
            "store add uk --parent fashio --yes",
            "did you mean `fashion`?",
        ),
        (
            "store add uk --framework nuxt --yes",
            "no app with the framework `nuxt`",
        ),
        (
            "store add uk --template --framework nextjs --yes",
            "cannot be used with",
        ),
        (
            "store add uk --console-project-name a/b --yes",
            "make the project invalid",
        ),
        (
            "store add uk --console-project-name acme-us --yes",
            "make the project invalid",
        ),
        (
            "store add uk --cloud-region a/b --yes",
            "make the project invalid",
        ),
        ("store add --yes", "the id of the new store is missing"),
        ("store add uk", "`--yes`"),
        ("store move us --parent us --yes", "the same store"),
        (
            "store move fashion --parent us --yes",
            "inherits from `fashion`",
        ),
        (
            "store move us nobody --parent root --yes",
            "there is no store `nobody`",
        ),
        ("store move us --yes", "the new parent is missing"),
        (
            "store move --parent root --yes",
            "the store to move is missing",
        ),
        ("store move us --parent root", "`--yes`"),
        ("store remove nobody --yes", "there is no store `nobody`"),
        (
            "store remove fashion --yes",
            "2 stores that inherit from it: eu, us",
        ),
        (
            "store remove fashion --reparent fashion --yes",
            "the same store",
        ),
        (
            "store remove fashion --reparent us --yes",
            "inherits from `fashion`",
        ),
        ("store remove us", "`--yes`"),
        ("store rename us eu --yes", "is in use"),
        ("store rename us US --yes", "only by case"),
        ("store rename us EU --yes", "only by case"),
        ("store rename us docs --yes", "docs"),
        ("store rename us ../x --yes", "is not a valid store id"),
        ("store rename nobody x --yes", "there is no store `nobody`"),
        ("store rename us usa", "`--yes`"),
        ("store rename us usa --yes --dry-run", "cannot be used with"),
    ] {
        refused(&project, arguments, 2, text);
    }
}

#[test]
fn what_is_in_the_way_is_refused() {
    let project = shop();
    // A file, and a link that leads out of the project.
    project.write("apps/stores/us", "a file");
    refused(
        &project,
        "store move us --parent root --yes",
        2,
        "already exists",
    );
    project.remove("apps/stores/us");
    let project = project.link("apps/stores/us", "/tmp");
    refused(&project, "store move us --parent root --yes", 2, "link");
    project.remove("apps/stores/us");
    std::fs::rename(project.path("apps/stores"), project.path("elsewhere")).unwrap();
    let project = project.link("apps/stores", "../elsewhere");
    let run = project.alokai("store move us --parent root --yes");
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(project.exists("elsewhere/fashion/stores/us"));
}

#[test]
fn a_clash_after_the_move_is_refused() {
    let project = shop();
    let next = "storefront-unified-nextjs";
    project.write(
        &format!("apps/stores/fashion/stores/us/{next}/menu/a.tsx"),
        "",
    );
    project.write(&format!("apps/stores/fashion/stores/eu/{next}/menu"), "");
    refused(
        &project,
        "store move us --parent eu --yes",
        2,
        "stores cannot be composed",
    );
}

#[test]
fn a_merge_conflict_a_submodule_and_a_locked_index_are_refused() {
    let project = shop();
    let blob = project.git("rev-parse HEAD:alokai.config.json");
    let us = "apps/stores/fashion/stores/us";
    let path = format!("{us}/module");
    std::fs::create_dir(project.path(&path)).unwrap();
    let head = project.sha();
    project.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        "160000",
        &head,
        &path,
    ]);
    refused(
        &project,
        "store move us --parent root --yes",
        2,
        "submodule",
    );
    project.git(&["update-index", "--force-remove", &path]);
    let stages = [1, 2, 3].map(|stage| format!("100644 {blob} {stage}\t{us}/conflict\n"));
    let mut child = std::process::Command::new("git")
        .args(["update-index", "--index-info"])
        .current_dir(project.root())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stages.concat().as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    refused(
        &project,
        "store move us --parent root --yes",
        2,
        "merge conflict",
    );
    project.git("reset --quiet");
    project.write(".git/index.lock", "");
    refused(
        &project,
        "store move us --parent root --yes",
        3,
        "index.lock",
    );
    project.remove(".git/index.lock");
    project
        .alokai("store move us --parent root --yes")
        .succeeds();
}

#[test]
fn a_project_without_a_repository_can_be_edited() {
    let project = shop();
    std::fs::remove_dir_all(project.path(".git")).unwrap();
    project
        .alokai("store move us --parent root --yes")
        .succeeds();
    project
        .alokai("store remove us --yes")
        .succeeds()
        .stdout_contains(".alokai/removed/us");
    project.alokai("store list").succeeds();
}

#[test]
fn the_lock_of_another_run_is_waited_for() {
    let project = shop();
    project.alokai("store list").succeeds();
    std::fs::create_dir_all(project.path(".alokai")).unwrap();
    let lock = std::fs::File::create(project.path(".alokai/lock")).unwrap();
    lock.lock().unwrap();
    let mut child = project.start("store move us --parent root --yes");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    assert!(project.exists("apps/stores/fashion/stores/us"));
    lock.unlock().unwrap();
    let output = child.wait_with_output().unwrap();
    let run = crate::support::Run::from(output).succeeds();
    run.stderr_contains("waiting for another run");
    assert!(project.exists("apps/stores/us"));
}
