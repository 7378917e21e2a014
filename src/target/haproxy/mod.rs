//! HAProxy as the switch of the traffic.
//!
//! A folder has its config, its map files and its sockets. alokai starts HAProxy if nothing answers on
//! the socket. A change goes to the running HAProxy first and then to the files, so that a restart
//! keeps it. The state of the running HAProxy is authoritative; the files are updated from it.

mod error;
mod program;
mod runtime;
mod table;
mod traffic;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

pub use error::Error;
pub use table::{RoutedRelease, RoutedServer, RoutedStore, RoutingTable};
pub use traffic::{
    AppServer, StoreTraffic, check_paths, check_release, drained, lower, prefix, token,
};

use crate::disk::write_atomically;
use crate::ledger::{RecordId, RecordKind};
use runtime::Runtime;
use table::{ACTIVE, MAPS, PAGES, config, description, map_text};

/// The longest path of a socket that Linux accepts.
const LONGEST_SOCKET: usize = 107;

/// How long a start, a reload, or the change of another run may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The pause between two checks of a condition that is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// The config of the running HAProxy.
const CONFIG: &str = "haproxy.cfg";

/// The file with the table.
const TABLE: &str = "table.json";

/// A HAProxy and its folder.
#[derive(Debug)]
pub struct Haproxy {
    section: &'static str,
    folder: PathBuf,
    bind: Vec<String>,
    runtime: Runtime,
}

impl Haproxy {
    /// The HAProxy of a folder, with these `bind` lines. Errors name the section of the config that has
    /// them, such as `deploy.docker.proxy`.
    pub fn new(section: &'static str, folder: PathBuf, bind: Vec<String>) -> Self {
        let runtime = Runtime {
            socket: folder.join("runtime.sock"),
            master: folder.join("master.sock"),
        };
        Self {
            section,
            folder,
            bind,
            runtime,
        }
    }

    /// The section of the config with the proxy.
    pub fn section(&self) -> &'static str {
        self.section
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The machine and the folder, for people.
    pub fn place(&self) -> String {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        format!("`{}` on the machine `{host}`", self.folder.display())
    }

    /// The identity of this proxy, which is made if it has none. That starts HAProxy.
    pub async fn identity(&self) -> Result<String, Error> {
        let identity = self.table().await?.identity;
        if identity.is_empty() {
            return self.change(|table| Ok(table.identity.clone())).await;
        }
        Ok(identity)
    }

    /// The address of a host name at the first `bind` line.
    pub fn url(&self, host: &str) -> String {
        let line = self.bind.first().map(String::as_str).unwrap_or_default();
        let mut words = line.split_whitespace();
        let port = words.next().and_then(|place| place.rsplit_once(':'));
        let port = port.map_or("80", |(_, port)| port);
        let (scheme, default) = if words.any(|word| word == "ssl") {
            ("https", "443")
        } else {
            ("http", "80")
        };
        if port == default {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }

    /// The table of the file, with the live releases and the pages of the running HAProxy. Nothing is
    /// changed.
    pub async fn table(&self) -> Result<RoutingTable, Error> {
        let path = self.folder.join(TABLE);
        let mut table = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| self.unusable(format!("`table.json` is not valid: {error}")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => RoutingTable::default(),
            Err(error) => return Err(self.unusable(format!("`table.json`: {error}"))),
        };
        if self.runtime.description().await.is_some() {
            let active = self.runtime.map(ACTIVE).await?;
            let pages = self.runtime.map(PAGES).await?;
            table.set_running_state(&active, &pages);
        }
        Ok(table)
    }

    /// Changes the table. HAProxy is started if it does not run; it gets the change first, and the files get
    /// it afterwards. Runs on this machine change the table one after another.
    pub async fn change<T>(
        &self,
        change: impl FnOnce(&mut RoutingTable) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.make_folder()?;
        let _lock = self.lock().await?;
        let mut table = self.table().await?;
        if table.identity.is_empty() {
            table.identity = new_identity();
        }
        let before = table.clone();
        let answer = change(&mut table)?;
        self.ensure_running(&before).await?;
        self.apply(&table).await?;
        self.save(&table)?;
        Ok(answer)
    }

    /// Fails if HAProxy does not answer. The error names the socket and the cause.
    pub async fn check_running(&self) -> Result<(), String> {
        let asked = self.runtime.check().await;
        asked.map_err(|error| error.to_string())
    }

    /// Starts HAProxy with a table if it does not run, and reloads it if it has other `bind` lines. The
    /// table is what was saved last: a change that is saved before HAProxy runs would look as if it had
    /// been made. The earlier config stays if HAProxy does not accept the new one.
    async fn ensure_running(&self, table: &RoutingTable) -> Result<(), Error> {
        let wanted = description(&self.bind);
        let running = self.runtime.description().await;
        if running.as_ref() == Some(&wanted) {
            return Ok(());
        }
        if running.is_none() {
            self.check_free()?;
        }
        self.save_maps(table)?;
        let (text, path) = (config(table, &self.bind), self.folder.join(CONFIG));
        self.check_config(&text).await?;
        let earlier = std::fs::read(&path).ok();
        self.write(CONFIG, text.as_bytes())?;
        let started = match running {
            None => self.start(&wanted).await,
            Some(_) => match self.runtime.reload().await {
                Ok(()) => self.await_description(&wanted).await,
                Err(error) => Err(error),
            },
        };
        if let (Err(_), Some(earlier)) = (&started, earlier) {
            self.write(CONFIG, &earlier)?;
        }
        started
    }

    /// The open requests of these servers. None if an earlier process of HAProxy has connections too.
    pub async fn open_requests(&self, servers: &[String]) -> Result<Option<u64>, Error> {
        let sessions = self.runtime.sessions().await?;
        let own = sessions.iter().filter(|(name, _)| servers.contains(name));
        let open = own.map(|(_, count)| count).sum();
        if open == 0 && self.runtime.has_earlier_worker().await {
            return Ok(None);
        }
        Ok(Some(open))
    }

    fn unusable(&self, reason: String) -> Error {
        Error::ProxyFolder {
            section: self.section,
            folder: self.folder.clone(),
            reason,
        }
    }

    fn make_folder(&self) -> Result<(), Error> {
        let length = self.runtime.socket.as_os_str().len();
        if length > LONGEST_SOCKET {
            return Err(self.unusable(format!(
                "the path of a socket in it has {length} bytes; the system allows {LONGEST_SOCKET}"
            )));
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| self.unusable(error.to_string()))
    }

    /// Waits for the lock of the folder. It is released with the file.
    async fn lock(&self) -> Result<File, Error> {
        let failed = |error: std::io::Error| self.unusable(format!("`lock`: {error}"));
        let options = File::options().create(true).append(true).clone();
        let file = options.open(self.folder.join("lock")).map_err(failed)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < end => sleep(PAUSE).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::ProxyLocked {
                        lock: self.folder.join("lock"),
                        seconds: TIMEOUT.as_secs(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn save(&self, table: &RoutingTable) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(table)
            .map_err(|error| self.unusable(format!("`{TABLE}`: {error}")))?;
        self.save_maps(table)?;
        self.write(CONFIG, config(table, &self.bind).as_bytes())?;
        self.write(TABLE, &json)
    }

    fn save_maps(&self, table: &RoutingTable) -> Result<(), Error> {
        let mut maps = MAPS.iter();
        maps.try_for_each(|name| self.write(name, map_text(&table.map(name)).as_bytes()))
    }

    /// Writes a file of the folder, unless it has this content.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.folder.join(name);
        if std::fs::read(&path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        let written = write_atomically(&path, content);
        written.map_err(|error| self.unusable(format!("`{name}`: {error}")))
    }

    /// Makes the running HAProxy do what the table says. New servers and routes come first, then the
    /// traffic moves, then what is not used any more is removed.
    async fn apply(&self, table: &RoutingTable) -> Result<(), Error> {
        let running = self.runtime.servers().await?;
        for server in table.servers() {
            match running.iter().find(|known| known.name == server.name) {
                None => {
                    self.runtime
                        .add_server(&server.name, &server.address)
                        .await?;
                }
                Some(known) => {
                    if known.address != server.address {
                        self.runtime
                            .move_server(&server.name, &server.address)
                            .await?;
                    }
                    if known.in_maintenance {
                        self.runtime.enable_server(&server.name).await?;
                    }
                }
            }
        }
        let mut unused = Vec::new();
        for name in MAPS {
            let (known, wanted) = (self.runtime.map(name).await?, table.map(name));
            for (key, value) in &wanted {
                match known.get(key) {
                    None => self.runtime.add(name, key, value).await?,
                    Some(old) if old != value => self.runtime.set(name, key, value).await?,
                    Some(_) => {}
                }
            }
            let extra = known.into_keys().filter(|key| !wanted.contains_key(key));
            unused.extend(extra.map(|key| (name, key)));
        }
        for (name, key) in unused {
            self.runtime.delete(name, &key).await?;
        }
        for server in running {
            if table.servers().all(|known| known.name != server.name) {
                self.runtime.remove_server(&server.name).await?;
            }
        }
        Ok(())
    }
}

fn new_identity() -> String {
    RecordId::new(RecordKind::Event, Timestamp::now()).to_string()
}

/// The folder of HAProxy for a project.
pub fn folder(project: &Path, given: Option<&str>) -> PathBuf {
    project.join(given.unwrap_or(".alokai/proxy"))
}

#[cfg(test)]
mod tests;
