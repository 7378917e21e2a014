//! Requests that want to be misunderstood.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::support::{LocalProxy, echo, read_until, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_one_clear_host_is_refused() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    for (head, status) in [
        ("GET / HTTP/1.1", "400"),
        (
            "GET / HTTP/1.1\r\nHost: us.localhost\r\nHost: us.localhost",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: us.localhost, us.localhost", "404"),
        ("GET / HTTP/1.1\r\nHost: us.localhost\x01", "400"),
        ("GET / HTTP/1.1\r\nHost: us.localh\u{f6}st", "400"),
        ("GET / HTTP/1.1\r\nHost: us.localhost:80:80", "404"),
        ("GET / HTTP/1.1\r\nHost: us.localhost/x", "404"),
        ("GET / HTTP/1.1\r\nHost: a@us.localhost", "404"),
        (
            "GET http://a:b@us.localhost/ HTTP/1.1\r\nHost: us.localhost",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost:", "404"),
        (
            "CONNECT us.localhost:80 HTTP/1.1\r\nHost: us.localhost",
            "400",
        ),
        ("GET / HTTP/1.1\r\n X: folded\r\nHost: us.localhost", "400"),
        ("GET / HTTP/1.1\r\nHost: us.localhost\r\nX\0: 1", "400"),
        ("GET / HTTP/1.1\r\nHost: us.localhost\r\nX : 1", "400"),
        (
            "POST / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: 1\r\nContent-Length: 2",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: us.localhost\r\nContent-Length: -1",
            "400",
        ),
    ] {
        let request = format!("{head}\r\nConnection: close\r\n\r\n");
        let answer = proxy.exchange(request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_never_markup_on_a_page() {
    let proxy = LocalProxy::start(vec![store("us", 1, 2)]).await;
    let hostile = "a\"b<script>alert(1)</script>&'";
    let answer = proxy.get(hostile, "/").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let shown = "a&quot;b&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;";
    assert!(answer.contains(shown), "{answer}");
    assert!(!answer.contains("<script>alert"), "{answer}");
    assert!(answer.contains("default-src 'none'"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_an_absolute_uri_is_the_host() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let request = "GET http://us.localhost:81/a?b HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = proxy.exchange(request).await;
    assert!(
        answer.contains("\r\n\r\nGET /a?b HTTP/1.1\nhost: us.localhost:81\n"),
        "{answer}"
    );
    assert!(!answer.contains("evil"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cannot_smuggle_a_request() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: us.localhost\r\n\r\n";
    let request = format!(
        "POST /outer HTTP/1.1\r\nHost: us.localhost\r\nConnection: close, content-length\r\n\
         Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
        smuggled.len()
    );
    let answer = proxy.exchange(request).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert!(answer.contains("POST /outer HTTP/1.1\n"), "{answer}");
    assert!(answer.contains(&format!("\n\n{smuggled}")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_speak_http_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = LocalProxy::start(vec![store("us", port, port)]).await;
    for answer in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nX\0: 1\r\n\r\n", ""] {
        let mut client = proxy.connect().await;
        let request = b"GET / HTTP/1.1\r\nHost: us.localhost\r\n\r\n";
        client.write_all(request).await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        read_until(&mut app, "\r\n\r\n").await;
        app.write_all(answer.as_bytes()).await.unwrap();
        drop(app);
        let named = format!(
            "`storefront-unified-nextjs` of the store `us` on port {port} sent no valid response"
        );
        let got = read_until(&mut client, &named).await;
        assert!(got.starts_with("HTTP/1.1 502"), "{got}");
    }
}
