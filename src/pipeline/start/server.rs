//! One started app: its process group, its port and its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::environment::ServerEnvironment;
use super::folder::isolated_copy;
use super::listening::listening_ports;
use super::output::{ServerOutput, read, tail};
use super::{Error, SilentApp};
use crate::pipeline::failure::Io;
use crate::pipeline::process::{group_of, lives, open_log, signal};
use crate::pipeline::services::{Interrupt, Services};
use crate::plan::{Plan, ServerPlan};

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an app may take for its first response. A slow response is not an error.
const FIRST_RESPONSE: Duration = Duration::from_secs(10);

/// How long an app has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// How long the rest of an ended app's output is read.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// The addresses of `localhost`. An app may listen on one of them only.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// A started app that answers on its port.
pub struct RunningServer {
    /// The status of its response to `GET /`; none without an HTTP response in time.
    pub first_status: Option<u16>,
    // The order of the fields is the order in which they are dropped: the copy is removed last.
    process: ServerProcess,
    _copy: TempDir,
}

/// The process group of an app. It is killed when this value is dropped.
struct ServerProcess {
    child: Child,
    group: Option<Pid>,
    output: Arc<Mutex<ServerOutput>>,
    reading: AbortOnDropHandle<()>,
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

/// Free ports of this machine, all different.
pub async fn free_ports(count: usize) -> Result<Vec<u16>, Io> {
    let failed = || Io::at("find a free port on", Path::new("localhost"));
    // Each listener stays open until the last port is known, so that no port occurs twice.
    let mut listeners = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < count {
        let listener = TcpListener::bind((LOOPBACK[0], 0))
            .await
            .map_err(failed())?;
        let port = listener.local_addr().map_err(failed())?.port();
        listeners.push(listener);
        if !is_in_use(LOOPBACK[1], port).await {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// Whether a process listens there. An address that the machine does not have is not in use.
async fn is_in_use(address: &str, port: u16) -> bool {
    let bound = TcpListener::bind((address, port)).await;
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Starts an app in a copy of its `.deploy`, and waits until it answers on its port.
pub async fn start(
    plan: &Plan,
    server: &ServerPlan,
    environment: &ServerEnvironment,
    services: &Arc<Services>,
) -> Result<RunningServer, Error> {
    let (unit, port) = (&server.unit, server.port);
    for address in LOOPBACK {
        if is_in_use(address, port).await {
            let unit = unit.to_string();
            return Err(Error::PortInUse { unit, port });
        }
    }
    let deploy = plan.project.join(&server.folder);
    let copying = tokio::task::spawn_blocking(move || isolated_copy(&deploy));
    let copy = copying.await.unwrap_or_else(|_| {
        let error = std::io::Error::other("the copy was not finished");
        Err(Io::at("copy", Path::new(&server.folder))(error).into())
    })?;
    let log = format!(".alokai/logs/start/{unit}.log");
    let log = plan.project.join(log);
    let mut process = spawn(server, environment, copy.path(), &log, services)?;
    let waiting = Waiting {
        server,
        environment,
        log,
        limit: plan.start_timeout,
    };
    let first_status = waiting.answer(&mut process, &services.interrupt).await?;
    Ok(RunningServer {
        first_status,
        process,
        _copy: copy,
    })
}

fn spawn(
    server: &ServerPlan,
    environment: &ServerEnvironment,
    folder: &Path,
    log: &Path,
    services: &Arc<Services>,
) -> Result<ServerProcess, Error> {
    let log = open_log(log)?;
    let mut command = Command::new("node");
    command
        .arg(&server.entry)
        .current_dir(folder)
        .env_clear()
        .envs(environment.variables())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| Error::Node {
        entry: server.entry.clone(),
        source,
    })?;
    let redactor = environment.redactor.clone();
    let output = ServerOutput::new(log, Arc::clone(services), redactor);
    let output = Arc::new(Mutex::new(output));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (of_stdout, of_stderr) = (Arc::clone(&output), Arc::clone(&output));
    let reading = tokio::spawn(async move {
        tokio::join!(read(stdout, of_stdout), read(stderr, of_stderr));
    });
    Ok(ServerProcess {
        group: group_of(&child),
        child,
        output,
        reading: AbortOnDropHandle::new(reading),
    })
}

/// An app that has been started and does not answer yet.
struct Waiting<'a> {
    server: &'a ServerPlan,
    environment: &'a ServerEnvironment,
    log: PathBuf,
    limit: Duration,
}

impl Waiting<'_> {
    /// Waits until the app accepts a connection, and requests `/`, because an app may load packages only at
    /// the first request. Returns the status of the response.
    async fn answer(
        &self,
        process: &mut ServerProcess,
        interrupt: &Interrupt,
    ) -> Result<Option<u16>, Error> {
        let deadline = Instant::now() + self.limit;
        let address = loop {
            if let Some(address) = connectable(self.server.port).await {
                break address;
            }
            if Instant::now() >= deadline {
                return Err(self.silent(process).await);
            }
            tokio::select! {
                ended = process.child.wait() => return Err(self.ended(process, ended).await),
                () = interrupt.stopping() => return Err(self.interrupted(process, interrupt).await),
                () = sleep(PAUSE) => {}
            }
        };
        let asking = timeout(FIRST_RESPONSE, first_status(address, self.server.port));
        let status = tokio::select! {
            ended = process.child.wait() => return Err(self.ended(process, ended).await),
            () = interrupt.stopping() => return Err(self.interrupted(process, interrupt).await),
            status = asking => status.ok().flatten(),
        };
        // An app that crashes while it answers closes the connection first.
        if status.is_none()
            && let Ok(ended) = timeout(PAUSE * 10, process.child.wait()).await
        {
            return Err(self.ended(process, ended).await);
        }
        Ok(status)
    }

    async fn interrupted(&self, process: &mut ServerProcess, interrupt: &Interrupt) -> Error {
        process.stop(interrupt).await;
        Error::Interrupted
    }

    async fn ended(
        &self,
        process: &mut ServerProcess,
        status: std::io::Result<ExitStatus>,
    ) -> Error {
        process.read_rest().await;
        Error::Ended {
            ended: status.map_or_else(|error| error.to_string(), how).into(),
            app: Box::new(self.app(process)),
        }
    }

    async fn silent(&self, process: &mut ServerProcess) -> Error {
        let ports = process.group.and_then(listening_ports);
        process.read_rest().await;
        Error::Silent {
            seconds: self.limit.as_secs(),
            ports,
            app: Box::new(self.app(process)),
        }
    }

    fn app(&self, process: &ServerProcess) -> SilentApp {
        SilentApp {
            entry: self.server.entry.clone(),
            port: self.server.port,
            port_names: self.server.port_names().map(str::to_owned).collect(),
            variables: self.environment.given.clone(),
            tail: tail(&process.output),
            log: self.log.clone(),
        }
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without an exit code".into(),
    }
}

/// The address of `localhost` on which the port accepts connections.
async fn connectable(port: u16) -> Option<&'static str> {
    for address in LOOPBACK {
        if TcpStream::connect((address, port)).await.is_ok() {
            return Some(address);
        }
    }
    None
}

/// The status of the response to `GET /`; none for a response that is not HTTP.
async fn first_status(address: &str, port: u16) -> Option<u16> {
    let mut stream = TcpStream::connect((address, port)).await.ok()?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.ok()?;
    let line = std::str::from_utf8(&line).ok()?;
    line.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok()
}

impl RunningServer {
    /// Ends the app: SIGTERM, and SIGKILL after 5 s or when the user interrupts the run twice.
    pub async fn stop(mut self, interrupt: &Interrupt) {
        self.process.stop(interrupt).await;
    }
}

impl ServerProcess {
    async fn stop(&mut self, interrupt: &Interrupt) {
        signal(self.group, Signal::TERM);
        let group = self.group;
        let ended = async {
            let _ = self.child.wait().await;
            while lives(group) {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = interrupt.killing() => {}
            () = sleep(GRACE) => {}
        }
        self.read_rest().await;
    }

    /// Kills what is left of the group, which closes its pipes, and reads the rest of the output.
    async fn read_rest(&mut self) {
        signal(self.group, Signal::KILL);
        let _ = self.child.wait().await;
        // A process that has left the group may keep a pipe open.
        let _ = timeout(LAST_OUTPUT, &mut self.reading).await;
    }
}
