//! An engine on another machine, through the system's ssh client, as Docker's own client reaches it: each
//! connection is one `ssh` process that runs `docker system dial-stdio` on the other machine.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bollard::Docker;
use bollard::errors::Error as Bollard;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Url;
use tokio::io::{AsyncBufReadExt, BufReader, Join, join};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Error;

/// An engine that is reached by ssh.
#[derive(Clone)]
pub struct SshEngine {
    /// The arguments of `ssh`.
    arguments: Arc<[String]>,
    messages: SshMessages,
}

/// What `ssh` has printed as errors.
#[derive(Clone, Default)]
pub struct SshMessages(Arc<Mutex<Option<String>>>);

impl SshMessages {
    /// The last line.
    pub fn last(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    fn add(&self, line: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }
}

impl SshEngine {
    /// The engine at `ssh://[user@]host[:port][/path of the socket]`.
    pub fn new(address: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::Address {
            address: address.to_owned(),
            reason,
        };
        let url = Url::parse(address).map_err(|_| invalid("it is not a valid URL"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| invalid("it has no host"))?;
        if url.password().is_some() {
            return Err(invalid("it has a password, which `ssh` does not accept"));
        }
        // `ssh` reads such a name as an option.
        if host.starts_with('-') || url.username().starts_with('-') {
            return Err(invalid("its host or its user starts with `-`"));
        }
        // Nobody can answer a question, because several connections are made at once.
        let mut arguments = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-T"]
            .map(str::to_owned)
            .to_vec();
        if !url.username().is_empty() {
            arguments.extend(["-l".to_owned(), url.username().to_owned()]);
        }
        if let Some(port) = url.port() {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.push("--".to_owned());
        // A URL has an IPv6 address in brackets; `ssh` takes it without them.
        arguments.push(host.trim_matches(['[', ']']).to_owned());
        let command = match url.path() {
            "" | "/" => "docker system dial-stdio".to_owned(),
            path if path.chars().all(is_plain) => {
                format!("docker --host unix://{path} system dial-stdio")
            }
            _ => return Err(invalid("the path of the socket has special characters")),
        };
        arguments.push(command);
        Ok(Self {
            arguments: arguments.into(),
            messages: SshMessages::default(),
        })
    }

    /// What `ssh` has printed, and will print.
    pub fn messages(&self) -> SshMessages {
        self.messages.clone()
    }

    /// A client whose requests go through `ssh`. Connections are kept for later requests.
    pub fn connect(self, timeout: u64) -> Result<Docker, Bollard> {
        let client = Client::builder(TokioExecutor::new()).build(self);
        let request = move |request| {
            let client = client.clone();
            async move { Ok(client.request(request).await?) }
        };
        // The host name is not used: requests are sent through a pipe.
        let address = Some("http://docker");
        Docker::connect_with_custom_transport(
            request,
            address,
            timeout,
            bollard::API_DEFAULT_VERSION,
        )
    }

    fn start(&self) -> io::Result<SshStream> {
        let mut child = Command::new("ssh")
            .args(&*self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                self.messages
                    .add(format!("`ssh` cannot be started: {error}"));
                error
            })?;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let stdout = child.stdout.take().ok_or_else(broken)?;
        let stdin = child.stdin.take().ok_or_else(broken)?;
        let stderr = child.stderr.take().ok_or_else(broken)?;
        let messages = self.messages();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                messages.add(line);
            }
        });
        Ok(SshStream {
            io: TokioIo::new(join(stdout, stdin)),
            _child: child,
        })
    }
}

/// Whether a shell takes the character as it is.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-".contains(c)
}

impl tower_service::Service<Uri> for SshEngine {
    type Response = SshStream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<SshStream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let engine = self.clone();
        async move { engine.start() }.boxed()
    }
}

/// The connection of one `ssh` process, which ends with it.
pub struct SshStream {
    io: TokioIo<Join<ChildStdout, ChildStdin>>,
    _child: Child,
}

impl Connection for SshStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_arguments_of_ssh() {
        let line = |address: &str| {
            let engine = SshEngine::new(address).ok()?;
            Some(engine.arguments[5..].join(" "))
        };
        for (address, arguments) in [
            (
                "ssh://shop.example",
                "-- shop.example docker system dial-stdio",
            ),
            (
                "ssh://deploy@shop.example:2222",
                "-l deploy -p 2222 -- shop.example docker system dial-stdio",
            ),
            (
                "ssh://shop/run/user/1000/docker.sock",
                "-- shop docker --host unix:///run/user/1000/docker.sock system dial-stdio",
            ),
            ("ssh://[::1]/", "-- ::1 docker system dial-stdio"),
        ] {
            assert_eq!(line(address).as_deref(), Some(arguments), "{address}");
        }
        for address in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-x@shop",
            "ssh://deploy:secret@shop",
            "ssh://shop/run/$(x).sock",
        ] {
            assert_eq!(line(address), None, "{address}");
        }
    }
}
