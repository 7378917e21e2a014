//! `__sandbox`: this program restricts itself and becomes a script.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::Error;
use super::arguments::SandboxOptions;
use crate::error::Error as AnyError;
use crate::pipeline::{NotStarted, SandboxRules, enforce};

/// Does not return where it ends well. Why it did not is left in a file beside the rules, which is
/// opened while that is still allowed.
pub fn become_script(options: &SandboxOptions) -> Result<(), AnyError> {
    let failed = |reason: String| Error::Sandbox { reason };
    let text = std::fs::read(&options.rules).map_err(|error| failed(error.to_string()))?;
    let rules: SandboxRules =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    let report = File::create(options.rules.with_extension("failed"))
        .map_err(|error| failed(error.to_string()))?;
    let tell = |why: NotStarted| serde_json::to_writer(&report, &why);
    if let Err(reason) = enforce(&rules) {
        // Without it the run knows that the script has failed, and not why.
        let _ = tell(NotStarted::Restrict(reason.clone()));
        return Err(failed(reason).into());
    }
    let mut words = options.command.iter();
    let mut command = Command::new(words.next().map_or_else(Default::default, Clone::clone));
    let error = command.args(words).exec();
    let _ = tell(NotStarted::Execute(error.raw_os_error().unwrap_or(0)));
    Err(failed(error.to_string()).into())
}
