//! The ports on which the proxy listens.

use alokai::proxy::{PortChoice, ProxyAddresses, ProxyOptions, Routes, start};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::support::store;

/// The port that the proxy takes when it prefers `standard`.
async fn taken(routes: &Routes, standard: u16) -> u16 {
    let shutdown = CancellationToken::new();
    let options = ProxyOptions {
        http: PortChoice {
            standard: Some(standard),
            fallback: 0,
        },
        ..ProxyOptions::default()
    };
    let running = start(routes.clone(), options, shutdown.clone())
        .await
        .unwrap();
    shutdown.cancel();
    running.ended().await;
    running.addresses.http
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_in_use_is_not_taken() {
    let routes = Routes::default();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let other = TcpListener::bind(address).await.unwrap();
        let port = other.local_addr().unwrap().port();
        assert_ne!(taken(&routes, port).await, port, "{address}");
        drop(other);
        assert_eq!(taken(&routes, port).await, port, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_belongs_to_an_app_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let routes = Routes::default();
    routes.set(vec![store("us", port, 1)]);
    assert_ne!(taken(&routes, port).await, port);
    routes.set(Vec::new());
    assert_eq!(taken(&routes, port).await, port);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_cannot_connect() {
    let proxy = super::support::LocalProxy::start(Vec::new()).await;
    for loopback in ["127.0.0.1", "::1"] {
        TcpStream::connect((loopback, proxy.port())).await.unwrap();
    }
    // The system sends nothing for this; it only chooses the address of this machine.
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    if socket.connect("192.0.2.1:9").await.is_ok() {
        let own = socket.local_addr().unwrap().ip();
        assert!(
            TcpStream::connect((own, proxy.port())).await.is_err(),
            "{own}"
        );
    }
}

#[test]
fn an_address_names_no_standard_port() {
    let url = |http, https| ProxyAddresses { http, https }.url("us.localhost");
    assert_eq!(url(80, None), "http://us.localhost");
    assert_eq!(url(8080, None), "http://us.localhost:8080");
    assert_eq!(url(80, Some(443)), "https://us.localhost");
    assert_eq!(url(80, Some(8443)), "https://us.localhost:8443");
}
