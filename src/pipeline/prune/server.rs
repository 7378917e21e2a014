//! A Node server, such as the middleware: what its build wrote, its `package.json`, and the
//! closure of its production dependencies.

use std::path::Path;

use super::super::failure::Io;
use super::Error;
use super::closure;
use super::copy::{Copier, FileRole};
use crate::config::PackageJson;

/// Copies the folder that holds `entry`, or the entry alone where it lies at the top.
pub fn prune(project: &Path, workdir: &Path, entry: &str, copier: &Copier) -> Result<(), Error> {
    // As Node finds what it is told to start: the file, an extension less, or a folder's index.
    let candidates =
        ["", ".js", ".cjs", ".mjs", "/index.js"].map(|end| workdir.join(format!("{entry}{end}")));
    let Some(file) = candidates.iter().find(|file| file.is_file()) else {
        let entry = workdir.join(entry);
        return Err(Error::NoEntry { entry });
    };
    let entry = file.strip_prefix(workdir).unwrap_or(file);
    match entry.components().next() {
        Some(first) if entry.components().count() > 1 => {
            let folder = Path::new(first.as_os_str());
            copier.folder(&workdir.join(folder), folder, FileRole::App, |_| false)?;
        }
        _ => copier.file(file, entry)?,
    }
    // Without it, Node would not know whether the files are modules.
    let package = workdir.join("package.json");
    copier.file(&package, Path::new("package.json"))?;
    let package = PackageJson::read(&package)?;
    for entry in std::fs::read_dir(workdir).map_err(Io::at("read", workdir))? {
        let entry = entry.map_err(Io::at("read", workdir))?;
        let name = entry.file_name();
        let is_env = name.to_string_lossy().starts_with(".env");
        if is_env && entry.path().is_file() && copier.takes(Path::new(&name), FileRole::App) {
            copier.file(&entry.path(), Path::new(&name))?;
        }
    }
    closure::copy(project, workdir, &package, copier)
}
