//! `store drift`.

use std::path::Path;

use serde_json::json;

use super::arguments::{DriftOptions, Global};
use super::environment::tell;
use super::run::document;
use super::show::Page;
use super::{Error, answer, environment, project};
use crate::compare::{self, Drift, Override, OverrideState};
use crate::config::{Project, nearest};
use crate::disk::write_atomically;
use crate::error::Error as AnyError;
use crate::git::Commit;
use crate::store::Store;
use virtual_path::normalize;

pub fn drift(global: &Global, options: &DriftOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    if let Some(path) = &options.merge {
        return merge(global, &project, path);
    }
    let stores = stores(&project, &options.stores)?;
    let drift = compare::drift(&project, &stores, options.patch)?;
    if options.json {
        let mut value = json!(drift);
        if let Some(object) = value.as_object_mut() {
            object.shift_insert(0, "schemaVersion".into(), 1.into());
        }
        document(&value)?;
    } else {
        let mut page = Page::new(&project.root);
        if options.patch {
            for one in &drift.overrides {
                page.patch(&one.missed);
            }
        } else {
            overview(&drift, &mut page);
        }
        page.show()?;
    }
    if let (true, Some(oldest)) = (drift.shallow, &drift.oldest) {
        tell(&format!(
            "note: this clone is shallow: its history starts at {} ({}), so older changes are not included; run `git fetch --unshallow` to fetch them",
            short(oldest),
            commits(drift.commits)
        ));
    }
    let count = |standing: OverrideState| {
        let all = drift.overrides.iter();
        all.filter(|one| one.standing == standing).count()
    };
    let mut failing = options.fail_on.iter().map(|it| it.standing());
    if let Some(standing) = failing.find(|standing| count(*standing) > 0) {
        let count = count(standing);
        return Err(Error::Drift { count, standing }.into());
    }
    // Exit code 0 would be a guess.
    let cut_off = drift.overrides.iter().filter(|one| one.cut_off).count();
    if cut_off > 0 && !options.fail_on.is_empty() {
        return Err(Error::HistoryEnds { count: cut_off }.into());
    }
    Ok(())
}

/// The named stores and templates, or all.
pub fn stores<'a>(project: &'a Project, ids: &[String]) -> Result<Vec<&'a Store>, AnyError> {
    if ids.is_empty() {
        return Ok(project.stores.iter().collect());
    }
    let find = |id: &String| {
        project.stores.get(id).ok_or_else(|| {
            let known = project.stores.iter().map(|store| store.id.as_str());
            Error::NoStore {
                id: id.clone(),
                nearest: nearest(id, known).map(str::to_owned),
            }
        })
    };
    Ok(ids.iter().map(find).collect::<Result<_, _>>()?)
}

fn overview(drift: &Drift, page: &mut Page) {
    let of = |standing: OverrideState| -> Vec<&Override> {
        let all = drift.overrides.iter();
        all.filter(|one| one.standing == standing).collect()
    };
    for standing in [
        OverrideState::Behind,
        OverrideState::Orphan,
        OverrideState::Identical,
    ] {
        let overrides = of(standing);
        if overrides.is_empty() {
            continue;
        }
        page.title(match standing {
            OverrideState::Behind => "behind: the inherited file has changed since",
            OverrideState::Orphan => "orphan: the overridden file no longer exists",
            _ => "identical: the override is the same as the overridden file",
        });
        for one in overrides {
            let from = one.inherits_from.as_ref().map(ToString::to_string);
            let from = from.unwrap_or_default();
            page.plain(&format!("  {}\n", one.file.escape_debug()));
            match standing {
                OverrideState::Behind => {
                    let what = match (one.commits.len(), one.uncommitted) {
                        (0, _) => "uncommitted changes".to_owned(),
                        (count, false) => commits(count),
                        (count, true) => format!("{} and uncommitted changes", commits(count)),
                    };
                    page.plain(&format!("    misses {what} of {from}\n"));
                }
                OverrideState::Orphan if one.uncommitted => {
                    page.plain(&format!("    removed from {from}, not committed yet\n"));
                }
                OverrideState::Orphan => page.plain(&format!("    removed from {from} by\n")),
                _ => {}
            }
            for commit in &one.commits {
                page.plain(&format!("    {} {}\n", short(commit), commit.subject));
            }
        }
        page.plain("\n");
    }
    let counts = [
        OverrideState::Current,
        OverrideState::Behind,
        OverrideState::Orphan,
        OverrideState::Identical,
    ]
    .map(|standing| (standing, of(standing).len()));
    let counts: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(standing, count)| format!("{count} {standing}"))
        .collect();
    page.plain(&match drift.overrides.len() {
        0 => "no store overrides a file\n".to_owned(),
        1 => format!("1 override: {}\n", counts.join(", ")),
        count => format!("{count} overrides: {}\n", counts.join(", ")),
    });
}

fn commits(count: usize) -> String {
    match count {
        1 => "1 commit".into(),
        count => format!("{count} commits"),
    }
}

fn short(commit: &Commit) -> String {
    let sha = commit.sha.get(..12).unwrap_or(&commit.sha);
    format!("{sha} {}", commit.date.get(..10).unwrap_or(&commit.date))
}

/// Merges the missed changes into an override. The file is not staged.
fn merge(global: &Global, project: &Project, path: &Path) -> Result<(), AnyError> {
    // A path relative to the project, as `drift` prints it, or relative to the current folder.
    let here = normalize(&environment::start(global.cwd.as_deref())?.join(path));
    let inside = here.strip_prefix(&project.root).ok();
    let as_shown = path.is_relative() && project.root.join(path).symlink_metadata().is_ok();
    let file = match inside.filter(|_| !as_shown && here.symlink_metadata().is_ok()) {
        Some(inside) => inside.to_string_lossy().into_owned(),
        None => path.to_string_lossy().trim_start_matches("./").to_owned(),
    };
    let merged = compare::merge(project, &file)?;
    let Some(content) = &merged.content else {
        return answer(&format!("{}: no missed changes\n", merged.file));
    };
    let path = project.root.join(&merged.file);
    write_atomically(&path, content).map_err(|source| Error::Write { path, source })?;
    if merged.conflicts > 0 {
        return Err(Error::Conflicts {
            path: merged.file,
            count: merged.conflicts,
        }
        .into());
    }
    answer(&format!("{}: merged; review and commit it\n", merged.file))
}
