//! HAProxy as the switch of the traffic.
//!
//! A folder has its config, its map files and its sockets. alokai starts HAProxy if nothing answers on
//! the socket. A change goes to the running HAProxy first and then to the files, so that a restart
//! keeps it. The state of the running HAProxy is authoritative; the files are updated from it.

mod error;
mod runtime;
mod table;
mod traffic;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use tokio::process::Command;
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

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Where `haproxy` is, if it is not in the search path of a user.
const PROGRAMS: [&str; 3] = ["haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy"];

/// A HAProxy and its folder.
#[derive(Debug)]
pub struct Haproxy {
    folder: PathBuf,
    bind: Vec<String>,
    runtime: Runtime,
}

impl Haproxy {
    /// The HAProxy of a folder, with these `bind` lines.
    pub fn new(folder: PathBuf, bind: Vec<String>) -> Self {
        let runtime = Runtime {
            socket: folder.join("runtime.sock"),
            master: folder.join("master.sock"),
        };
        Self {
            folder,
            bind,
            runtime,
        }
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

    /// The identity of this proxy.
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

    /// The table: the file, and what the running HAProxy does.
    pub async fn table(&self) -> Result<RoutingTable, Error> {
        let path = self.folder.join("table.json");
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

    /// Changes the table: HAProxy is started if it does not run, then it gets the change, then the
    /// files. Runs on this machine change it one after another.
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
        let answer = change(&mut table)?;
        let wanted = description(&self.bind);
        match self.runtime.description().await {
            None => {
                check_free(&self.bind)?;
                self.save(&table)?;
                self.start(&wanted).await?;
            }
            Some(running) if running != wanted => {
                self.save(&table)?;
                self.runtime.reload().await?;
                self.await_description(&wanted).await?;
            }
            Some(_) => {}
        }
        self.apply(&table).await?;
        self.save(&table)?;
        Ok(answer)
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
                    return Err(self.unusable("another run holds `lock`".into()));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn save(&self, table: &RoutingTable) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(table)
            .map_err(|error| self.unusable(format!("`table.json`: {error}")))?;
        let maps = MAPS.map(|name| (name, map_text(&table.map(name)).into_bytes()));
        let config = config(table, &self.bind).into_bytes();
        let files = [("haproxy.cfg", config), ("table.json", json)];
        for (name, content) in maps.into_iter().chain(files) {
            let path = self.folder.join(name);
            let is_same = std::fs::read(&path).is_ok_and(|old| old == content);
            if !is_same {
                write_atomically(&path, &content)
                    .map_err(|error| self.unusable(format!("`{name}`: {error}")))?;
            }
        }
        Ok(())
    }

    /// Starts HAProxy in the background, where it outlives this program.
    async fn start(&self, wanted: &str) -> Result<(), Error> {
        let config = self.folder.join("haproxy.cfg");
        let failed = |message: String| Error::ProxyStart {
            config: config.clone(),
            message,
        };
        for program in PROGRAMS {
            let started = Command::new(program)
                .args(["-W", "-D", "-C"])
                .arg(&self.folder)
                .args(["-S", "unix@master.sock,mode,600", "-p", "haproxy.pid", "-f"])
                .arg(&config)
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::from(self.log()?))
                .status()
                .await;
            match started {
                Ok(status) if status.success() => return self.await_description(wanted).await,
                Ok(_) => return Err(failed(self.log_text())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Err(Error::ProxyMissing)
    }

    /// The file with the output of HAProxy, emptied. A pipe would stay open as long as HAProxy runs.
    fn log(&self) -> Result<File, Error> {
        let log = File::create(self.folder.join("haproxy.log"));
        log.map_err(|error| self.unusable(format!("`haproxy.log`: {error}")))
    }

    fn log_text(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("haproxy.log")).unwrap_or_default();
        text.trim().to_owned()
    }

    async fn await_description(&self, wanted: &str) -> Result<(), Error> {
        let end = Instant::now() + TIMEOUT;
        while self.runtime.description().await.as_deref() != Some(wanted) {
            if Instant::now() > end {
                return Err(Error::ProxyStart {
                    config: self.folder.join("haproxy.cfg"),
                    message: format!(
                        "it does not use the config after {} s. {}",
                        TIMEOUT.as_secs(),
                        self.log_text()
                    ),
                });
            }
            sleep(PAUSE).await;
        }
        Ok(())
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

/// Fails if a program listens on one of the addresses. Two programs that both are HAProxy could listen
/// there, and the system would divide the connections among them.
fn check_free(bind: &[String]) -> Result<(), Error> {
    for line in bind {
        let place = line.split_whitespace().next().unwrap_or_default();
        let Some((host, port)) = place.rsplit_once(':') else {
            continue;
        };
        let host = match host.trim_matches(['[', ']']) {
            "" | "*" => "0.0.0.0",
            host => host,
        };
        let Ok(port) = port.parse::<u16>() else {
            continue;
        };
        let bound = std::net::TcpListener::bind((host, port));
        if bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            return Err(Error::AddressInUse {
                address: place.to_owned(),
            });
        }
    }
    Ok(())
}

/// The folder of HAProxy for a project.
pub fn folder(project: &Path, given: Option<&str>) -> PathBuf {
    project.join(given.unwrap_or(".alokai/proxy"))
}

#[cfg(test)]
mod tests {
    use super::Haproxy;

    #[test]
    fn an_address_has_the_port_of_the_first_bind_line() {
        for (bind, url) in [
            ("127.0.0.1:8080", "http://us.example:8080"),
            ("*:80", "http://us.example"),
            (":443 ssl crt /etc/cert.pem", "https://us.example"),
            ("*:8443 ssl crt x", "https://us.example:8443"),
            ("[::]:8080 v4v6", "http://us.example:8080"),
        ] {
            let haproxy = Haproxy::new("/proxy".into(), vec![bind.into()]);
            assert_eq!(haproxy.url("us.example"), url, "{bind}");
        }
    }

    #[test]
    fn an_address_on_which_a_program_listens_is_not_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for bind in [format!("127.0.0.1:{port} ssl crt x"), format!("*:{port}")] {
            assert!(super::check_free(&["127.0.0.1:0".into(), bind]).is_err());
        }
        drop(listener);
        assert!(super::check_free(&[format!("127.0.0.1:{port}")]).is_ok());
    }
}
