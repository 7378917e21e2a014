//! Node's resolution of modules, limited to the content of one folder.

use std::io;
use std::path::{Path, PathBuf};

use oxc_resolver::{FileMetadata, FileSystem, ResolveError, ResolveOptions, ResolverGeneric};

use super::requests::{ModuleRequest, RequestKind};
use virtual_path::normalize;

/// What a request resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedModule {
    /// A file, with links resolved.
    File(PathBuf),
    /// Not a file that can be checked: a module of Node, a URL, or an absolute path.
    Other,
    /// The request cannot be resolved, and Node fails.
    Missing,
}

/// A view of the file system in which only one folder exists.
struct FolderView {
    root: PathBuf,
}

impl FolderView {
    fn check(&self, path: &Path) -> io::Result<()> {
        if path.starts_with(&self.root) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

impl FileSystem for FolderView {
    fn new() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check(path)?;
        std::fs::read(path)
    }

    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        self.check(path)?;
        std::fs::read_to_string(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMetadata> {
        self.check(&self.canonicalize(path)?)?;
        std::fs::metadata(path).map(FileMetadata::from)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<FileMetadata> {
        self.check(path)?;
        std::fs::symlink_metadata(path).map(FileMetadata::from)
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, ResolveError> {
        self.check(path)?;
        Ok(std::fs::read_link(path)?)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.check(path)?;
        let real = path.canonicalize()?;
        self.check(&real)?;
        Ok(real)
    }
}

/// Resolves requests in one folder. Answers are remembered, so files must not change meanwhile.
pub struct ModuleResolver {
    root: PathBuf,
    import: ResolverGeneric<FolderView>,
    require: ResolverGeneric<FolderView>,
}

impl ModuleResolver {
    /// A resolver that sees only `root`, whose links are resolved.
    pub fn new(root: &Path) -> Self {
        let options = |condition: &str| ResolveOptions {
            condition_names: ["node", condition, "module-sync", "node-addons"]
                .map(str::to_owned)
                .into(),
            builtin_modules: true,
            node_path: false,
            ..ResolveOptions::default()
        };
        let view = FolderView {
            root: root.to_owned(),
        };
        let require = ResolverGeneric::new_with_file_system(view, options("require"));
        let import = ResolveOptions {
            fully_specified: true,
            ..options("import")
        };
        Self {
            root: root.to_owned(),
            import: require.clone_with_options(import),
            require,
        }
    }

    /// Resolves a request of a file. The file's path has its links resolved.
    pub fn resolve(&self, file: &Path, request: &ModuleRequest) -> ResolvedModule {
        let specifier = request.specifier.as_str();
        if specifier.is_empty() || is_url(specifier) || specifier.starts_with('/') {
            return ResolvedModule::Other;
        }
        let folder = file.parent().unwrap_or(file);
        let is_import = request.kind == RequestKind::Import;
        if is_import && is_relative(specifier) {
            return self.relative_import(folder, specifier);
        }
        let resolver = if is_import {
            &self.import
        } else {
            &self.require
        };
        match resolver.resolve(folder, specifier) {
            Ok(found) if found.path().starts_with(&self.root) => {
                ResolvedModule::File(found.path().to_owned())
            }
            Ok(_)
            | Err(
                ResolveError::NotFound(_)
                | ResolveError::PackagePathNotExported { .. }
                | ResolveError::PackageImportNotDefined(..)
                | ResolveError::InvalidPackageTarget(..),
            ) => ResolvedModule::Missing,
            // Modules of Node, and manifests that cannot be read. Node reports a better error for those.
            Err(_) => ResolvedModule::Other,
        }
    }

    /// An ES module requests another file by its full name, as a URL.
    fn relative_import(&self, folder: &Path, specifier: &str) -> ResolvedModule {
        let path = specifier.split(['?', '#']).next().unwrap_or(specifier);
        if path.contains('%') {
            return ResolvedModule::Other;
        }
        let path = normalize(&folder.join(path));
        match path.canonicalize() {
            Ok(real) if real.starts_with(&self.root) && real.is_file() => {
                ResolvedModule::File(real)
            }
            _ => ResolvedModule::Missing,
        }
    }
}

/// Whether the specifier is relative to its file.
pub fn is_relative(specifier: &str) -> bool {
    ["./", "../"]
        .iter()
        .any(|start| specifier.starts_with(start))
        || specifier == "."
        || specifier == ".."
}

/// The name of the package in a specifier such as `@scope/name/file.js`. None where it names a
/// file or an entry of `imports`.
pub fn package_name(specifier: &str) -> Option<&str> {
    if is_relative(specifier) || specifier.starts_with(['#', '/']) {
        return None;
    }
    let parts = if specifier.starts_with('@') { 2 } else { 1 };
    let end = specifier.match_indices('/').nth(parts - 1);
    Some(end.map_or(specifier, |(end, _)| &specifier[..end]))
}

/// Whether the specifier is a URL other than `node:`, which is a module of Node.
fn is_url(specifier: &str) -> bool {
    specifier.split_once(':').is_some_and(|(scheme, _)| {
        scheme != "node" && scheme.chars().all(|char| char.is_ascii_alphanumeric())
    })
}
