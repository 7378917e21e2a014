//! The program of the user: each verb is one process.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use miette::Diagnostic;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::child::{VerbEnd, VerbProcess};
use crate::pipeline::{TAIL, readable};
use crate::redaction::redactor;
use crate::store::{StoreId, TargetKind};
use crate::target::{Error as TargetError, ReleaseSpec, ReleasedApp, TargetContext};

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// The time limit of a verb.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The time limit of `stage`, which may pull images.
const STAGE_TIMEOUT: Duration = Duration::from_mins(15);

/// The exit code of a program that does not know a verb.
const UNKNOWN_VERB: i32 = 64;

/// Variables with secrets of this program, which the user's program does not get.
const SECRETS: [&str; 3] = [
    "CLI_CLOUD_PASSWORD",
    "TURBO_TOKEN",
    "TURBO_REMOTE_CACHE_SIGNATURE_KEY",
];

/// What can go wrong with the program.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// No program is configured.
    #[error("the target `command` has no program")]
    #[diagnostic(
        code(alokai::command::none),
        help("set `deploy.command` in `alokai.config.json`, such as `[\"node\", \"target.js\"]`")
    )]
    NoProgram,
    /// The program cannot be started.
    #[error("`{program}` cannot be started")]
    #[diagnostic(
        code(alokai::command::start),
        help("check `deploy.command` in `alokai.config.json`; a path is relative to the project")
    )]
    Start {
        /// The program.
        program: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The program fails.
    #[error("`{program}` failed at `{verb}`: {end}\n{tail}")]
    #[diagnostic(
        code(alokai::command::failed),
        help(
            "the lines above are its standard error; the page “Releases” of the documentation has the protocol"
        )
    )]
    Failed {
        /// The program.
        program: String,
        /// The verb.
        verb: &'static str,
        /// Its exit code or signal.
        end: String,
        /// The last lines of its standard error.
        tail: String,
    },
    /// The program takes too long.
    #[error("`{program}` did not end within {} s at `{verb}`, and was killed", limit.as_secs())]
    #[diagnostic(
        code(alokai::command::timeout),
        help("a verb has to start work and return; `health` and `drained` are asked repeatedly")
    )]
    Timeout {
        /// The program.
        program: String,
        /// The verb.
        verb: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The answer of the program is not valid.
    #[error("the answer of `{program}` to `{verb}` is not valid: {reason}")]
    #[diagnostic(
        code(alokai::command::answer),
        help("the page “Releases” of the documentation has the JSON document of each verb")
    )]
    Answer {
        /// The program.
        program: String,
        /// The verb.
        verb: &'static str,
        /// The reason, without a value of the answer.
        reason: String,
    },
}

/// How the program is started.
#[derive(Clone)]
pub struct UserProgram {
    /// The project and the services.
    pub context: TargetContext,
    /// The program.
    pub program: PathBuf,
    /// Its arguments before the verb.
    pub arguments: Vec<String>,
    /// Values of settings that the program knows. It may print them.
    pub secrets: Arc<Mutex<Vec<SecretString>>>,
}

/// The answer to a verb that a program need not know.
pub fn known<T>(answer: Result<T, TargetError>) -> Result<Option<T>, TargetError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(TargetError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl UserProgram {
    /// The program, for messages.
    pub fn name(&self) -> String {
        self.program.display().to_string()
    }

    /// The error for an answer that is not valid.
    pub fn invalid(&self, verb: &'static str, reason: String) -> Error {
        Error::Answer {
            program: self.name(),
            verb,
            reason,
        }
    }

    /// The error for an answer that cannot be read.
    pub fn unreadable(&self, verb: &'static str, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::FileTooLarge {
            return self.invalid(verb, source.to_string());
        }
        Error::Start {
            program: self.name(),
            source,
        }
    }

    /// Starts the program with a request.
    pub fn start(
        &self,
        verb: &'static str,
        store: Option<&StoreId>,
        arguments: Map<String, Value>,
    ) -> Result<VerbProcess, Error> {
        let mut request = Map::new();
        request.insert("protocol".into(), PROTOCOL.into());
        request.insert("verb".into(), verb.into());
        request.insert("store".into(), json!(store));
        request.extend(arguments);
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(verb)
            .current_dir(&self.context.project.root);
        for name in SECRETS {
            command.env_remove(name);
        }
        let request = format!("{}\n", Value::Object(request));
        VerbProcess::start(command, request).map_err(|source| Error::Start {
            program: self.name(),
            source,
        })
    }

    /// Runs a verb to its end and reads the answer.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        store: Option<&StoreId>,
        arguments: Map<String, Value>,
    ) -> Result<T, TargetError> {
        let limit = if verb == "stage" {
            STAGE_TIMEOUT
        } else {
            TIMEOUT
        };
        let work = self.start(verb, store, arguments)?.end();
        let end = tokio::time::timeout(limit, work).await;
        let end = end.map_err(|_| Error::Timeout {
            program: self.name(),
            verb,
            limit,
        })?;
        let end = end.map_err(|source| self.unreadable(verb, source))?;
        self.checked(verb, &end)?;
        let text = end.answer.trim_ascii();
        let text: &[u8] = if text.is_empty() { b"{}" } else { text };
        let answer = serde_json::from_slice(text);
        answer.map_err(|error| self.invalid(verb, invalid_reason(&error)).into())
    }

    /// Fails unless the program has succeeded.
    pub fn checked(&self, verb: &'static str, end: &VerbEnd) -> Result<(), TargetError> {
        if end.status.success() {
            return Ok(());
        }
        if end.status.code() == Some(UNKNOWN_VERB) {
            return Err(TargetError::Unsupported {
                target: TargetKind::Command.name(),
                what: verb,
                help: "the program of `deploy.command` does not know this verb",
            });
        }
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = self.context.services.redact(&end.errors);
        Err(Error::Failed {
            program: self.name(),
            verb,
            end: end.status.to_string(),
            tail: tail(&redacted(&errors, &secrets)),
        }
        .into())
    }

    /// Remembers values of settings that the program knows.
    pub fn keep_secret<'a>(&self, values: impl Iterator<Item = &'a SecretString>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values {
            let mut known = secrets.iter();
            if !known.any(|it| it.expose_secret() == value.expose_secret()) {
                secrets.push(value.clone());
            }
        }
    }
}

/// The values of a release that output must not show.
pub fn secrets_of(spec: &ReleaseSpec) -> impl Iterator<Item = &SecretString> {
    let hidden = spec.apps.iter().flat_map(ReleasedApp::hidden);
    hidden.map(|(_, secret)| secret)
}

/// A text without these secrets.
fn redacted(text: &str, secrets: &[SecretString]) -> String {
    redactor(secrets.iter().map(ExposeSecret::expose_secret)).redact(text)
}

/// The last lines of standard error.
fn tail(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].iter();
    let tail: Vec<_> = tail.map(|line| format!("  │ {}", readable(line))).collect();
    tail.join("\n")
}

/// Why an answer is not valid. The message of the parser can quote a value, which may be a secret.
pub fn invalid_reason(error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    let message = error.to_string();
    let missing = message
        .strip_prefix("missing field ")
        .and_then(|rest| rest.split(' ').next());
    match missing {
        Some(name) => format!("the key {name} is missing ({place})"),
        None if error.is_data() => format!("a value has the wrong type ({place})"),
        None => format!("it is not a JSON document ({place})"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde::de::DeserializeOwned;

    use super::super::protocol::{LockReply, SettingsReply};
    use super::{invalid_reason, redacted};
    use crate::target::{LockAnswer, LockClaim};

    fn reason<T: DeserializeOwned>(answer: &str) -> Option<String> {
        let read = serde_json::from_str::<T>(answer);
        read.err().map(|error| invalid_reason(&error))
    }

    #[test]
    fn a_lock_is_taken_only_if_the_program_says_so() {
        let claim = LockClaim {
            holder: "a".into(),
            who: "me".into(),
            operation: "deploy".into(),
            since: Timestamp::now(),
            lease: 60,
        };
        // The answer of a program that prints nothing.
        let empty = reason::<LockReply>("{}").unwrap();
        assert_eq!(empty, "the key `taken` is missing (line 1, column 2)");
        let answer = |text: &str| {
            serde_json::from_str::<LockReply>(text)
                .unwrap()
                .answer(&claim)
        };
        assert_eq!(
            answer(r#"{"taken":true}"#),
            LockAnswer::Taken { from: None }
        );
        let held = |text: &str| match answer(text) {
            LockAnswer::Held(holder) => holder.who,
            LockAnswer::Taken { .. } => panic!("{text}"),
        };
        let unnamed = "a holder that the program does not name";
        assert_eq!(held(r#"{"taken":false}"#), unnamed);
        let other = serde_json::to_string(&LockClaim {
            who: "other".into(),
            ..claim.clone()
        });
        assert_eq!(
            held(&format!(r#"{{"taken":false,"holder":{}}}"#, other.unwrap())),
            "other"
        );
    }

    #[test]
    fn no_message_has_a_value_of_a_setting() {
        for (answer, expected) in [
            (
                r#"{"settings": "s3cret-value"}"#,
                "a value has the wrong type",
            ),
            (
                r#"{"settings": {"KEY": 123456789}}"#,
                "a value has the wrong type",
            ),
            ("s3cret-value", "it is not a JSON document"),
        ] {
            let reason = reason::<SettingsReply>(answer).unwrap();
            assert!(
                reason.starts_with(&format!("{expected} (line 1, column ")),
                "{reason}"
            );
            assert!(
                !reason.contains("s3cret") && !reason.contains("123456789"),
                "{reason}"
            );
        }
        let text = "cannot store s3cret-value of KEY on host 1";
        let redacted = redacted(text, &["s3cret-value".into(), "1".into()]);
        assert_eq!(redacted, "cannot store *** of KEY on host 1");
    }
}
