//! The folders of a workspace, as the package manager's own globs name them: `workspaces` in
//! the root `package.json`, or `packages` in `pnpm-workspace.yaml`.

use std::io::{ErrorKind, Result};
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::Value;

use crate::files::{FileTree, PathKind};

/// The file in which pnpm names the folders of a workspace.
pub const PNPM_FILE: &str = "pnpm-workspace.yaml";

/// Where packages are looked for in a project that declares no workspace.
const DEFAULT: &str = "packages/*";

/// Folders that hold no package of the workspace, whatever a glob says.
const SKIPPED: [&str; 4] = ["node_modules", ".git", ".out", ".alokai"];

/// Globs that name the folders of a workspace.
#[derive(Debug, Clone)]
pub struct WorkspaceGlobs {
    globs: Vec<WorkspaceGlob>,
    /// pnpm: a folder that any negated glob matches is out. Others: the last match decides.
    negation_wins: bool,
}

#[derive(Debug, Clone)]
struct WorkspaceGlob {
    matcher: GlobMatcher,
    negated: bool,
    /// The folders before the first wildcard.
    base: String,
    /// How many levels below `base` can match; `None` for any number.
    depth: Option<usize>,
}

impl WorkspaceGlobs {
    /// The globs of the project in `root`. `workspaces` is that field of its `package.json`,
    /// `pnpm` says whether pnpm manages it.
    pub fn read(files: &dyn FileTree, root: &Path, workspaces: &Value, pnpm: bool) -> Result<Self> {
        let file = root.join(PNPM_FILE);
        let declared = if pnpm && files.is_file(&file) {
            pnpm_packages(&files.read(&file)?)
                .map_err(|reason| std::io::Error::new(ErrorKind::InvalidData, reason))?
        } else {
            let list = workspaces.get("packages").unwrap_or(workspaces);
            let texts = list.as_array().into_iter().flatten();
            let texts: Vec<_> = texts.filter_map(Value::as_str).map(str::to_owned).collect();
            list.is_array().then_some(texts)
        };
        let declared = declared.unwrap_or_else(|| vec![DEFAULT.to_owned()]);
        let globs = declared.iter().filter_map(|glob| WorkspaceGlob::new(glob));
        Ok(Self {
            globs: globs.collect(),
            negation_wins: pnpm,
        })
    }

    /// Whether the folder, relative to the project, belongs to the workspace.
    pub fn matches(&self, folder: &str) -> bool {
        let hits = |glob: &&WorkspaceGlob| glob.matcher.is_match(folder);
        if self.negation_wins {
            let mut hit = self.globs.iter().filter(hits).peekable();
            return hit.peek().is_some() && hit.all(|glob| !glob.negated);
        }
        let last = self.globs.iter().rfind(hits);
        last.is_some_and(|glob| !glob.negated)
    }

    /// Folders with a `package.json` that belong to the workspace, relative to the project and
    /// sorted. The root itself is not among them.
    pub fn find(&self, files: &dyn FileTree, root: &Path) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for glob in self.globs.iter().filter(|glob| !glob.negated) {
            self.walk(files, root, &glob.base, glob.depth, &mut found)?;
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn walk(
        &self,
        files: &dyn FileTree,
        root: &Path,
        folder: &str,
        depth: Option<usize>,
        found: &mut Vec<String>,
    ) -> Result<()> {
        let path = root.join(folder);
        if !folder.is_empty() && self.matches(folder) && files.is_file(&path.join("package.json")) {
            found.push(folder.to_owned());
        }
        if depth == Some(0) {
            return Ok(());
        }
        let entries = match files.entries(&path) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            entries => entries?,
        };
        for (name, node) in entries {
            let Some(name) = name.to_str() else { continue };
            // A link could lead upwards, and no package manager follows one here.
            if node != PathKind::Folder || SKIPPED.contains(&name) {
                continue;
            }
            let inner = if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            self.walk(files, root, &inner, depth.map(|depth| depth - 1), found)?;
        }
        Ok(())
    }
}

impl WorkspaceGlob {
    /// `None` for what is not a valid glob or leaves the project: no package manager finds
    /// anything there.
    fn new(text: &str) -> Option<Self> {
        let negated = text.starts_with('!');
        let text = text.trim_start_matches('!').trim_start_matches("./");
        let text = text.trim_matches('/');
        if text.is_empty() || text == "." || text.split('/').any(|part| part == "..") {
            return None;
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        let parts: Vec<&str> = text.split('/').collect();
        let is_plain = |part: &&&str| !part.contains(['*', '?', '[', '{']);
        let plain = parts.iter().take_while(is_plain).count();
        let is_deep = text.contains("**") || parts.iter().any(|part| part.contains('{'));
        Some(Self {
            matcher: glob.ok()?.compile_matcher(),
            negated,
            base: parts[..plain].join("/"),
            depth: (!is_deep).then_some(parts.len() - plain),
        })
    }
}

/// `packages` of `pnpm-workspace.yaml`; `None` where the file has no such list.
fn pnpm_packages(text: &[u8]) -> std::result::Result<Option<Vec<String>>, String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        packages: Option<Vec<String>>,
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not valid UTF-8".to_owned())?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let file = serde_saphyr::from_str::<File>(text).map_err(|error| error.to_string())?;
    Ok(file.packages)
}

#[cfg(test)]
mod tests {
    use super::WorkspaceGlobs;
    use crate::files::DiskFiles;
    use serde_json::json;

    fn found(globs: &serde_json::Value, pnpm: Option<&str>) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let packages = [
            "libs/ui",
            "libs/forms/core",
            "packages/a",
            "packages/a/nested",
            "packages/b",
            "packages/node_modules/no",
            "tools",
        ];
        for package in packages {
            let package = folder.path().join(package);
            std::fs::create_dir_all(&package).unwrap();
            std::fs::write(package.join("package.json"), "{}").unwrap();
        }
        std::fs::create_dir_all(folder.path().join("packages/empty")).unwrap();
        if let Some(text) = pnpm {
            std::fs::write(folder.path().join("pnpm-workspace.yaml"), text).unwrap();
        }
        let globs = WorkspaceGlobs::read(&DiskFiles, folder.path(), globs, pnpm.is_some()).unwrap();
        globs.find(&DiskFiles, folder.path()).unwrap()
    }

    #[test]
    fn folders_are_those_of_the_globs() {
        let all = ["packages/a", "packages/b"];
        assert_eq!(found(&json!(null), None), all);
        assert_eq!(found(&json!(["packages/*"]), None), all);
        assert_eq!(found(&json!({ "packages": ["./packages/*/"] }), None), all);
        assert_eq!(
            found(&json!(["libs/ui", "tools"]), None),
            ["libs/ui", "tools"]
        );
        assert_eq!(
            found(&json!(["libs/**"]), None),
            ["libs/forms/core", "libs/ui"]
        );
        assert_eq!(
            found(&json!(["packages/**", "!packages/b"]), None),
            ["packages/a", "packages/a/nested"]
        );
        assert_eq!(
            found(&json!(["packages/*", "!packages/*", "packages/b"]), None),
            ["packages/b"]
        );
        assert_eq!(
            found(&json!(["{libs,packages}/{ui,b}"]), None),
            ["libs/ui", "packages/b"]
        );
        assert!(found(&json!([]), None).is_empty());
        assert!(found(&json!(["../elsewhere/*", "[", ""]), None).is_empty());
    }

    #[test]
    fn pnpm_has_its_own_file() {
        let file = "packages:\n  - 'libs/**'\n  - packages/*\n  - '!packages/b'\n  - packages/b\n";
        assert_eq!(
            found(&json!(["tools"]), Some(file)),
            ["libs/forms/core", "libs/ui", "packages/a"]
        );
        assert_eq!(
            found(&json!(["tools"]), Some("catalog: {}\n")),
            ["packages/a", "packages/b"]
        );
    }
}
