//! The target `command`: a program of the user. Each verb is one process, with a JSON document on its
//! standard input and one on its standard output.

mod child;
mod program;
mod protocol;

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::program::{UserProgram, invalid_reason, known, secrets_of};
use self::protocol::{
    DrainReply, HealthReply, LockHolderReply, LockReply, SettingsReply, SwitchReply, document,
};
use super::{
    AppLine, AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim,
    LogQuery, Observed, ReleaseSpec, Settings, Staged, SwitchToken, Target, TargetContext,
    TargetStep,
};
use crate::ledger::RecordId;
use crate::store::StoreId;
pub use program::Error;

/// A program of the user.
pub struct CommandTarget {
    program: UserProgram,
    capabilities: Capabilities,
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
                let asked = program.ask("capabilities", None, Map::new());
                context.services.wait(asked)
            });
            asking.join()
        });
        let capabilities = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self {
            program,
            capabilities,
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
            let line: AppLine = serde_json::from_slice(&line)
                .map_err(|error| self.program.invalid("logs", invalid_reason(&error)))?;
            if query.lines.send(line).await.is_err() {
                // Nobody reads the output any more.
                return Ok(());
            }
        }
        let end = lines.end().await.map_err(unreadable)?;
        self.program.checked("logs", &end)
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
        Box::pin(self.ask("observe", store, Value::Null))
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

    fn unlock<'a>(&'a self, store: &'a StoreId, holder: &'a str) -> TargetStep<'a, ()> {
        Box::pin(async move {
            if !self.capabilities.locks {
                return Ok(());
            }
            let arguments = json!({ "holder": holder });
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
            self.ask("stage", &spec.store, arguments).await
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
            Ok(reply.unwrap_or_default().apps)
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

    fn logs<'a>(&'a self, wanted: &'a LogQuery) -> TargetStep<'a, ()> {
        Box::pin(self.read_lines(wanted))
    }

    fn maintenance<'a>(&'a self, store: &'a StoreId, page: Option<&'a str>) -> TargetStep<'a, ()> {
        Box::pin(self.tell("maintenance", store, json!({ "page": page })))
    }
}
