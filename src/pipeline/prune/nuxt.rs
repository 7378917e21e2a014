//! Nuxt: nitro's output runs by itself already; it is taken as it is.

use std::path::Path;

use super::Error;
use super::copy::{Copier, Origin};

/// Copies `.output/server`, `.output/public` and what describes them.
pub fn prune(workdir: &Path, copier: &Copier) -> Result<(), Error> {
    let output = workdir.join(".output");
    let server = output.join("server/index.mjs");
    if !server.is_file() {
        return Err(Error::NoNitro { server });
    }
    let is_public = |path: &Path| path.starts_with("public");
    copier.folder(&output, Path::new(""), Origin::App, is_public)?;
    let public = output.join("public");
    if public.is_dir() {
        copier.folder(&public, Path::new("public"), Origin::Asset, |_| false)?;
    }
    Ok(())
}
