//! Free ports, ports in use, and the first response on a port.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pipeline::failure::Io;

/// The addresses of `localhost`. An app may listen on one of them only.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

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
        if !is_bound(LOOPBACK[1], port).await {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// Whether a process listens on the port of an address of `localhost`.
pub async fn is_in_use(port: u16) -> bool {
    is_bound(LOOPBACK[0], port).await || is_bound(LOOPBACK[1], port).await
}

/// Whether a process listens there. An address that the machine does not have is not in use.
async fn is_bound(address: &str, port: u16) -> bool {
    let bound = TcpListener::bind((address, port)).await;
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// The address of `localhost` on which the port accepts connections.
pub async fn connectable(port: u16) -> Option<&'static str> {
    for address in LOOPBACK {
        if TcpStream::connect((address, port)).await.is_ok() {
            return Some(address);
        }
    }
    None
}

/// The status of the response to `GET /`; none for a response that is not HTTP.
pub async fn first_status(address: &str, port: u16) -> Option<u16> {
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
