//! The target `command`: a program of the user. Each verb is one process, with a JSON document on its
//! standard input and one on its standard output.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use miette::Diagnostic;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::{
    AppLine, AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim,
    LogQuery, Observed, ReleaseSpec, Replica, Settings, SpecVariable, Staged, StagedRelease,
    SwitchToken, Target, TargetContext, TargetStep,
};
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};

/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// The time limit of a verb.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The time limit of `stage`, which may pull images.
const STAGE_TIMEOUT: Duration = Duration::from_mins(15);

/// The exit code of a program that does not know a verb.
const UNKNOWN_VERB: i32 = 64;

/// The most last lines of standard error in a message.
const TAIL: usize = 40;

/// The most bytes of standard error that are kept while output is followed.
const LONGEST_TAIL: usize = 64 << 10;

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
    None,
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
    #[error("the answer of `{program}` to `{verb}` is not valid: {source}")]
    #[diagnostic(
        code(alokai::command::answer),
        help("the page “Releases” of the documentation has the JSON document of each verb")
    )]
    Answer {
        /// The program.
        program: String,
        /// The verb.
        verb: &'static str,
        /// The error of the parser.
        source: serde_json::Error,
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
}

impl CommandTarget {
    /// The program of the config. It is asked for its capabilities.
    pub fn new(context: &TargetContext) -> Result<Self, TargetError> {
        let command = &context.project.settings.deploy.command;
        let (program, arguments) = command.split_first().ok_or(Error::None)?;
        let path = if program.contains('/') {
            context.project.root.join(program)
        } else {
            PathBuf::from(program)
        };
        let program = UserProgram {
            program: path,
            arguments: arguments.to_vec(),
            context: context.clone(),
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
        let mut child = self
            .program
            .start("logs", Some(&query.store), arguments)
            .await?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let (Some(output), Some(errors)) = (output, errors) else {
            return Ok(());
        };
        let reading = async {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let line: PrintedLine = serde_json::from_str(&line)
                    .map_err(|source| self.program.invalid("logs", source))?;
                let line = AppLine {
                    app: line.app,
                    replica: line.replica,
                    at: line.at,
                    line: line.line,
                };
                if query.lines.send(line).await.is_err() {
                    return Ok(false);
                }
            }
            Ok::<_, Error>(true)
        };
        // The program would wait for a full pipe.
        let errors = tokio::spawn(last_bytes(errors));
        if !reading.await? {
            return Ok(());
        }
        let failed = |source| Error::Start {
            program: self.program.name(),
            source,
        };
        let status = child.wait().await.map_err(failed)?;
        let errors = errors.await.unwrap_or_default();
        self.program.check("logs", status, &errors)
    }
}

/// Reads a pipe to its end, and returns the last bytes.
async fn last_bytes(mut pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = pipe.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        if kept.len() > 2 * LONGEST_TAIL {
            kept.drain(..kept.len() - LONGEST_TAIL);
        }
    }
    kept
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

    fn invalid(&self, verb: &'static str, source: serde_json::Error) -> Error {
        Error::Answer {
            program: self.name(),
            verb,
            source,
        }
    }

    /// Starts the program and writes the request.
    async fn start(
        &self,
        verb: &'static str,
        store: Option<&StoreId>,
        arguments: Map<String, Value>,
    ) -> Result<Child, Error> {
        let mut request = Map::new();
        request.insert("protocol".into(), PROTOCOL.into());
        request.insert("verb".into(), verb.into());
        request.insert("store".into(), json!(store));
        request.extend(arguments);
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .arg(verb)
            .current_dir(&self.context.project.root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C interrupts this program, which ends a verb itself.
            .process_group(0)
            .kill_on_drop(true);
        for name in SECRETS {
            command.env_remove(name);
        }
        let failed = |source| Error::Start {
            program: self.name(),
            source,
        };
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            let text = format!("{}\n", Value::Object(request));
            // A program that does not read its input may still answer.
            let _ = input.write_all(text.as_bytes()).await;
        }
        Ok(child)
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
        let work = async {
            let child = self.start(verb, store, arguments).await?;
            let output = child.wait_with_output().await;
            output.map_err(|source| Error::Start {
                program: self.name(),
                source,
            })
        };
        let output = tokio::time::timeout(limit, work).await;
        let output = output.map_err(|_| Error::Timeout {
            program: self.name(),
            verb,
            limit,
        })??;
        self.check(verb, output.status, &output.stderr)?;
        let text = output.stdout.trim_ascii();
        let text: &[u8] = if text.is_empty() { b"{}" } else { text };
        serde_json::from_slice(text).map_err(|source| self.invalid(verb, source).into())
    }

    /// Fails if the program has failed or does not know the verb.
    fn check(
        &self,
        verb: &'static str,
        status: std::process::ExitStatus,
        errors: &[u8],
    ) -> Result<(), TargetError> {
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(UNKNOWN_VERB) {
            return Err(TargetError::Unsupported {
                target: "command",
                what: verb,
                help: "the program of `deploy.command` does not know this verb",
            });
        }
        let said = String::from_utf8_lossy(errors);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].iter();
        let tail: Vec<_> = tail.map(|line| format!("  │ {line}")).collect();
        Err(Error::Failed {
            program: self.name(),
            verb,
            end: status.to_string(),
            tail: self.context.services.redact(&tail.join("\n")),
        }
        .into())
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

/// The answer to `lock` and to `lock-holder`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LockReply {
    taken: bool,
    from: Option<LockClaim>,
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
    #[serde(default = "first")]
    replica: u32,
    #[serde(default)]
    at: Option<Timestamp>,
}

fn first() -> u32 {
    1
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
            Ok(match reply.holder.filter(|_| !reply.taken) {
                Some(holder) => LockAnswer::Held(holder),
                None => LockAnswer::Taken { from: reply.from },
            })
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
            let reply: Option<LockReply> =
                self.ask_optional("lock-holder", store, Value::Null).await?;
            Ok(reply.and_then(|reply| reply.holder))
        })
    }

    fn stage<'a>(&'a self, spec: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        Box::pin(async move {
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
            let values = reply.settings.map(|values| {
                let values = values.into_iter();
                values.map(|(name, value)| (name, value.into())).collect()
            });
            Ok(values)
        })
    }

    fn logs<'a>(&'a self, wanted: &'a LogQuery) -> TargetStep<'a, ()> {
        Box::pin(self.read_lines(wanted))
    }

    fn maintenance<'a>(&'a self, store: &'a StoreId, page: Option<&'a str>) -> TargetStep<'a, ()> {
        Box::pin(self.tell("maintenance", store, json!({ "page": page })))
    }
}
