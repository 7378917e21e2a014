//! A Node server, such as the middleware: what its build wrote, its `package.json`, and the
//! closure of its production dependencies.

use std::path::Path;

use super::Error;
use super::closure;
use super::copy::{Copier, Origin};
use crate::config::PackageJson;

/// Copies the folder that holds `entry`, or the entry alone where it lies at the top.
pub fn prune(project: &Path, workdir: &Path, entry: &str, copier: &Copier) -> Result<(), Error> {
    let file = workdir.join(entry);
    if !file.is_file() {
        return Err(Error::NoEntry { entry: file });
    }
    match Path::new(entry).components().next() {
        Some(first) if Path::new(entry).components().count() > 1 => {
            let folder = Path::new(first.as_os_str());
            copier.folder(&workdir.join(folder), folder, Origin::App, |_| false)?;
        }
        _ => copier.file(&file, Path::new(entry))?,
    }
    // Without it, Node would not know whether the files are modules.
    let package = workdir.join("package.json");
    copier.file(&package, Path::new("package.json"))?;
    let package = PackageJson::read(&package)?;
    closure::copy(project, workdir, &package, copier)
}
