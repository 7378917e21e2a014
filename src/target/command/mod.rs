//! The target `command`: a program of the user. Each verb is one process, with a JSON document on its
//! standard input and one on its standard output.

mod child;
mod program;
mod protocol;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
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
    switched,
};
use crate::ledger::RecordId;
use crate::store::{StoreId, TargetKind};
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

#[async_trait]
impl Target for CommandTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Command
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn preflight(&self) -> Result<(), TargetError> {
        let asked = self.program.ask("preflight", None, Map::new()).await;
        let _: Option<Value> = known(asked)?;
        Ok(())
    }

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
        self.ask("observe", store, Value::Null).await
    }

    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, TargetError> {
        if !self.capabilities.locks {
            return Ok(LockAnswer::Taken { from: None });
        }
        let arguments = json!({ "claim": claim });
        let reply: Option<LockReply> = self.ask_optional("lock", store, arguments).await?;
        let Some(reply) = reply else {
            return Ok(LockAnswer::Taken { from: None });
        };
        Ok(reply.answer(claim))
    }

    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), TargetError> {
        if !self.capabilities.locks {
            return Ok(());
        }
        let arguments = json!({ "holder": holder });
        let _: Option<Value> = self.ask_optional("unlock", store, arguments).await?;
        Ok(())
    }

    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        if !self.capabilities.locks {
            return Ok(None);
        }
        let reply: Option<LockHolderReply> =
            self.ask_optional("lock-holder", store, Value::Null).await?;
        Ok(reply.and_then(|reply| reply.holder))
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
        self.program.keep_secret(secrets_of(spec));
        let arguments = json!({ "release": document(spec) });
        self.ask("stage", &spec.store, arguments).await
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        self.program.keep_secret(secrets_of(spec));
        let arguments = json!({ "release": document(spec), "token": token.0 });
        let reply: SwitchReply = self.ask("switch", &spec.store, arguments).await?;
        switched(reply.switched, &spec.store)
    }

    async fn drained(&self, store: &StoreId, release: &RecordId) -> Result<Drained, TargetError> {
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
    }

    async fn retire(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), TargetError> {
        let arguments = json!({ "release": release, "kept": kept });
        self.tell("retire", store, arguments).await
    }

    async fn health(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, TargetError> {
        let arguments = json!({ "release": release });
        let reply: Option<HealthReply> = self.ask_optional("health", store, arguments).await?;
        Ok(reply.unwrap_or_default().apps)
    }

    async fn store_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<(), TargetError> {
        self.program.keep_secret(settings.values());
        let values = settings.iter();
        let values: Map<String, Value> = values
            .map(|(name, value)| (name.clone(), value.expose_secret().into()))
            .collect();
        let arguments = json!({ "version": version, "settings": values });
        self.tell("store-settings", store, arguments).await
    }

    async fn settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, TargetError> {
        let arguments = json!({ "version": version });
        let reply: SettingsReply = self.ask("settings", store, arguments).await?;
        let values: Option<Settings> = reply.settings.map(|values| {
            let values = values.into_iter();
            values.map(|(name, value)| (name, value.into())).collect()
        });
        self.program
            .keep_secret(values.iter().flat_map(Settings::values));
        Ok(values)
    }

    async fn logs(&self, wanted: &LogQuery) -> Result<(), TargetError> {
        self.read_lines(wanted).await
    }

    async fn maintenance(&self, store: &StoreId, page: Option<&str>) -> Result<(), TargetError> {
        self.tell("maintenance", store, json!({ "page": page }))
            .await
    }
}
