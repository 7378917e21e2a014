//! Nuxt: the output of nitro already runs by itself. It is copied without the files that
//! `prune.drop` names in the packages that nitro has copied.

use std::path::Path;

use super::Error;
use super::copy::{Copier, FileRole, files};
use super::dependency::drops_traced;

/// Copies `.output`: the server, the public files and the metadata of nitro.
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
