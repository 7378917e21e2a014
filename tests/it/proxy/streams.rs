//! Bodies that are not sent at once, upgraded connections, and clients or apps that go away.

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::support::{LONG, LocalProxy, read_until, store};

/// An app that hands over each connection to the test.
async fn raw_app() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(LONG, listener.accept()).await;
    accepted.unwrap().unwrap().0
}

/// Waits for the end of a connection. A reset is an end too.
async fn ended(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

const UPGRADE: &str = "GET /_next/webpack-hmr?id=1 HTTP/1.1\r\nHost: us.localhost\r\n\
                       Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn upgraded(proxy: &LocalProxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = proxy.connect().await;
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut app = accept(listener).await;
    let head = read_until(&mut app, "\r\n\r\n").await.to_lowercase();
    assert!(
        head.starts_with("get /_next/webpack-hmr?id=1 http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "host: us.localhost\r\n",
    ] {
        assert!(head.contains(line), "{line} {head}");
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly";
    app.write_all(answer.as_bytes()).await.unwrap();
    let head = read_until(&mut client, "early").await.to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{head}"
    );
    (client, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_in_both_directions() {
    let (port, listener) = raw_app().await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let (mut client, mut app) = upgraded(&proxy, &listener).await;
    client.write_all(b"\x81\x05hello").await.unwrap();
    assert!(read_until(&mut app, "hello").await.ends_with("hello"));
    app.write_all(b"back").await.unwrap();
    read_until(&mut client, "back").await;
    // The end of the client's side reaches the app, and the end of the app reaches the client.
    client.shutdown().await.unwrap();
    assert!(ended(&mut app).await);
    drop(app);
    assert!(ended(&mut client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_ends_at_the_shutdown() {
    let (port, listener) = raw_app().await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let (mut client, mut app) = upgraded(&proxy, &listener).await;
    proxy.shutdown.cancel();
    assert!(ended(&mut client).await && ended(&mut app).await);
    tokio::time::timeout(LONG, proxy.running.ended())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_event_is_sent() {
    let (port, listener) = raw_app().await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let mut client = proxy.connect().await;
    let request =
        b"GET /events HTTP/1.1\r\nHost: us.localhost\r\nAccept: text/event-stream\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut app = accept(&listener).await;
    read_until(&mut app, "\r\n\r\n").await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    app.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut client, "\r\n\r\n").await;
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        app.write_all(chunk.as_bytes()).await.unwrap();
        read_until(&mut client, &event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_reads_a_part_of_a_body_before_the_next_part_is_sent() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let mut body = request.into_body().into_data_stream();
        while let Some(part) = body.next().await {
            sender.send(part.unwrap()).unwrap();
        }
        "done"
    });
    let port = super::support::serve(router).await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let mut client = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: us.localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    for part in ["one", "two", "six"] {
        client
            .write_all(format!("3\r\n{part}\r\n").as_bytes())
            .await
            .unwrap();
        let got = tokio::time::timeout(LONG, received.recv()).await.unwrap();
        assert_eq!(got.unwrap(), part);
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut client, "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_end_of_a_client_that_does_not_wait() {
    let (port, listener) = raw_app().await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let waits_for = [
        // For the head of the response.
        ("GET / HTTP/1.1\r\nHost: us.localhost\r\n\r\n", ""),
        // For the rest of the response.
        (
            "GET / HTTP/1.1\r\nHost: us.localhost\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart",
        ),
        // The client has not sent its whole body.
        (
            "POST / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: 100\r\n\r\nstart",
            "",
        ),
    ];
    for (request, response) in waits_for {
        let mut client = proxy.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let mut app = accept(&listener).await;
        let (_, end) = request.rsplit_once("\r\n").unwrap();
        read_until(&mut app, if end.is_empty() { "\r\n\r\n" } else { end }).await;
        if !response.is_empty() {
            app.write_all(response.as_bytes()).await.unwrap();
            read_until(&mut client, "start").await;
        }
        drop(client);
        assert!(ended(&mut app).await, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_not_made_whole() {
    let (port, listener) = raw_app().await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    for head in [
        "Content-Length: 100\r\n\r\nstart",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nstart\r\n",
    ] {
        let mut client = proxy.connect().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: us.localhost\r\n\r\n")
            .await
            .unwrap();
        let mut app = accept(&listener).await;
        read_until(&mut app, "\r\n\r\n").await;
        app.write_all(format!("HTTP/1.1 200 OK\r\n{head}").as_bytes())
            .await
            .unwrap();
        read_until(&mut client, "start").await;
        drop(app);
        let mut rest = Vec::new();
        let read = client.read_to_end(&mut rest);
        let _ = tokio::time::timeout(LONG, read).await.unwrap();
        // A last chunk says that a body is whole.
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    }
}
