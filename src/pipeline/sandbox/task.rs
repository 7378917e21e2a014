//! The scope of a task's script: its folder, and the files that its key includes.

use std::path::{Path, PathBuf};

use super::ScriptScope;
use crate::plan::{Plan, Task, TaskId};

/// The result of a task on which another task depends.
pub struct UpstreamResult {
    /// The folder of the result.
    pub folder: PathBuf,
    /// The files that the task has written. None where they are not known; then the whole folder
    /// is granted.
    pub made: Option<Vec<String>>,
}

/// The scope of a task whose script runs in `folder`. Files are granted one by one, so that the
/// script cannot read a file beside them that is not in its key.
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
    // Files that are part of the key only once the script opens them.
    let read: Vec<String> = plan
        .siblings(id)
        .filter(|(_, is_read)| *is_read)
        .map(|(sibling, _)| format!("../{}/", sibling.unit.app))
        .collect();
    let optional = plan.optional_files(id, folder).into_iter();
    for file in optional.filter(|file| read.iter().any(|app| file.name.starts_with(app))) {
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
            // A link to a file outside the folder does not belong to the result.
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
    /// Adds a file. With the `package.json` of a package, its installed packages are added too.
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

/// The folder that a package manager lists, with all folders below it, before it runs a script.
/// Bun lists every folder above its own, Yarn 1 lists the project.
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
