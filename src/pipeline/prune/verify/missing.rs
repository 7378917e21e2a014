//! Copies modules to `.deploy` from where Node finds them in the project.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::super::failure::Io;
use super::super::Error;
use super::super::closure::{self, runtime_dependencies};
use super::super::copy::{Copier, FileRole};
use super::super::dependency::{self, DependencyFiles};
use super::Verification;
use super::reach::MissingModule;
use super::requests::RequestTime;
use super::resolve::{ModuleResolver, ResolvedModule, is_relative, package_name};
use crate::config::PackageJson;
use crate::store::{AppKind, Framework};
use crate::workspace::installed;
use virtual_path::{normalize, relative};

/// The result of the attempt to copy a missing module.
pub enum CopyOutcome {
    /// It was copied.
    Copied,
    /// It was not copied, because the program may run without it.
    Ignored,
    /// It cannot be copied.
    Failed(CopyFailure),
}

/// Why a module cannot be copied.
pub enum CopyFailure {
    /// The package is not installed where Node searches for it.
    NotInstalled {
        /// The package.
        name: String,
        /// Where a manifest declares it.
        declared: Option<Declaration>,
    },
    /// The package is installed in this folder, but Node cannot load this module of it.
    NotInPackage(PathBuf),
    /// `.deploy` has another version of the package.
    OtherVersion {
        /// The package.
        name: String,
        /// The folder in the project.
        folder: PathBuf,
    },
    /// The file is neither in `.deploy` nor in the project.
    NoFile,
    /// The file is at this path in the project, which has no equivalent in `.deploy`.
    Outside(PathBuf),
}

/// A module that was copied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopiedModule {
    /// The package, or the file's path in `.deploy`.
    pub name: String,
    /// The file that requests it, in `.deploy`.
    pub file: PathBuf,
    /// The installed version of a package.
    pub version: Option<String>,
    /// Where a manifest declares the package.
    pub declared: Option<Declaration>,
    /// Whether it is a package.
    pub is_package: bool,
}

/// A line of a `package.json` that declares a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Declaration {
    /// The `package.json`.
    pub manifest: PathBuf,
    /// The version range.
    pub range: String,
    /// Whether only `devDependencies` has it.
    pub is_dev: bool,
}

/// Copies missing modules.
pub struct ModuleCopier<'a> {
    verification: &'a Verification<'a>,
    copier: &'a Copier<'a>,
    /// `.deploy` under its temporary name, with links resolved.
    root: &'a Path,
    resolver: ModuleResolver,
    tried: BTreeSet<(PathBuf, String)>,
    /// The copied modules.
    pub copied: BTreeSet<CopiedModule>,
}

impl<'a> ModuleCopier<'a> {
    /// A copier for the `.deploy` at `root`.
    pub fn new(verification: &'a Verification<'a>, copier: &'a Copier<'a>, root: &'a Path) -> Self {
        Self {
            verification,
            copier,
            root,
            resolver: ModuleResolver::new(Path::new("/")),
            tried: BTreeSet::new(),
            copied: BTreeSet::new(),
        }
    }

    /// The files below `node_modules` that come from packages of the workspace.
    pub fn own_copies(&self) -> BTreeSet<PathBuf> {
        let origins = self.copier.origins();
        let own = origins.iter().filter(|(path, origin)| {
            installed::is_installed(path) && !installed::is_installed(origin)
        });
        own.map(|(path, _)| path.clone()).collect()
    }

    /// Copies a missing module, if Node finds it in the project.
    pub fn copy(&mut self, module: &MissingModule) -> Result<CopyOutcome, Error> {
        let inner = module.file.strip_prefix(self.root).unwrap_or(&module.file);
        let Some(origin) = self.copier.origins().get(inner).cloned() else {
            return Ok(CopyOutcome::Failed(CopyFailure::NoFile));
        };
        let folder = inner.parent().unwrap_or(inner).to_owned();
        let what = (folder, module.request.specifier.clone());
        let is_new = !self.tried.contains(&what);
        let Some(name) = package_name(&module.request.specifier) else {
            self.tried.insert(what);
            return self.file(module, inner, &origin, is_new);
        };
        let declared = self.declaration(&origin, name);
        if !module.is_certain && !self.copies_if_uncertain(module, declared.as_ref()) {
            return Ok(CopyOutcome::Ignored);
        }
        self.tried.insert(what);
        self.package(name, inner, &origin, declared, is_new)
    }

    /// Whether a package is copied although the program may run without it. Bundles of Next.js request
    /// only packages that its build has found. In other apps the package has to be a production
    /// dependency of a manifest, so that tools stay out.
    fn copies_if_uncertain(&self, module: &MissingModule, declared: Option<&Declaration>) -> bool {
        let is_next = self.verification.image.kind == AppKind::Frontend(Framework::Nextjs);
        let is_bundled = is_next && module.request.time != RequestTime::Guarded;
        is_bundled || declared.is_some_and(|declared| !declared.is_dev)
    }

    /// The nearest manifest above a file that declares a package.
    fn declaration(&self, origin: &Path, name: &str) -> Option<Declaration> {
        let real = origin.canonicalize().unwrap_or_else(|_| origin.to_owned());
        let above = [origin, &real]
            .into_iter()
            .flat_map(Path::ancestors)
            .skip(1);
        // `.out/package.json` is a link to the root's, which comes later by its own name.
        let project = self.verification.project;
        let out = project.join(".out");
        let inside = above.filter(|folder| folder.starts_with(project) && **folder != out);
        let mut found = None;
        for folder in inside.filter(|folder| !installed::is_installed(folder)) {
            let manifest = folder.join("package.json");
            let Ok(package) = PackageJson::read(&manifest) else {
                continue;
            };
            let production = [
                &package.dependencies,
                &package.optional_dependencies,
                &package.peer_dependencies,
            ];
            let range = production.into_iter().find_map(|section| section.get(name));
            let is_dev = range.is_none();
            if let Some(range) = range.or_else(|| package.dev_dependencies.get(name)) {
                let declaration = Declaration {
                    manifest,
                    range: range.clone(),
                    is_dev,
                };
                if !is_dev {
                    return Some(declaration);
                }
                found.get_or_insert(declaration);
            }
        }
        found
    }

    fn package(
        &mut self,
        name: &str,
        user: &Path,
        origin: &Path,
        declared: Option<Declaration>,
        is_new: bool,
    ) -> Result<CopyOutcome, Error> {
        let from = origin.parent().unwrap_or(origin);
        let Some(source) = installed::resolve(from, name) else {
            if let Some(folder) = installed::folder_without_manifest(from, name) {
                return self.folder(name, user, &folder);
            }
            let name = name.to_owned();
            return Ok(CopyOutcome::Failed(CopyFailure::NotInstalled {
                name,
                declared,
            }));
        };
        if self.is_own(&source) {
            return self.link_to_app(name);
        }
        let version = version(&source);
        let present = self.present(user, name);
        if let Some(present) = &present
            && self::version(&self.root.join(present)) != version
        {
            let name = name.to_owned();
            let folder = source;
            return Ok(CopyOutcome::Failed(CopyFailure::OtherVersion {
                name,
                folder,
            }));
        }
        let before = self.copier.origins().len();
        if is_new {
            let target = present.unwrap_or_else(|| installed::folder_of(Path::new(""), name));
            self.closure(name, source.clone(), target, origin)?;
        }
        if self.copier.origins().len() == before {
            return Ok(CopyOutcome::Failed(CopyFailure::NotInPackage(source)));
        }
        self.copied.insert(CopiedModule {
            name: name.to_owned(),
            file: user.to_owned(),
            version,
            declared,
            is_package: true,
        });
        Ok(CopyOutcome::Copied)
    }

    /// Copies a folder of `node_modules` that has no manifest, such as the client that Prisma generates
    /// in `.prisma`.
    fn folder(&mut self, name: &str, user: &Path, folder: &Path) -> Result<CopyOutcome, Error> {
        let target = installed::folder_of(Path::new(""), name);
        let all = |_: &Path| false;
        let role = FileRole::Dependency;
        self.copier.folder(folder, &target, role, all)?;
        self.copied.insert(CopiedModule {
            name: name.to_owned(),
            file: user.to_owned(),
            version: None,
            declared: None,
            is_package: false,
        });
        Ok(CopyOutcome::Copied)
    }

    /// Whether the folder is that of the composed app.
    fn is_own(&self, source: &Path) -> bool {
        let own = self.verification.workdir.canonicalize();
        own.is_ok_and(|own| own == source)
    }

    /// Links the app's package name to `.deploy`, for an app that imports itself by that name. The name
    /// in its own `package.json` is another one.
    fn link_to_app(&self, name: &str) -> Result<CopyOutcome, Error> {
        let link = self.root.join(installed::folder_of(Path::new(""), name));
        if let Some(folder) = link.parent() {
            std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
        }
        let up = PathBuf::from("../".repeat(1 + name.matches('/').count()));
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(up, &link).map_err(Io::at("link", &link))?;
        }
        Ok(CopyOutcome::Copied)
    }

    /// The folder in `.deploy` in which Node finds a package from a path in it.
    fn present(&self, from: &Path, name: &str) -> Option<PathBuf> {
        let folders = from.ancestors().skip(1);
        let mut folders = folders.map(|folder| installed::folder_of(folder, name));
        folders.find(|folder| self.root.join(folder).join("package.json").is_file())
    }

    /// Copies a package and its production dependencies.
    fn closure(
        &self,
        name: &str,
        source: PathBuf,
        target: PathBuf,
        user: &Path,
    ) -> Result<(), Error> {
        let project = self.verification.project;
        let drop = &self.copier.rules.drop;
        let mut placed = BTreeSet::from([target.clone()]);
        let mut queue = VecDeque::from([(name.to_owned(), source, target)]);
        let (mut targets, mut packages) = (Vec::new(), Vec::new());
        while let Some((name, source, target)) = queue.pop_front() {
            let package = PackageJson::read(&source.join("package.json"))?;
            for (dependency, _) in runtime_dependencies(&package) {
                // A missing dependency is found in the next round, with the file that requests it.
                let Some(from) = installed::resolve(&source, dependency) else {
                    continue;
                };
                if is_build_tool(dependency) {
                    continue;
                }
                let nested = target.join("package.json");
                let top = installed::folder_of(Path::new(""), dependency);
                let own = installed::folder_of(&target, dependency);
                let place = match self.present(&nested, dependency) {
                    Some(seen) if version(&self.root.join(&seen)) == version(&from) => continue,
                    Some(_) => own,
                    None if placed.contains(&top) => continue,
                    None => top,
                };
                if placed.insert(place.clone()) {
                    queue.push_back((dependency.to_owned(), from, place));
                }
            }
            self.unlink(&target);
            if closure::is_installed(project, &source) {
                packages.push(DependencyFiles::read(&name, &source, drop)?);
                targets.push(target);
            } else {
                closure::workspace_package(&source, &target, self.copier)?;
            }
        }
        dependency::keep_mentioned(&mut packages, &[user.to_owned()], drop)?;
        for (target, package) in targets.iter().zip(&packages) {
            for (path, file) in package.kept(drop) {
                let to = target.join(path);
                if self.copier.takes(&to, FileRole::Dependency) {
                    self.copier.file(file, &to)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a link in place of a package, if the link leads out of `.deploy`.
    fn unlink(&self, target: &Path) {
        let path = self.root.join(target);
        if path.is_symlink()
            && !path
                .canonicalize()
                .is_ok_and(|real| real.starts_with(self.root))
        {
            // If the link stays, the next round finds the same missing package.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Copies a file of the app, or of the package that requests it.
    fn file(
        &mut self,
        module: &MissingModule,
        user: &Path,
        origin: &Path,
        is_new: bool,
    ) -> Result<CopyOutcome, Error> {
        let real = origin.canonicalize().unwrap_or_else(|_| origin.to_owned());
        let found = self.resolver.resolve(&real, &module.request);
        let ResolvedModule::File(source) = found else {
            return Ok(CopyOutcome::Failed(CopyFailure::NoFile));
        };
        let (from, folder) = (real.parent(), user.parent());
        let way = relative(from.unwrap_or(&real), &source);
        let folder = self.root.join(folder.unwrap_or(user));
        let target = normalize(&folder.join(way));
        let target = target.strip_prefix(self.root).map(Path::to_owned);
        let boundary = real.ancestors().skip(1);
        let mut boundary = boundary.filter(|folder| folder.join("package.json").is_file());
        let is_same = boundary
            .next()
            .is_some_and(|folder| source.starts_with(folder));
        let specifier = &module.request.specifier;
        let is_file = is_relative(specifier) || specifier.starts_with('#');
        let Some(target) = target.ok().filter(|_| is_same && is_file) else {
            return Ok(CopyOutcome::Failed(CopyFailure::Outside(source)));
        };
        if !is_new || self.copier.path(&target).exists() {
            return Ok(CopyOutcome::Failed(CopyFailure::NoFile));
        }
        self.copier.file(&source, &target)?;
        self.copied.insert(CopiedModule {
            name: target.display().to_string(),
            file: user.to_owned(),
            version: None,
            declared: None,
            is_package: false,
        });
        Ok(CopyOutcome::Copied)
    }
}

/// Whether the package is a compiler that `next` lists as an optional dependency and that its
/// server does not load.
fn is_build_tool(name: &str) -> bool {
    name.starts_with("@next/swc-")
}

/// The version of the package in a folder.
fn version(folder: &Path) -> Option<String> {
    let text = std::fs::read(folder.join("package.json")).ok()?;
    let manifest: Value = serde_json::from_slice(&text).ok()?;
    Some(manifest["version"].as_str()?.to_owned())
}
