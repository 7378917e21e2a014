//! The sockets of a running HAProxy: the runtime API of its worker, and the CLI of its master.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::error::Error;
use super::table::{BACKEND, Map};
use crate::target::ports::socket_address;

/// The time limit of one command.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server as HAProxy has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeServer {
    /// Its name.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// Whether it is in maintenance mode, so that it gets no requests.
    pub in_maintenance: bool,
}

/// The runtime API.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The socket of the worker.
    pub socket: PathBuf,
    /// The socket of the master process.
    pub master: PathBuf,
}

impl Runtime {
    /// The description in the config of the running worker. None if no HAProxy runs.
    pub async fn description(&self) -> Option<String> {
        let info = self.ask("show info").await.ok()?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("description: "));
        Some(line.unwrap_or_default().to_owned())
    }

    /// Fails if no HAProxy answers on the socket.
    pub async fn check(&self) -> Result<(), Error> {
        self.ask("show info").await.map(drop)
    }

    /// Makes the master process read the config again. Open connections stay with the earlier worker.
    pub async fn reload(&self) -> Result<(), Error> {
        send_command(&self.master, "reload", true).await.map(drop)
    }

    /// Whether an earlier worker still has connections, after a reload.
    pub async fn has_earlier_worker(&self) -> bool {
        let processes = send_command(&self.master, "show proc", true).await;
        processes.is_ok_and(|text| {
            let old = text.split("# old workers").nth(1).unwrap_or_default();
            old.lines()
                .take_while(|line| !line.starts_with("# programs"))
                .any(|line| line.contains("worker"))
        })
    }

    /// The entries of a map.
    pub async fn map(&self, name: &str) -> Result<Map, Error> {
        let text = self.ask(&format!("show map {name}")).await?;
        let command = format!("show map {name}");
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let (id, key, value) = (words.next(), words.next(), words.next());
                match (id, key, value) {
                    (Some(id), Some(key), Some(value)) if id.starts_with("0x") => {
                        Ok((key.to_owned(), value.to_owned()))
                    }
                    _ => Err(Error::ProxyRefused {
                        command: command.clone(),
                        message: line.to_owned(),
                    }),
                }
            })
            .collect()
    }

    /// Adds an entry to a map.
    pub async fn add(&self, map: &str, key: &str, value: &str) -> Result<(), Error> {
        self.run(&format!("add map {map} {key} {value}")).await
    }

    /// Replaces the value of an entry, in one step.
    pub async fn set(&self, map: &str, key: &str, value: &str) -> Result<(), Error> {
        self.run(&format!("set map {map} {key} {value}")).await
    }

    /// Removes an entry.
    pub async fn delete(&self, map: &str, key: &str) -> Result<(), Error> {
        self.run(&format!("del map {map} {key}")).await
    }

    /// The servers.
    pub async fn servers(&self) -> Result<Vec<RuntimeServer>, Error> {
        let text = self.ask(&format!("show servers state {BACKEND}")).await?;
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let servers = rows.filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let admin_state: u32 = fields.get(6)?.parse().ok()?;
            Some(RuntimeServer {
                name: (*fields.get(3)?).to_owned(),
                address: socket_address(fields.get(4)?, fields.get(18)?),
                in_maintenance: admin_state & 1 != 0,
            })
        });
        Ok(servers.collect())
    }

    /// Adds a server that gets requests only by name.
    pub async fn add_server(&self, name: &str, address: &str) -> Result<(), Error> {
        let added = format!("add server {BACKEND}/{name} {address} weight 0");
        let answer = self.ask(&added).await?;
        if !answer.contains("registered") {
            return Err(refused(&added, &answer));
        }
        self.enable_server(name).await
    }

    /// Lets a server get requests.
    pub async fn enable_server(&self, name: &str) -> Result<(), Error> {
        self.run(&format!("set server {BACKEND}/{name} state ready"))
            .await
    }

    /// Gives a server another address.
    pub async fn move_server(&self, name: &str, address: &str) -> Result<(), Error> {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "80"));
        let host = host.trim_matches(['[', ']']);
        let command = format!("set server {BACKEND}/{name} addr {host} port {port}");
        let answer = self.ask(&command).await?;
        if answer.contains("changed from") || answer.contains("no need to change") {
            return Ok(());
        }
        Err(refused(&command, &answer))
    }

    /// Ends the connections of a server and removes it. HAProxy keeps a server for a moment whose
    /// connections are just ending; the next change of the table removes it.
    pub async fn remove_server(&self, name: &str) -> Result<(), Error> {
        for command in [
            format!("set server {BACKEND}/{name} state maint"),
            format!("shutdown sessions server {BACKEND}/{name}"),
            format!("del server {BACKEND}/{name}"),
        ] {
            self.ask(&command).await?;
        }
        Ok(())
    }

    /// The open requests and `WebSocket`s of each server.
    pub async fn sessions(&self) -> Result<Vec<(String, u64)>, Error> {
        let command = format!("show stat {BACKEND} 4 -1");
        let text = self.ask(&command).await?;
        let mut rows = text.lines();
        let header = rows.next().unwrap_or_default().trim_start_matches("# ");
        let column = |wanted: &str| header.split(',').position(|name| name == wanted);
        let (Some(name), Some(sessions)) = (column("svname"), column("scur")) else {
            return Err(refused(&command, &text));
        };
        let counts = rows.filter_map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let count = fields.get(sessions)?.parse().ok()?;
            Some(((*fields.get(name)?).to_owned(), count))
        });
        Ok(counts.collect())
    }

    /// Runs a command that has no response unless it fails.
    async fn run(&self, command: &str) -> Result<(), Error> {
        let answer = self.ask(command).await?;
        if answer.trim().is_empty() {
            Ok(())
        } else {
            Err(refused(command, &answer))
        }
    }

    async fn ask(&self, command: &str) -> Result<String, Error> {
        send_command(&self.socket, command, false).await
    }
}

fn refused(command: &str, answer: &str) -> Error {
    Error::ProxyRefused {
        command: command.to_owned(),
        message: answer.trim().to_owned(),
    }
}

/// Sends one command and reads the response. The master process waits for further commands until its
/// client has closed its side.
async fn send_command(socket: &Path, command: &str, closes: bool) -> Result<String, Error> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        if closes {
            stream.shutdown().await?;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let unreachable = |reason: String| Error::ProxyUnreachable {
        socket: socket.to_owned(),
        reason,
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(answer) => answer.map_err(|error| unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!(
            "no response within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}
