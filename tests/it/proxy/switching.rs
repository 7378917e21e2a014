//! Routes that change while requests are in flight, and requests that are sent a second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::{LONG, LocalProxy, closed_port, read_until, store};

const GET: &str = "GET / HTTP/1.1\r\nHost: us.localhost\r\n\r\n";

/// An app that answers with its name, and that ends like a server in production.
async fn named(name: &'static str, end: CancellationToken) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().fallback(async move || {
        tokio::task::yield_now().await;
        name
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned());
    (port, tokio::spawn(async move { serving.await.unwrap() }))
}

/// One request on a connection that stays open. Returns the body.
async fn request(client: &mut TcpStream, text: &str) -> String {
    client.write_all(text.as_bytes()).await.unwrap();
    let head = read_until(client, "\r\n\r\n").await;
    let (head, start) = head.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let lower = head.to_lowercase();
    let length = lower.split("content-length: ").nth(1).unwrap();
    let length: usize = length.lines().next().unwrap().parse().unwrap();
    let mut rest = vec![0; length - start.len()];
    client.read_exact(&mut rest).await.unwrap();
    format!("{start}{}", String::from_utf8(rest).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_under_kept_alive_connections_loses_no_request() {
    let (end_old, end_new) = (CancellationToken::new(), CancellationToken::new());
    let (old, old_server) = named("old", end_old.clone()).await;
    let (new, _new_server) = named("new", end_new.clone()).await;
    let proxy = LocalProxy::start(vec![store("us", old, old)]).await;
    let (answered, switched) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let (port, answered, switched) =
                (proxy.port(), Arc::clone(&answered), switched.clone());
            tokio::spawn(async move {
                let mut client = super::support::connect(port).await;
                let mut names = Vec::new();
                let mut after = 0;
                while after < 20 {
                    // A request that begins after the switch must reach the new app.
                    let is_after = switched.is_cancelled();
                    let name = request(&mut client, GET).await;
                    assert!(!is_after || name == "new");
                    after += usize::from(is_after);
                    names.push(name);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                names
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 500 {
        tokio::task::yield_now().await;
    }
    proxy.routes.set(vec![store("us", new, new)]);
    switched.cancel();
    let drained = tokio::time::timeout(LONG, proxy.routes.drained(old)).await;
    assert!(drained.is_ok());
    end_old.cancel();
    tokio::time::timeout(LONG, old_server)
        .await
        .unwrap()
        .unwrap();
    for client in clients {
        let names = tokio::time::timeout(LONG, client).await.unwrap().unwrap();
        assert!(names.is_sorted_by(|a, b| a >= b), "{names:?}");
        assert_eq!(names.first().unwrap(), "old");
    }
    end_new.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_drained_when_the_last_response_has_been_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = listener.local_addr().unwrap().port();
    let proxy = LocalProxy::start(vec![store("us", old, old)]).await;
    let mut client = proxy.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    read_until(&mut app, "\r\n\r\n").await;
    proxy.routes.set(vec![store("us", closed_port().await, 1)]);
    let mut drained = std::pin::pin!(proxy.routes.drained(old));
    let mut is_pending = async || {
        std::future::poll_fn(|context| Poll::Ready(drained.as_mut().poll(context).is_pending()))
            .await
    };
    assert!(is_pending().await);
    app.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsta")
        .await
        .unwrap();
    read_until(&mut client, "sta").await;
    assert!(is_pending().await);
    app.write_all(b"end").await.unwrap();
    read_until(&mut client, "end").await;
    tokio::time::timeout(LONG, drained).await.unwrap();
}

/// An app that answers the first request of its first connection, closes that connection at the
/// second request, and answers the requests of later connections. Counts requests.
async fn closing(answers_first: bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let limit = if is_first {
                usize::from(answers_first)
            } else {
                usize::MAX
            };
            is_first = false;
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                for number in 0.. {
                    let mut request = [0; 4096];
                    if stream.read(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    if number == limit {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (port, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_body_is_sent_once_more_when_a_kept_connection_closes() {
    let (port, seen) = closing(true).await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let mut client = proxy.connect().await;
    assert_eq!(request(&mut client, GET).await, "ok");
    assert_eq!(request(&mut client, GET).await, "ok");
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_sent_twice() {
    let with_body = "POST / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: 2\r\n\r\nhi";
    let empty = "POST / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: 0\r\n\r\n";
    let put = "PUT / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: 2\r\n\r\nhi";
    for second in [with_body, empty, put] {
        let (port, seen) = closing(true).await;
        let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
        let mut client = proxy.connect().await;
        assert_eq!(request(&mut client, GET).await, "ok");
        client.write_all(second.as_bytes()).await.unwrap();
        let answer = read_until(&mut client, "sent no valid response").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert_eq!(seen.load(Ordering::Relaxed), 2, "{second}");
    }
    // The first request of a connection may have been the reason why the app closed it.
    let (port, seen) = closing(false).await;
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    let answer = proxy.get("us.localhost", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_listens_later_is_found() {
    let later = closed_port().await;
    let proxy = LocalProxy::start(vec![store("us", later, later)]).await;
    let answer = proxy.get("us.localhost", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let asks = "/__alokai/answers/storefront-unified-nextjs";
    assert!(
        proxy
            .get("us.localhost", asks)
            .await
            .ends_with("\r\n\r\nfalse")
    );
    // Some development servers listen with IPv6 only.
    let listener = TcpListener::bind(("::1", later)).await.unwrap();
    let router = Router::new().fallback(async || "here");
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    assert!(proxy.get("us.localhost", "/").await.ends_with("here"));
    assert!(
        proxy
            .get("us.localhost", asks)
            .await
            .ends_with("\r\n\r\ntrue")
    );
}
