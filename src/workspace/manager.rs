//! The package manager of a project, and its commands.

use std::path::Path;

use crate::files::FileTree;

/// A supported package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// npm.
    Npm,
    /// Yarn 1.
    Yarn,
    /// Yarn 2 and newer.
    Berry,
    /// pnpm.
    Pnpm,
    /// bun.
    Bun,
}

/// `packageManager` names a package manager that is not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownManager(pub String);

impl PackageManager {
    /// All package managers. Their lock files are looked for in this order.
    pub const ALL: [Self; 5] = [Self::Npm, Self::Pnpm, Self::Yarn, Self::Berry, Self::Bun];

    /// The package manager in `field`, which is `packageManager` of the root `package.json`. Without
    /// it, the one whose lock file is in `root`. Without a lock file, npm.
    pub fn detect(
        files: &dyn FileTree,
        root: &Path,
        field: Option<&str>,
    ) -> Result<Self, UnknownManager> {
        // Yarn 1 does not read this file.
        let yarn = || {
            if files.is_file(&root.join(".yarnrc.yml")) {
                Self::Berry
            } else {
                Self::Yarn
            }
        };
        if let Some(field) = field {
            let (name, version) = field.split_once('@').unwrap_or((field, ""));
            return match name {
                "npm" => Ok(Self::Npm),
                "yarn" if version.starts_with("1.") || version == "1" => Ok(Self::Yarn),
                "yarn" if version.starts_with(|digit: char| digit.is_ascii_digit()) => {
                    Ok(Self::Berry)
                }
                "yarn" => Ok(yarn()),
                "pnpm" => Ok(Self::Pnpm),
                "bun" => Ok(Self::Bun),
                other => Err(UnknownManager(other.to_owned())),
            };
        }
        let has_lock_file = |manager: &&Self| manager.lock_file(files, root).is_some();
        Ok(match Self::ALL.iter().find(has_lock_file) {
            Some(Self::Yarn) => yarn(),
            Some(manager) => *manager,
            None => Self::Npm,
        })
    }

    /// Its name, as text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Yarn => "Yarn 1",
            Self::Berry => "Yarn 2 or newer",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        }
    }

    /// The names of its lock file, at the top of a project. The first that exists counts.
    pub fn lock_files(self) -> &'static [&'static str] {
        match self {
            Self::Npm => &["npm-shrinkwrap.json", "package-lock.json"],
            Self::Yarn | Self::Berry => &["yarn.lock"],
            Self::Pnpm => &["pnpm-lock.yaml"],
            Self::Bun => &["bun.lock", "bun.lockb"],
        }
    }

    /// The name of its lock file in `root`, if it exists.
    pub fn lock_file(self, files: &dyn FileTree, root: &Path) -> Option<&'static str> {
        let mut names = self.lock_files().iter();
        names.find(|name| files.is_file(&root.join(name))).copied()
    }

    /// The command that runs a script in the current folder. Yarn 2 and newer refuse folders that
    /// are not in the workspace, such as composed apps, so npm runs their scripts.
    pub fn run(self, script: &str, arguments: &[String]) -> Vec<String> {
        let program = match self {
            Self::Npm | Self::Berry => "npm",
            Self::Yarn => "yarn",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        };
        let mut command = [program, "run", script].map(str::to_owned).to_vec();
        if program == "npm" && !arguments.is_empty() {
            command.push("--".into());
        }
        command.extend(arguments.iter().cloned());
        command
    }

    /// The command that installs dependencies from the lock file.
    pub fn install(self, files: &dyn FileTree, root: &Path) -> &'static str {
        match self {
            Self::Npm if self.lock_file(files, root).is_none() => "npm install",
            Self::Npm => "npm ci",
            Self::Yarn => "yarn install --frozen-lockfile",
            Self::Berry if files.is_file(&root.join(".pnp.cjs")) => {
                "yarn config set nodeLinker node-modules && yarn install"
            }
            Self::Berry => "yarn install --immutable",
            Self::Pnpm => "pnpm install --frozen-lockfile",
            Self::Bun => "bun install --frozen-lockfile",
        }
    }
}
