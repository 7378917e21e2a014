//! The program `haproxy`: it checks a config, and it is started in the background.

use std::fs::File;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::error::Error;
use super::{CONFIG, Haproxy, PAUSE, TIMEOUT};

/// Where `haproxy` is, if it is not in the search path of a user.
const PROGRAMS: [&str; 3] = ["haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy"];

/// A config that HAProxy is asked to check.
const CANDIDATE: &str = "candidate.cfg";

impl Haproxy {
    /// Fails if HAProxy does not accept a config. The refused config stays in a file of its own.
    pub(super) async fn check_config(&self, text: &str) -> Result<(), Error> {
        self.write(CANDIDATE, text.as_bytes())?;
        self.run(&["-c"], CANDIDATE).await?;
        std::fs::remove_file(self.folder.join(CANDIDATE))
            .map_err(|error| self.unusable(format!("`{CANDIDATE}`: {error}")))
    }

    /// Starts HAProxy in the background, where it outlives this program.
    pub(super) async fn start(&self, wanted: &str) -> Result<(), Error> {
        let control = "unix@master.sock,mode,600";
        self.run(&["-W", "-D", "-S", control, "-p", "haproxy.pid"], CONFIG)
            .await?;
        self.await_description(wanted).await
    }

    /// Runs `haproxy` with a config in the folder, and waits until it ends or is in the background.
    async fn run(&self, arguments: &[&str], config: &str) -> Result<(), Error> {
        let config = self.folder.join(config);
        let failed = |message: String| Error::ProxyStart {
            section: self.section,
            config: config.clone(),
            message,
        };
        for program in PROGRAMS {
            let ended = Command::new(program)
                .args(arguments)
                .arg("-C")
                .arg(&self.folder)
                .arg("-f")
                .arg(&config)
                .current_dir(&self.folder)
                // A runner of GitHub ends all processes with the variable of its job when the job ends.
                .env_remove("RUNNER_TRACKING_ID")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::from(self.log()?))
                .status()
                .await;
            match ended {
                Ok(status) if status.success() => return Ok(()),
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

    pub(super) async fn await_description(&self, wanted: &str) -> Result<(), Error> {
        let end = Instant::now() + TIMEOUT;
        while self.runtime.description().await.as_deref() != Some(wanted) {
            if Instant::now() > end {
                return Err(Error::ProxyStart {
                    section: self.section,
                    config: self.folder.join(CONFIG),
                    message: format!(
                        "it did not use the config within {} s. {}",
                        TIMEOUT.as_secs(),
                        self.log_text()
                    ),
                });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Fails if a program listens on one of the addresses. Two programs that both are HAProxy could listen
    /// there, and the system would divide the connections among them.
    pub(super) fn check_free(&self) -> Result<(), Error> {
        for line in &self.bind {
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
                    section: self.section,
                });
            }
        }
        Ok(())
    }
}
