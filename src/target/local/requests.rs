//! The requests that the background process carries out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::app::RunningApp;
use super::folder;
use super::launch::{self, ReleaseStart};
use super::process::{Background, ClientEnd, locked};
use super::protocol::{LocalAnswer, LocalRequest, ObservedStore, StageOrder};
use super::state::{
    AppRecord, ReleaseEnvironment, ReleaseState, StoreState, StoredVariable, staged_host,
};
use super::{Error, images};
use crate::ledger::RecordId;
use crate::pipeline::Io;
use crate::proxy::StoreRoutes;
use crate::store::StoreId;
use crate::target::AppState;
use crate::target::hosts::{self, EarlierNames};

/// How often the system is asked for a free port.
const ATTEMPTS: u32 = 100;

/// How many chosen ports are not chosen again.
const REMEMBERED_PORTS: usize = 200;

impl Background {
    /// Carries out a request.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: LocalRequest,
        client: &ClientEnd,
    ) -> Result<LocalAnswer, Error> {
        match request {
            // It was answered before its version was looked at.
            LocalRequest::Quit => Ok(LocalAnswer::Done),
            LocalRequest::Observe(store) => {
                Ok(LocalAnswer::Observed(Box::new(self.observe(&store))))
            }
            LocalRequest::Stage(order) => {
                let _lock = self.lock_store(&order.store).await;
                self.stage(*order, client).await
            }
            LocalRequest::Switch {
                store,
                release,
                hosts,
                token,
            } => {
                let _lock = self.lock_store(&store).await;
                self.switch(&store, release, &hosts, &token)
            }
            LocalRequest::Open { store, release } => {
                Ok(LocalAnswer::Open(self.open(&store, &release)))
            }
            LocalRequest::Retire {
                store,
                release,
                kept,
            } => {
                let _lock = self.lock_store(&store).await;
                self.retire(&store, &release, kept)
            }
            LocalRequest::Health { store, release } => {
                Ok(LocalAnswer::Health(self.health(&store, &release)))
            }
            LocalRequest::Maintenance { store, page } => {
                let _lock = self.lock_store(&store).await;
                self.change(|state| {
                    state.stores.entry(store).or_default().maintenance = page;
                })?;
                Ok(LocalAnswer::Done)
            }
            LocalRequest::Stop(store) => self.stop(store).await,
        }
    }

    /// Waits until no other request changes the store.
    async fn lock_store(&self, store: &StoreId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = Arc::clone(locked(&self.store_locks).entry(store.clone()).or_default());
        lock.lock_owned().await
    }

    fn observe(&self, id: &StoreId) -> ObservedStore {
        self.read_state(|state| state.observed(id, self.addresses))
    }

    /// Starts a release. If its client has ended meanwhile, the release is stopped: the next run may have
    /// looked for what is left before this release was known.
    async fn stage(
        self: &Arc<Self>,
        order: StageOrder,
        client: &ClientEnd,
    ) -> Result<LocalAnswer, Error> {
        let (store, id) = (order.store.clone(), order.release.clone());
        self.forget_names(&store, &id)?;
        let is_running = locked(&self.running).contains_key(&(store.clone(), id.clone()));
        if !is_running {
            let environment = self.environment(&order)?;
            let path = self.place.environment(&store, &id);
            folder::write(&path, &environment)?;
            let settings = order.settings.clone();
            let release = self.prepare(order).await?;
            let unpacked = release.folder.clone();
            let known = self.change(|state| {
                let releases = &mut state.stores.entry(store.clone()).or_default().releases;
                // The folder that was taken over belongs to this release now.
                for other in releases.values_mut().filter(|it| it.folder == unpacked) {
                    other.folder = None;
                }
                releases.insert(
                    id.clone(),
                    ReleaseState {
                        settings,
                        ..release
                    },
                );
            });
            let started = match known {
                Ok(()) => self.run(&store, &id).await,
                Err(error) => Err(error),
            };
            let started = match started {
                Ok(()) if client.has_come() => Err(Error::Protocol {
                    reason: "the client has disconnected".into(),
                }),
                started => started,
            };
            if let Err(error) = started {
                let _ = self.retire(&store, &id, false);
                return Err(error);
            }
        }
        let ports = self.read_state(|state| {
            let release = state.stores.get(&store)?.releases.get(&id)?;
            let apps = release.apps.iter();
            Some(apps.map(|app| (app.app.clone(), app.port)).collect())
        });
        Ok(LocalAnswer::Staged {
            ports: ports.unwrap_or_default(),
            address: self.addresses.url(&staged_host(&store, &id)),
        })
    }

    /// A release that is staged again gets the names of the config at its switch.
    fn forget_names(&self, store: &StoreId, id: &RecordId) -> Result<(), Error> {
        let is_earlier = |it: &StoreState| it.earlier.as_ref().is_some_and(|it| it.release == *id);
        if !self.read_state(|state| state.stores.get(store).is_some_and(is_earlier)) {
            return Ok(());
        }
        self.change(|state| {
            if let Some(store) = state.stores.get_mut(store) {
                store.earlier = None;
            }
        })
    }

    /// The variables of a release, with the values of `.env` files of the release that it copies.
    fn environment(&self, order: &StageOrder) -> Result<ReleaseEnvironment, Error> {
        let mut environment = order.environment.clone();
        let Some(original) = &order.copy_of else {
            return Ok(environment);
        };
        let path = self.place.environment(&order.store, original);
        let copied: Option<ReleaseEnvironment> = folder::read(&path)?;
        let Some(copied) = copied else {
            return Err(Error::UnknownOriginal {
                release: original.clone(),
            });
        };
        for (app, variables) in copied.apps {
            let own = environment.apps.entry(app).or_default();
            own.retain(|_, variable| !matches!(variable, StoredVariable::Secret(_)));
            for (name, variable) in variables {
                if let StoredVariable::Secret(_) = variable {
                    own.entry(name).or_insert(variable);
                }
            }
        }
        Ok(environment)
    }

    /// Chooses ports, and unpacks the apps or takes over a folder of a stopped release that has the
    /// same images.
    async fn prepare(&self, order: StageOrder) -> Result<ReleaseState, Error> {
        let mut apps = Vec::new();
        for app in order.apps {
            apps.push(AppRecord {
                app: app.app,
                image: app.image,
                port: self.choose_port().await?,
                path_prefix: app.path_prefix,
                strips_prefix: app.strips_prefix,
            });
        }
        let mut release = ReleaseState {
            runs: true,
            folder: None,
            apps,
            settings: None,
            stop_timeout: order.stop_timeout,
        };
        let reused = self.reusable(&order.store, &order.release, &release);
        let folder = match reused {
            Some(folder) => folder,
            None => self.unpack(&release).await?,
        };
        release.folder = Some(folder);
        Ok(release)
    }

    /// The folder of a stopped release with the same images: its own folder, or else that of the latest.
    fn reusable(&self, store: &StoreId, id: &RecordId, release: &ReleaseState) -> Option<PathBuf> {
        let images = |release: &ReleaseState| -> Vec<_> {
            let apps = release.apps.iter();
            apps.map(|it| (it.app.clone(), it.image.digest.clone()))
                .collect()
        };
        let wanted = images(release);
        let found = self.read_state(|state| {
            let releases = &state.stores.get(store)?.releases;
            let own = releases.get_key_value(id).into_iter();
            let stopped = own.chain(releases.iter().rev()).map(|(_, it)| it);
            let mut stopped = stopped.filter(|it| !it.runs && images(it) == wanted);
            stopped.find_map(|it| it.folder.clone())
        });
        found.filter(|folder| launch::is_unpacked(release, folder))
    }

    async fn unpack(&self, release: &ReleaseState) -> Result<PathBuf, Error> {
        let release = release.clone();
        let unpacking = tokio::task::spawn_blocking(move || launch::unpack(&release));
        unpacking.await.unwrap_or_else(|crashed| {
            Err(Error::Protocol {
                reason: crashed.to_string(),
            })
        })
    }

    /// Starts the apps of a release that has to run.
    pub(super) async fn run(&self, store: &StoreId, id: &RecordId) -> Result<(), Error> {
        let found = self.read_state(|state| state.stores.get(store)?.releases.get(id).cloned());
        let Some(mut release) = found else {
            return Ok(());
        };
        let unpacked = release.folder.clone();
        let unpacked = match unpacked.filter(|folder| launch::is_unpacked(&release, folder)) {
            Some(folder) => folder,
            // The system removes old temporary files.
            None => self.unpack(&release).await?,
        };
        self.hold(&unpacked);
        release.folder = Some(unpacked.clone());
        self.renew_ports(&mut release).await?;
        let changed = release.clone();
        self.change(|state| {
            let known = state.stores.get_mut(store);
            if let Some(known) = known.and_then(|it| it.releases.get_mut(id)) {
                *known = changed;
            }
        })?;
        let public = self.addresses.url(&StoreRoutes::localhost(store));
        let start = ReleaseStart {
            place: &self.place,
            store,
            id,
            release: &release,
            public: &public,
        };
        let apps = start.apps(&unpacked)?.into_iter().map(|app| {
            let name = app.app.clone();
            (name, RunningApp::start(app, Arc::clone(&self.processes)))
        });
        let apps: HashMap<_, _> = apps.collect();
        locked(&self.running).insert((store.clone(), id.clone()), apps);
        Ok(())
    }

    /// Replaces ports that another program has taken meanwhile.
    async fn renew_ports(&self, release: &mut ReleaseState) -> Result<(), Error> {
        for app in &mut release.apps {
            if !crate::pipeline::is_in_use(app.port).await {
                continue;
            }
            app.port = self.choose_port().await?;
        }
        Ok(())
    }

    /// A free port. The system may offer a port again whose app does not listen yet.
    async fn choose_port(&self) -> Result<u16, Error> {
        let mut chosen = self.chosen.lock().await;
        let mut taken: Vec<u16> = self.read_state(|state| state.ports().collect());
        taken.extend(chosen.iter());
        for _ in 0..ATTEMPTS {
            let ports = crate::pipeline::free_ports(1).await?;
            if let Some(port) = ports.into_iter().find(|port| !taken.contains(port)) {
                chosen.push_back(port);
                if chosen.len() > REMEMBERED_PORTS {
                    chosen.pop_front();
                }
                return Ok(port);
            }
        }
        let error = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        Err(Io::at("find a free port for", self.place.project())(error).into())
    }

    fn switch(
        &self,
        id: &StoreId,
        release: RecordId,
        wanted: &[String],
        token: &str,
    ) -> Result<LocalAnswer, Error> {
        let key = (id.clone(), release.clone());
        if !locked(&self.running).contains_key(&key) {
            return Err(Error::NotStaged { release });
        }
        let (is_active, known) = self.read_state(|state| {
            let store = state.stores.get(id).cloned().unwrap_or_default();
            (store.active.as_ref() == Some(&release), store.token())
        });
        if is_active {
            return Ok(LocalAnswer::Done);
        }
        if known != token {
            return Err(Error::OutOfSequence);
        }
        self.change(|state| {
            let stores = &mut state.stores;
            let now = stores.entry(id.clone()).or_default();
            let before = now.active.clone();
            let earlier = now.earlier.take();
            if let Some(earlier) = earlier.filter(|it| it.release == release) {
                hosts::give_back(stores, id, earlier.names, |it| &mut it.hosts);
            } else {
                // The config decides about host names: a store that had one of these was renamed, or has
                // another one.
                let names = hosts::give(stores, (id, wanted), |it| &mut it.hosts);
                let store = stores.entry(id.clone()).or_default();
                store.earlier = before.map(|release| EarlierNames { release, names });
            }
            let store = stores.entry(id.clone()).or_default();
            store.active = Some(release);
            store.since = Some(Timestamp::now());
            store.switches += 1;
        })?;
        Ok(LocalAnswer::Done)
    }

    /// How many requests to the apps of a release are open.
    fn open(&self, store: &StoreId, id: &RecordId) -> u64 {
        let ports: Vec<u16> = self.read_state(|state| {
            let release = state.stores.get(store).and_then(|it| it.releases.get(id));
            let running = release.into_iter().filter(|it| it.runs);
            running
                .flat_map(|it| it.apps.iter().map(|app| app.port))
                .collect()
        });
        let open = ports
            .into_iter()
            .map(|port| self.routes.open_requests(port));
        open.map(|it| it as u64).sum()
    }

    /// Removes the routes of a release at once. Its apps end in the background: an app that ignores
    /// SIGTERM would delay the answer.
    fn retire(
        self: &Arc<Self>,
        store: &StoreId,
        id: &RecordId,
        kept: bool,
    ) -> Result<LocalAnswer, Error> {
        let is_active = self.read_state(|state| {
            let store = state.stores.get(store);
            store.is_some_and(|it| it.active.as_ref() == Some(id))
        });
        if is_active {
            return Err(Error::GetsTraffic {
                release: id.clone(),
            });
        }
        self.stopping.spawn(self.end(store, id, kept)?);
        Ok(LocalAnswer::Done)
    }

    /// Ends the addresses of a release. The returned future stops its apps and removes its files.
    fn end(
        self: &Arc<Self>,
        id: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<impl Future<Output = ()> + Send + use<>, Error> {
        let (folder, forgotten) = self.change(|state| {
            let Some(store) = state.stores.get_mut(id) else {
                return (None, Vec::new());
            };
            let known = store.releases.get_mut(release);
            let folder = known.and_then(|known| {
                known.runs = false;
                if kept { None } else { known.folder.take() }
            });
            (folder, store.forget_oldest())
        })?;
        let key = (id.clone(), release.clone());
        locked(&self.failed).remove(&key);
        let apps = locked(&self.running).remove(&key).unwrap_or_default();
        let background = Arc::clone(self);
        Ok(async move {
            join_all(apps.into_values().map(RunningApp::stop)).await;
            if let Some(folder) = folder {
                background.remove_folder(folder).await;
            }
            let (id, release) = &key;
            let place = &background.place;
            // The release may have been staged again meanwhile.
            if !kept && !locked(&background.running).contains_key(&key) {
                let _ = crate::disk::remove(&place.logs(id, release));
            }
            for old in forgotten {
                let _ = crate::disk::remove_file(&place.environment(id, &old));
            }
            background.read_state(|state| images::remove_unused(place, state));
        })
    }

    fn health(&self, store: &StoreId, id: &RecordId) -> Vec<AppState> {
        let key = (store.clone(), id.clone());
        let apps = self.read_state(|state| {
            let release = state.stores.get(store)?.releases.get(id)?;
            Some(release.apps.iter().map(|it| it.app.clone()).collect())
        });
        let apps: Vec<_> = apps.unwrap_or_default();
        let failed = locked(&self.failed).get(&key).cloned();
        let running = locked(&self.running);
        let running = running.get(&key);
        let states = apps.into_iter().map(|app| {
            let found = running.and_then(|it| it.get(&app));
            found.map(|it| it.health(&app)).unwrap_or(AppState {
                app,
                running: false,
                ended: failed.clone(),
                restarts: 0,
                tail: Vec::new(),
            })
        });
        states.collect()
    }

    /// Stops all releases of a store, or of all stores.
    async fn stop(self: &Arc<Self>, only: Option<StoreId>) -> Result<LocalAnswer, Error> {
        let stores: Vec<StoreId> = self.read_state(|state| state.stores.keys().cloned().collect());
        for id in stores {
            if only.as_ref().is_some_and(|only| *only != id) {
                continue;
            }
            let _lock = self.lock_store(&id).await;
            let releases = self.change(|state| {
                let store = state.stores.entry(id.clone()).or_default();
                if store.active.take().is_some() {
                    store.switches += 1;
                }
                store.since = None;
                store.maintenance = None;
                let releases = store.releases.iter();
                let there = releases.filter(|(_, it)| it.runs || it.folder.is_some());
                there
                    .map(|(release, _)| release.clone())
                    .collect::<Vec<_>>()
            })?;
            let stopping = releases.iter().map(|release| self.end(&id, release, false));
            let stopping: Vec<_> = stopping.collect::<Result<_, _>>()?;
            join_all(stopping).await;
        }
        // Also the releases that were stopped before and whose apps still end.
        self.stopping.wait().await;
        Ok(LocalAnswer::Done)
    }
}
