//! `store overlays`.

use std::collections::BTreeSet;

use serde_json::json;

use super::arguments::{Global, OverlaysOptions};
use super::run::document;
use super::show::Page;
use super::{Error, answer_bytes, drift, project};
use crate::compare::{self, OverlayDifference, OverlayFile, OverriddenPath};
use crate::config::Project;
use crate::error::Error as AnyError;

pub fn overlays(global: &Global, options: &OverlaysOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let stores = drift::stores(&project, &options.stores)?;
    let stores: BTreeSet<_> = stores.iter().map(|store| &store.id).collect();
    if let Some(app) = &options.app {
        check_app(&project, app)?;
    }
    let paths = compare::overlays(&project, |store, app| {
        let is_of_app = options
            .app
            .as_ref()
            .is_none_or(|wanted| app.as_str() == wanted);
        is_of_app && stores.contains(&store.id)
    })?;
    if options.json {
        return document(&json!({ "schemaVersion": 1, "paths": paths }));
    }
    if options.csv {
        return answer_bytes(&csv(&paths)?);
    }
    let mut page = Page::new(&project.root);
    overview(&paths, options, &mut page);
    page.show()
}

fn check_app(project: &Project, app: &str) -> Result<(), AnyError> {
    let names = || project.apps.iter().map(|app| app.name.as_str());
    if names().any(|name| name == app) {
        return Ok(());
    }
    Err(compare::Error::NoSuchApp {
        app: app.to_owned(),
        apps: names().map(str::to_owned).collect(),
    }
    .into())
}

fn overview(paths: &[OverriddenPath], options: &OverlaysOptions, page: &mut Page) {
    let limit = options.limit;
    let shown = if limit == 0 { paths.len() } else { limit };
    for path in paths.iter().take(shown) {
        let name = format!("{}/{}", path.app, path.path);
        page.title(&name.escape_debug().to_string());
        page.plain(&format!("  {}\n", frequency(path)));
        let width = |text: fn(&OverlayFile) -> usize| path.overrides.iter().map(text).max();
        let store = width(|one| one.store_id.as_str().len()).unwrap_or_default();
        let hides = width(|one| one.hides.to_string().len()).unwrap_or_default();
        for one in &path.overrides {
            page.plain(&format!(
                "    {:store$}  hides {:hides$}  {}\n",
                one.store_id.as_str(),
                one.hides.to_string(),
                distance(one.difference)
            ));
        }
        page.plain("\n");
    }
    page.plain(&total(paths, options));
    if paths.len() > shown {
        page.plain(&format!(
            "{shown} of {} paths are shown; `--limit 0` shows all\n",
            paths.len()
        ));
    }
    if paths.iter().any(|path| path.overrides.len() > 1) {
        page.paragraph(
            "",
            "A path that many stores override, each by a few lines, is where the base app should get an extension point: a prop, a slot or a setting.",
        );
    }
}

/// `3 overrides with 2 different contents, +12 -3 lines`.
fn frequency(path: &OverriddenPath) -> String {
    let count = counted(path.overrides.len(), "override");
    let versions = if path.versions < path.overrides.len() {
        format!(" with {}", counted(path.versions, "different content"))
    } else {
        String::new()
    };
    format!(
        "{count}{versions}, lines: +{} -{}",
        path.added, path.removed
    )
}

fn distance(difference: OverlayDifference) -> String {
    match difference {
        OverlayDifference::Identical => format!("{difference}, so the override is not needed"),
        _ => difference.to_string(),
    }
}

fn total(paths: &[OverriddenPath], options: &OverlaysOptions) -> String {
    if paths.is_empty() {
        let app = options.app.as_ref();
        let of_app = app.map(|app| format!(" of `{app}`")).unwrap_or_default();
        return match options.stores.as_slice() {
            [] => format!("no store overrides a file{of_app}\n"),
            [id] => format!("`{id}` overrides no file{of_app}\n"),
            ids => format!("`{}` override no file{of_app}\n", ids.join("`, `")),
        };
    }
    let all = || paths.iter().flat_map(|path| &path.overrides);
    let stores: BTreeSet<_> = all().map(|one| &one.store_id).collect();
    format!(
        "{} of {} in {}\n",
        counted(all().count(), "override"),
        counted(paths.len(), "path"),
        counted(stores.len(), "store")
    )
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// One record for each override, in the order of the text. The number of overrides of its path is in
/// each record, so that a spreadsheet can sort by it.
fn csv(paths: &[OverriddenPath]) -> Result<Vec<u8>, AnyError> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let failed = |source: std::io::Error| Error::Output { source };
    let header = [
        "app",
        "path",
        "overrides",
        "store",
        "file",
        "hides",
        "hidden file",
        "difference",
        "added",
        "removed",
    ];
    writer
        .write_record(header)
        .map_err(|error| failed(error.into()))?;
    for path in paths {
        let overrides = path.overrides.len().to_string();
        for one in &path.overrides {
            let (difference, added, removed) = columns(one.difference);
            let hides = one.hides.to_string();
            let record = [
                path.app.as_str(),
                &path.path,
                &overrides,
                one.store_id.as_str(),
                &one.file,
                &hides,
                &one.hidden_file,
                difference,
                &added,
                &removed,
            ];
            writer
                .write_record(record)
                .map_err(|error| failed(error.into()))?;
        }
    }
    writer
        .into_inner()
        .map_err(|error| failed(error.into_error()).into())
}

/// The last three columns. The counts are empty where lines are not compared.
fn columns(difference: OverlayDifference) -> (&'static str, String, String) {
    let (name, counts) = match difference {
        OverlayDifference::Identical => ("identical", Some((0, 0))),
        OverlayDifference::Mode => ("mode", Some((0, 0))),
        OverlayDifference::Lines { added, removed } => ("lines", Some((added, removed))),
        OverlayDifference::Binary => ("binary", None),
        OverlayDifference::Link => ("link", None),
    };
    let (added, removed) = counts.unzip();
    let text = |count: Option<usize>| count.map(|count| count.to_string()).unwrap_or_default();
    (name, text(added), text(removed))
}
