//! Clients that keep their connections: each request that fails is counted, and none is repeated.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time limit of a response.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients have seen.
#[derive(Default)]
struct Seen {
    ends: AtomicBool,
    /// The pause of a client between two requests.
    pause: Duration,
    /// How many releases were told to end so far.
    left: AtomicUsize,
    requests: AtomicUsize,
    echoes: AtomicUsize,
    pages: Mutex<BTreeSet<String>>,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    fn failed(&self, what: &str, why: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{what}: {why}"));
    }

    fn end(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }
}

/// Running clients.
pub struct Load {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<()>>,
}

/// The result of all clients.
pub struct LoadResult {
    pub requests: usize,
    pub echoes: usize,
    pub pages: BTreeSet<String>,
    pub failures: Vec<String>,
}

impl Load {
    /// Starts clients of `us.localhost`: 20 ask for pages, and 5 have a WebSocket.
    pub fn start(port: u16) -> Self {
        let seen = Arc::new(Seen::default());
        let client = |run: fn(u16, &Seen)| {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || run(port, &seen))
        };
        let pages = (0..20).map(|_| client(|port, seen| ask_for_pages(port, "/page", seen)));
        let sockets = (0..5).map(|_| client(keep_a_socket));
        Self {
            clients: pages.chain(sockets).collect(),
            seen,
        }
    }

    /// Starts clients that ask the frontend and the middleware of `us.localhost` now and then.
    pub fn calm(port: u16) -> Self {
        let seen = Arc::new(Seen {
            pause: Duration::from_millis(10),
            ..Seen::default()
        });
        let client = |path: &'static str| {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || ask_for_pages(port, path, &seen))
        };
        Self {
            clients: ["/", "/api/x", "/", "/api/x"].map(client).into(),
            seen,
        }
    }

    /// Tells that a release is about to end, with its `WebSocket`s.
    pub fn leaves(&self) {
        self.seen.left.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until each client has had some responses since now.
    pub fn goes_on(&self) {
        let count =
            || self.seen.requests.load(Ordering::SeqCst) + self.seen.failures.lock().unwrap().len();
        let (before, start) = (count(), std::time::Instant::now());
        while count() < before + 60 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn end(self) -> LoadResult {
        self.seen.ends.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        let seen = &self.seen;
        LoadResult {
            requests: seen.requests.load(Ordering::SeqCst),
            echoes: seen.echoes.load(Ordering::SeqCst),
            pages: std::mem::take(&mut seen.pages.lock().unwrap()),
            failures: std::mem::take(&mut seen.failures.lock().unwrap()),
        }
    }
}

fn connect(port: u16) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// The head of a response, in lower case.
fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection was closed"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn ask_for_pages(port: u16, path: &str, seen: &Seen) {
    while !seen.end() {
        let mut stream = match connect(port) {
            Ok(stream) => stream,
            Err(error) => {
                seen.failed("connect", error);
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        loop {
            match page(&mut stream, path) {
                Ok((page, keeps)) => {
                    seen.requests.fetch_add(1, Ordering::SeqCst);
                    seen.pages.lock().unwrap().insert(page);
                    if seen.end() || !keeps {
                        break;
                    }
                    std::thread::sleep(seen.pause);
                }
                Err(error) => {
                    seen.failed("page", error);
                    break;
                }
            }
        }
    }
}

/// A page, and whether the connection stays open.
fn page(stream: &mut BufReader<TcpStream>, path: &str) -> std::io::Result<(String, bool)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: us.localhost\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let lines = head(stream)?;
    let length = lines
        .iter()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.ok_or_else(|| std::io::Error::other("no length"))?];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if !lines[0].contains(" 200 ") {
        return Err(std::io::Error::other(format!("{}: {body}", lines[0])));
    }
    let keeps = !lines.contains(&"connection: close".to_owned());
    Ok((body, keeps))
}

/// A socket may end only after its release was told to end.
fn keep_a_socket(port: u16, seen: &Seen) {
    while !seen.end() {
        let left = seen.left.load(Ordering::SeqCst);
        if let Err(error) = echo(port, seen)
            && seen.left.load(Ordering::SeqCst) == left
        {
            seen.failed("WebSocket", error);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn echo(port: u16, seen: &Seen) -> std::io::Result<()> {
    let mut stream = connect(port)?;
    stream.get_mut().write_all(
        b"GET /api/socket HTTP/1.1\r\nHost: us.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let lines = head(&mut stream)?;
    if !lines[0].contains(" 101 ") {
        return Err(std::io::Error::other(lines[0].clone()));
    }
    while !seen.end() {
        stream.get_mut().write_all(b"ping")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"ping");
        seen.echoes.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
