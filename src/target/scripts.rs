//! The target `local` without a server: a record of what would be live on this machine, and the scripts
//! that start it.

use futures_util::future::BoxFuture;

use super::{
    AppState, Capabilities, Drained, Error, LockAnswer, LockClaim, LogQuery, Observed, ReleaseSpec,
    Settings, Staged, SwitchToken, Target, TargetContext, TargetStep,
};
use crate::ledger::RecordId;
use crate::pipeline::write_start_scripts;
use crate::plan::StoreServers;
use crate::store::StoreId;

/// Writes scripts that start the apps of a store on this machine.
pub struct ScriptTarget {
    context: TargetContext,
}

impl ScriptTarget {
    /// The scripts of the project in the context.
    pub fn new(context: TargetContext) -> Self {
        Self { context }
    }

    fn write(&self, spec: &ReleaseSpec) -> Result<(), Error> {
        let Some(plan) = &self.context.plan else {
            return Err(unsupported("make an earlier release live"));
        };
        let images = spec.apps.iter();
        let images =
            images.map(|app| (app.app.clone(), (app.reference.clone(), app.digest.clone())));
        write_start_scripts(plan, &spec.store, &images.collect(), &self.context.services)?;
        Ok(())
    }
}

fn unsupported(what: &'static str) -> Error {
    Error::Unsupported {
        target: "local",
        what,
        help: "run `alokai store deploy --local`",
    }
}

impl Target for ScriptTarget {
    fn name(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: false,
            seamless: false,
            drain: false,
            observes: false,
            locks: false,
            settings: false,
            env_files: true,
            logs: false,
            maintenance: false,
        }
    }

    fn preflight(&self) -> TargetStep<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn observe<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Observed> {
        let plan = self.context.plan.as_ref();
        let servers = plan.and_then(|plan| plan.servers_of(store));
        let addresses = servers
            .and_then(StoreServers::address)
            .into_iter()
            .collect();
        Box::pin(async move {
            Ok(Observed {
                addresses,
                ..Observed::default()
            })
        })
    }

    fn lock<'a>(&'a self, _: &'a StoreId, _: &'a LockClaim) -> TargetStep<'a, LockAnswer> {
        Box::pin(async { Ok(LockAnswer::Taken { from: None }) })
    }

    fn unlock<'a>(&'a self, _: &'a StoreId, _: &'a str, _: bool) -> TargetStep<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn lock_holder<'a>(&'a self, _: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        Box::pin(async { Ok(None) })
    }

    fn stage<'a>(&'a self, _: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        Box::pin(async { Ok(Staged::default()) })
    }

    fn switch<'a>(&'a self, spec: &'a ReleaseSpec, _: &'a SwitchToken) -> TargetStep<'a, ()> {
        Box::pin(async move { self.write(spec) })
    }

    fn drained<'a>(&'a self, _: &'a StoreId, _: &'a RecordId) -> TargetStep<'a, Drained> {
        Box::pin(async { Ok(Drained::Unknown) })
    }

    fn retire<'a>(&'a self, _: &'a StoreId, _: &'a RecordId, _: bool) -> TargetStep<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn health<'a>(&'a self, _: &'a StoreId, _: &'a RecordId) -> TargetStep<'a, Vec<AppState>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn store_settings<'a>(
        &'a self,
        _: &'a StoreId,
        _: &'a str,
        _: &'a Settings,
    ) -> TargetStep<'a, ()> {
        Box::pin(async { Err(unsupported("store settings")) })
    }

    fn settings<'a>(&'a self, _: &'a StoreId, _: &'a str) -> TargetStep<'a, Option<Settings>> {
        Box::pin(async { Ok(None) })
    }

    fn logs<'a>(&'a self, _: &'a LogQuery) -> TargetStep<'a, BoxFuture<'a, ()>> {
        Box::pin(async { Err(unsupported("show the output of apps")) })
    }

    fn maintenance<'a>(&'a self, _: &'a StoreId, _: Option<&'a str>) -> TargetStep<'a, ()> {
        Box::pin(async { Err(unsupported("show a maintenance page")) })
    }
}
