//! The messages of verification: the copied modules, the missing modules, and how to correct them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::Error;
use super::Verification;
use super::missing::{CopiedModule, CopyFailure, Declaration};
use super::reach::MissingModule;
use super::requests::RequestKind;
use crate::store::{AppKind, Framework};

/// Messages about copied modules.
pub fn notices(verification: &Verification, copied: &BTreeSet<CopiedModule>) -> Vec<String> {
    let app = &verification.image.unit.app;
    // A package is named once, with the first file that needs it.
    let mut firsts = BTreeMap::<&String, &CopiedModule>::new();
    for module in copied {
        firsts.entry(&module.name).or_insert(module);
    }
    let is_next = verification.image.kind == AppKind::Frontend(Framework::Nextjs);
    if is_next && firsts.contains_key(&"next".to_owned()) {
        // The other packages are missing for the same reason.
        let names: Vec<_> = firsts.keys().map(|name| format!("`{name}`")).collect();
        return vec![format!(
            "the standalone output of `{app}` does not contain {}, because `outputFileTracingRoot` is a folder without them; they were copied to `.deploy` from the project as whole packages. Set `outputFileTracingRoot` in the app's next.config to the folder with the lock file, so that Next.js selects the files that the server needs",
            names.join(", "),
        )];
    }
    let notice = |module: &CopiedModule| {
        let file = module.file.display();
        if !module.is_package {
            return format!(
                "`{file}` of `{app}` needs the file `{}`, which is outside of the folder with the entry; it was copied to `.deploy`",
                module.name
            );
        }
        let name = &module.name;
        format!(
            "`{name}` is needed by `{file}` of `{app}`, but {}; it was copied to `.deploy`. Add `{}` to `dependencies` in `apps/{app}/package.json`",
            declared(verification, module.declared.as_ref()),
            line(name, module.declared.as_ref(), module.version.as_deref()),
        )
    };
    firsts.into_values().map(notice).collect()
}

/// Where a package is declared, as a clause.
fn declared(verification: &Verification, declared: Option<&Declaration>) -> String {
    let Some(declared) = declared else {
        return "no `package.json` of the app or above declares it".into();
    };
    let manifest = &declared.manifest;
    let place = if *manifest == verification.project.join("package.json") {
        "the root `package.json`".to_owned()
    } else {
        format!("`{}`", verification.display(manifest))
    };
    if declared.is_dev {
        format!("it is declared only in `devDependencies` of {place}")
    } else {
        format!("it is declared only in {place}")
    }
}

/// The line of a manifest that declares a package.
fn line(name: &str, declared: Option<&Declaration>, version: Option<&str>) -> String {
    let range = match (declared, version) {
        (Some(declared), _) => declared.range.clone(),
        (None, Some(version)) => format!("^{version}"),
        (None, None) => "*".into(),
    };
    format!("\"{name}\": \"{range}\"")
}

/// The error about modules that cannot be found.
pub fn error(
    verification: &Verification,
    root: &Path,
    failed: &[(MissingModule, CopyFailure)],
) -> Error {
    let app = &verification.image.unit.app;
    let (mut missing, mut remedies) = (Vec::new(), BTreeSet::new());
    for (module, reason) in failed {
        let specifier = module.request.specifier.escape_debug();
        let file = module.file.strip_prefix(root).unwrap_or(&module.file);
        let (why, remedy) = match reason {
            CopyFailure::NotInstalled { name, declared } => {
                not_installed(verification, name, declared.as_ref())
            }
            CopyFailure::NotInPackage(folder) => (
                format!(
                    "the package is installed in `{}`, but does not have the module",
                    verification.display(folder)
                ),
                "install a version of the package that has the module".into(),
            ),
            CopyFailure::OtherVersion { name, folder } => (
                format!(
                    "`.deploy` has another version of `{name}` than `{}`, and that version does not have the module",
                    verification.display(folder)
                ),
                format!("declare the same version of `{name}` in every `package.json`"),
            ),
            CopyFailure::NoFile => (
                "the file does not exist in the project".into(),
                "check that the build writes the file, and that `prune.drop` does not list it"
                    .into(),
            ),
            CopyFailure::Outside(path) => (
                format!(
                    "the file is `{}` in the project, which is outside of the app's folder",
                    verification.display(path)
                ),
                format!(
                    "make the file part of a package of the workspace, and add the package to `dependencies` in `apps/{app}/package.json`"
                ),
            ),
        };
        let verb = match module.request.kind {
            RequestKind::Import => "imported",
            RequestKind::Require | RequestKind::Resolve => "required",
        };
        missing.push(format!(
            "\n  `{specifier}`, {verb} by `{}`: {why}",
            file.display()
        ));
        remedies.insert(remedy);
    }
    Error::Unresolved {
        missing,
        help: remedies.into_iter().collect::<Vec<_>>().join("; "),
    }
}

fn not_installed(
    verification: &Verification,
    name: &str,
    declaration: Option<&Declaration>,
) -> (String, String) {
    let app = &verification.image.unit.app;
    match declaration {
        Some(found) => (
            format!(
                "`{name}` is not installed, although `{}` declares it",
                verification.display(&found.manifest)
            ),
            "install the dependencies with the project's package manager, such as `npm ci`".into(),
        ),
        None => (
            format!(
                "`{name}` is not installed, and no `package.json` of the app or above declares it"
            ),
            format!(
                "add `\"{name}\": \"<version>\"` to `dependencies` in `apps/{app}/package.json`, and install it"
            ),
        ),
    }
}
