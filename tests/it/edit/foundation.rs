//! Edits as values: what a simulation shows is what happens, a failure undoes everything, and a killed
//! edit is undone or completed.

use std::path::Path;
use std::sync::Arc;

use alokai::edit::{Change, EditedFiles, Error, NewContent, TreeEdit, apply, recover};
use alokai::files::{DiskFiles, FileTree, PathKind};

use crate::support::Project;

const EU: &str = "apps/stores/fashion/stores/eu";

fn edit(changes: Vec<Change>) -> TreeEdit {
    TreeEdit {
        command: "alokai store test".into(),
        changes,
    }
}

fn move_to(from: &str, to: &str) -> Change {
    Change::Move {
        from: from.into(),
        to: to.into(),
    }
}

fn create(path: &str) -> Change {
    Change::Write {
        path: path.into(),
        old: None,
        new: NewContent::text("new\n"),
    }
}

/// Every path below a folder of a tree with its content; folders have none.
fn listing(files: &dyn FileTree, folder: &Path, into: &mut Vec<(String, Option<Vec<u8>>)>) {
    for (name, kind) in files.entries(folder).unwrap() {
        let path = folder.join(name);
        assert_eq!(
            std::mem::discriminant(&files.kind(&path).unwrap()),
            std::mem::discriminant(&kind)
        );
        let shown = path.display().to_string();
        match kind {
            PathKind::Folder => {
                into.push((shown, None));
                listing(files, &path, into);
            }
            PathKind::Link => into.push((shown, Some(b"link".to_vec()))),
            _ => into.push((shown, Some(files.read(&path).unwrap()))),
        }
    }
}

fn all(files: &dyn FileTree, project: &Project) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for folder in ["apps", "docs"] {
        let folder = project.path(folder);
        if files.kind(&folder).is_ok() {
            listing(files, &folder, &mut found);
        }
    }
    found
}

/// An edit with every kind of change.
fn every_change(project: &Project) -> TreeEdit {
    edit(vec![
        move_to(EU, "apps/stores/new/deep/eu"),
        Change::Remove {
            path: "apps/stores/fashion/storefront-unified-nextjs".into(),
            keep: None,
        },
        Change::Remove {
            path: "apps/stores/fashion/stores/us".into(),
            keep: Some(".alokai/removed/us".into()),
        },
        Change::RemoveEmptyFolder {
            path: "apps/stores/fashion/stores".into(),
        },
        Change::MakeFolder {
            path: "apps/stores/made/empty".into(),
        },
        create("docs/a/b.md"),
        Change::Write {
            path: "docs/link".into(),
            old: None,
            new: NewContent::Link {
                target: "a/b.md".into(),
            },
        },
        Change::Write {
            path: "apps/storefront-middleware/src/index.js".into(),
            old: Some(
                project
                    .read("apps/storefront-middleware/src/index.js")
                    .into(),
            ),
            new: NewContent::text("changed\n"),
        },
    ])
}

#[test]
fn a_simulation_has_the_files_that_the_edit_makes() {
    let project = Project::shop();
    project.write(&format!("{EU}/untracked.txt"), "untracked");
    let edit = every_change(&project);
    let simulated = EditedFiles::new(project.root(), &edit, Arc::new(DiskFiles));
    let before = all(&DiskFiles, &project);
    let shown = all(&simulated, &project);
    assert_eq!(all(&DiskFiles, &project), before, "a simulation only reads");
    apply(&edit, project.root()).unwrap();
    assert_eq!(all(&DiskFiles, &project), shown);
    assert_ne!(shown, before);
    assert!(!project.exists(".alokai/edit"));
    assert!(project.exists(".alokai/removed/us/storefront-unified-nextjs/texts.txt"));
}

#[test]
fn the_index_follows_moves_and_removals_and_nothing_is_staged() {
    let project = Project::shop();
    // Staged content is kept, and so is a change that is not staged.
    let texts = format!("{EU}/storefront-unified-nextjs/texts.txt");
    project.write(&texts, "staged\n");
    project.git("add --all");
    project.write(&texts, "not staged\n");
    let edit = every_change(&project);
    apply(&edit, project.root()).unwrap();
    insta::assert_snapshot!(project.git("status --short --untracked-files=all --find-renames=0"));
}

#[test]
fn a_change_that_fails_undoes_the_changes_before() {
    let project = Project::shop();
    let before = (all(&DiskFiles, &project), project.git("ls-files --stage"));
    // A folder that nobody can write: only the system knows that the last change fails.
    let locked = project.path("apps/locked");
    std::fs::create_dir(&locked).unwrap();
    let mut edit = every_change(&project);
    edit.changes.push(create("apps/locked/x"));
    let permissions = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&locked, permissions(0o555)).unwrap();
    let result = if crate::support::is_root() {
        // Permissions do not bind root; a name that no file system takes does the same.
        edit.changes.pop();
        edit.changes
            .push(create(&format!("apps/{}", "x".repeat(300))));
        apply(&edit, project.root())
    } else {
        apply(&edit, project.root())
    };
    std::fs::set_permissions(&locked, permissions(0o755)).unwrap();
    std::fs::remove_dir(&locked).unwrap();
    let Err(Error::Io { path, .. }) = result else {
        panic!("{result:?}");
    };
    assert!(path.starts_with(project.path("apps")), "{path:?}");
    assert_eq!(
        (all(&DiskFiles, &project), project.git("ls-files --stage")),
        before
    );
    assert_eq!(recover(project.root()).unwrap(), None);
}

#[test]
fn hostile_paths_are_refused() {
    let project = Project::shop().link("apps/linked", "../elsewhere");
    std::fs::create_dir(project.path("elsewhere")).unwrap();
    let before = project.git("status --short --untracked-files=all");
    for path in [
        "../x",
        "/etc/x",
        "apps/../../x",
        "apps//x",
        "./x",
        "",
        "apps/x/.git/config",
        ".GIT/hooks/x",
        ".alokai/lock2",
        ".alokai/removed/../x",
        ".alokai/removed",
        ".out/us/x",
        "apps/linked/x",
        "alokai.config.json/x",
        "apps/x\0y",
    ] {
        let refused = apply(&edit(vec![create(path)]), project.root());
        assert!(
            matches!(refused, Err(Error::Path { .. })),
            "{path:?}: {refused:?}"
        );
    }
    let taken = apply(&edit(vec![create("alokai.config.json")]), project.root());
    assert!(matches!(taken, Err(Error::Exists { .. })), "{taken:?}");
    let onto = apply(&edit(vec![move_to(EU, "elsewhere")]), project.root());
    assert!(matches!(onto, Err(Error::Exists { .. })), "{onto:?}");
    let tangled = edit(vec![
        move_to("apps/stores/fashion", "apps/stores/x"),
        create("apps/stores/fashion/y"),
    ]);
    let tangled = apply(&tangled, project.root());
    assert!(matches!(tangled, Err(Error::Path { .. })), "{tangled:?}");
    assert_eq!(project.git("status --short --untracked-files=all"), before);
}
