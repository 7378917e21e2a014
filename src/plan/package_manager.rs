//! What runs scripts in a project, and what installs its dependencies.

use super::Error;
use super::task::Script;
use crate::config::Project;

/// What runs scripts in this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// `package-lock.json`, or nothing at all.
    Npm,
    /// `yarn.lock`, version 1.
    Yarn,
    /// `yarn.lock` and `.yarnrc.yml`: version 2 and newer.
    Berry,
    /// `pnpm-lock.yaml`.
    Pnpm,
    /// `bun.lock` or `bun.lockb`.
    Bun,
}

impl PackageManager {
    /// The `packageManager` field, else the lock file, else npm.
    pub fn detect(project: &Project) -> Result<Self, Error> {
        if let Some(field) = &project.package.package_manager {
            let (name, version) = field.split_once('@').unwrap_or((field, ""));
            return match name {
                "npm" => Ok(Self::Npm),
                "yarn" if version.starts_with("1.") || version == "1" => Ok(Self::Yarn),
                "yarn" => Ok(Self::yarn(project)),
                "pnpm" => Ok(Self::Pnpm),
                "bun" => Ok(Self::Bun),
                other => Err(Error::PackageManager {
                    path: project.root.join("package.json"),
                    name: other.to_owned(),
                }),
            };
        }
        let lock_files = [
            ("package-lock.json", Self::Npm),
            ("pnpm-lock.yaml", Self::Pnpm),
            ("yarn.lock", Self::Yarn),
            ("bun.lock", Self::Bun),
            ("bun.lockb", Self::Bun),
        ];
        let found = lock_files
            .iter()
            .find(|(file, _)| project.root.join(file).is_file());
        Ok(match found {
            Some((_, Self::Yarn)) => Self::yarn(project),
            Some((_, manager)) => *manager,
            None => Self::Npm,
        })
    }

    /// Yarn by the file that only newer ones read.
    fn yarn(project: &Project) -> Self {
        if project.root.join(".yarnrc.yml").is_file() {
            Self::Berry
        } else {
            Self::Yarn
        }
    }

    /// The command that runs a script of the package in the current folder. Yarn 2 and newer
    /// refuse folders that are no workspace, as composed apps are; npm comes with Node.
    pub fn run(self, script: &Script) -> Vec<String> {
        let program = match self {
            Self::Npm | Self::Berry => "npm",
            Self::Yarn => "yarn",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        };
        let mut command = [program, "run", &script.name].map(str::to_owned).to_vec();
        if program == "npm" && !script.arguments.is_empty() {
            command.push("--".into());
        }
        command.extend(script.arguments.iter().cloned());
        command
    }

    /// The command that installs what the lock file says.
    pub fn install(self, project: &Project) -> &'static str {
        match self {
            Self::Npm if !project.root.join("package-lock.json").is_file() => "npm install",
            Self::Npm => "npm ci",
            Self::Yarn => "yarn install --frozen-lockfile",
            Self::Berry if project.root.join(".pnp.cjs").is_file() => {
                "yarn config set nodeLinker node-modules && yarn install"
            }
            Self::Berry => "yarn install --immutable",
            Self::Pnpm => "pnpm install --frozen-lockfile",
            Self::Bun => "bun install --frozen-lockfile",
        }
    }
}
