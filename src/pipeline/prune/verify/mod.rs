//! Verification: every module that the entry of a `.deploy` loads is resolved inside `.deploy`, as Node
//! does in an image.
//!
//! A package that Node finds in the project, but not in `.deploy`, is copied from there. A module
//! that cannot be copied is an error if the program is certain to fail without it at its start.

mod explain;
mod missing;
mod reach;
mod requests;
mod resolve;

use std::path::{Path, PathBuf};

use self::missing::{CopyOutcome, ModuleCopier};
pub use self::reach::{EntryFiles, MissingModule, ParsedModules, find_missing};
pub use self::requests::{ModuleRequest, RequestKind, RequestTime};
use super::super::failure::Io;
use super::Error;
use super::copy::{Copier, files};
use crate::plan::ImagePlan;
use crate::store::{AppKind, Framework};
use crate::workspace::installed;

/// The most rounds of finding and copying missing modules. A package is copied with its dependencies,
/// so two rounds are usual.
const MOST_ROUNDS: usize = 20;

/// A `.deploy` that is verified before it replaces the last one.
pub struct Verification<'a> {
    /// The project's folder.
    pub project: &'a Path,
    /// The composed app.
    pub workdir: &'a Path,
    /// The image that the `.deploy` is for.
    pub image: &'a ImagePlan,
}

impl Verification<'_> {
    /// Resolves every module that the entry loads, and copies the modules that Node finds only in the
    /// project. Returns messages about the copied modules.
    pub fn resolve(&self, copier: &Copier) -> Result<Vec<String>, Error> {
        let root = copier.path(Path::new(""));
        let root = root.canonicalize().map_err(Io::at("resolve", &root))?;
        let Some(main) = main_file(&root, &self.image.entry) else {
            let entry = root.join(&self.image.entry);
            return Err(Error::NoEntry { entry });
        };
        let entries = EntryFiles {
            main,
            later: self.loaded_later(&root)?,
        };
        let mut parsed = ParsedModules::default();
        let mut modules = ModuleCopier::new(self, copier, &root);
        let mut failed = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let workspace = modules.own_copies();
            let is_own = |file: &Path| {
                let inner = file.strip_prefix(&root).unwrap_or(file);
                !installed::is_installed(inner) || workspace.contains(inner)
            };
            let missing = find_missing(&root, &entries, &is_own, &mut parsed);
            failed.clear();
            let mut has_new = false;
            for module in missing {
                match modules.copy(&module)? {
                    CopyOutcome::Copied => has_new = true,
                    CopyOutcome::Failed(reason) if module.is_certain => {
                        failed.push((module, reason));
                    }
                    CopyOutcome::Failed(_) | CopyOutcome::Ignored => {}
                }
            }
            if !has_new {
                break;
            }
        }
        if failed.is_empty() {
            Ok(explain::notices(self, &modules.copied))
        } else {
            Err(explain::error(self, &root, &failed))
        }
    }

    /// The files that the server of Next.js loads when a page is requested.
    fn loaded_later(&self, root: &Path) -> Result<Vec<PathBuf>, Io> {
        let server = root.join(".next/server");
        if self.image.kind != AppKind::Frontend(Framework::Nextjs) || !server.is_dir() {
            return Ok(Vec::new());
        }
        let pages = files(&server, |_| true)?.into_iter().map(|(_, file)| file);
        let is_code = |file: &PathBuf| file.extension().is_some_and(|end| end == "js");
        Ok(pages.filter(is_code).collect())
    }

    /// A path for messages. Paths of the composed app are shown as `apps/<app>/…`.
    fn display(&self, path: &Path) -> String {
        if let Ok(inner) = path.strip_prefix(self.workdir) {
            let app = Path::new("apps").join(self.image.unit.app.as_str());
            return app.join(inner).display().to_string();
        }
        let inner = path.strip_prefix(self.project).unwrap_or(path);
        inner.display().to_string()
    }
}

/// The file that Node starts for an entry.
fn main_file(root: &Path, entry: &str) -> Option<PathBuf> {
    let candidates = ["", ".js", ".cjs", ".mjs", "/index.js"];
    let mut candidates = candidates
        .iter()
        .map(|end| root.join(format!("{entry}{end}")));
    let file = candidates.find(|file| file.is_file())?;
    file.canonicalize().ok()
}

/// The modules that cannot be resolved inside `folder`, and without which `entry` is certain to fail at
/// its start.
pub fn unresolved(folder: &Path, entry: &str) -> std::io::Result<Vec<MissingModule>> {
    let root = folder.canonicalize()?;
    let main = main_file(&root, entry).ok_or(std::io::ErrorKind::NotFound)?;
    let entries = EntryFiles {
        main,
        later: Vec::new(),
    };
    let is_own = |file: &Path| !installed::is_installed(file.strip_prefix(&root).unwrap_or(file));
    let missing = find_missing(&root, &entries, &is_own, &mut ParsedModules::default());
    Ok(missing.into_iter().filter(|it| it.is_certain).collect())
}
