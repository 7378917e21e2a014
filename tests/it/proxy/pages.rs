//! The list of stores, and the page of an app that does not answer yet.

use super::support::{LocalProxy, closed_port, store};

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_lists_stores_ports_states_and_changes() {
    let mut us = store("us", 3000, 4000);
    us.last_change = Some("Header.tsx  fashion → us, eu (<outlet> has its own)".into());
    let mut eu = store("eu", 3001, 4001);
    eu.apps[0].state = "starting".into();
    let mut empty = store("empty", 1, 2);
    empty.apps.clear();
    let proxy = LocalProxy::start(vec![us, eu, empty]).await;
    let answer = proxy.get("localhost:8080", "/").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    insta::assert_snapshot!(body(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_of_the_loopback_gets_the_list_of_stores_and_404() {
    let proxy = LocalProxy::start(vec![store("us", 3000, 4000)]).await;
    for (host, path, reason) in [
        (
            "fr.localhost",
            "/",
            "No store has the address <code>fr.localhost</code>.",
        ),
        (
            "localhost",
            "/x",
            "No store has the address <code>localhost</code>.",
        ),
    ] {
        let answer = proxy.get(host, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert!(answer.contains(reason), "{answer}");
        assert!(
            answer.contains("<a href=\"http://us.localhost/\">"),
            "{answer}"
        );
    }
    let mut only_middleware = store("us", 3000, 4000);
    only_middleware.apps.remove(0);
    proxy.routes.set(vec![only_middleware]);
    let answer = proxy.get("us.localhost", "/").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let reason = "No running app of the store <code>us</code> answers for this path.";
    assert!(answer.contains(reason), "{answer}");
}

const STATE: [&str; 3] = ["stores.json", "revision", "answers/storefront-middleware"];

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_dns_points_at_this_machine_learns_nothing_about_the_stores() {
    let proxy = LocalProxy::start(vec![store("acme", 3000, 4000)]).await;
    let list = format!("http://localhost:{}", proxy.port());
    let mut paths = vec!["/".to_owned(), "/api/x".to_owned()];
    paths.extend(STATE.map(|path| format!("/__alokai/{path}")));
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "notlocalhost",
        "evil.example:80.localhost",
        "127.0.0.2",
        "192.168.0.1",
        "",
    ] {
        for path in &paths {
            let answer = proxy.get(host, path).await;
            assert!(answer.starts_with("HTTP/1.1 404"), "{host}{path}: {answer}");
            let page = body(&answer);
            let link = format!("<a href=\"{list}\">{list}</a>");
            assert!(page.contains(&link), "{host}{path}: {page}");
            for secret in ["acme", "storefront", "/__alokai/"] {
                assert!(!page.contains(secret), "{host}{path}: {page}");
            }
        }
    }
    let answer = proxy
        .exchange("GET /__alokai/stores.json HTTP/1.0\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.0 404"), "{answer}");
    assert!(!answer.contains("acme"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_loopback_and_domains_of_stores_see_the_state() {
    let mut acme = store("acme", 3000, 4000);
    acme.hosts.push("shop.example.com".into());
    let proxy = LocalProxy::start(vec![acme]).await;
    for host in [
        "localhost",
        "LOCALHOST.:8080",
        "127.0.0.1",
        "[::1]:8080",
        "fr.localhost",
        "acme.localhost",
        "shop.example.com.",
    ] {
        let answer = proxy.get(host, "/__alokai/stores.json").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        assert!(answer.contains("storefront-middleware"), "{host}: {answer}");
        let answer = proxy.get(host, "/__alokai/revision").await;
        assert_eq!(body(&answer), "1", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_answer_yet_is_named() {
    let port = closed_port().await;
    let mut us = store("us", port, port);
    us.apps[0].state = "starting <now>".into();
    let proxy = LocalProxy::start(vec![us]).await;
    let answer = proxy.get("us.localhost", "/").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    insta::with_settings!({filters => vec![(r"port \d+", "port [port]")]}, {
        insta::assert_snapshot!(body(&answer));
    });
    // A script of a page reads one line.
    let request = "GET /api/x HTTP/1.1\r\nHost: us.localhost\r\nConnection: close\r\n\r\n";
    let answer = proxy.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let line =
        format!("`storefront-middleware` of the store `us` does not answer on port {port} yet\n");
    assert_eq!(body(&answer), line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_learns_that_the_list_has_changed() {
    let proxy = LocalProxy::start(vec![store("us", 3000, 4000)]).await;
    let revision = async || {
        let answer = proxy.get("localhost", "/__alokai/revision").await;
        body(&answer).to_owned()
    };
    let first = revision().await;
    let page = proxy.get("localhost", "/").await;
    assert!(page.contains(&format!("data-known=\"{first}\"")), "{page}");
    proxy.routes.set(vec![store("us", 3000, 4000)]);
    assert_eq!(revision().await, first);
    proxy.routes.set(vec![store("us", 3000, 4001)]);
    assert_ne!(revision().await, first);
    for (path, kind) in [
        ("style.css", "text/css"),
        ("reload.js", "text/javascript"),
        ("stores.json", "application/json"),
    ] {
        let answer = proxy.get("localhost", &format!("/__alokai/{path}")).await;
        assert!(
            answer.contains(&format!("content-type: {kind}")),
            "{answer}"
        );
    }
    let answer = proxy.get("localhost", "/__alokai/other").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}
