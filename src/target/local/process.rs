//! The background process of a project: it holds the proxy and the running apps, and answers requests
//! on a Unix socket.

use std::collections::{HashMap, VecDeque};
use std::fs::TryLockError;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::RunningApp;
use super::folder::{self, LocalFolder};
use super::processes::Processes;
use super::protocol::{LocalAnswer, LocalRequest, RequestLine, VERSION};
use super::state::LocalState;
use super::{Error, launch};
use crate::ledger::RecordId;
use crate::pipeline::Io;
use crate::proxy::{self, PortChoice, ProxyAddresses, ProxyOptions, Routes};
use crate::store::{AppName, StoreId};

/// How long a background process that ends may hold its lock.
const TAKEOVER: Duration = Duration::from_secs(15);

/// How long a background process without releases waits for its first request. The command that
/// has started it may have been killed.
const UNUSED: Duration = Duration::from_secs(10);

/// How often a background process looks whether its folder still exists. No command reaches it without.
const FOLDER_CHECK: Duration = Duration::from_secs(5);

/// Bytes of a request. The values of `.env` files and a maintenance page are part of requests.
const LARGEST_REQUEST: u64 = 16 << 20;

/// The apps of the running releases.
pub type RunningReleases = HashMap<(StoreId, RecordId), HashMap<AppName, RunningApp>>;

/// The background process.
pub struct Background {
    pub(super) place: LocalFolder,
    pub(super) routes: Routes,
    pub(super) addresses: ProxyAddresses,
    pub(super) processes: Arc<Processes>,
    pub(super) running: Mutex<RunningReleases>,
    /// Why a release that has to run could not be started.
    pub(super) failed: Mutex<HashMap<(StoreId, RecordId), String>>,
    /// One change of a store at a time.
    pub(super) store_locks: Mutex<HashMap<StoreId, Arc<tokio::sync::Mutex<()>>>>,
    /// The folders of unpacked apps, locked against the removal of old temporary files.
    held: Mutex<HashMap<PathBuf, std::fs::File>>,
    /// The ports that were chosen last. Their apps may not listen yet.
    pub(super) chosen: tokio::sync::Mutex<VecDeque<u16>>,
    /// The stopped releases whose apps have not ended yet.
    pub(super) stopping: TaskTracker,
    state: Mutex<LocalState>,
    /// The requests that are being answered.
    busy: AtomicUsize,
    shutdown: CancellationToken,
}

/// Whether the client of a request has ended.
#[derive(Clone, Default)]
pub(super) struct ClientEnd(CancellationToken);

impl ClientEnd {
    pub(super) fn has_come(&self) -> bool {
        self.0.is_cancelled()
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the background process of a project until it is asked to end, or no release has to run.
/// Returns at once if the project has one already.
pub async fn serve(project: &Path) -> Result<(), Error> {
    let place = LocalFolder::of(project);
    place.make()?;
    let Some(lock) = take_lock(&place).await? else {
        return Ok(());
    };
    let socket = place.socket()?;
    match std::fs::remove_file(&socket.path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Io::at("remove", &socket.path)(error).into());
        }
        _ => {}
    }
    let state: LocalState = folder::read(&place.state())?.unwrap_or_default();
    let processes = Arc::new(Processes::end_left(&place.processes()));
    let routes = Routes::default();
    let stop_proxy = CancellationToken::new();
    let options = ProxyOptions {
        http: PortChoice {
            standard: state.port.or(PortChoice::HTTP.standard),
            ..PortChoice::HTTP
        },
        ..ProxyOptions::default()
    };
    let proxy = proxy::start(routes.clone(), options, stop_proxy.clone()).await?;
    let background = Arc::new(Background {
        place,
        routes,
        addresses: proxy.addresses,
        processes,
        running: Mutex::default(),
        failed: Mutex::default(),
        store_locks: Mutex::default(),
        held: Mutex::default(),
        chosen: tokio::sync::Mutex::default(),
        stopping: TaskTracker::new(),
        state: Mutex::new(state),
        busy: AtomicUsize::new(0),
        shutdown: CancellationToken::new(),
    });
    // A tracker can be waited for only after it is closed. It counts as before.
    background.stopping.close();
    background.change(|state| state.port = Some(proxy.addresses.http))?;
    let listener = UnixListener::bind(&socket.path).map_err(Io::at("create", &socket.path))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&socket.path, private).map_err(Io::at("protect", &socket.path))?;
    background.start_again().await;
    let is_reachable = background.accept(listener, &lock).await?;

    // A client that connects after this line starts a new background process. Another process may have
    // made a socket where this one had its folder.
    if is_reachable {
        let _ = std::fs::remove_file(&socket.path);
    }
    stop_proxy.cancel();
    proxy.ended().await;
    let running = std::mem::take(&mut *locked(&background.running));
    let apps = running.into_values().flat_map(HashMap::into_values);
    join_all(apps.map(RunningApp::stop)).await;
    background.stopping.wait().await;
    Ok(())
}

/// Takes the lock of the project's background process. `None` if another process keeps it.
async fn take_lock(place: &LocalFolder) -> Result<Option<std::fs::File>, Error> {
    let path = place.process_lock();
    let file = folder::open(&path)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                write_pid(&file).map_err(Io::at("write", &path))?;
                return Ok(Some(file));
            }
            Err(TryLockError::Error(error)) => return Err(Io::at("lock", &path)(error).into()),
            Err(TryLockError::WouldBlock) => {}
        }
        // A process that ends has removed its socket.
        let is_served = place.socket()?.path.exists();
        if is_served || began.elapsed() > TAKEOVER {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether an open file is still the file at a path. If that cannot be told, it counts as there.
fn is_at(file: &std::fs::File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        (_, Err(error)) => error.kind() != ErrorKind::NotFound,
        (Err(_), _) => true,
    }
}

/// Writes the id of this process into its lock, for people.
fn write_pid(mut lock: &std::fs::File) -> std::io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

impl Background {
    /// A part of the state.
    pub fn read_state<T>(&self, at: impl FnOnce(&LocalState) -> T) -> T {
        at(&locked(&self.state))
    }

    /// Changes the state: first on disk, then here, and then in the routing table.
    pub fn change<T>(&self, change: impl FnOnce(&mut LocalState) -> T) -> Result<T, Error> {
        let mut state = locked(&self.state);
        let mut next = state.clone();
        let result = change(&mut next);
        folder::write(&self.place.state(), &next)?;
        self.routes.set(next.routes());
        *state = next;
        Ok(result)
    }

    /// Starts the releases that have to run, as they ran before the end of the last process.
    async fn start_again(&self) {
        let kept: Vec<PathBuf> = self.read_state(|state| {
            let releases = state.stores.values().flat_map(|it| it.releases.values());
            releases.filter_map(|it| it.folder.clone()).collect()
        });
        for folder in &kept {
            self.hold(folder);
        }
        let due = self.read_state(|state| {
            let stores = state.stores.iter();
            let releases = stores.flat_map(|(store, it)| {
                let due = it.releases.iter().filter(|(_, release)| release.runs);
                due.map(|(id, _)| (store.clone(), id.clone()))
            });
            releases.collect::<Vec<_>>()
        });
        for (store, release) in due {
            if let Err(error) = self.run(&store, &release).await {
                locked(&self.failed).insert((store, release), error.to_string());
            }
        }
    }

    /// Answers connections until the process has to end. Returns whether commands could still reach it.
    async fn accept(
        self: &Arc<Self>,
        listener: UnixListener,
        lock: &std::fs::File,
    ) -> Result<bool, Error> {
        let handler = |kind| signal(kind).map_err(Io::at("handle signals in", Path::new("/")));
        let mut terminated = handler(SignalKind::terminate())?;
        let mut interrupted = handler(SignalKind::interrupt())?;
        // The stores keep running when the terminal is closed.
        let mut hung_up = handler(SignalKind::hangup())?;
        let mut unused = std::pin::pin!(tokio::time::sleep(UNUSED));
        // Not `is_elapsed`, which is true too if another branch was taken at the same moment.
        let mut has_waited = false;
        let mut folder_checks = tokio::time::interval(FOLDER_CHECK);
        loop {
            tokio::select! {
                _ = folder_checks.tick() => {
                    if !is_at(lock, &self.place.process_lock()) {
                        return Ok(false);
                    }
                }
                () = &mut unused, if !has_waited => {
                    has_waited = true;
                    let is_idle = self.busy.load(Ordering::SeqCst) == 0;
                    if is_idle && !self.read_state(LocalState::is_needed) {
                        return Ok(true);
                    }
                }
                () = self.shutdown.cancelled() => return Ok(true),
                _ = terminated.recv() => return Ok(true),
                _ = interrupted.recv() => return Ok(true),
                _ = hung_up.recv() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let background = Arc::clone(self);
                        background.busy.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(async move {
                            // A client that has gone away needs no answer.
                            let _ = background.connected(stream).await;
                            background.done();
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }

    /// Ends the process after the last request, if nothing has to run.
    fn done(&self) {
        let was = self.busy.fetch_sub(1, Ordering::SeqCst);
        if was == 1 && !self.read_state(LocalState::is_needed) {
            self.shutdown.cancel();
        }
    }

    async fn connected(self: &Arc<Self>, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(LARGEST_REQUEST));
        reader.read_line(&mut line).await?;
        // A request is carried out to its end, also when its client goes away.
        let (background, client) = (Arc::clone(self), ClientEnd::default());
        let end = client.clone();
        let mut answering = tokio::spawn(async move { background.answer_line(&line, &end).await });
        let answer = tokio::select! {
            answer = &mut answering => answer,
            // A client sends nothing after its request.
            _ = reader.read_u8() => {
                client.0.cancel();
                answering.await
            }
        };
        let answer = answer.map_err(std::io::Error::other)?;
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
        writer.shutdown().await
    }

    async fn answer_line(self: &Arc<Self>, line: &str, client: &ClientEnd) -> LocalAnswer {
        let line: RequestLine = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => {
                return LocalAnswer::Failed {
                    message: format!("the request is not valid: {error}"),
                    help: None,
                };
            }
        };
        if line.request == "quit" {
            self.shutdown.cancel();
            return LocalAnswer::Done;
        }
        if line.version != VERSION {
            return LocalAnswer::OtherVersion(VERSION.into());
        }
        let answered = match serde_json::from_value::<LocalRequest>(line.request) {
            Ok(request) => self.answer(request, client).await,
            Err(error) => Err(Error::Protocol {
                reason: error.to_string(),
            }),
        };
        answered.unwrap_or_else(|error| LocalAnswer::failed(&error))
    }

    /// Locks a folder of unpacked apps, because systemd removes files of `/tmp` that were not read for ten
    /// days, and spares locked folders. A folder that cannot be locked can be used all the same.
    pub(super) fn hold(&self, folder: &Path) {
        if let Some(lock) = launch::lock(folder) {
            locked(&self.held).insert(folder.to_owned(), lock);
        }
    }

    /// Removes an unpacked folder away from the requests.
    pub(super) async fn remove_folder(&self, folder: PathBuf) {
        locked(&self.held).remove(&folder);
        // A folder that cannot be removed only uses disk space.
        let _ = tokio::task::spawn_blocking(move || launch::remove_unpacked(&folder)).await;
    }
}

impl LocalAnswer {
    fn failed(error: &Error) -> Self {
        if matches!(error, Error::OutOfSequence) {
            return Self::OutOfSequence;
        }
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
        let texts: Vec<String> = causes.map(ToString::to_string).collect();
        let mut message = String::new();
        for text in texts {
            // A transparent error repeats the text of its cause.
            if !message.ends_with(&text) {
                if !message.is_empty() {
                    message.push_str(": ");
                }
                message.push_str(&text);
            }
        }
        Self::Failed {
            message,
            help: miette::Diagnostic::help(error).map(|help| help.to_string()),
        }
    }
}
