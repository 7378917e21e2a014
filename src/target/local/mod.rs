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

use async_trait::async_trait;
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
    AppState, Capabilities, DATA_VARIABLE, Drained, Error as TargetError, LockAnswer, LockClaim,
    LogQuery, Observed, ReleaseSpec, ReleasedApp, Replica, Settings, Staged, StagedRelease,
    SwitchToken, Target, TargetContext, stored,
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
fn of_store(store: &StoreId) -> impl Fn(Error) -> TargetError + use<> {
    let store = store.clone();
    move |error| match error {
        Error::OutOfSequence => TargetError::OutOfSequence {
            store: store.clone(),
        },
        error => error.into(),
    }
}

#[async_trait]
impl Target for LocalTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Local
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

    async fn preflight(&self) -> Result<(), TargetError> {
        if !self.examines {
            self.client.place.make().map_err(TargetError::from)?;
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

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
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

    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, TargetError> {
        self.client.place.make().map_err(of_store(store))?;
        locks::take(&self.client.place, store, claim).map_err(of_store(store))
    }

    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), TargetError> {
        let place = &self.client.place;
        locks::give_back(place, store, holder).map_err(of_store(store))
    }

    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        locks::holder(&self.client.place, store).map_err(of_store(store))
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
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

    async fn unpacked(&self, app: &ReleasedApp) -> Result<Option<UnpackedImage>, TargetError> {
        Ok(Some(self.unpacked_for_hook(app).await?))
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        let request = LocalRequest::Switch {
            store: spec.store.clone(),
            release: spec.id.clone(),
            hosts: hosts(&self.project, &spec.store),
            token: token.0.clone(),
        };
        self.done(request).await.map_err(of_store(&spec.store))
    }

    async fn drained(&self, store: &StoreId, release: &RecordId) -> Result<Drained, TargetError> {
        let request = LocalRequest::Open {
            store: store.clone(),
            release: release.clone(),
        };

        match self.client.ask(&request).await? {
            LocalAnswer::Open(0) => Ok(Drained::Yes),
            LocalAnswer::Open(open) => Ok(Drained::No(open)),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn retire(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), TargetError> {
        let request = LocalRequest::Retire {
            store: store.clone(),
            release: release.clone(),
            kept,
        };
        self.done(request).await.map_err(of_store(store))
    }

    async fn health(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, TargetError> {
        let request = LocalRequest::Health {
            store: store.clone(),
            release: release.clone(),
        };

        match self.client.ask(&request).await? {
            LocalAnswer::Health(apps) => Ok(apps),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn store_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<(), TargetError> {
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
            Some(known) => stored(known == values, store, version),
        }
    }

    async fn settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, TargetError> {
        let path = self.client.place.settings(store, version);
        let path = path.map_err(of_store(store))?;
        let values: Option<SettingValues> = folder::read(&path).map_err(of_store(store))?;
        let values = values.map(|it| it.into_iter().map(|(name, it)| (name, it.into())));
        Ok(values.map(Iterator::collect))
    }

    async fn logs(&self, wanted: &LogQuery) -> Result<(), TargetError> {
        let readers = self.readers(wanted).map_err(of_store(&wanted.store))?;
        logs::send_all(readers, wanted.follow, &wanted.lines).await;
        Ok(())
    }

    async fn maintenance(&self, store: &StoreId, page: Option<&str>) -> Result<(), TargetError> {
        let request = LocalRequest::Maintenance {
            store: store.clone(),
            page: page.map(str::to_owned),
        };
        self.done(request).await.map_err(of_store(store))
    }
}
