//! What a script was not allowed to open, as far as it says so.
//!
//! Linux tells nobody without rights which file a sandboxed process was refused: its audit log
//! needs `CAP_AUDIT_READ`. But tools name the file that they could not open, so their lines are
//! looked through for paths that are there and that the rules do not grant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Sandbox;
use super::rules::SandboxRules;
use virtual_path::normalize;

/// Paths that are remembered of one script.
const MOST: usize = 50;

/// Words by which a program says that the system refused it something.
const REFUSED: [&str; 5] = [
    "eacces",
    "permission denied",
    "os error 13",
    "exdev",
    "eperm",
];

/// Words by which a program says that it could not use a file, whatever the system said.
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

/// Ends of names that imports leave out.
const ENDS: [&str; 8] = ["ts", "tsx", "js", "jsx", "mjs", "cjs", "json", "vue"];

/// A path that the sandbox does not grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeniedPath {
    /// With links resolved.
    pub path: PathBuf,
    /// Whether it was to be written.
    pub is_write: bool,
}

/// Looks through what a script prints.
pub struct DenialScanner<'a> {
    rules: &'a SandboxRules,
    folder: PathBuf,
    /// The last source of its own that the script named: imports are relative to it.
    last: Option<PathBuf>,
    found: BTreeMap<DeniedPath, Certainty>,
}

/// How sure it is that the script was refused a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// The system's own words stand in the line.
    Refused,
    /// The script says that it could not use it.
    Missed,
}

impl<'a> DenialScanner<'a> {
    /// Of a script that runs in `folder`.
    pub fn new(sandbox: &'a Sandbox, folder: &Path) -> Self {
        Self::of(&sandbox.rules, folder)
    }

    fn of(rules: &'a SandboxRules, folder: &Path) -> Self {
        Self {
            rules,
            folder: folder.to_owned(),
            last: None,
            found: BTreeMap::new(),
        }
    }

    /// Looks at one line.
    pub fn line(&mut self, line: &str) {
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
            // The first word of a name with spaces, which was in quotes as a whole.
            let is_piece = |whole: &&str| whole.len() > text.len() && whole.starts_with(text);
            if resolved.iter().any(is_piece) {
                continue;
            }
            let Some(path) = self.resolve(text, certainty) else {
                continue;
            };
            resolved.push(text);
            if path.starts_with(&self.folder) && path.is_file() {
                self.last = Some(path);
                continue;
            }
            let Some(certainty) = certainty else { continue };
            // What is not there was to be made, and what may be read was to be written.
            let is_write = !path.exists() || self.rules.reads(&path);
            if is_write && certainty != Certainty::Refused {
                continue;
            }
            if self.rules.writes(&path) || is_write && is_of_system(&path) {
                continue;
            }
            // A folder that may be listed was not refused for being read.
            if !is_write && path.is_dir() && self.rules.lists(&path) {
                continue;
            }
            let denied = DeniedPath { path, is_write };
            if self.found.len() < MOST || self.found.contains_key(&denied) {
                let known = self.found.entry(denied).or_insert(certainty);
                *known = certainty.min(*known);
            }
        }
    }

    /// The path that a text names, with links resolved, if there is one. Of a file that could not
    /// be made the folder is there.
    fn resolve(&self, text: &str, certainty: Option<Certainty>) -> Option<PathBuf> {
        let given = Path::new(text);
        if given.is_absolute() {
            return real(given);
        }
        let parent = self.last.as_deref().and_then(Path::parent);
        let bases = [Some(self.folder.as_path()), parent];
        bases.into_iter().flatten().find_map(|base| {
            let whole = normalize(&base.join(given));
            let with_end = || {
                let ends = ENDS
                    .iter()
                    .map(|end| PathBuf::from(format!("{}.{end}", whole.display())));
                ends.into_iter().find_map(|path| path.canonicalize().ok())
            };
            let made = || real(&whole).filter(|_| certainty == Some(Certainty::Refused));
            whole.canonicalize().ok().or_else(with_end).or_else(made)
        })
    }

    /// What was refused for certain, where the script ended well all the same.
    pub fn refused(&self) -> Vec<DeniedPath> {
        self.with(|certainty| certainty == Certainty::Refused)
    }

    /// What was refused, as far as the script says; the certain before the others.
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

/// The path with links resolved; of one that is not there, its folder's, if that is there.
fn real(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| {
        let folder = path.parent()?.canonicalize().ok()?;
        (folder != Path::new("/")).then_some(folder.join(path.file_name()?))
    })
}

/// Nobody means to write there; a shell that says `/bin/x: Permission denied` speaks of itself.
fn is_of_system(path: &Path) -> bool {
    [
        "/usr", "/bin", "/sbin", "/lib", "/etc", "/opt", "/proc", "/sys", "/dev",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

/// Texts of a line that may be paths: what is in quotes, and words with a slash.
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
        // The end of a sentence, and not of `../..`.
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

    /// A project with a composed app, which may read `shared` and write in itself.
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
        let mut watch = DenialScanner::of(rules, &root.join(".out/us/app"));
        for line in lines {
            watch.line(line);
        }
        (watch.refused(), watch.denied())
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
