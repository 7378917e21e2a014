//! The places of installed packages, in all layouts of package managers and bundlers:
//!
//! - `node_modules/<name>` and `node_modules/@<scope>/<name>`, nested to any depth;
//! - `node_modules/.pnpm/<name>@<version>/node_modules/<name>`, and so with bun's `.bun`;
//! - `node_modules/.nitro/<name>@<version>`, as nitro writes a second version of a package;
//! - `node_modules/.store/<name>-npm-<version>-<hash>/package`, as yarn writes with
//!   `nodeLinker: pnpm`.

use std::fs::FileType;
use std::path::{Component, Path, PathBuf};

/// The name of the folder with installed packages.
pub const NODE_MODULES: &str = "node_modules";

/// An installed package in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// The name: `vue`, `@vue/shared`.
    pub name: String,
    /// The folder, relative to the start of the path.
    pub folder: PathBuf,
}

/// The packages that contain a path, the outermost first. The path may itself be a package.
pub fn packages(path: &Path) -> Vec<InstalledPackage> {
    let parts: Vec<Component> = path.components().collect();
    let texts: Vec<_> = parts
        .iter()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let mut packages = Vec::new();
    let mut at = 0;
    while at < texts.len() {
        at += 1;
        if texts[at - 1] != NODE_MODULES {
            continue;
        }
        if let Some((name, length)) = package(&texts[at..]) {
            at += length;
            let folder = parts[..at].iter().collect();
            packages.push(InstalledPackage { name, folder });
        }
    }
    packages
}

/// The folder of the package `name` in the `node_modules` of `folder`.
pub fn folder_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(NODE_MODULES).join(name)
}

/// An entry of a `node_modules` folder: a package, or a program in `.bin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledEntry {
    /// Relative to `node_modules`: `vue`, `@vue/shared`, `.bin/next`.
    pub name: String,
    /// The text of the link, if the entry is a link.
    pub link: Option<PathBuf>,
}

impl InstalledEntry {
    /// Whether it is a folder, and not a link or a program.
    pub fn is_folder(&self) -> bool {
        self.link.is_none() && !self.is_program()
    }

    /// Whether it is a program in `.bin`.
    pub fn is_program(&self) -> bool {
        self.name.starts_with(".bin/")
    }
}

/// Hidden folders of `node_modules` in which Node does not search for packages: caches, and the targets
/// of links in `node_modules`.
const NOT_RESOLVED: [&str; 6] = [".cache", ".vite", ".vite-temp", ".pnpm", ".bun", ".store"];

/// The packages and programs directly in a `node_modules` folder, by name. Empty if it does not
/// exist.
pub fn entries(node_modules: &Path) -> std::io::Result<Vec<InstalledEntry>> {
    let mut found = Vec::new();
    for (name, path, kind) in folder_entries(node_modules)? {
        let is_group = name == ".bin" || name.starts_with('@');
        if is_group && path.is_dir() {
            for (inner, path, kind) in folder_entries(&path)? {
                found.push(entry(format!("{name}/{inner}"), &path, kind)?);
            }
        } else if (kind.is_dir() || kind.is_symlink()) && !NOT_RESOLVED.contains(&name.as_str()) {
            found.push(entry(name, &path, kind)?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn entry(name: String, path: &Path, kind: FileType) -> std::io::Result<InstalledEntry> {
    let link = kind.is_symlink().then(|| std::fs::read_link(path));
    let link = link.transpose()?;
    Ok(InstalledEntry { name, link })
}

/// Names, paths and kinds of what is in a folder. Names that are not UTF-8 are not valid names of packages.
fn folder_entries(folder: &Path) -> std::io::Result<Vec<(String, PathBuf, FileType)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path(), entry.file_type()?));
        }
    }
    Ok(found)
}

/// Whether the text is a valid name of a package: `name` or `@scope/name`.
pub fn is_package_name(name: &str) -> bool {
    let (scope, rest) = match name.strip_prefix('@') {
        Some(scoped) => match scoped.split_once('/') {
            Some((scope, rest)) => (Some(scope), rest),
            None => return false,
        },
        None => (None, name),
    };
    let is_part = |part: &str| {
        let is_allowed = |char: char| char.is_ascii_alphanumeric() || "-_.~".contains(char);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(is_allowed)
    };
    scope.is_none_or(is_part) && is_part(rest) && rest != NODE_MODULES
}

/// Resolves a package by Node's rule: the `node_modules` of `from`, then of each folder above.
/// Both the path as given and the path with links resolved are searched, since a composed app
/// links to packages of the project and Node resolves links before it searches. Returns the
/// package's folder with links resolved.
pub fn resolve(from: &Path, name: &str) -> Option<PathBuf> {
    let real = from.canonicalize().ok()?;
    [from, &real].into_iter().find_map(|start| {
        start.ancestors().find_map(|folder| {
            let found = folder_of(folder, name);
            let is_package = found.join("package.json").is_file();
            is_package.then(|| found.canonicalize().ok())?
        })
    })
}

/// A folder in `node_modules` that has no manifest, found by Node's rule.
pub fn folder_without_manifest(from: &Path, name: &str) -> Option<PathBuf> {
    let real = from.canonicalize().ok()?;
    [from, &real].into_iter().find_map(|start| {
        let mut folders = start.ancestors().map(|folder| folder_of(folder, name));
        folders.find(|folder| folder.is_dir())?.canonicalize().ok()
    })
}

/// Whether the path is in a folder of installed packages.
pub fn is_installed(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str() == NODE_MODULES)
}

/// Whether the file is a `package.json` in a folder of installed packages. A `package.json` deeper
/// in a package may belong to another package that a bundler put there.
pub fn is_manifest(file: &Path) -> bool {
    file.ends_with("package.json") && is_installed(file)
}

/// The package after `node_modules`: its name, and the number of its path parts.
fn package(parts: &[&str]) -> Option<(String, usize)> {
    let first = *parts.first()?;
    if first.starts_with('.') {
        let (name, length) = stored(&parts[1..])?;
        return Some((name, length + 1));
    }
    if first.starts_with('@') {
        let second = parts.get(1)?;
        return Some((format!("{first}/{second}"), 2));
    }
    Some((first.to_owned(), 1))
}

/// A package in a folder such as `.pnpm` or `.store`.
fn stored(parts: &[&str]) -> Option<(String, usize)> {
    let first = *parts.first()?;
    if let Some((name, _)) = first.split_once("-npm-") {
        // Yarn writes `@scope-name` for `@scope/name`.
        let name = match name.strip_prefix('@').and_then(|name| name.split_once('-')) {
            Some((scope, name)) => format!("@{scope}/{name}"),
            None => name.to_owned(),
        };
        return (*parts.get(1)? == "package").then_some((name, 2));
    }
    let is_scope = first.starts_with('@') && !first[1..].contains('@');
    let length = if is_scope { 2 } else { 1 };
    let id = parts.get(..length)?.join("/");
    let version = id.char_indices().skip(1).find(|(_, char)| *char == '@')?.0;
    // A folder with its own `node_modules` is not the package itself.
    (parts.get(length) != Some(&NODE_MODULES)).then(|| (id[..version].replace('+', "/"), length))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::packages;

    #[test]
    fn every_layout_tells_its_packages() {
        let cases = [
            ("lib/index.js", ""),
            ("node_modules", ""),
            ("node_modules/@s", ""),
            ("node_modules/.bin/tool", ""),
            ("node_modules/.cache/x/y", ""),
            ("node_modules/a", "a=node_modules/a"),
            ("srv/node_modules/@s/a/x.js", "@s/a=srv/node_modules/@s/a"),
            (
                "node_modules/a/node_modules/@s/b/x.js",
                "a=node_modules/a @s/b=node_modules/a/node_modules/@s/b",
            ),
            (
                "node_modules/.pnpm/@s+a@1.0.0_b@2.0.0/node_modules/@s/a/x.js",
                "@s/a=node_modules/.pnpm/@s+a@1.0.0_b@2.0.0/node_modules/@s/a",
            ),
            (
                "node_modules/.bun/a@1.0.0/node_modules/a/node_modules/b/x.js",
                "a=node_modules/.bun/a@1.0.0/node_modules/a \
                 b=node_modules/.bun/a@1.0.0/node_modules/a/node_modules/b",
            ),
            (
                "server/node_modules/.nitro/@s/a@3.4.0/x.js",
                "@s/a=server/node_modules/.nitro/@s/a@3.4.0",
            ),
            (
                "server/node_modules/.nitro/a@3.4.0/node_modules.js",
                "a=server/node_modules/.nitro/a@3.4.0",
            ),
            (
                "node_modules/.store/@s-a-npm-1.0.0-0123456789/package/x.js",
                "@s/a=node_modules/.store/@s-a-npm-1.0.0-0123456789/package",
            ),
            (
                "node_modules/.pnpm/@s+a@1.0.0",
                "@s/a=node_modules/.pnpm/@s+a@1.0.0",
            ),
            ("node_modules/.pnpm/a@1.0.0/node_modules", ""),
        ];
        for (path, expected) in cases {
            let found = packages(Path::new(path));
            let found: Vec<_> = found
                .iter()
                .map(|package| format!("{}={}", package.name, package.folder.display()))
                .collect();
            assert_eq!(found.join(" "), expected, "{path}");
        }
    }
}
