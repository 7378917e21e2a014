//! The git repository, and whether secrets are kept out of it.

use std::path::Path;

use super::{Diagnosis, ProblemKind};
use crate::config::Project;
use crate::git::Repository;

const CHECK: &str = "git";

/// The most dirty paths that are named.
const SHOWN: usize = 3;

/// Checks the repository.
pub fn check(root: &Path, project: Option<&Project>) -> Vec<Diagnosis> {
    let repository = match Repository::open(root) {
        Ok(repository) => repository,
        Err(error) => {
            return vec![Diagnosis::of_error(CHECK, ProblemKind::External, &error)];
        }
    };
    let mut found = vec![revision(&repository)];
    if repository.is_shallow() {
        found.push(Diagnosis::warning(
            "git history",
            "this clone is shallow: a deploy works, `store changed` and `store drift` need older commits",
            "run `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)",
        ));
    }
    if repository
        .setting("core.filemode")
        .is_some_and(|it| it == "false")
    {
        found.push(Diagnosis::ok(
            "git file modes",
            "`core.fileMode` is off, so executable bits are those of the index",
        ));
    }
    found.extend(secrets(root, project, &repository));
    found
}

fn revision(repository: &Repository) -> Diagnosis {
    let revision = match repository.revision() {
        Ok(revision) => revision,
        Err(error) => return Diagnosis::of_error(CHECK, ProblemKind::External, &error),
    };
    let short = revision.sha.get(..12).unwrap_or(&revision.sha);
    let dirty = revision.dirty.len();
    if dirty == 0 {
        return Diagnosis::ok(
            CHECK,
            format!("HEAD is {short}, without uncommitted changes"),
        );
    }
    let shown: Vec<_> = revision.dirty.iter().take(SHOWN).collect();
    let shown: Vec<_> = shown
        .iter()
        .map(|path| path.escape_debug().to_string())
        .collect();
    let more = if dirty > SHOWN { ", …" } else { "" };
    let paths = if dirty == 1 { "path" } else { "paths" };
    Diagnosis::warning(
        CHECK,
        format!(
            "HEAD is {short}; {dirty} uncommitted {paths}: {}{more}",
            shown.join(", ")
        ),
        "commit or stash them; a deploy of uncommitted changes needs `--allow-dirty`",
    )
}

/// Whether git ignores the `.env` of the project, which has the credentials, and those of its apps.
fn secrets(root: &Path, project: Option<&Project>, repository: &Repository) -> Option<Diagnosis> {
    let apps = project.into_iter().flat_map(|project| &project.apps);
    let apps = apps.map(|app| format!("apps/{}/.env", app.name));
    let files = std::iter::once(".env".to_owned()).chain(apps);
    let there: Vec<_> = files.filter(|file| root.join(file).is_file()).collect();
    let is_open =
        |file: &&String| repository.tracks(file) || !repository.ignores(file).unwrap_or(true);
    let open: Vec<_> = there.iter().filter(is_open).collect();
    if there.is_empty() {
        return None;
    }
    if open.is_empty() {
        return Some(Diagnosis::ok(".env", "ignored by git"));
    }
    let names: Vec<_> = open.iter().map(|file| format!("`{file}`")).collect();
    let is_tracked = open.iter().any(|file| repository.tracks(file));
    let next = if is_tracked {
        "add `.env` to `.gitignore`, run `git rm --cached` for the file, and change passwords that were committed"
    } else {
        "add `.env` to `.gitignore`, so that passwords in it are not committed"
    };
    Some(Diagnosis::warning(
        ".env",
        format!(
            "{} not ignored by git",
            match names.as_slice() {
                [one] => format!("{one} is"),
                several => format!("{} are", several.join(", ")),
            }
        ),
        next,
    ))
}
