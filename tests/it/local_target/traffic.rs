//! Switching under load: kept-alive connections and `WebSocket`s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alokai::target::{Drained, ReleaseSpec, Target};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::support::{LONG, LocalStores, copy, released, staged};

/// How long open requests of the old release have.
const DRAIN: Duration = Duration::from_millis(600);

/// When the old release is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// After its requests have ended, or the time limit of draining.
    Drained,
    /// Right after the switch, as no release may do it.
    AtOnce,
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    requests: usize,
    versions: BTreeSet<String>,
    failures: Vec<String>,
    sockets_ended: usize,
}

#[derive(Clone)]
struct Load {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    /// The versions that are being stopped, or were stopped.
    retired: Arc<Mutex<BTreeSet<String>>>,
    /// The open `WebSocket`s of each version.
    open: Arc<Mutex<BTreeMap<String, usize>>>,
    stop: CancellationToken,
}

impl Load {
    async fn connection(&self) -> SendRequest<Empty<Bytes>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends requests on one kept-alive connection. A connection that is closed is a failure too.
    async fn requests(self) {
        let mut sender = self.connection().await;
        while !self.stop.is_cancelled() {
            let answered = request(&mut sender).await;
            let failed = {
                let mut seen = self.seen.lock().unwrap();
                seen.requests += 1;
                match answered {
                    // The frontend and its middleware belong to one release.
                    Ok(text) => match text.split_once(' ') {
                        Some((frontend, middleware)) if frontend == middleware => {
                            seen.versions.insert(text);
                            false
                        }
                        _ => {
                            seen.failures.push(text);
                            false
                        }
                    },
                    Err(error) => {
                        seen.failures.push(error);
                        true
                    }
                }
            };
            if failed {
                sender = self.connection().await;
            }
        }
    }

    /// Sends and receives on a WebSocket. It may end only when its release is stopped.
    async fn socket(self) {
        while !self.stop.is_cancelled() {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            let mut stream = BufReader::new(stream);
            let handshake = "GET /socket HTTP/1.1\r\nHost: us.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            stream.write_all(handshake.as_bytes()).await.unwrap();
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await.unwrap();
            }
            let mut version = String::new();
            stream.read_line(&mut version).await.unwrap();
            let version = version.trim().to_owned();
            *self
                .open
                .lock()
                .unwrap()
                .entry(version.clone())
                .or_default() += 1;
            let mut echo = [0];
            let ended = loop {
                if self.stop.is_cancelled() {
                    break false;
                }
                if stream.write_all(b"x").await.is_err()
                    || !stream.read(&mut echo).await.is_ok_and(|it| it == 1)
                {
                    break true;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            if ended {
                let is_retired = self.retired.lock().unwrap().contains(&version);
                let mut seen = self.seen.lock().unwrap();
                seen.sockets_ended += 1;
                if !is_retired {
                    seen.failures
                        .push(format!("a WebSocket of {version} ended"));
                }
            }
            *self.open.lock().unwrap().entry(version).or_default() -= 1;
        }
    }
}

async fn request(sender: &mut SendRequest<Empty<Bytes>>) -> Result<String, String> {
    let asking = async {
        sender.ready().await.map_err(|error| error.to_string())?;
        let request = Request::get("/").header("host", "us.localhost");
        let request = request.body(Empty::new()).unwrap();
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            Ok(text)
        } else {
            Err(format!("{status}: {text}"))
        }
    };
    let answered = tokio::time::timeout(LONG, asking).await;
    answered.unwrap_or_else(|_| Err("no response".into()))
}

/// Switches to a staged release, and stops the one before.
async fn switch(
    target: &dyn Target,
    (old, old_version): (&ReleaseSpec, &str),
    new: &ReleaseSpec,
    order: Order,
    load: &Load,
) {
    staged(target, new).await;
    let observed = target.observe(&new.store).await.unwrap();
    assert_eq!(observed.active.as_ref(), Some(&old.id));
    target.switch(new, &observed.token).await.unwrap();
    let began = Instant::now();
    while order == Order::Drained && began.elapsed() < DRAIN {
        if target.drained(&old.store, &old.id).await.unwrap() == Drained::Yes {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    load.retired.lock().unwrap().insert(old_version.to_owned());
    target.retire(&old.store, &old.id, true).await.unwrap();
    // The release ends in the background, and its WebSockets with it.
    let ended = Instant::now();
    while load
        .open
        .lock()
        .unwrap()
        .get(old_version)
        .is_some_and(|open| *open > 0)
    {
        assert!(
            ended.elapsed() < LONG,
            "WebSockets of {old_version} stay open"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ten switches and five rollbacks under load.
async fn ten_switches_and_five_rollbacks(order: Order) -> Seen {
    let stores = LocalStores::new();
    let target = stores.target();
    let target = &*target;
    let mut active = (stores.release("v0"), "v0".to_owned());
    let observed = released(target, &active.0).await;
    let (_, port) = observed.addresses[0].rsplit_once(':').unwrap_or(("", "80"));
    let load = Load {
        port: port.parse().unwrap_or(80),
        seen: Arc::default(),
        retired: Arc::default(),
        open: Arc::default(),
        stop: CancellationToken::new(),
    };
    let requests = (0..20).map(|_| tokio::spawn(load.clone().requests()));
    let sockets = (0..4).map(|_| tokio::spawn(load.clone().socket()));
    let clients: Vec<_> = requests.chain(sockets).collect();
    for round in 1..=10 {
        let version = format!("v{round}");
        let new = stores.release(&version);
        let (old, old_version) = (&active.0, active.1.as_str());
        switch(target, (old, old_version), &new, order, &load).await;
        let before = std::mem::replace(&mut active, (new, version));
        if round % 2 == 0 {
            let back = copy(&before.0);
            load.retired.lock().unwrap().remove(&before.1);
            let (old, old_version) = (&active.0, active.1.as_str());
            switch(target, (old, old_version), &back, order, &load).await;
            active = (back, before.1);
        }
    }
    load.stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    std::mem::take(&mut load.seen.lock().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_and_websockets_end_only_with_their_release() {
    let seen = ten_switches_and_five_rollbacks(Order::Drained).await;
    assert_eq!(seen.failures, Vec::<String>::new());
    // Every release was live, and no page came from two of them.
    assert_eq!(seen.versions.len(), 11, "{:?}", seen.versions);
    assert!(seen.requests > 200, "{}", seen.requests);
    assert!(seen.sockets_ended > 0);
    println!(
        "{} requests, {} WebSockets ended with their release",
        seen.requests, seen.sockets_ended
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_is_stopped_before_its_requests_have_ended_loses_some() {
    let seen = ten_switches_and_five_rollbacks(Order::AtOnce).await;
    assert!(!seen.failures.is_empty(), "{} requests", seen.requests);
}
