//! The target `command`: a program of the user. Each verb is one process, with a JSON document on its
//! standard input and one on its standard output.

mod child;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_client::Redactor;
use jiff::Timestamp;
use miette::Diagnostic;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use self::child::{VerbEnd, VerbProcess};
use super::{
    AppLine, AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim,
    LogQuery, Observed, ReleaseSpec, Replica, Settings, SpecVariable, Staged, StagedRelease,
    SwitchToken, Target, TargetContext, TargetStep,
};
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::ledger::RecordId;
use crate::pipeline::{TAIL, readable};
use crate::store::{AppName, StoreId};

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// The time limit of a verb.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The time limit of `stage`, which may pull images.
const STAGE_TIMEOUT: Duration = Duration::from_mins(15);

/// The exit code of a program that does not know a verb.
const UNKNOWN_VERB: i32 = 64;

/// Shorter values of settings are not replaced in messages: they are mostly flags and numbers.
const SHORTEST_SECRET: usize = 6;

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

/// A program of the user.
pub struct CommandTarget {
    program: UserProgram,
    capabilities: Capabilities,
}

/// How the program is started.
#[derive(Clone)]
struct UserProgram {
    context: TargetContext,
    program: PathBuf,
    arguments: Vec<String>,
    /// Values of settings that the program knows. It may print them.
    secrets: Arc<Mutex<Vec<SecretString>>>,
}

impl CommandTarget {
    /// The program of the config. It is asked for its capabilities.
    pub fn new(context: &TargetContext) -> Result<Self, TargetError> {
        let command = &context.project.settings.deploy.command;
        let (program, arguments) = command.split_first().ok_or(Error::NoProgram)?;
        let path = if program.contains('/') {
            context.project.root.join(program)
        } else {
            PathBuf::from(program)
        };
        let program = UserProgram {
            program: path,
            arguments: arguments.to_vec(),
            context: context.clone(),
            secrets: Arc::default(),
        };
        // The caller may be a task of the runtime, which must not wait for another one.
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let asked = program.ask::<Abilities>("capabilities", None, Map::new());
                context.services.wait(asked)
            });
            asking.join()
        });
        let abilities = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self {
            program,
            capabilities: abilities.into(),
        })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        store: &StoreId,
        arguments: Value,
    ) -> Result<T, TargetError> {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => Map::new(),
        };
        self.program.ask(verb, Some(store), arguments).await
    }

    /// A verb that the program need not know. None if it does not.
    async fn ask_optional<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        store: &StoreId,
        arguments: Value,
    ) -> Result<Option<T>, TargetError> {
        known(self.ask(verb, store, arguments).await)
    }

    /// A verb without an answer.
    async fn tell(
        &self,
        verb: &'static str,
        store: &StoreId,
        arguments: Value,
    ) -> Result<(), TargetError> {
        let _: Value = self.ask(verb, store, arguments).await?;
        Ok(())
    }

    async fn read_lines(&self, query: &LogQuery) -> Result<(), TargetError> {
        let arguments = json!({
            "release": query.release, "app": query.app,
            "follow": query.follow, "since": query.since,
        });
        let Value::Object(arguments) = arguments else {
            return Ok(());
        };
        let child = self.program.start("logs", Some(&query.store), arguments)?;
        let unreadable = |source| self.program.unreadable("logs", source);
        let mut lines = child.lines();
        while let Some(line) = lines.next().await.map_err(unreadable)? {
            let line: PrintedLine = serde_json::from_slice(&line)
                .map_err(|error| self.program.invalid("logs", invalid_reason(&error)))?;
            let line = AppLine {
                app: line.app,
                line: line.line,
            };
            if query.lines.send(line).await.is_err() {
                // Nobody reads the output any more.
                return Ok(());
            }
        }
        let end = lines.end().await.map_err(unreadable)?;
        known(self.program.checked("logs", &end)).map(|_| ())
    }
}

/// The answer to a verb that a program need not know.
fn known<T>(answer: Result<T, TargetError>) -> Result<Option<T>, TargetError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(TargetError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl UserProgram {
    fn name(&self) -> String {
        self.program.display().to_string()
    }

    fn invalid(&self, verb: &'static str, reason: String) -> Error {
        Error::Answer {
            program: self.name(),
            verb,
            reason,
        }
    }

    fn unreadable(&self, verb: &'static str, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::FileTooLarge {
            return self.invalid(verb, source.to_string());
        }
        Error::Start {
            program: self.name(),
            source,
        }
    }

    /// Starts the program with a request.
    fn start(
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

    async fn ask<T: DeserializeOwned>(
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
    fn checked(&self, verb: &'static str, end: &VerbEnd) -> Result<(), TargetError> {
        if end.status.success() {
            return Ok(());
        }
        if end.status.code() == Some(UNKNOWN_VERB) {
            return Err(TargetError::Unsupported {
                target: "command",
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
    fn keep_secret<'a>(&self, values: impl Iterator<Item = &'a SecretString>) {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values {
            let mut known = secrets.iter();
            if !known.any(|it| it.expose_secret() == value.expose_secret()) {
                secrets.push(value.clone());
            }
        }
    }
}

/// The secret values of a release.
fn secrets_of(spec: &ReleaseSpec) -> impl Iterator<Item = &SecretString> {
    let variables = spec.apps.iter().flat_map(|app| app.variables.values());
    variables.filter_map(|variable| match variable {
        SpecVariable::Secret(secret) => Some(secret),
        SpecVariable::Template(_) => None,
    })
}

/// A text without these secrets.
fn redacted(text: &str, secrets: &[SecretString]) -> String {
    let secrets = secrets.iter().map(ExposeSecret::expose_secret);
    let secrets = secrets.filter(|secret| secret.len() >= SHORTEST_SECRET);
    Redactor::new(secrets).redact(text)
}

/// The last lines of standard error.
fn tail(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].iter();
    let tail: Vec<_> = tail.map(|line| format!("  │ {}", readable(line))).collect();
    tail.join("\n")
}

/// Why an answer is not valid. The message of the parser can quote a value, which may be a secret.
fn invalid_reason(error: &serde_json::Error) -> String {
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

/// The answer to `capabilities`. A key that is missing is `false`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one ability")]
struct Abilities {
    staging: bool,
    seamless: bool,
    drain: bool,
    observes: bool,
    locks: bool,
    settings: bool,
    env_files: bool,
    logs: bool,
    maintenance: bool,
}

impl From<Abilities> for Capabilities {
    fn from(abilities: Abilities) -> Self {
        Self {
            staging: abilities.staging,
            seamless: abilities.seamless,
            drain: abilities.drain,
            observes: abilities.observes,
            locks: abilities.locks,
            settings: abilities.settings,
            env_files: abilities.env_files,
            logs: abilities.logs,
            maintenance: abilities.maintenance,
        }
    }
}

/// The answer to `observe`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObservedAnswer {
    active: Option<RecordId>,
    since: Option<Timestamp>,
    addresses: Vec<String>,
    staged: Vec<StagedAnswer>,
    kept: Vec<RecordId>,
    maintenance: bool,
    token: String,
}

#[derive(Deserialize)]
struct StagedAnswer {
    release: RecordId,
    #[serde(default)]
    address: Option<String>,
}

/// The answer to `lock`.
#[derive(Deserialize)]
struct LockReply {
    taken: bool,
    #[serde(default)]
    from: Option<LockClaim>,
    #[serde(default)]
    holder: Option<LockClaim>,
}

impl LockReply {
    /// The answer to this claim.
    fn answer(self, claim: &LockClaim) -> LockAnswer {
        if self.taken {
            return LockAnswer::Taken { from: self.from };
        }
        LockAnswer::Held(self.holder.unwrap_or_else(|| LockClaim {
            holder: String::new(),
            who: "a holder that the program does not name".into(),
            operation: "unknown".into(),
            since: Timestamp::now(),
            lease: claim.lease,
        }))
    }
}

/// The answer to `lock-holder`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LockHolderReply {
    holder: Option<LockClaim>,
}

/// The answer to `stage`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StageReply {
    replicas: Vec<ReplicaAnswer>,
    address: Option<String>,
}

#[derive(Deserialize)]
struct ReplicaAnswer {
    app: AppName,
    address: String,
}

/// The answer to `switch`.
#[derive(Deserialize)]
struct SwitchReply {
    #[serde(default = "yes")]
    switched: bool,
}

fn yes() -> bool {
    true
}

/// The answer to `drained`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct DrainReply {
    open: Option<u64>,
}

/// The answer to `health`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct HealthReply {
    apps: Vec<StateAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateAnswer {
    app: AppName,
    running: bool,
    #[serde(default)]
    ended: Option<String>,
    #[serde(default)]
    restarts: u32,
    #[serde(default)]
    tail: Vec<String>,
}

/// The answer to `settings`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SettingsReply {
    settings: Option<std::collections::BTreeMap<String, String>>,
}

/// A line that `logs` prints.
#[derive(Deserialize)]
struct PrintedLine {
    app: AppName,
    line: String,
}

/// How the health of an app is probed, in seconds.
#[derive(Serialize)]
struct ProbeDocument<'a> {
    path: &'a str,
    status: Option<u16>,
    interval: u64,
    timeout: u64,
    deadline: u64,
    consecutive: u32,
}

/// A release as JSON.
fn document(spec: &ReleaseSpec) -> Value {
    let apps = spec.apps.iter().map(|app| {
        let variables = app.variables.iter();
        let variables: Map<String, Value> = variables
            .map(|(name, value)| {
                let value = match value {
                    SpecVariable::Template(template) => json!({ "template": written(template) }),
                    SpecVariable::Secret(secret) => json!({ "secret": secret.expose_secret() }),
                };
                (name.clone(), value)
            })
            .collect();
        let health = &app.health;
        json!({
            "app": app.app,
            "kind": app.kind,
            "reference": app.reference,
            "digest": app.digest,
            "port": app.port,
            "pathPrefix": app.path_prefix,
            "stripsPrefix": app.strips_prefix,
            "variables": variables,
            "health": ProbeDocument {
                path: &health.path,
                status: health.status,
                interval: health.interval.as_secs(),
                timeout: health.timeout.as_secs(),
                deadline: health.deadline.as_secs(),
                consecutive: health.consecutive,
            },
        })
    });
    json!({
        "id": spec.id,
        "store": spec.store,
        "settings": spec.settings,
        "copyOf": spec.copy_of,
        "hosts": spec.hosts,
        "stopTimeout": spec.stop_timeout.as_secs(),
        "apps": apps.collect::<Value>(),
    })
}

/// A value as the config has it, with placeholders in braces.
fn written(template: &ValueTemplate) -> String {
    let parts = template.parts().iter().map(|part| match part {
        TemplatePart::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        TemplatePart::Store => "{store}".into(),
        TemplatePart::Port(app) => placeholder(app, "port"),
        TemplatePart::Url(app) => placeholder(app, "url"),
    });
    parts.collect()
}

fn placeholder(app: &AppReference, value: &str) -> String {
    match app {
        AppReference::Own => format!("{{{value}}}"),
        AppReference::Middleware => format!("{{middleware.{value}}}"),
        AppReference::Frontend => format!("{{frontend.{value}}}"),
        AppReference::Named(name) => format!("{{{name}.{value}}}"),
    }
}

impl Target for CommandTarget {
    fn name(&self) -> &'static str {
        "command"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn preflight(&self) -> TargetStep<'_, ()> {
        Box::pin(async {
            let asked = self.program.ask("preflight", None, Map::new()).await;
            let _: Option<Value> = known(asked)?;
            Ok(())
        })
    }

    fn observe<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Observed> {
        Box::pin(async move {
            let seen: ObservedAnswer = self.ask("observe", store, Value::Null).await?;
            let staged = seen.staged.into_iter().map(|it| StagedRelease {
                release: it.release,
                address: it.address,
            });
            Ok(Observed {
                active: seen.active,
                since: seen.since,
                addresses: seen.addresses,
                staged: staged.collect(),
                kept: seen.kept,
                maintenance: seen.maintenance,
                token: SwitchToken(seen.token),
            })
        })
    }

    fn lock<'a>(&'a self, store: &'a StoreId, claim: &'a LockClaim) -> TargetStep<'a, LockAnswer> {
        Box::pin(async move {
            if !self.capabilities.locks {
                return Ok(LockAnswer::Taken { from: None });
            }
            let arguments = json!({ "claim": claim });
            let reply: Option<LockReply> = self.ask_optional("lock", store, arguments).await?;
            let Some(reply) = reply else {
                return Ok(LockAnswer::Taken { from: None });
            };
            Ok(reply.answer(claim))
        })
    }

    fn unlock<'a>(
        &'a self,
        store: &'a StoreId,
        holder: &'a str,
        by_force: bool,
    ) -> TargetStep<'a, ()> {
        Box::pin(async move {
            if !self.capabilities.locks {
                return Ok(());
            }
            let arguments = json!({ "holder": holder, "byForce": by_force });
            let _: Option<Value> = self.ask_optional("unlock", store, arguments).await?;
            Ok(())
        })
    }

    fn lock_holder<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        Box::pin(async move {
            if !self.capabilities.locks {
                return Ok(None);
            }
            let reply: Option<LockHolderReply> =
                self.ask_optional("lock-holder", store, Value::Null).await?;
            Ok(reply.and_then(|reply| reply.holder))
        })
    }

    fn stage<'a>(&'a self, spec: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        Box::pin(async move {
            self.program.keep_secret(secrets_of(spec));
            let arguments = json!({ "release": document(spec) });
            let reply: StageReply = self.ask("stage", &spec.store, arguments).await?;
            let replicas = reply.replicas.into_iter().map(|it| Replica {
                app: it.app,
                address: it.address,
            });
            Ok(Staged {
                replicas: replicas.collect(),
                address: reply.address,
            })
        })
    }

    fn switch<'a>(&'a self, spec: &'a ReleaseSpec, token: &'a SwitchToken) -> TargetStep<'a, ()> {
        Box::pin(async move {
            self.program.keep_secret(secrets_of(spec));
            let arguments = json!({ "release": document(spec), "token": token.0 });
            let reply: SwitchReply = self.ask("switch", &spec.store, arguments).await?;
            if reply.switched {
                return Ok(());
            }
            let store = spec.store.clone();
            Err(TargetError::OutOfSequence { store })
        })
    }

    fn drained<'a>(&'a self, store: &'a StoreId, release: &'a RecordId) -> TargetStep<'a, Drained> {
        Box::pin(async move {
            if !self.capabilities.drain {
                return Ok(Drained::Unknown);
            }
            let arguments = json!({ "release": release });
            let reply: Option<DrainReply> = self.ask_optional("drained", store, arguments).await?;
            Ok(match reply.and_then(|reply| reply.open) {
                None => Drained::Unknown,
                Some(0) => Drained::Yes,
                Some(open) => Drained::No(open),
            })
        })
    }

    fn retire<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
        kept: bool,
    ) -> TargetStep<'a, ()> {
        let arguments = json!({ "release": release, "kept": kept });
        Box::pin(self.tell("retire", store, arguments))
    }

    fn health<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
    ) -> TargetStep<'a, Vec<AppState>> {
        Box::pin(async move {
            let arguments = json!({ "release": release });
            let reply: Option<HealthReply> = self.ask_optional("health", store, arguments).await?;
            let states = reply
                .unwrap_or_default()
                .apps
                .into_iter()
                .map(|it| AppState {
                    app: it.app,
                    running: it.running,
                    ended: it.ended,
                    restarts: it.restarts,
                    tail: it.tail,
                });
            Ok(states.collect())
        })
    }

    fn store_settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
        settings: &'a Settings,
    ) -> TargetStep<'a, ()> {
        self.program.keep_secret(settings.values());
        let values = settings.iter();
        let values: Map<String, Value> = values
            .map(|(name, value)| (name.clone(), value.expose_secret().into()))
            .collect();
        let arguments = json!({ "version": version, "settings": values });
        Box::pin(self.tell("store-settings", store, arguments))
    }

    fn settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
    ) -> TargetStep<'a, Option<Settings>> {
        Box::pin(async move {
            let arguments = json!({ "version": version });
            let reply: SettingsReply = self.ask("settings", store, arguments).await?;
            let values: Option<Settings> = reply.settings.map(|values| {
                let values = values.into_iter();
                values.map(|(name, value)| (name, value.into())).collect()
            });
            self.program
                .keep_secret(values.iter().flat_map(Settings::values));
            Ok(values)
        })
    }

    fn logs<'a>(&'a self, wanted: &'a LogQuery) -> TargetStep<'a, BoxFuture<'a, ()>> {
        Box::pin(async move {
            let reading: BoxFuture<'a, ()> = Box::pin(async move {
                if let Err(error) = self.read_lines(wanted).await {
                    let events = &self.program.context.services.events;
                    events.notice(format!("the output of `{}` ends: {error}", wanted.store));
                }
            });
            Ok(reading)
        })
    }

    fn maintenance<'a>(&'a self, store: &'a StoreId, page: Option<&'a str>) -> TargetStep<'a, ()> {
        Box::pin(self.tell("maintenance", store, json!({ "page": page })))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde::de::DeserializeOwned;

    use super::{LockReply, SettingsReply, invalid_reason, redacted};
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
