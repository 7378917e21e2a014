//! The target `local`: this machine, without containers.
//!
//! A background process of the project holds a proxy with stable ports and the apps of all released and
//! staged stores. The apps are unpacked from their images, and run on this machine's Node. Locks,
//! settings and output are files, which every command reads itself; everything else is asked of the
//! background process (`process`), which is started when it is needed.

mod app;
mod client;
mod error;
mod folder;
mod image;
mod images;
mod launch;
mod locks;
mod logs;
mod process;
mod processes;
mod protocol;
mod requests;
mod state;
mod variables;

use std::sync::Arc;

use futures_util::FutureExt;
use secrecy::ExposeSecret;

pub use client::{COMMAND, LocalClient};
pub use error::Error;
pub use process::serve;
pub use state::{AppRecord, LocalState, ReleaseState, StoreState};

use self::launch::SettingValues;
use self::logs::LogReader;
use self::protocol::{LocalAnswer, LocalRequest, ObservedStore, StageOrder, StagedApp};
use self::state::{ReleaseEnvironment, StoredVariable, ValuePart};
use super::hosts::{check_config, hosts};
use super::{
    AppState, Capabilities, DATA_VARIABLE, Drained, LockAnswer, LockClaim, LogQuery, Observed,
    ReleaseSpec, ReleasedApp, Replica, Settings, Staged, StagedRelease, SwitchToken, Target,
    TargetContext, TargetStep,
};
use crate::config::Project;
use crate::ledger::RecordId;
use crate::pipeline::{Services, UnpackedImage};
use crate::store::{StoreId, TargetKind};

/// This machine, without containers.
pub struct LocalTarget {
    client: LocalClient,
    /// Whether stores have a folder for data.
    has_data: bool,
    project: Arc<Project>,
    /// The stores that become live here in this run.
    planned: Vec<StoreId>,
    examines: bool,
    services: Arc<Services>,
}

impl LocalTarget {
    /// The target of the project in a context.
    pub fn of(context: &TargetContext) -> Self {
        let planned = context.planned_stores(TargetKind::Local).into_iter();
        Self {
            client: context.local.clone(),
            has_data: context.project.settings.deploy.data.is_some(),
            project: Arc::clone(&context.project),
            planned: planned.map(|store| store.id.clone()).collect(),
            examines: context.examines,
            services: Arc::clone(&context.services),
        }
    }

    async fn order(&self, spec: &ReleaseSpec) -> Result<StageOrder, Error> {
        let mut apps = Vec::new();
        for app in &spec.apps {
            apps.push(StagedApp {
                app: app.app.clone(),
                image: self.image(app).await?,
                path_prefix: app.path_prefix.clone(),
                strips_prefix: app.strips_prefix,
            });
        }
        let mut environment = ReleaseEnvironment {
            system: self.client.system.clone(),
            apps: variables::of(spec),
        };
        if self.has_data {
            let folder = self.client.place.make_data(&spec.store)?;
            let path = StoredVariable::Parts(vec![ValuePart::Text(folder)]);
            for variables in environment.apps.values_mut() {
                variables.insert(DATA_VARIABLE.to_owned(), path.clone());
            }
        }
        Ok(StageOrder {
            store: spec.store.clone(),
            release: spec.id.clone(),
            apps,
            environment,
            copy_of: spec.copy_of.clone(),
            settings: spec.settings.clone(),
            stop_timeout: spec.stop_timeout,
        })
    }

    /// The state of a store. Where nothing has to run, the background process is not started.
    async fn observed(&self, store: &StoreId) -> Result<ObservedStore, Error> {
        let state = self.client.remembered()?;
        if !state.is_needed() {
            let token = state.stores.get(store).cloned().unwrap_or_default().token();
            return Ok(ObservedStore {
                token,
                ..ObservedStore::default()
            });
        }
        match self
            .client
            .ask(&LocalRequest::Observe(store.clone()))
            .await?
        {
            LocalAnswer::Observed(observed) => Ok(*observed),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: LocalRequest) -> Result<(), Error> {
        match self.client.ask(&request).await? {
            LocalAnswer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The readers of the output that is asked for.
    fn readers(&self, wanted: &LogQuery) -> Result<Vec<LogReader>, Error> {
        let store = &wanted.store;
        let state = self.client.remembered()?;
        let known = state.stores.get(store);
        let release = wanted.release.as_ref();
        let release = release.or_else(|| known.and_then(|it| it.active.as_ref()));
        let Some(release) = release else {
            return Ok(Vec::new());
        };
        let apps = known.and_then(|it| it.releases.get(release));
        let apps = apps.into_iter().flat_map(|it| &it.apps);
        let apps = apps.filter(|it| wanted.app.as_ref().is_none_or(|app| *app == it.app));
        let readers = apps.map(|it| {
            let path = self.client.place.log(store, release, &it.app);
            LogReader::new(it.app.clone(), path, wanted.since)
        });
        Ok(readers.collect())
    }
}

/// The error of an answer to another request.
fn unexpected(answer: &LocalAnswer) -> Error {
    Error::Protocol {
        reason: format!("the answer `{answer:?}` belongs to another request"),
    }
}

/// An error of the target, with the store whose traffic was switched.
fn of_store(store: &StoreId) -> impl Fn(Error) -> super::Error + use<> {
    let store = store.clone();
    move |error| match error {
        Error::OutOfSequence => super::Error::OutOfSequence {
            store: store.clone(),
        },
        error => error.into(),
    }
}

impl Target for LocalTarget {
    fn name(&self) -> &'static str {
        "local"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: true,
            seamless: true,
            drain: true,
            observes: true,
            locks: true,
            settings: true,
            logs: true,
            maintenance: true,
        }
    }

    fn preflight(&self) -> TargetStep<'_, ()> {
        async move {
            if !self.examines {
                self.client.place.make().map_err(super::Error::from)?;
            }
            let mut node = tokio::process::Command::new("node");
            node.arg("--version").env_clear().envs(&self.client.system);
            let asked = node.output().await;
            asked.map_err(|source| Error::Node { source })?;
            for store in &self.planned {
                let others = self.project.stores.deployables();
                check_config(&self.project, store, others).map_err(Error::from)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn observe<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Observed> {
        async move {
            let observed = self.observed(store).await.map_err(of_store(store))?;
            let staged = observed
                .staged
                .into_iter()
                .map(|(release, address)| StagedRelease {
                    release,
                    address: Some(address),
                });
            Ok(Observed {
                active: observed.active,
                since: observed.since,
                addresses: observed.addresses,
                staged: staged.collect(),
                kept: observed.kept,
                maintenance: observed.maintenance,
                token: SwitchToken(observed.token),
            })
        }
        .boxed()
    }

    fn lock<'a>(&'a self, store: &'a StoreId, claim: &'a LockClaim) -> TargetStep<'a, LockAnswer> {
        async move {
            self.client.place.make().map_err(of_store(store))?;
            locks::take(&self.client.place, store, claim).map_err(of_store(store))
        }
        .boxed()
    }

    fn unlock<'a>(&'a self, store: &'a StoreId, holder: &'a str) -> TargetStep<'a, ()> {
        async move {
            let place = &self.client.place;
            locks::give_back(place, store, holder).map_err(of_store(store))
        }
        .boxed()
    }

    fn lock_holder<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        async move { locks::holder(&self.client.place, store).map_err(of_store(store)) }.boxed()
    }

    fn stage<'a>(&'a self, spec: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        async move {
            let order = self.order(spec).await.map_err(of_store(&spec.store))?;
            let request = LocalRequest::Stage(Box::new(order));
            match self.client.ask(&request).await? {
                LocalAnswer::Staged { ports, address } => {
                    let replicas = ports.into_iter().map(|(app, port)| Replica {
                        app,
                        address: format!("http://localhost:{port}"),
                    });
                    Ok(Staged {
                        replicas: replicas.collect(),
                        address: Some(address),
                    })
                }
                other => Err(unexpected(&other).into()),
            }
        }
        .boxed()
    }

    fn unpacked<'a>(&'a self, app: &'a ReleasedApp) -> TargetStep<'a, Option<UnpackedImage>> {
        async move { Ok(Some(self.unpacked_for_hook(app).await?)) }.boxed()
    }

    fn switch<'a>(&'a self, spec: &'a ReleaseSpec, token: &'a SwitchToken) -> TargetStep<'a, ()> {
        let request = LocalRequest::Switch {
            store: spec.store.clone(),
            release: spec.id.clone(),
            hosts: hosts(&self.project, &spec.store),
            token: token.0.clone(),
        };
        async move { self.done(request).await.map_err(of_store(&spec.store)) }.boxed()
    }

    fn drained<'a>(&'a self, store: &'a StoreId, release: &'a RecordId) -> TargetStep<'a, Drained> {
        let request = LocalRequest::Open {
            store: store.clone(),
            release: release.clone(),
        };
        async move {
            match self.client.ask(&request).await? {
                LocalAnswer::Open(0) => Ok(Drained::Yes),
                LocalAnswer::Open(open) => Ok(Drained::No(open)),
                other => Err(unexpected(&other).into()),
            }
        }
        .boxed()
    }

    fn retire<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
        kept: bool,
    ) -> TargetStep<'a, ()> {
        let request = LocalRequest::Retire {
            store: store.clone(),
            release: release.clone(),
            kept,
        };
        async move { self.done(request).await.map_err(of_store(store)) }.boxed()
    }

    fn health<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
    ) -> TargetStep<'a, Vec<AppState>> {
        let request = LocalRequest::Health {
            store: store.clone(),
            release: release.clone(),
        };
        async move {
            match self.client.ask(&request).await? {
                LocalAnswer::Health(apps) => Ok(apps),
                other => Err(unexpected(&other).into()),
            }
        }
        .boxed()
    }

    fn store_settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
        settings: &'a Settings,
    ) -> TargetStep<'a, ()> {
        async move {
            let place = &self.client.place;
            place.make().map_err(of_store(store))?;
            let path = place.settings(store, version).map_err(of_store(store))?;
            let values = settings.iter();
            let values: SettingValues = values
                .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
                .collect();
            let known: Option<SettingValues> = folder::read(&path).map_err(of_store(store))?;
            match known {
                None => Ok(folder::write(&path, &values).map_err(of_store(store))?),
                Some(known) if known == values => Ok(()),
                Some(_) => Err(super::Error::SettingsExist {
                    store: store.clone(),
                    version: version.to_owned(),
                }),
            }
        }
        .boxed()
    }

    fn settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
    ) -> TargetStep<'a, Option<Settings>> {
        async move {
            let path = self.client.place.settings(store, version);
            let path = path.map_err(of_store(store))?;
            let values: Option<SettingValues> = folder::read(&path).map_err(of_store(store))?;
            let values = values.map(|it| it.into_iter().map(|(name, it)| (name, it.into())));
            Ok(values.map(Iterator::collect))
        }
        .boxed()
    }

    fn logs<'a>(&'a self, wanted: &'a LogQuery) -> TargetStep<'a, ()> {
        async move {
            let readers = self.readers(wanted).map_err(of_store(&wanted.store))?;
            logs::send_all(readers, wanted.follow, &wanted.lines).await;
            Ok(())
        }
        .boxed()
    }

    fn maintenance<'a>(&'a self, store: &'a StoreId, page: Option<&'a str>) -> TargetStep<'a, ()> {
        let request = LocalRequest::Maintenance {
            store: store.clone(),
            page: page.map(str::to_owned),
        };
        async move { self.done(request).await.map_err(of_store(store)) }.boxed()
    }
}
