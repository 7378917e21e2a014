//! The config, the lock file and the installed dependencies.

use std::path::Path;
use std::time::SystemTime;

use super::{Diagnosis, ProblemKind};
use crate::config::{Error as ConfigError, FILE, PackageJson, Project};
use crate::files::DiskFiles;
use crate::plan;
use crate::workspace::PackageManager;
use crate::workspace::lockfile::{LockedFolder, Lockfile, Workspace};

/// Files that package managers write into `node_modules` at the end of an install.
const MARKERS: [&str; 6] = [
    ".package-lock.json",
    ".yarn-integrity",
    ".yarn-state.yml",
    ".modules.yaml",
    ".pnpm/lock.yaml",
    ".bin",
];

/// Checks the project.
pub fn check(root: &Path, project: Result<&Project, &ConfigError>) -> Vec<Diagnosis> {
    let project = match project {
        Ok(project) => project,
        Err(error) => return config_problems(error),
    };
    let mut found = vec![config(project)];
    let Ok(manager) = project.package_manager() else {
        // `versions::check` reports it.
        return found;
    };
    let Some(name) = manager.lock_file(&DiskFiles, root) else {
        if has_no_dependencies(project) {
            return found;
        }
        found.push(Diagnosis::warning(
            "lock file",
            "the project does not have one, so each install can have different versions",
            format!(
                "run `{}`, and commit the lock file",
                manager.install(&DiskFiles, root)
            ),
        ));
        found.extend(installed(project, manager, None));
        return found;
    };
    found.push(lock_file(project, manager, name));
    found.extend(installed(project, manager, Some(name)));
    found
}

fn config(project: &Project) -> Diagnosis {
    let deployable = project.stores.deployables().count();
    let templates = project.stores.iter().count() - deployable;
    let apps = project.apps.len();
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let found = format!(
        "{FILE}: {}, {}, {}",
        count(apps, "base app"),
        count(deployable, "deployable store"),
        count(templates, "template"),
    );
    if deployable == 0 {
        return Diagnosis::warning(
            "config",
            found,
            "give a store a `deployment`; only such a store can be deployed",
        );
    }
    if let Err(error) = plan::check_store_ids(project) {
        return Diagnosis::of_error("config", ProblemKind::Input, &error);
    }
    match project.notices.first() {
        Some(notice) => Diagnosis::warning(
            "config",
            format!("{found}; {notice}"),
            "run `alokai store check`",
        ),
        None => Diagnosis::ok("config", found),
    }
}

fn config_problems(error: &ConfigError) -> Vec<Diagnosis> {
    let (text, problems) = match error {
        ConfigError::NotFound { .. } => {
            let found = error.to_string();
            let next = "run `alokai init`, or pass the folder of the project: `alokai --cwd path/to/project doctor`";
            return vec![Diagnosis::problem(
                "config",
                ProblemKind::Input,
                found,
                next,
            )];
        }
        ConfigError::Invalid { text, problems, .. } => (Some(text), problems),
        ConfigError::Folders { problems, .. } => (None, problems),
        _ => return vec![Diagnosis::of_error("config", ProblemKind::Input, error)],
    };
    let one = |problem: &crate::config::Problem| {
        let offset = problem.span.map(|span| span.offset());
        let line = text.zip(offset).and_then(|(text, offset)| {
            let lines = text.inner().get(..offset)?.matches('\n').count();
            Some(format!("{FILE}:{}: ", lines + 1))
        });
        Diagnosis {
            next: problem.help.clone(),
            ..Diagnosis::problem(
                "config",
                ProblemKind::Input,
                format!("{}{}", line.unwrap_or_default(), problem.message),
                "",
            )
        }
    };
    problems.iter().map(one).collect()
}

/// The folders of the workspace, as the lock file lists them.
fn workspace(project: &Project) -> Vec<(String, &PackageJson)> {
    let mut folders = vec![(String::new(), &project.package)];
    let apps = project.apps.iter();
    folders.extend(apps.map(|app| (format!("apps/{}", app.name), &app.package)));
    let packages = project.packages.iter();
    folders.extend(packages.map(|it| (it.folder.clone(), &it.package)));
    folders
}

fn needs(package: &PackageJson) -> Vec<(&str, &str)> {
    let maps = [
        &package.dependencies,
        &package.dev_dependencies,
        &package.optional_dependencies,
    ];
    let needs = maps.into_iter().flatten();
    needs
        .map(|(name, range)| (name.as_str(), range.as_str()))
        .collect()
}

/// Whether the project declares no dependencies.
fn has_no_dependencies(project: &Project) -> bool {
    let folders = workspace(project);
    folders.iter().all(|(_, package)| needs(package).is_empty())
}

/// Whether the lock file has an entry for each dependency.
fn lock_file(project: &Project, manager: PackageManager, name: &'static str) -> Diagnosis {
    const CHECK: &str = "lock file";
    let text = std::fs::read(project.root.join(name)).unwrap_or_default();
    let folders = workspace(project);
    let locked = folders.iter().map(|(path, package)| LockedFolder {
        path,
        name: package.name.as_deref(),
        needs: needs(package),
    });
    let workspace = Workspace {
        folders: locked.collect(),
        resolutions: project
            .package
            .resolutions
            .keys()
            .map(String::as_str)
            .collect(),
    };
    let Some(lock) = Lockfile::parse(name, &text, &workspace) else {
        return Diagnosis::warning(
            CHECK,
            format!(
                "`{name}` has a format that is not supported, so each of its changes invalidates all results"
            ),
            format!(
                "run `{}` with a current version of the package manager",
                install(manager)
            ),
        );
    };
    let names: Vec<_> = folders
        .iter()
        .filter_map(|(_, it)| it.name.as_deref())
        .collect();
    let with_needs = folders
        .iter()
        .filter(|(_, package)| !needs(package).is_empty());
    let missing: Vec<_> = with_needs
        .filter(|(path, package)| {
            lock.reach(&[path.as_str()]).is_none_or(|reached| {
                let is_locked = |(name, range): &(&str, &str)| {
                    let prefix = format!("{name}@");
                    // `npm:`, `file:` and the like have another name in the lock file.
                    range.contains(':')
                        || names.contains(name)
                        || reached.keys().any(|it| it.starts_with(&prefix))
                };
                !needs(package).iter().all(is_locked)
            })
        })
        .map(|(path, _)| match path.as_str() {
            "" => "`package.json`".to_owned(),
            path => format!("`{path}/package.json`"),
        })
        .collect();
    if missing.is_empty() {
        return Diagnosis::ok(CHECK, format!("{name}, with all dependencies"));
    }
    Diagnosis::warning(
        CHECK,
        format!(
            "`{name}` does not have all dependencies of {}",
            missing.join(", ")
        ),
        format!("run `{}`, and commit the lock file", install(manager)),
    )
}

/// The command that brings the lock file up to date.
fn install(manager: PackageManager) -> &'static str {
    match manager {
        PackageManager::Npm => "npm install",
        PackageManager::Yarn | PackageManager::Berry => "yarn install",
        PackageManager::Pnpm => "pnpm install",
        PackageManager::Bun => "bun install",
    }
}

/// Whether dependencies are installed, and not before the last change of the lock file.
fn installed(
    project: &Project,
    manager: PackageManager,
    lock_file: Option<&str>,
) -> Option<Diagnosis> {
    const CHECK: &str = "dependencies";
    if has_no_dependencies(project) {
        return None;
    }
    let command = manager.install(&DiskFiles, &project.root);
    let place = project.root.join("node_modules");
    if !place.is_dir() {
        return Some(Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            "`node_modules` does not exist",
            format!("run `{command}`"),
        ));
    }
    let changed = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let installed = MARKERS
        .iter()
        .filter_map(|name| changed(&place.join(name)))
        .max();
    let locked = lock_file.and_then(|name| changed(&project.root.join(name)));
    if installed
        .zip(locked)
        .is_some_and(|(installed, locked)| locked > installed)
    {
        return Some(Diagnosis::warning(
            CHECK,
            "the lock file has changed since the last install",
            format!("run `{command}`"),
        ));
    }
    Some(Diagnosis::ok(CHECK, "installed in `node_modules`"))
}
