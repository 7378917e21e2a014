//! The names of kept tool caches. A cache is usable only for the same task, with
//! the same toolchain, on the same platform, at the same path: tools write absolute paths into it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cache::ToolCacheName;
use crate::config::Project;
use crate::git::Repository;

/// Packages that write or read caches. Another version does not use the caches of this one.
const TOOLS: [&str; 6] = ["next", "nuxt", "rollup", "typescript", "vite", "webpack"];

/// The branch in names, if no branch is known.
const NO_BRANCH: &str = "HEAD";

/// The common part of the names of all tool caches of a run.
#[derive(Debug, Clone)]
pub struct ToolCacheScope {
    /// The name in the root `package.json`: several projects may use one remote cache.
    project: String,
    /// The branches whose caches are used, in this order. The caches of this run get the first one.
    branches: Vec<String>,
}

impl ToolCacheScope {
    /// The names for the branch that is checked out, and for the default branch.
    pub(super) fn new(project: &Project, repository: Option<&Repository>) -> Self {
        let (own, default) = repository.map_or_else(Default::default, Repository::branches);
        let own = own.unwrap_or_else(|| NO_BRANCH.into());
        let mut branches = vec![own];
        for branch in default {
            if !branches.contains(&branch) {
                branches.push(branch);
            }
        }
        Self {
            project: project.package.name.clone().unwrap_or_default(),
            branches,
        }
    }

    /// The branches whose caches are used: the current one, and then the default branch.
    pub fn branches(&self) -> &[String] {
        &self.branches
    }

    /// The branch under which this run keeps caches.
    pub fn own_branch(&self) -> &str {
        self.branches.first().map_or(NO_BRANCH, String::as_str)
    }

    /// The name of the cache of a task that runs in this folder.
    pub(super) fn name(
        &self,
        task: &str,
        folder: &Path,
        toolchain: &BTreeMap<&str, &str>,
    ) -> ToolCacheName {
        let fixed = [
            self.project.as_bytes(),
            task.as_bytes(),
            folder.as_os_str().as_bytes(),
            std::env::consts::OS.as_bytes(),
            std::env::consts::ARCH.as_bytes(),
        ];
        let tools = toolchain
            .iter()
            .flat_map(|(name, version)| [name.as_bytes(), version.as_bytes()]);
        ToolCacheName::new(fixed.into_iter().chain(tools))
    }
}

/// Whether an installed package, by `name@version`, is one of the tools.
pub(super) fn is_tool(identity: &str) -> bool {
    let name = identity.rsplit_once('@').map_or(identity, |(name, _)| name);
    TOOLS.contains(&name)
}
