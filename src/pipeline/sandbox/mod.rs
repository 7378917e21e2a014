//! A script that can open only what its key knows: the proof that a key is complete.
//!
//! Linux restricts a process from the inside (Landlock), and Rust runs nothing between `fork` and
//! `exec` without `unsafe`. So a script is started through this program itself: the hidden command
//! `__sandbox` reads the [`Rules`], restricts itself and becomes the script. What a script could
//! not open is found in what it prints ([`denied`]).

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

use super::context::ScriptEnvironment;
use super::failure::Io;

/// The command of this program that starts a script in its sandbox.
pub const COMMAND: &str = "__sandbox";

/// What one script may open, and the private folder in which it has its temporary files.
pub struct Sandbox {
    /// The program that restricts itself and becomes the script.
    launcher: PathBuf,
    /// What the script may open.
    pub rules: SandboxRules,
    private: TempDir,
}

/// Why a script was not started.
#[derive(Debug, Serialize, Deserialize)]
pub enum NotStarted {
    /// The restriction could not be put on.
    Restrict(String),
    /// The program could not be executed: the system's error number.
    Execute(i32),
}

impl Sandbox {
    /// Works out what the script may open and writes it down for the launcher.
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
            .map_err(Io::at("make a folder in", &temporary))?;
        let own = private.path().join("tmp");
        std::fs::create_dir(&own).map_err(Io::at("make the folder", &own))?;
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

    /// Variables that lead tools to folders which they may write.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let temporary = self.private.path().join("tmp");
        let cache = temporary.join("npm");
        let mut variables: Vec<_> = ["TMPDIR", "TMP", "TEMP"]
            .map(|name| (name, temporary.clone()))
            .into();
        variables.push(("npm_config_cache", cache));
        variables
    }

    /// Why the launcher did not become the script, if it did not.
    pub fn not_started(&self) -> Option<NotStarted> {
        let text = std::fs::read(self.rules_file().with_extension("failed")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
