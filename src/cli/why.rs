//! `store why`.

use std::fmt::Write as _;

use super::arguments::{Global, WhyOptions};
use super::run::document;
use super::{answer, environment, project};
use crate::compare::{self, LayerAnswer, Why};
use crate::config::{FILE, Project};
use crate::error::Error as AnyError;
use crate::plan::Selection;
use crate::store::Store;
use virtual_path::normalize;

pub fn why(global: &Global, options: &WhyOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let stores = Selection::Stores(vec![options.store.clone()]).stores(&project)?;
    for store in stores {
        let path = path_in_store(global, &project, store, &options.path)?;
        let why = compare::why(&project, store, &path)?;
        if options.json {
            let mut value = serde_json::to_value(&why).unwrap_or_default();
            if let Some(object) = value.as_object_mut() {
                object.shift_insert(0, "schemaVersion".into(), 1.into());
            }
            document(&value)?;
        } else {
            answer(&text(&why))?;
        }
    }
    Ok(())
}

/// `<app>/<path>` as given, or of the path of a file in `apps` or `.out`, as completed by a shell.
pub fn path_in_store(
    global: &Global,
    project: &Project,
    store: &Store,
    given: &str,
) -> Result<String, AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    let here = normalize(&start.join(given));
    let inside = [project.root.join(given), here]
        .iter()
        .filter_map(|path| path.strip_prefix(&project.root).ok()?.to_str())
        .find_map(|path| compare::composed_path(project, store, path));
    Ok(inside.unwrap_or_else(|| given.to_owned()))
}

fn text(why: &Why) -> String {
    let mut out = format!("{}/{}\n", why.unit, why.path.escape_debug());
    if let Some(dropped) = &why.dropped {
        let place = match dropped.line {
            Some(line) => format!("{FILE}:{line}"),
            None => FILE.to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "  dropped by `{}` in `ignorePaths` of {} ({place})",
            dropped.rule, dropped.store_id
        );
    }
    if let Some(winner) = &why.winner {
        line(&mut out, "from", winner);
    }
    for hidden in &why.hidden {
        let verb = if why.winner.is_some() {
            "overrides"
        } else {
            "exists in"
        };
        line(&mut out, verb, hidden);
    }
    if let Some(special) = &why.special {
        let _ = writeln!(out, "  {special}");
    }
    out
}

fn line(out: &mut String, verb: &str, layer: &LayerAnswer) {
    let _ = writeln!(
        out,
        "  {verb} {}: {}",
        layer.layer,
        layer.file.escape_debug()
    );
    let _ = match &layer.last_commit {
        Some(commit) => writeln!(
            out,
            "    last changed by {} on {}: {}",
            &commit.sha[..12.min(commit.sha.len())],
            commit.date.get(..10).unwrap_or(&commit.date),
            commit.subject
        ),
        None => writeln!(out, "    not committed yet"),
    };
}
