//! The scope of a task's script: its folder, and the files that its key was made of.

use std::path::{Path, PathBuf};

use super::ScriptScope;
use crate::plan::{Plan, Task, TaskId};

/// What of a project was written by a task that others read from.
pub struct UpstreamResult {
    /// Where it lies.
    pub folder: PathBuf,
    /// Files in it that the task made; none where that is not known, which means all of them.
    pub made: Option<Vec<String>>,
}

/// The scope of a task whose script runs in `folder`. Files are granted one by one, so that a file
/// beside them that is in no key stays out of reach.
pub fn of_task(
    plan: &Plan,
    id: TaskId,
    folder: &Path,
    upstream: Vec<UpstreamResult>,
) -> ScriptScope {
    let task = plan.task(id);
    let mut scope = ScriptScope {
        project: plan.project.clone(),
        installed: vec![folder.to_owned(), plan.project.join(&task.source)],
        readable: Vec::new(),
        workspaces: plan
            .workspaces
            .iter()
            .map(|folder| plan.project.join(folder))
            .collect(),
        listed: listed(&plan.project, task),
        folder: folder.to_owned(),
    };
    for path in plan.readable_files(id) {
        scope.add(path);
    }
    // Of what counts when it is opened, the sandbox lets through what the task is expected to read.
    let optional = plan.optional_files(id, folder).into_iter();
    for file in optional.filter(|file| file.name.starts_with("../")) {
        scope.add(file.place);
    }
    for result in upstream {
        let Some(made) = result.made else {
            scope.readable.push(result.folder);
            continue;
        };
        let folder = result.folder.canonicalize().unwrap_or(result.folder);
        for path in made {
            let path = folder.join(path);
            // A link out of the folder is no part of what was made there.
            if path
                .canonicalize()
                .is_ok_and(|real| real.starts_with(&folder))
            {
                scope.add(path);
            }
        }
    }
    scope
}

impl ScriptScope {
    /// Adds a file; beside the `package.json` of a package lies what is installed for it.
    fn add(&mut self, path: PathBuf) {
        if path.is_dir() {
            return;
        }
        if path.ends_with("package.json") {
            let package = path.parent().map(Path::to_owned);
            self.installed
                .extend(package.filter(|package| *package != self.project));
        }
        self.readable.push(path);
    }
}

/// Folders in which a package manager lists names before it runs anything, with all below them:
/// bun in every folder above its own, Yarn 1 in the project.
fn listed(project: &Path, task: &Task) -> Option<PathBuf> {
    match task.command.first().map(String::as_str) {
        Some("bun") => Some("/".into()),
        Some("yarn") => {
            let lock = std::fs::read_to_string(project.join("yarn.lock")).ok()?;
            let head = lock.lines().take(3);
            let is_first = |line: &str| line.contains("yarn lockfile v1");
            head.into_iter().any(is_first).then(|| project.to_owned())
        }
        _ => None,
    }
}
