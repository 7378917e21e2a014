//! `--with-local-domains`.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Served, built_shop, free_ports};
use crate::support::{FRONTEND, MIDDLEWARE};

/// The body of a response to a request for a host on this machine.
fn get(port: u16, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn each_store_has_an_address_with_its_middleware_below_api() {
    let ports = free_ports();
    let project = built_shop(ports);
    // The certificate authority of another test or of the user is not used.
    project.write(".env", "XDG_DATA_HOME=/nonexistent\nCAROOT=/nonexistent\n");
    let config = project.read("alokai.config.json");
    let domain = "us.does-not-resolve.test";
    let with_domain = config.replacen(
        "\"localPorts\"",
        &format!("\"localDomain\": \"{domain}\", \"localPorts\""),
        1,
    );
    assert_ne!(with_domain, config);
    project.write("alokai.config.json", with_domain);
    let mut served = Served::start(&project, "store start --all --with-local-domains");
    let unresolved = served.line("do not lead to this machine");
    assert!(
        unresolved.ends_with(&format!("127.0.0.1 {domain}")),
        "{unresolved}"
    );
    served.line("HTTPS is off");
    let line = served.line("us: http://us.localhost");
    let (_, address) = line.split_once("us: ").unwrap();
    let port = address.strip_prefix("http://us.localhost").unwrap();
    let port: u16 = port
        .strip_prefix(':')
        .map_or(80, |port| port.parse().unwrap());
    let [us, us_page, eu, eu_page] = ports;
    served.line(&format!("http://localhost:{us_page}"));
    served.line(&format!("http://localhost:{eu_page}"));
    for (host, middleware) in [("us.localhost", us), ("eu.localhost", eu), (domain, us)] {
        assert_eq!(
            get(port, host, "/"),
            format!("page with products of {middleware}"),
            "{host}"
        );
        assert_eq!(
            get(port, host, "/api/x"),
            format!("products of {middleware}"),
            "{host}"
        );
    }
    // The page and its requests have one host, as in production.
    assert_eq!(
        get(port, "us.localhost", "/browser"),
        format!("{address}/api")
    );
    let index = get(port, "localhost", "/");
    for part in [
        FRONTEND,
        MIDDLEWARE,
        "eu.localhost",
        domain,
        &us.to_string(),
    ] {
        assert!(index.contains(part), "{part}: {index}");
    }
    assert_eq!(index.matches("<td>ready</td>").count(), 4, "{index}");
    // A web page whose name DNS points at this machine sees no store.
    for path in ["/", "/__alokai/stores.json"] {
        let page = get(port, "evil.example", path);
        assert!(page.contains("http://localhost"), "{path}: {page}");
        for secret in [FRONTEND, "us.localhost", domain] {
            assert!(!page.contains(secret), "{path}: {page}");
        }
    }
    assert!(get(port, domain, "/__alokai/stores.json").contains(FRONTEND));
    let caddyfile = project.read(".alokai/Caddyfile");
    assert!(
        caddyfile.contains(&format!("us.localhost, {domain} {{")),
        "{caddyfile}"
    );
    served.interrupt();
    let (code, lines) = served.end();
    assert_eq!(code, 130, "{lines}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
