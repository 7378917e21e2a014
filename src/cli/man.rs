//! `__man`: one man page for each command, for the archives of a release.

use std::path::Path;

use clap::CommandFactory;

use super::Error;
use super::arguments::Arguments;
use crate::error::Error as AnyError;

/// Writes `alokai.1`, `alokai-store.1`, `alokai-store-build.1` and so on.
pub fn write(folder: &Path) -> Result<(), AnyError> {
    let command = Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, folder).map_err(|source| {
        let path = folder.to_owned();
        Error::Write { path, source }.into()
    })
}
