//! The scope of a task's script: its folder, and the files that its key was made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Scope;
use crate::plan::{Plan, Task};

/// What of a project was written by a task that others read from.
pub struct Upstream {
    /// Where it lies.
    pub folder: PathBuf,
    /// Files in it that the task made; none where that is not known, which means all of them.
    pub made: Option<Vec<String>>,
}

/// The scope of a task. Files are granted one by one, so that a file beside them that is in no key
/// stays out of reach.
pub fn of_task(plan: &Plan, task: &Task, upstream: impl Fn(&Task) -> Upstream) -> Scope {
    let folder = plan.project.join(&task.folder);
    let mut scope = Scope {
        project: plan.project.clone(),
        installed: vec![folder.clone(), plan.project.join(&task.source)],
        readable: Vec::new(),
        workspaces: plan
            .workspaces
            .iter()
            .map(|folder| plan.project.join(folder))
            .collect(),
        listed: listed(&plan.project, task),
        folder,
    };
    for (path, file) in plan.inputs(task).files {
        if is_link_alone(&file.id) {
            continue;
        }
        if let Some(of_project) = path.strip_prefix("//") {
            scope.add(plan.project.join(of_project));
        } else if let Some(of_sibling) = path.strip_prefix("../")
            && let Some(store) = scope.folder.parent()
        {
            scope.add(store.join(of_sibling));
        }
    }
    for need in needs(plan, task) {
        let task = &plan.tasks[need];
        let result = upstream(task);
        let Some(made) = result.made else {
            scope.readable.push(result.folder);
            continue;
        };
        let sources = plan.sources_of(task);
        let paths = sources.into_iter().map(str::to_owned).chain(made);
        let folder = result.folder.canonicalize().unwrap_or(result.folder);
        for path in paths {
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

impl Scope {
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

/// Whether the key has of a link only where it leads. One that was read through has the id of
/// what it leads to as well, or is no link to the key at all.
fn is_link_alone(id: &str) -> bool {
    id.starts_with("120000 ") && id.split(' ').count() == 2
}

/// The tasks that a task reads from, directly or through others: what one of them made may lead
/// to what it was made of.
fn needs(plan: &Plan, task: &Task) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    let mut next = task.needs.clone();
    while let Some(need) = next.pop() {
        if all.insert(need) {
            next.extend(&plan.tasks[need].needs);
        }
    }
    all
}
