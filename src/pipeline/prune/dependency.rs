//! The files of an installed package that are kept: all except those that `prune.drop` names and
//! nothing needs.
//!
//! `prune.drop` is a list of names and can be wrong about a package. So three rules override it:
//! a file is kept if the package's manifest names it, a folder is kept if such a file is in it,
//! and a folder is kept if code mentions it, in this package or in another one. A folder that is
//! kept without need costs some kilobytes; a folder that is missing fails in production.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::super::failure::Io;
use super::copy::files;
use crate::config::DropList;
use crate::workspace::installed::{self, NODE_MODULES};
use virtual_path::normalize;

/// The files of an installed package.
pub struct DependencyFiles {
    /// The name by which the package is loaded.
    name: String,
    /// Paths in the package, each with its path on disk.
    files: Vec<(PathBuf, PathBuf)>,
    entry_points: EntryPoints,
    /// Folders that `prune.drop` names and for which no use has been found.
    dropped: BTreeSet<PathBuf>,
}

impl DependencyFiles {
    /// Lists the package that is loaded as `name`.
    pub fn read(name: &str, source: &Path, list: &DropList) -> Result<Self, Io> {
        // Packages in the top-level `node_modules` are copied by themselves. Deeper folders of this
        // name are output of bundlers (`dist/node_modules/tslib`) and belong to the package.
        let is_never_output =
            |path: &Path| path == Path::new(NODE_MODULES) || path.ends_with(".git");
        let files = files(source, |path| !is_never_output(path))?;
        let entry_points = EntryPoints::read(source);
        let mut dropped = BTreeSet::new();
        for (path, _) in &files {
            list.drops(path, |folder| {
                let is_unused = !entry_points.are_in(folder);
                if is_unused {
                    dropped.insert(folder.to_owned());
                }
                is_unused
            });
        }
        Ok(Self {
            name: name.to_owned(),
            files,
            entry_points,
            dropped,
        })
    }

    /// The files that are kept.
    pub fn kept(&self, list: &DropList) -> impl Iterator<Item = &(PathBuf, PathBuf)> {
        let drops = move |path: &Path| {
            !self.entry_points.contain(path)
                && list.drops(path, |folder| self.dropped.contains(folder))
        };
        self.files.iter().filter(move |(path, _)| !drops(path))
    }
}

/// Keeps the folders that code mentions: code of the package itself, of another package, or of the
/// app, whose files are `code`.
pub fn keep_mentioned(
    packages: &mut [DependencyFiles],
    code: &[PathBuf],
    list: &DropList,
) -> Result<(), Io> {
    let words = words(packages);
    if words.is_empty() {
        return Ok(());
    }
    let needles: Vec<_> = words.keys().map(String::as_str).chain(OF_FILES).collect();
    // It fails only for far more words than a project has. Then no folder is dropped.
    let Ok(search) = AhoCorasick::new(&needles) else {
        for package in packages {
            package.dropped.clear();
        }
        return Ok(());
    };
    let mut waiting: Vec<(Option<usize>, PathBuf, PathBuf)> = Vec::new();
    waiting.extend(code.iter().map(|file| (None, PathBuf::new(), file.clone())));
    for (index, package) in packages.iter().enumerate() {
        let kept = package.kept(list).cloned();
        waiting.extend(kept.map(|(path, file)| (Some(index), path, file)));
    }
    while let Some((user, path, file)) = waiting.pop() {
        if !is_code(&path) && !is_code(&file) {
            continue;
        }
        let text = std::fs::read(&file).map_err(Io::at("read", &file))?;
        let hits: Vec<_> = search.find_overlapping_iter(&text).collect();
        let knows_place = hits
            .iter()
            .any(|hit| hit.pattern().as_usize() >= words.len());
        for hit in hits {
            let Some(owners) = words.get(needles[hit.pattern()]) else {
                continue;
            };
            let around = WordContext {
                before: &text[..hit.start()],
                after: text.get(hit.end()).copied(),
            };
            for (owner, folder) in owners {
                let mentions = match user {
                    Some(user) if user == *owner => around.leads_to(folder, &path, knows_place),
                    _ => needles[hit.pattern()].contains('/') && around.is_module(),
                };
                if mentions && packages[*owner].dropped.remove(folder) {
                    // The files in the folder are kept now, so their code is searched too.
                    let inside = packages[*owner].files.iter();
                    let inside = inside.filter(|(path, _)| path.starts_with(folder)).cloned();
                    waiting.extend(inside.map(|(path, file)| (Some(*owner), path, file)));
                }
            }
        }
    }
    Ok(())
}

/// Words that show that the code knows the path of its own file.
const OF_FILES: [&str; 2] = ["__dirname", "import.meta"];

/// The words that mention a dropped folder, each with the package and the folder: `examples` in
/// code of the package `three` itself, `three/examples` in other code.
fn words(packages: &[DependencyFiles]) -> BTreeMap<String, Vec<(usize, PathBuf)>> {
    let mut words = BTreeMap::<String, Vec<_>>::new();
    for (index, package) in packages.iter().enumerate() {
        for folder in &package.dropped {
            let inside = folder.file_name().unwrap_or_default().to_string_lossy();
            let outside = format!("{}/{}", package.name, folder.display());
            for word in [inside.into_owned(), outside] {
                words.entry(word).or_default().push((index, folder.clone()));
            }
        }
    }
    words
}

/// The text around a word that was found.
struct WordContext<'a> {
    before: &'a [u8],
    after: Option<u8>,
}

impl WordContext<'_> {
    fn ends(&self) -> bool {
        self.after.is_some_and(|byte| b"/'\"`".contains(&byte))
    }

    /// Whether the text refers to the folder from the file at `path`: `'../test/x'`, or, in code
    /// that knows the path of its own file, a text such as `'test'` or `'/lib/test/'`.
    fn leads_to(&self, folder: &Path, path: &Path, knows_place: bool) -> bool {
        let is_end = |byte: &u8| b"'\"`}\n".contains(byte);
        let start = self.before.iter().rposition(is_end);
        let Some(start) = start.filter(|_| self.ends()) else {
            return false;
        };
        let way = String::from_utf8_lossy(&self.before[start + 1..]);
        let name = folder.file_name().unwrap_or_default();
        if way.starts_with('.') {
            let above = path.parent().unwrap_or(path);
            return normalize(&above.join(&*way).join(name)) == *folder;
        }
        let way = Path::new(way.trim_start_matches('/'));
        knows_place && folder.ends_with(normalize(&way.join(name)))
    }

    /// Whether the word is at the beginning of a module's name.
    fn is_module(&self) -> bool {
        let begins = self
            .before
            .last()
            .is_some_and(|byte| b"'\"`".contains(byte));
        self.ends() && (begins || self.before.ends_with(b"node_modules/"))
    }
}

fn is_code(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default();
    ["js", "cjs", "mjs"].iter().any(|code| end == *code)
}

/// Whether the list drops `file`, which a tracer, such as that of Next.js, has copied below
/// `root`. Folders are kept, since a traced file is one that the app loads.
pub fn drops_traced(list: &DropList, root: &Path, file: &Path) -> bool {
    let inner = file.strip_prefix(root).unwrap_or(file);
    let packages = installed::packages(inner);
    let nearest = packages
        .iter()
        .rev()
        .map(|package| package.folder.as_path())
        .find(|folder| *folder != inner && root.join(folder).join("package.json").is_file());
    let Some((package, path)) =
        nearest.and_then(|package| Some((package, inner.strip_prefix(package).ok()?)))
    else {
        return false;
    };
    // The manifest is read only for the few files that the list drops.
    list.drops(path, |_| false) && !EntryPoints::read(&root.join(package)).contain(path)
}

/// The files that a manifest names as entry points.
#[derive(Debug, Default)]
struct EntryPoints {
    /// Without `./`. An extension or `/index.js` can be missing.
    files: BTreeSet<PathBuf>,
    /// The texts before and after the `*` of a pattern in `exports`. The former names a folder.
    stars: Vec<(String, String)>,
}

impl EntryPoints {
    /// Reads the manifest in `folder`. A manifest that cannot be read has no entry points.
    fn read(folder: &Path) -> Self {
        let mut entries = Self::default();
        let text = std::fs::read(folder.join("package.json")).unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
        for field in ["main", "module", "browser", "exports", "imports", "bin"] {
            entries.collect(&manifest[field]);
        }
        entries
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::String(target) => {
                let target = target.trim_start_matches("./").trim_start_matches('/');
                match target.split_once('*') {
                    Some((before, after)) if before.contains('/') => {
                        self.stars.push((before.to_owned(), after.to_owned()));
                    }
                    // `./*` exports every file, which says nothing about a single one.
                    Some(_) => {}
                    None => {
                        self.files.insert(normalize(Path::new(target)));
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            Value::Object(fields) => {
                // Only the TypeScript compiler reads the condition `types`.
                let loaded = fields.iter().filter(|(key, _)| !key.starts_with("types"));
                loaded.for_each(|(_, value)| self.collect(value));
            }
            _ => {}
        }
    }

    /// Whether the file is an entry point.
    fn contain(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        let ends = ["", ".js", ".cjs", ".mjs", ".json", ".node"];
        let is_entry = self.files.contains(path)
            || ends.iter().any(|end| {
                let bare = text.strip_suffix(end).unwrap_or(&text);
                let folder = bare.strip_suffix("/index").unwrap_or(bare);
                text.ends_with(end)
                    && (self.files.contains(Path::new(bare))
                        || self.files.contains(Path::new(folder)))
            });
        is_entry
            || self.stars.iter().any(|(before, after)| {
                let is_loaded = ends[1..].iter().any(|end| text.ends_with(end));
                text.starts_with(&**before)
                    && text.ends_with(&**after)
                    && (is_loaded || after.contains('.'))
            })
    }

    /// Whether an entry point is in the folder, or is the folder itself.
    fn are_in(&self, folder: &Path) -> bool {
        let starts = |path: &Path| path.starts_with(folder);
        self.files.iter().any(|file| starts(file))
            || self
                .stars
                .iter()
                .any(|(before, _)| starts(Path::new(before)))
    }
}
