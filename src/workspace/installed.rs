//! Where installed packages lie: every layout that package managers and bundlers write, read in
//! one place.
//!
//! - `node_modules/<name>` and `node_modules/@<scope>/<name>`, nested to any depth;
//! - `node_modules/.pnpm/<name>@<version>/node_modules/<name>`, and so with bun's `.bun`;
//! - `node_modules/.nitro/<name>@<version>`, as nitro writes a second version of a package;
//! - `node_modules/.store/<name>-npm-<version>-<hash>/package`, as yarn writes with
//!   `nodeLinker: pnpm`.

use std::path::{Component, Path, PathBuf};

/// The folder that packages are installed in.
pub const NODE_MODULES: &str = "node_modules";

/// An installed package, as a path tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledPackage {
    /// Its name: `vue`, `@vue/shared`.
    pub name: String,
    /// Its folder, relative to where the path begins.
    pub folder: PathBuf,
}

/// The packages that a path leads through, the outermost first. The path may end at a package.
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

/// Whether the path lies in a folder of installed packages.
pub fn is_installed(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str() == NODE_MODULES)
}

/// Whether the file is a manifest among what is installed. One deeper in a package may be that
/// of another one, which a bundler has put there.
pub fn is_manifest(file: &Path) -> bool {
    file.ends_with("package.json") && is_installed(file)
}

/// The package that begins behind `node_modules`: its name, and how many parts it takes.
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

/// A package in a folder of the package manager's own.
fn stored(parts: &[&str]) -> Option<(String, usize)> {
    let first = *parts.first()?;
    if let Some((name, _)) = first.split_once("-npm-") {
        // `@scope-name`: yarn writes a dash for the slash.
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
    // With a `node_modules` of its own it is only the folder around a package.
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
