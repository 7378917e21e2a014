//! Finds the paths that a sandboxed script was denied, from what the script prints.
//!
//! Linux reports denied paths only to its audit log, which needs `CAP_AUDIT_READ`. But tools name
//! the file that they could not open. So their output is searched for paths that exist and that
//! the rules do not grant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Sandbox;
use super::rules::SandboxRules;
use virtual_path::normalize;

/// The largest number of paths that are kept for one script.
const MOST_PATHS: usize = 50;

/// Words that show that the system denied an operation.
const REFUSED: [&str; 5] = [
    "eacces",
    "permission denied",
    "os error 13",
    "exdev",
    "eperm",
];

/// Words that show that a program could not use a file, for whatever reason.
const MISSED: [&str; 13] = [
    "not permitted",
    "cross-device",
    "cannot open",
    "can't open",
    "cannot read",
    "could not read",
    "failed to read",
    "failed to load",
    "not found",
    "cannot find",
    "can't resolve",
    "could not resolve",
    "no such file",
];

/// File name extensions that imports leave out.
const EXTENSIONS: [&str; 8] = ["ts", "tsx", "js", "jsx", "mjs", "cjs", "json", "vue"];

/// A path that the sandbox has denied to a script.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeniedPath {
    /// The path with links resolved.
    pub path: PathBuf,
    /// Whether the script tried to write it.
    pub is_write: bool,
}

/// Searches the output of a script for denied paths.
pub struct DenialScanner<'a> {
    rules: &'a SandboxRules,
    folder: PathBuf,
    /// The last file of the script's own folder in the output. Imports are relative to it.
    last_source: Option<PathBuf>,
    found: BTreeMap<DeniedPath, Certainty>,
}

/// The evidence that the script was denied a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// The line has an error of the system.
    Refused,
    /// The line says that the file could not be used.
    Missed,
}

impl<'a> DenialScanner<'a> {
    /// A scanner for a script that runs in `folder`.
    pub fn new(sandbox: &'a Sandbox, folder: &Path) -> Self {
        Self::of(&sandbox.rules, folder)
    }

    fn of(rules: &'a SandboxRules, folder: &Path) -> Self {
        Self {
            rules,
            folder: folder.to_owned(),
            last_source: None,
            found: BTreeMap::new(),
        }
    }

    /// Searches one line.
    pub fn scan_line(&mut self, line: &str) {
        let lower = line.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let certainty = if says(&REFUSED) {
            Some(Certainty::Refused)
        } else if says(&MISSED) {
            Some(Certainty::Missed)
        } else {
            None
        };
        if certainty.is_none() && !line.contains('/') {
            return;
        }
        let mut resolved: Vec<&str> = Vec::new();
        for text in candidates(line) {
            // A word of a quoted name with spaces that was already resolved as a whole.
            let is_piece = |whole: &&str| whole.len() > text.len() && whole.starts_with(text);
            if resolved.iter().any(is_piece) {
                continue;
            }
            let Some(path) = self.resolve(text, certainty) else {
                continue;
            };
            resolved.push(text);
            if path.starts_with(&self.folder) && path.is_file() {
                self.last_source = Some(path);
                continue;
            }
            let Some(certainty) = certainty else { continue };
            // The script tried to create a missing path, and to write a readable one.
            let is_write = !path.exists() || self.rules.reads(&path);
            if is_write && certainty != Certainty::Refused {
                continue;
            }
            if self.rules.writes(&path) || is_write && is_of_system(&path) {
                continue;
            }
            // Reading a folder that can be listed was not denied.
            if !is_write && path.is_dir() && self.rules.lists(&path) {
                continue;
            }
            let denied = DeniedPath { path, is_write };
            if self.found.len() < MOST_PATHS || self.found.contains_key(&denied) {
                let known = self.found.entry(denied).or_insert(certainty);
                *known = certainty.min(*known);
            }
        }
    }

    /// The path that a text names, with links resolved. Of a file that could not be created, only
    /// the folder exists.
    fn resolve(&self, text: &str, certainty: Option<Certainty>) -> Option<PathBuf> {
        let given = Path::new(text);
        if given.is_absolute() {
            return real(given);
        }
        let parent = self.last_source.as_deref().and_then(Path::parent);
        let bases = [Some(self.folder.as_path()), parent];
        bases.into_iter().flatten().find_map(|base| {
            let whole = normalize(&base.join(given));
            let with_extension = || {
                let paths = EXTENSIONS
                    .iter()
                    .map(|extension| PathBuf::from(format!("{}.{extension}", whole.display())));
                paths.into_iter().find_map(|path| path.canonicalize().ok())
            };
            let to_create = || real(&whole).filter(|_| certainty == Some(Certainty::Refused));
            whole
                .canonicalize()
                .ok()
                .or_else(with_extension)
                .or_else(to_create)
        })
    }

    /// The paths that the system denied, also if the script has succeeded.
    pub fn refused(&self) -> Vec<DeniedPath> {
        self.with(|certainty| certainty == Certainty::Refused)
    }

    /// The paths that the system denied, or else all paths that the script could not use.
    pub fn denied(&self) -> Vec<DeniedPath> {
        let refused = self.refused();
        if refused.is_empty() {
            return self.with(|_| true);
        }
        refused
    }

    fn with(&self, is_wanted: impl Fn(Certainty) -> bool) -> Vec<DeniedPath> {
        let found = self.found.iter();
        let found = found.filter(|(_, certainty)| is_wanted(**certainty));
        found.map(|(denied, _)| denied.clone()).collect()
    }
}

/// The path with links resolved. Of a path that does not exist, its folder is resolved.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let folder = path.parent()?.canonicalize().ok()?;
        (folder != Path::new("/")).then_some(folder.join(path.file_name()?))
    })
}

/// Whether the path belongs to the system. A script does not write there: in the shell's message
/// `/bin/x: Permission denied`, the path is the program that was not executed.
fn is_of_system(path: &Path) -> bool {
    [
        "/usr", "/bin", "/sbin", "/lib", "/etc", "/opt", "/proc", "/sys", "/dev",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

/// The texts of a line that can be paths: quoted texts, and words with a slash.
fn candidates(line: &str) -> impl Iterator<Item = &str> {
    let quoted = ['\'', '"', '`']
        .into_iter()
        .flat_map(|quote| line.split(quote).skip(1).step_by(2));
    let is_end = |char: char| char.is_whitespace() || "'\"`()<>,;=".contains(char);
    let words = line.split(is_end).filter(|word| word.contains('/'));
    quoted.chain(words).filter_map(|text| {
        let text = text.strip_prefix("file://").unwrap_or(text);
        // `path:12:5`, `path: Permission denied`.
        let text = text.split(':').next().unwrap_or_default();
        let text = text.trim_end_matches([']', '}']);
        // The full stop of a sentence, but not the end of `../..`.
        let text = match text.strip_suffix('.') {
            Some(rest) if !rest.ends_with('.') => rest,
            _ => text,
        };
        let is_path = text.len() < 4096 && !text.trim_matches('/').is_empty();
        is_path.then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::{DenialScanner, DeniedPath, SandboxRules};

    /// A project with a composed app. It can read `shared` and write in its own folder.
    fn project() -> (tempfile::TempDir, PathBuf, SandboxRules) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [
            ".out/us/app/src/page.tsx",
            "shared/known.json",
            "config/prices.json",
            "config/with space.json",
        ] {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let rules = SandboxRules {
            read: BTreeSet::from(["/usr".into(), root.join("shared")])
                .into_iter()
                .collect(),
            list: Vec::new(),
            write: vec![root.join(".out/us/app")],
        };
        (folder, root, rules)
    }

    fn found(
        root: &Path,
        rules: &SandboxRules,
        lines: &[String],
    ) -> (Vec<DeniedPath>, Vec<DeniedPath>) {
        let mut scanner = DenialScanner::of(rules, &root.join(".out/us/app"));
        for line in lines {
            scanner.scan_line(line);
        }
        (scanner.refused(), scanner.denied())
    }

    #[test]
    fn lines_of_tools_are_understood() {
        let (_folder, root, rules) = project();
        let prices = root.join("config/prices.json");
        let at = prices.display();
        let refused = [
            format!("Error: EACCES: permission denied, open '{at}'"),
            "Error: EACCES: permission denied, open '../../../config/prices.json'".into(),
            format!("sh: 1: cannot open {at}: Permission denied"),
            format!("cat: {at}: Permission denied"),
            format!("✘ [ERROR] Cannot read file \"{at}\": permission denied"),
            format!("Error: failed to open file \"{at}\": Permission denied (os error 13)"),
            format!("EACCES: file://{at}:12:5"),
            format!("EXDEV: cross-device link not permitted, rename '{at}' -> '{at}.old'"),
        ];
        for line in refused {
            let (refused, _) = found(&root, &rules, std::slice::from_ref(&line));
            let paths: Vec<_> = refused.iter().map(|denied| &denied.path).collect();
            assert!(paths.contains(&&prices), "{line}: {paths:?}");
        }
        let missed = [
            format!("error TS6053: File '{at}' not found."),
            format!("error TS5083: Cannot read file '{at}'."),
            "src/page.tsx(1,20): error TS2307: Cannot find module '../../../../config/prices' or its type declarations.".into(),
            "Module not found: Error: Can't resolve '../../../config/prices.json'".into(),
        ];
        for line in missed {
            let (refused, denied) = found(&root, &rules, std::slice::from_ref(&line));
            assert_eq!(refused, [], "{line}");
            let one = DeniedPath {
                path: prices.clone(),
                is_write: false,
            };
            assert_eq!(denied, [one], "{line}");
        }
    }

    #[test]
    fn an_import_is_looked_for_beside_the_source_that_was_named_before() {
        let (_folder, root, rules) = project();
        let lines = [
            "./src/page.tsx".to_owned(),
            "Module not found: Can't resolve '../../../../config/prices'".to_owned(),
        ];
        let (_, denied) = found(&root, &rules, &lines);
        assert_eq!(denied.len(), 1, "{denied:?}");
        assert_eq!(denied[0].path, root.join("config/prices.json"));
    }

    #[test]
    fn names_with_spaces_and_files_to_be_made_are_found() {
        let (_folder, root, rules) = project();
        let lines = [
            "EACCES: permission denied, open '../../../config/with space.json'".to_owned(),
            format!(
                "EACCES: permission denied, mkdir '{}'",
                root.join("config/new").display()
            ),
            format!(
                "EACCES: permission denied, open '{}'",
                root.join("shared/known.json").display()
            ),
        ];
        let (refused, _) = found(&root, &rules, &lines);
        let expected = [
            ("config/new", true),
            ("config/with space.json", false),
            ("shared/known.json", true),
        ];
        let expected = expected.map(|(path, is_write)| DeniedPath {
            path: root.join(path),
            is_write,
        });
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_is_granted_or_not_refused_is_not_named() {
        let (_folder, root, rules) = project();
        let lines = [
            format!(
                "EACCES: permission denied, open '{}'",
                root.join(".out/us/app/src/page.tsx").display()
            ),
            format!(
                "Cannot find module '{}'",
                root.join("shared/known.json").display()
            ),
            format!("reading {}", root.join("config/prices.json").display()),
            "sh: /usr/bin/env: Permission denied".to_owned(),
            format!(
                "cannot read '{}'",
                root.join("config/not-there.json").display()
            ),
            "permission denied for /, // and a/b/c".to_owned(),
        ];
        assert_eq!(found(&root, &rules, &lines), (Vec::new(), Vec::new()));
    }
}
