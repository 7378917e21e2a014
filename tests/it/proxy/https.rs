//! HTTPS with a local certificate authority.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use alokai::proxy::{AuthorityOrigin, CertificateAuthority};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{LocalProxy, connect, echo, read_until, store};
use crate::support::output_of;

/// Connects as a browser that trusts one authority only.
async fn secure(
    proxy: &LocalProxy,
    authority: &Path,
    host: &'static str,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let stream = connect(proxy.running.addresses.https.unwrap()).await;
    let name = ServerName::try_from(host).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_authority_signs_for_the_hosts_of_stores() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("data/ca");
    assert!(CertificateAuthority::find(None, &own).unwrap().is_none());
    let authority = CertificateAuthority::create(&own).unwrap();
    let certificate = authority.certificate.clone();
    for (path, mode) in [("alokai-ca-key.pem", 0o600), ("", 0o700)] {
        let found = own.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
    let before = std::fs::read(&certificate).unwrap();
    let authority = CertificateAuthority::find(None, &own).unwrap().unwrap();
    assert_eq!(std::fs::read(&authority.certificate).unwrap(), before);
    assert!(authority.origin.covers("us.local") && !authority.origin.covers("shop.example.com"));

    let app = echo().await;
    let mut routes = store("us", app, app);
    routes.hosts.push("shop.example.com".into());
    let proxy = LocalProxy::with_authority(vec![routes], Some(authority)).await;
    for host in [
        "us.localhost",
        "us.local",
        "localhost",
        "127.0.0.1",
        "eu.localhost",
    ] {
        let stream = secure(&proxy, &certificate, host, "http/1.1").await;
        stream.unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    // The authority may not sign for this domain, and the proxy knows no such host.
    for host in ["shop.example.com", "other.local"] {
        let stream = secure(&proxy, &certificate, host, "http/1.1").await;
        assert!(stream.is_err(), "{host}");
    }
    let mut stream = secure(&proxy, &certificate, "us.localhost", "http/1.1")
        .await
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: us.localhost:8443\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_until(&mut stream, "x-forwarded-proto: https\n").await;
    // HTTP stays on.
    let answer = proxy.get("us.localhost", "/").await;
    assert!(answer.contains("x-forwarded-proto: http\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_http_2_reaches_an_app_that_speaks_http_1() {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create(folder.path()).unwrap();
    let certificate = authority.certificate.clone();
    let app = echo().await;
    let proxy = LocalProxy::with_authority(vec![store("us", app, app)], Some(authority)).await;
    let stream = secure(&proxy, &certificate, "us.localhost", "h2")
        .await
        .unwrap();
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for (path, seen) in [("/a?b", "/a?b"), ("/api/x", "/x")] {
        let request = Request::get(format!("https://us.localhost:8443{path}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Empty::<Bytes>::new().boxed())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            String::from_utf8_lossy(&body),
            format!(
                "GET {seen} HTTP/1.1\ncookie: a=1; b=2\nhost: us.localhost:8443\n\
                 x-forwarded-for: 127.0.0.1\nx-forwarded-host: us.localhost:8443\n\
                 x-forwarded-proto: https\n\n"
            )
        );
    }
    // HTTP/2 needs no header for a body of unknown length.
    let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hi")));
    let request = Request::get("https://us.localhost:8443/")
        .body(StreamBody::new(futures_util::stream::iter([frame])).boxed())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let received = &response.headers()["x-received"];
    assert_eq!(received, "2 bytes, transfer-encoding: chunked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_mkcert_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let (mkcert, own) = (folder.path().join("mkcert"), folder.path().join("own"));
    std::fs::create_dir(&mkcert).unwrap();
    CertificateAuthority::create(&own).unwrap();
    // The same algorithm, names and extensions that mkcert uses.
    let made = "req -x509 -newkey rsa:3072 -nodes -days 30 -keyout rootCA-key.pem -out rootCA.pem \
                -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign";
    let subject = [
        "-subj",
        "/O=mkcert development CA/OU=me@here (Me)/CN=mkcert me@here (Me)",
    ];
    let mut openssl = Command::new("openssl");
    openssl
        .args(made.split_whitespace())
        .args(subject)
        .current_dir(&mkcert);
    output_of(&mut openssl);
    let authority = CertificateAuthority::find(Some(&mkcert), &own)
        .unwrap()
        .unwrap();
    assert_eq!(authority.origin, AuthorityOrigin::Mkcert);
    assert!(authority.origin.covers("shop.example.com"));
    let certificate = authority.certificate.clone();
    let app = echo().await;
    let mut routes = store("us", app, app);
    routes.hosts.push("shop.example.com".into());
    let proxy = LocalProxy::with_authority(vec![routes], Some(authority)).await;
    secure(&proxy, &certificate, "shop.example.com", "h2")
        .await
        .unwrap();

    // mkcert can be installed without its key, for example in a container.
    std::fs::remove_file(mkcert.join("rootCA-key.pem")).unwrap();
    let found = CertificateAuthority::find(Some(&mkcert), &own)
        .unwrap()
        .unwrap();
    assert_eq!(found.origin, AuthorityOrigin::Own);
}

#[test]
fn a_broken_authority_is_an_error_that_names_its_file() {
    let folder = tempfile::tempdir().unwrap();
    CertificateAuthority::create(folder.path()).unwrap();
    let certificate = folder.path().join("alokai-ca.pem");
    std::fs::write(&certificate, "no certificate").unwrap();
    let error = CertificateAuthority::find(None, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("`{}` and its key are not", certificate.display())),
        "{error}"
    );
}
