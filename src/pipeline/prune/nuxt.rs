//! Nuxt: nitro's output runs by itself already; it is taken as it is, but
//! for what `prune.drop` names in the packages that it brings.

use std::path::Path;

use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::drops_traced;

/// Copies `.output/server`, `.output/public` and what describes them.
pub fn prune(workdir: &Path, copier: &Copier) -> Result<(), Error> {
    let output = workdir.join(".output");
    let server = output.join("server/index.mjs");
    if !server.is_file() {
        return Err(Error::NoNitro { server });
    }
    let is_public = |path: &Path| path.starts_with("public");
    for (path, file) in files(&output, |path| !is_public(path))? {
        let is_dropped = || drops_traced(&copier.rules.drop, &output, &file);
        if copier.takes(&path, FileRole::App) && !is_dropped() {
            copier.file(&file, &path)?;
        }
    }
    let public = output.join("public");
    if public.is_dir() {
        copier.folder(&public, Path::new("public"), FileRole::Asset, |_| false)?;
    }
    Ok(())
}
