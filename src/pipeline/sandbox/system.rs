//! The paths that every script can read although no key includes them: the system and the
//! toolchain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::pipeline::services::ScriptEnvironment;
use crate::workspace::installed;

/// Folders of the system.
const SYSTEM: [&str; 16] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/dev",
    "/nix",
    "/gnu",
    "/run/current-system",
    "/run/systemd/resolve",
];

/// Devices without stored content.
pub const WRITABLE: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// Programs and settings of package managers and Node version managers, relative to the home
/// folder.
const AT_HOME: [&str; 29] = [
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".node-version",
    ".nvmrc",
    ".tool-versions",
    ".nvm",
    ".n",
    ".fnm",
    ".volta",
    ".asdf",
    ".asdfrc",
    ".nodenv",
    ".proto",
    ".bun",
    ".yarn",
    ".corepack",
    ".cache/node",
    ".cache/ms-playwright",
    ".config/yarn",
    ".config/pnpm",
    ".config/mise",
    ".config/fnm",
    ".local/share/pnpm",
    ".local/share/yarn",
    ".local/share/mise",
    ".local/share/fnm",
    ".local/share/rtx",
    ".local/state/mise",
];

/// Environment variables that name a folder or a file of the toolchain.
const NAMED: [&str; 13] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "LD_PRELOAD",
    "COREPACK_HOME",
    "PNPM_HOME",
    "YARN_CACHE_FOLDER",
    "BUN_INSTALL",
    "NVM_DIR",
    "VOLTA_HOME",
    "npm_config_userconfig",
    "npm_config_globalconfig",
    "npm_config_prefix",
];

/// Programs that run scripts.
const PROGRAMS: [&str; 8] = [
    "node", "npm", "npx", "yarn", "pnpm", "bun", "corepack", "git",
];

/// The paths of the system and of the toolchain, with links resolved. None of them contains the
/// project or the home folder.
pub fn readable(project: &Path, environment: &ScriptEnvironment) -> BTreeSet<PathBuf> {
    let value = |name: &str| environment.all.get(name).map(PathBuf::from);
    let home = value("HOME").and_then(|home| home.canonicalize().ok());
    let mut paths = BTreeSet::new();
    for folder in SYSTEM {
        around(Path::new(folder), project, &mut paths);
    }
    let mut more: Vec<PathBuf> = NAMED.iter().filter_map(|name| value(name)).collect();
    if let Some(home) = &home {
        more.extend(AT_HOME.iter().map(|name| home.join(name)));
    }
    let search = environment.all.get("PATH").cloned().unwrap_or_default();
    for folder in std::env::split_paths(&search).filter(|folder| folder.is_absolute()) {
        more.extend(beside(&folder));
        for program in PROGRAMS {
            if let Ok(real) = folder.join(program).canonicalize() {
                more.extend(package_of(&real));
                more.extend(real.parent().into_iter().flat_map(beside));
            }
        }
    }
    // `PATH` can name any folder, such as the home folder.
    let holds = |path: &Path| {
        project.starts_with(path) || home.as_ref().is_some_and(|home| home.starts_with(path))
    };
    let real = more.into_iter().filter_map(|path| path.canonicalize().ok());
    paths.extend(real.filter(|path| !holds(path) && !path.starts_with(project)));
    paths
}

/// A folder of programs, and the folders beside it that its programs load files from: `lib` beside
/// `bin`.
fn beside(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    if folder.ends_with("bin")
        && let Some(prefix) = folder.parent()
    {
        folders.extend(["lib", "libexec"].map(|name| prefix.join(name)));
    }
    folders
}

/// The folder of the installed package that a program belongs to.
fn package_of(program: &Path) -> Option<PathBuf> {
    let innermost = installed::packages(program).pop()?;
    Some(innermost.folder)
}

/// Adds the folder. If it contains the project, everything in it except the project is added.
fn around(folder: &Path, project: &Path, paths: &mut BTreeSet<PathBuf>) {
    let Ok(real) = folder.canonicalize() else {
        return;
    };
    if !project.starts_with(&real) {
        paths.insert(real);
        return;
    }
    if real == project {
        return;
    }
    for entry in std::fs::read_dir(&real).into_iter().flatten().flatten() {
        around(&entry.path(), project, paths);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{around, readable};
    use crate::pipeline::services::ScriptEnvironment;

    #[test]
    fn a_project_in_a_folder_of_the_system_is_left_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in ["system/bin", "system/src/project/apps", "system/src/other"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        let project = root.join("system/src/project");
        let mut paths = BTreeSet::new();
        around(&root.join("system"), &project, &mut paths);
        let expected = ["system/bin", "system/src/other"].map(|path| root.join(path));
        assert_eq!(paths, BTreeSet::from(expected));
    }

    #[test]
    fn a_search_path_grants_programs_and_neither_home_nor_project() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (home, project) = (root.join("home"), root.join("home/code/project"));
        for path in [
            "bin",
            "lib",
            "secret",
            "code/project/bin",
            "code/project/lib",
            ".nvm",
        ] {
            std::fs::create_dir_all(home.join(path)).unwrap();
        }
        let search = ["bin", "", "code/project/bin"].map(|path| home.join(path));
        let search = search.into_iter().chain(["relative".into(), "/".into()]);
        let variables = [
            ("HOME".to_owned(), home.clone().into()),
            ("PATH".to_owned(), std::env::join_paths(search).unwrap()),
        ];
        let environment = ScriptEnvironment {
            all: variables.into(),
            ..ScriptEnvironment::default()
        };
        let paths = readable(&project, &environment);
        for path in ["bin", "lib", ".nvm"] {
            assert!(paths.contains(&home.join(path)), "{path}");
        }
        let is_read = |path: &str| {
            paths
                .iter()
                .any(|granted| home.join(path).starts_with(granted))
        };
        for path in [
            "",
            "secret",
            "code",
            "code/project",
            "code/project/bin",
            "code/project/lib",
        ] {
            assert!(!is_read(path), "{path}");
        }
    }
}
