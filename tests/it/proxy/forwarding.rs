//! What an app sees of a request, and what a client sees of the response.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::support::{LocalProxy, connect, echo, read_until, store};

type Sent = http_body_util::combinators::BoxBody<Bytes, Infallible>;

#[derive(Debug, Clone)]
struct RandomRequest {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    status: u16,
    is_chunked_answer: bool,
    body: Option<Vec<u8>>,
    is_chunked: bool,
}

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];

fn requests() -> impl Strategy<Value = Vec<RandomRequest>> {
    let method = prop::sample::select(METHODS.to_vec());
    let target = r"/[a-zA-Z0-9._~%!$&'()*+,;=:@/\[\]-]{0,30}(\?[a-z0-9=&%/?-]{0,20})?"
        .prop_filter("the proxy's own pages", |target| {
            !target.starts_with("/api") && !target.starts_with("/__alokai")
        });
    let header =
        ("x-[a-z]{1,8}", "[ -~]{0,40}").prop_map(|(name, value)| (name, value.trim().to_owned()));
    let header = header.prop_filter("has a meaning", |(name, _)| {
        !["x-status", "x-chunked"].contains(&name.as_str())
    });
    let body = prop::option::of(prop::collection::vec(any::<u8>(), 0..3000));
    let status = prop::sample::select(vec![200_u16, 201, 204, 301, 304, 404, 418, 500, 503]);
    let request = (
        method,
        target,
        prop::collection::vec(header, 0..5),
        status,
        any::<bool>(),
        body,
        any::<bool>(),
    );
    let request = request.prop_map(
        |(method, target, headers, status, is_chunked_answer, body, is_chunked)| RandomRequest {
            method,
            target,
            headers,
            status,
            is_chunked_answer,
            body,
            is_chunked,
        },
    );
    prop::collection::vec(request, 1..6)
}

impl RandomRequest {
    fn request(&self) -> Request<Sent> {
        let mut request = Request::builder().method(self.method).uri(&self.target);
        request = request
            .header("host", "us.localhost")
            .header("x-status", self.status.to_string());
        if self.is_chunked_answer {
            request = request.header("x-chunked", "1");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = match &self.body {
            Some(body) if self.is_chunked => {
                // Without the header hyper sends no body with `GET` and `HEAD`.
                request = request.header("transfer-encoding", "chunked");
                let chunks: Vec<_> = body.chunks(500).map(Bytes::copy_from_slice).collect();
                let frames = chunks
                    .into_iter()
                    .map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
                StreamBody::new(futures_util::stream::iter(frames)).boxed()
            }
            body => Full::new(Bytes::from(body.clone().unwrap_or_default())).boxed(),
        };
        request.body(body).unwrap()
    }
}

async fn open(port: u16) -> SendRequest<Sent> {
    let (sender, connection) = handshake(TokioIo::new(connect(port).await)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The headers without those that each server makes anew.
fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut all: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    all.sort();
    all
}

async fn answers(sender: &mut SendRequest<Sent>, requests: &[RandomRequest]) -> Vec<String> {
    let mut answers = Vec::new();
    for request in requests {
        sender.ready().await.unwrap();
        let response = sender.send_request(request.request()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // The app answers with what it has got, and the proxy adds these headers.
        let text = String::from_utf8_lossy(&body).into_owned();
        let lines = text
            .split('\n')
            .filter(|line| !line.starts_with("x-forwarded-"));
        let mut headers = comparable(&head.headers);
        if text.contains("x-forwarded-") {
            // The answer is longer by the added headers.
            headers.retain(|(name, _)| name != "content-length");
        }
        let body: Vec<_> = lines.collect();
        answers.push(format!(
            "{} {:?} {headers:?} {body:?}",
            head.status, head.version
        ));
    }
    answers
}

/// The same without the length of an answer that has the request in it.
fn without_length(answers: &[String]) -> Vec<String> {
    let length = regex::Regex::new(r#"\("content-length", "\d+"\)(, )?"#).unwrap();
    answers
        .iter()
        .map(|it| length.replace(it, "").replace("), ]", ")]"))
        .collect()
}

#[test]
fn random_requests_are_answered_as_without_the_proxy() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (proxy, app) = runtime.block_on(async {
        let app = echo().await;
        (LocalProxy::start(vec![store("us", app, app)]).await, app)
    });
    let config = ProptestConfig::with_cases(if cfg!(debug_assertions) { 128 } else { 1024 });
    proptest!(config, |(requests in requests())| {
        runtime.block_on(async {
            let mut direct = open(app).await;
            let mut through = open(proxy.port()).await;
            let expected = without_length(&answers(&mut direct, &requests).await);
            let got = without_length(&answers(&mut through, &requests).await);
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(got, expected);
            }
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_each_method_reaches_the_app_with_one_length() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let chunked = "2\r\nhi\r\n0\r\n\r\n";
    let as_chunked = "2 bytes, transfer-encoding: chunked";
    for method in METHODS {
        for (lines, body, expected) in [
            ("Transfer-Encoding: chunked\r\n", chunked, as_chunked),
            (
                "Transfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
                "0 bytes, transfer-encoding: chunked",
            ),
            (
                "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
                chunked,
                as_chunked,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
                chunked,
                as_chunked,
            ),
            ("Content-Length: 2\r\n", "hi", "2 bytes, content-length: 2"),
            ("Content-Length: 0\r\n", "", "0 bytes, content-length: 0"),
            ("", "", "0 bytes"),
        ] {
            let answer = proxy
                .exchange(format!(
                    "{method} / HTTP/1.1\r\nHost: us.localhost\r\nConnection: close\r\n{lines}\r\n{body}"
                ))
                .await;
            let received = format!("\r\nx-received: {expected}\r\n");
            assert!(answer.contains(&received), "{method} {lines:?}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_host_and_the_client_and_not_what_the_client_claims() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let answer = proxy
        .exchange(
            "GET /a?b HTTP/1.1\r\nHost: US.localhost:8080\r\nConnection: close, x-hop\r\n\
             X-Hop: 1\r\nKeep-Alive: timeout=9\r\nX-Forwarded-For: 6.6.6.6\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n\r\n",
        )
        .await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        "GET /a?b HTTP/1.1\nhost: US.localhost:8080\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: US.localhost:8080\nx-forwarded-proto: http\n\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_middleware_sees_paths_without_the_prefix() {
    let (frontend, middleware) = (echo().await, echo().await);
    let proxy = LocalProxy::start(vec![store("us", frontend, middleware)]).await;
    let first = async |path: &str| {
        let answer = proxy.get("us.localhost", path).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.lines().next().unwrap().to_owned()
    };
    for (path, seen) in [
        ("/api/commerce/a%2Fb?x=1&y=%20", "/commerce/a%2Fb?x=1&y=%20"),
        ("/api", "/"),
        ("/api?x", "/?x"),
        ("/apis", "/apis"),
    ] {
        assert_eq!(first(path).await, format!("GET {seen} HTTP/1.1"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_gets_a_whole_answer_and_a_closed_connection() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let answer = proxy
        .exchange("GET / HTTP/1.0\r\nHost: us.localhost\r\nX-Chunked: 1\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(
        !answer.to_lowercase().contains("transfer-encoding"),
        "{answer}"
    );
    assert!(
        answer.contains("GET / HTTP/1.1\nhost: us.localhost\n"),
        "{answer}"
    );
    let index = proxy.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert!(index.starts_with("HTTP/1.0 404"), "{index}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_many_headers_pass() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let cookie = "c".repeat(60_000);
    let many: Vec<_> = (0..90).map(|n| format!("X-N{n}: {n}\r\n")).collect();
    let many = many.concat();
    let answer = proxy
        .exchange(format!(
            "GET / HTTP/1.1\r\nHost: us.localhost\r\nConnection: close\r\nCookie: {cookie}\r\n{many}\r\n"
        ))
        .await;
    assert!(
        answer.contains(&format!("cookie: {cookie}\n")),
        "{}",
        &answer[..200]
    );
    assert!(answer.contains("x-n89: 89\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let app = echo().await;
    let proxy = LocalProxy::start(vec![store("us", app, app)]).await;
    let mut stream = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: us.localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "100 Continue").await;
    stream.write_all(b"hi").await.unwrap();
    read_until(&mut stream, "\n\nhi").await;
}
