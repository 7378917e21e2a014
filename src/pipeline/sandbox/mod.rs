//! The sandbox: a script can open only the files that its key includes. So a script that succeeds
//! has proved that its key is complete.
//!
//! With Landlock, a Linux process restricts itself, and Rust cannot run code between `fork` and
//! `exec` without `unsafe`. So a script is started through this program: the hidden command
//! `__sandbox` reads the [`SandboxRules`], restricts itself and executes the script. The paths that
//! the script was denied are found in its output ([`denied`]).

mod denied;
mod enforce;
mod rules;
mod system;
mod task;
mod undeclared;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use denied::{DenialScanner, DeniedPath};
pub use enforce::{enforce, support};
pub use rules::{SandboxRules, ScriptScope};
pub use task::{UpstreamResult, of_task};
pub use undeclared::{Undeclared, notices};

use super::failure::Io;
use super::services::ScriptEnvironment;

/// The command of this program that starts a script in its sandbox.
pub const COMMAND: &str = "__sandbox";

/// The sandbox of one script: its rules, and a private folder for its temporary files.
pub struct Sandbox {
    /// This program, which restricts itself and executes the script.
    launcher: PathBuf,
    /// The paths that the script can open.
    pub rules: SandboxRules,
    private: TempDir,
}

/// Why a script was not started.
#[derive(Debug, Serialize, Deserialize)]
pub enum NotStarted {
    /// The restriction failed.
    Restrict(String),
    /// The program could not be executed. This is the system's error number.
    Execute(i32),
}

impl Sandbox {
    /// Collects the rules of the script and writes them to a file for the launcher.
    pub fn new(
        launcher: &Path,
        scope: &ScriptScope,
        environment: &ScriptEnvironment,
    ) -> Result<Self, Io> {
        let temporary = environment
            .all
            .get("TMPDIR")
            .map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let private = tempfile::Builder::new()
            .prefix("alokai-")
            .tempdir_in(&temporary)
            .map_err(Io::at("create a folder in", &temporary))?;
        let own = private.path().join("tmp");
        std::fs::create_dir(&own).map_err(Io::at("create the folder", &own))?;
        let sandbox = Self {
            launcher: launcher.to_owned(),
            rules: SandboxRules::new(scope, &own, environment),
            private,
        };
        let path = sandbox.rules_file();
        let text = serde_json::to_vec(&sandbox.rules).unwrap_or_default();
        std::fs::write(&path, text).map_err(Io::at("write", &path))?;
        Ok(sandbox)
    }

    fn rules_file(&self) -> PathBuf {
        self.private.path().join("rules.json")
    }

    /// The command that runs `program` with these arguments in the sandbox.
    pub fn command(&self, command: &[String]) -> (PathBuf, Vec<std::ffi::OsString>) {
        let mut arguments = vec![COMMAND.into(), self.rules_file().into(), "--".into()];
        arguments.extend(command.iter().map(Into::into));
        (self.launcher.clone(), arguments)
    }

    /// Environment variables that name writable folders for tools.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let temporary = self.private.path().join("tmp");
        let cache = temporary.join("npm");
        let mut variables: Vec<_> = ["TMPDIR", "TMP", "TEMP"]
            .map(|name| (name, temporary.clone()))
            .into();
        variables.push(("npm_config_cache", cache));
        variables
    }

    /// Why the launcher did not execute the script. None if it did.
    pub fn not_started(&self) -> Option<NotStarted> {
        let text = std::fs::read(self.rules_file().with_extension("failed")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
