//! What of an installed package stays: all but what `prune.drop` names and nothing needs.
//!
//! A list of names is a guess. So three things weigh more: a file that the package's manifest
//! names stays, a folder stays in which such a file lies, and a folder stays that code
//! mentions, the package's own or another's. A folder too many costs some kilobytes; one too
//! few is found in production.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::super::failure::Io;
use super::copy::files;
use crate::config::DropList;
use crate::workspace::installed;
use virtual_path::normalize;

/// An installed package on its way into `.deploy`.
pub struct DependencyFiles {
    /// As others load it.
    name: String,
    /// Paths in the package, and where they lie now.
    files: Vec<(PathBuf, PathBuf)>,
    entries: EntryPoints,
    /// Folders that the list names and that nothing is known to need.
    doomed: BTreeSet<PathBuf>,
}

impl DependencyFiles {
    /// Lists the package that is loaded as `name`.
    pub fn read(name: &str, source: &Path, list: &DropList) -> Result<Self, Io> {
        // Its own `node_modules` are packages with places of their own. Deeper ones are what
        // bundlers wrote (`dist/node_modules/tslib`), and no packages.
        let is_apart = |path: &Path| path == Path::new("node_modules") || path.ends_with(".git");
        let files = files(source, |path| !is_apart(path))?;
        let entries = EntryPoints::read(source);
        let mut doomed = BTreeSet::new();
        for (path, _) in &files {
            list.drops(path, |folder| {
                let goes = !entries.lie_in(folder);
                if goes {
                    doomed.insert(folder.to_owned());
                }
                goes
            });
        }
        Ok(Self {
            name: name.to_owned(),
            files,
            entries,
            doomed,
        })
    }

    /// Files that stay.
    pub fn kept(&self, list: &DropList) -> impl Iterator<Item = &(PathBuf, PathBuf)> {
        let drops = move |path: &Path| {
            !self.entries.name(path) && list.drops(path, |folder| self.doomed.contains(folder))
        };
        self.files.iter().filter(move |(path, _)| !drops(path))
    }
}

/// Spares folders that code mentions: the package's own, another's, or what of the app is in
/// `code`.
pub fn spare(
    packages: &mut [DependencyFiles],
    code: &[PathBuf],
    list: &DropList,
) -> Result<(), Io> {
    let words = words(packages);
    if words.is_empty() {
        return Ok(());
    }
    let needles: Vec<_> = words.keys().map(String::as_str).chain(OF_FILES).collect();
    // It fails for more needles than any project has packages; then no folder goes.
    let Ok(search) = AhoCorasick::new(&needles) else {
        for package in packages {
            package.doomed.clear();
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
                if mentions && packages[*owner].doomed.remove(folder) {
                    // What lies in it is code of the package now.
                    let inside = packages[*owner].files.iter();
                    let inside = inside.filter(|(path, _)| path.starts_with(folder)).cloned();
                    waiting.extend(inside.map(|(path, file)| (Some(*owner), path, file)));
                }
            }
        }
    }
    Ok(())
}

/// Words that show that a file can name files beside it.
const OF_FILES: [&str; 2] = ["__dirname", "import.meta"];

/// What is looked for, and whose folder it means: `examples`, and `three/examples` from outside.
fn words(packages: &[DependencyFiles]) -> BTreeMap<String, Vec<(usize, PathBuf)>> {
    let mut words = BTreeMap::<String, Vec<_>>::new();
    for (index, package) in packages.iter().enumerate() {
        for folder in &package.doomed {
            let inside = folder.file_name().unwrap_or_default().to_string_lossy();
            let outside = format!("{}/{}", package.name, folder.display());
            for word in [inside.into_owned(), outside] {
                words.entry(word).or_default().push((index, folder.clone()));
            }
        }
    }
    words
}

/// The text around a word.
struct WordContext<'a> {
    before: &'a [u8],
    after: Option<u8>,
}

impl WordContext<'_> {
    fn ends(&self) -> bool {
        self.after.is_some_and(|byte| b"/'\"`".contains(&byte))
    }

    /// Whether it names the folder from the file at `path`: `'../test/x'`, or, in a file that
    /// knows its own place, a text such as `'test'` or `'/lib/test/'`.
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

    /// Whether it is where the name of a module begins.
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

/// Whether the list drops `file`, which a tracer such as Next.js's put below `root`. Folders
/// stay there: a traced file is there because something loads it.
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
    // The manifest is read for those few that would go.
    list.drops(path, |_| false) && !EntryPoints::read(&root.join(package)).name(path)
}

/// What a manifest names as files to load.
#[derive(Debug, Default)]
struct EntryPoints {
    /// Without `./`; an extension or `/index.js` may be missing.
    files: BTreeSet<PathBuf>,
    /// What stands before and after the `*` of `exports`; the former has a folder.
    stars: Vec<(String, String)>,
}

impl EntryPoints {
    /// Reads the manifest in `folder`; one that cannot be read names nothing.
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
                    // `./*` opens the package whole and names nothing in it.
                    Some(_) => {}
                    None => {
                        self.files.insert(normalize(Path::new(target)));
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            Value::Object(fields) => {
                // The condition `types` is the compiler's alone.
                let loaded = fields.iter().filter(|(key, _)| !key.starts_with("types"));
                loaded.for_each(|(_, value)| self.collect(value));
            }
            _ => {}
        }
    }

    /// Whether the manifest names the file.
    fn name(&self, path: &Path) -> bool {
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

    /// Whether something that the manifest names lies in the folder, or is it.
    fn lie_in(&self, folder: &Path) -> bool {
        let starts = |path: &Path| path.starts_with(folder);
        self.files.iter().any(|file| starts(file))
            || self
                .stars
                .iter()
                .any(|(before, _)| starts(Path::new(before)))
    }
}
