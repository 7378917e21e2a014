//! Imports that a change breaks: they resolve in the composition before it, and not in the one after.

use std::collections::BTreeSet;
use std::path::Path;

use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::Value;

use super::super::check::imports::{imports_where, is_source, targets};
use super::{BrokenImport, StoreCompositions, StoreImpact};
use crate::overlay::Composition;
use crate::store::{AppKind, Framework};

/// The imports in the composition after a change that resolve only before it, or whose file a rule
/// drops after it.
///
/// An import that resolves on neither side is left out: a build may generate the file.
pub fn broken_imports(
    before: &StoreCompositions,
    after: &StoreCompositions,
    impact: &StoreImpact,
) -> Vec<BrokenImport> {
    let lost = !impact.lost.is_empty();
    let touched = impact.gained.iter().chain(&impact.changed);
    let touched: BTreeSet<&str> = touched.map(|path| path.path.as_str()).collect();
    let mut broken = BTreeSet::new();
    for (app, composition) in after {
        let aliases = Aliases::of(composition);
        for (path, entry) in &composition.entries {
            let name = format!("{app}/{path}");
            // An unchanged file loses an import only with a lost file.
            if !is_source(path) || !(lost || touched.contains(name.as_str())) {
                continue;
            }
            let Ok(text) = entry.read() else { continue };
            let text = String::from_utf8_lossy(&text);
            let wanted = |specifier: &str| {
                specifier.starts_with("./")
                    || specifier.starts_with("../")
                    || aliases.expand(specifier).next().is_some()
            };
            for import in imports_where(&text, wanted) {
                let candidates = candidates(&name, &import.specifier, app.as_str(), &aliases);
                let resolves = |side: &StoreCompositions| candidates.iter().any(|it| has(side, it));
                let was_there = resolves(before) || candidates.iter().any(|it| drops(after, it));
                if was_there && !resolves(after) {
                    broken.insert(BrokenImport {
                        path: name.clone(),
                        line: import.line,
                        import: import.specifier,
                        owner: composition.layers[entry.winner()].clone(),
                    });
                }
            }
        }
    }
    broken.into_iter().collect()
}

/// The paths `<app>/<path>` at which an imported file may be.
fn candidates(importer: &str, specifier: &str, app: &str, aliases: &Aliases) -> Vec<String> {
    let file = Path::new("/").join(importer);
    let folder = file.parent().unwrap_or(Path::new("/"));
    let root = Path::new("/").join(app);
    let relative = specifier
        .starts_with('.')
        .then(|| targets(folder, specifier));
    let aliased = aliases
        .expand(specifier)
        .map(|path| targets(&root, &path))
        .collect::<Vec<_>>();
    let all = relative.into_iter().chain(aliased).flatten();
    all.filter_map(|path| Some(path.to_str()?.trim_start_matches('/').to_owned()))
        .collect()
}

fn has(side: &StoreCompositions, path: &str) -> bool {
    let found = path.split_once('/').and_then(|(app, path)| {
        let composition = side.iter().find(|(name, _)| name.as_str() == app)?.1;
        composition.entries.get(path)
    });
    found.is_some()
}

fn drops(side: &StoreCompositions, path: &str) -> bool {
    let found = path.split_once('/').and_then(|(app, path)| {
        let composition = side.iter().find(|(name, _)| name.as_str() == app)?.1;
        composition.dropped.get(path)
    });
    found.is_some()
}

/// Prefixes of specifiers, and the folders of the app that they stand for.
struct Aliases(Vec<(String, String)>);

impl Aliases {
    /// The `paths` of the composed `tsconfig.json` that end in `*`, and the aliases of Nuxt.
    fn of(composition: &Composition) -> Self {
        let mut found = Vec::new();
        let text = composition.entries.get("tsconfig.json");
        let text = text.and_then(|entry| String::from_utf8(entry.read().ok()?).ok());
        let config: Option<Value> =
            text.and_then(|text| parse_to_serde_value(&text, &ParseOptions::default()).ok());
        let options = config.as_ref().map(|config| &config["compilerOptions"]);
        let base = options.and_then(|options| options["baseUrl"].as_str());
        let base = base.unwrap_or(".");
        let paths = options.and_then(|options| options["paths"].as_object());
        for (pattern, folders) in paths.into_iter().flatten() {
            let Some(prefix) = pattern.strip_suffix('*').filter(|it| !it.is_empty()) else {
                continue;
            };
            for folder in folders.as_array().into_iter().flatten() {
                if let Some(folder) = folder.as_str().and_then(|it| it.strip_suffix('*')) {
                    found.push((prefix.to_owned(), format!("{base}/{folder}")));
                }
            }
        }
        if composition.kind == AppKind::Frontend(Framework::Nuxt) {
            for prefix in ["~/", "@/", "~~/", "@@/"] {
                for folder in ["./", "./app/"] {
                    found.push((prefix.to_owned(), folder.to_owned()));
                }
            }
        }
        Self(found)
    }

    /// The paths that a specifier stands for, relative to the app.
    fn expand<'a>(&'a self, specifier: &'a str) -> impl Iterator<Item = String> + 'a {
        self.0.iter().filter_map(move |(prefix, folder)| {
            let rest = specifier.strip_prefix(prefix.as_str())?;
            Some(format!("{folder}{rest}"))
        })
    }
}
