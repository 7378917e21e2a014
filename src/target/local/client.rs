//! Requests to the background process, which is started when it is needed.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Error;
use super::folder::{self, LocalFolder};
use super::protocol::{LocalAnswer, LocalRequest, RequestLine, VERSION};
use super::state::LocalState;
use crate::pipeline::Io;
use crate::proxy::ProxyAddresses;
use crate::store::StoreId;

/// The hidden command of the background process.
pub const COMMAND: &str = "__local";

/// How long the background process has to answer after its start. It first ends what a crash has left.
const START: Duration = Duration::from_secs(20);

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a request is sent to a new process after one has ended without an answer.
const ATTEMPTS: u32 = 3;

/// A client of the background process of a project.
#[derive(Debug, Clone)]
pub struct LocalClient {
    /// The folder of the target.
    pub place: LocalFolder,
    program: PathBuf,
    /// The variables of this machine, such as `PATH`.
    pub system: BTreeMap<String, String>,
}

impl LocalClient {
    /// A client. `program` is this program, and `system` are the variables that it and the apps get.
    pub fn new(project: &Path, program: PathBuf, system: BTreeMap<String, String>) -> Self {
        Self {
            place: LocalFolder::of(project),
            program,
            system,
        }
    }

    /// What is remembered, without asking the background process.
    pub fn remembered(&self) -> Result<LocalState, Error> {
        Ok(folder::read(&self.place.state())?.unwrap_or_default())
    }

    /// Stops all releases of a store, or of all stores, and returns the stores that had any. If none is
    /// left, the background process ends.
    pub async fn stop(&self, only: Option<&StoreId>) -> Result<Vec<StoreId>, Error> {
        let state = self.remembered()?;
        let due = state
            .stores
            .iter()
            .filter(|(id, store)| only.is_none_or(|only| only == *id) && store.runs());
        let stores: Vec<StoreId> = due.map(|(id, _)| id.clone()).collect();
        // The process removes unpacked folders, also where nothing runs any more.
        let releases = state.stores.values().flat_map(|it| it.releases.values());
        let is_empty = releases.into_iter().all(|it| it.folder.is_none());
        if !stores.is_empty() || !is_empty {
            self.ask(&LocalRequest::Stop(only.cloned())).await?;
        }
        Ok(stores)
    }

    /// Sends a request, and returns its answer. A failure is an error.
    pub(super) async fn ask(&self, request: &LocalRequest) -> Result<LocalAnswer, Error> {
        let protocol = |error: serde_json::Error| Error::Protocol {
            reason: error.to_string(),
        };
        let line = RequestLine {
            version: VERSION.into(),
            request: serde_json::to_value(request).map_err(protocol)?,
        };
        let line = serde_json::to_string(&line).map_err(protocol)?;
        for _ in 0..ATTEMPTS {
            match self.send(&line).await? {
                Some(LocalAnswer::OtherVersion(_)) if request.only_reads() => {
                    return self.remembered_answer(request);
                }
                Some(LocalAnswer::OtherVersion(_)) => self.replace().await?,
                Some(LocalAnswer::OutOfSequence) => return Err(Error::OutOfSequence),
                Some(LocalAnswer::Failed { message, help }) => {
                    return Err(Error::Refused { message, help });
                }
                Some(answer) => return Ok(answer),
                // It has ended, for example because nothing had to run. Requests can be repeated.
                None => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(self.unreachable("it ended without an answer"))
    }

    /// The answer from the state on disk, where the process has another version and goes on.
    fn remembered_answer(&self, request: &LocalRequest) -> Result<LocalAnswer, Error> {
        let state = self.remembered()?;
        match (request, state.port) {
            (LocalRequest::Observe(store), Some(http)) => {
                let proxy = ProxyAddresses { http, https: None };
                Ok(LocalAnswer::Observed(Box::new(
                    state.observed(store, proxy),
                )))
            }
            _ => Err(Error::OtherVersion {
                project: self.place.project().to_owned(),
            }),
        }
    }

    /// Sends a line. `None` if the process has ended without an answer.
    async fn send(&self, line: &str) -> Result<Option<LocalAnswer>, Error> {
        let stream = self.connect().await?;
        let (reader, mut writer) = stream.into_split();
        let mut answer = String::new();
        let exchanged = async {
            writer.write_all(line.as_bytes()).await?;
            writer.write_all(b"\n").await?;
            BufReader::new(reader).read_line(&mut answer).await
        };
        if exchanged.await.is_err() || answer.is_empty() {
            return Ok(None);
        }
        let answer = serde_json::from_str(&answer);
        answer.map(Some).map_err(|error| Error::Protocol {
            reason: error.to_string(),
        })
    }

    /// Asks a process of another version to end, and waits until it has ended.
    async fn replace(&self) -> Result<(), Error> {
        let line = json!({ "version": VERSION, "request": "quit" }).to_string();
        self.send(&line).await?;
        let socket = self.place.socket()?;
        let began = Instant::now();
        while UnixStream::connect(&socket.path).await.is_ok() {
            if began.elapsed() > START {
                return Err(self.unreachable("a process of another version does not end"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Connects to the process, and starts it if there is none.
    async fn connect(&self) -> Result<UnixStream, Error> {
        self.place.make()?;
        let socket = self.place.socket()?;
        if let Ok(stream) = UnixStream::connect(&socket.path).await {
            return Ok(stream);
        }
        let mut child = self.start()?;
        let began = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(&socket.path).await {
                return Ok(stream);
            }
            // A process that finds another one ends without an error.
            if let Ok(Some(status)) = child.try_wait()
                && !status.success()
            {
                let reason = self.last_line();
                let reason = reason.unwrap_or_else(|| format!("it ended at once ({status})"));
                return Err(self.unreachable(&reason));
            }
            if began.elapsed() > START {
                return Err(
                    self.unreachable("it was started, and does not listen on its socket in time")
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts the process in a group of its own, so that the end of this run does not end it.
    fn start(&self) -> Result<Child, Error> {
        let path = self.place.process_log();
        // Only the output of the newest process is kept. It has errors only.
        let _ = std::fs::remove_file(&path);
        let log = folder::open(&path)?;
        let output = log.try_clone().map_err(Io::at("open", &path))?;
        let started = Command::new(&self.program)
            .arg(COMMAND)
            .arg(self.place.project())
            .current_dir(self.place.root())
            .env_clear()
            .envs(&self.system)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .spawn();
        Ok(started.map_err(Io::at("execute", &self.program))?)
    }

    fn last_line(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.place.process_log()).ok()?;
        let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(last.trim().to_owned())
    }

    fn unreachable(&self, reason: &str) -> Error {
        Error::Process {
            project: self.place.project().to_owned(),
            reason: reason.to_owned(),
            log: self.place.process_log(),
        }
    }
}
