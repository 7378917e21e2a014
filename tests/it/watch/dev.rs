//! `store dev` with small servers of Node.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::follower::{Follower, eventually};
use crate::support::Project;

const NEXT: &str = "storefront-unified-nextjs";

/// A server that answers with a file that it reads for each request.
const SERVER: &str = r"
const http = require('http'), fs = require('fs');
http.createServer((_, answer) => answer.end(fs.readFileSync('texts.txt'))).listen(Number(process.env.PORT));
";

/// A free port, and the one after it.
fn ports() -> (u16, u16) {
    loop {
        let first = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("bound").port();
        if std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return (port, port + 1);
        }
    }
}

fn config(web: u16, middleware: u16) -> String {
    format!(
        r#"{{ "stores": {{ "us": {{
  "deployment": {{ "projectName": "acme-us", "cloudRegion": "r", "framework": "nextjs" }},
  "localPorts": {{ "nextjs": {web}, "middleware": {middleware} }}
}} }} }}"#
    )
}

fn shop() -> Project {
    let (web, middleware) = ports();
    let scripts = r#""build": "node build.js", "dev": "node dev.js""#;
    let project = Project::shop()
        .app(NEXT, scripts)
        .app("storefront-middleware", scripts)
        .file(&format!("apps/{NEXT}/dev.js"), SERVER)
        .file("apps/storefront-middleware/dev.js", SERVER)
        .file("apps/storefront-middleware/texts.txt", "middleware\n")
        .file(
            "package.json",
            "{ \"name\": \"root\", \"packageManager\": \"npm@10.0.0\" }\n",
        )
        .config(&config(web, middleware));
    std::fs::remove_dir_all(project.path("apps/stores/fashion/stores/eu")).expect("it is there");
    project
}

/// The answer of the server on a port; none without a server.
fn answer(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.rsplit("\r\n\r\n").next()?.to_owned())
}

#[track_caller]
fn answers(port: u16, expected: &str) {
    eventually(
        || answer(port).as_deref() == Some(expected),
        || format!("{port}: {:?} and not {expected:?}", answer(port)),
    );
}

/// The port in the config.
fn port(project: &Project, key: &str) -> u16 {
    let config: serde_json::Value =
        serde_json::from_str(&project.read("alokai.config.json")).expect("JSON");
    let port = config["stores"]["us"]["localPorts"][key].as_u64();
    u16::try_from(port.expect("a port")).expect("a port")
}

#[test]
fn servers_run_on_composed_files_follow_edits_and_the_config_and_end_with_the_program() {
    let project = shop();
    let follower = Follower::start(&project, "store dev --store-id us --json");
    let web = port(&project, "nextjs");
    answers(web, "texts of us\n");
    answers(port(&project, "middleware"), "middleware\n");
    // The middleware was ready before the frontend started.
    let events = follower.events_since(0);
    let position = |name: &str, state: &str| {
        let mut events = events.iter();
        let is_it = |event: &serde_json::Value| event["name"] == name && event["state"] == state;
        events
            .position(is_it)
            .unwrap_or_else(|| panic!("{name} is not {state}: {events:#?}"))
    };
    assert!(position("storefront-middleware", "ready") < position(NEXT, "starting"));

    project.write(
        &format!("apps/stores/fashion/stores/us/{NEXT}/texts.txt"),
        "edited\n",
    );
    answers(web, "edited\n");
    project.remove(&format!("apps/stores/fashion/stores/us/{NEXT}/texts.txt"));
    answers(web, "texts of the base\n");

    // An edit of a file restarts no server.
    let mark = follower.mark();
    project.write("apps/storefront-middleware/other.txt", "a change\n");
    follower.checked(mark);
    let events = follower.events_since(0);
    let starts = events.iter().filter(|event| event["state"] == "starting");
    assert_eq!(starts.count(), 2, "{events:#?}");

    // Another port.
    let (other, _) = ports();
    project.write(
        "alokai.config.json",
        config(other, port(&project, "middleware")),
    );
    answers(other, "texts of the base\n");
    eventually(|| answer(web).is_none(), || "the old port is in use".into());

    // A build in the folders of the servers is refused.
    let build = project.alokai("store build --store us").fails_with(1);
    build.stderr_contains("runs development servers of `us`");
    assert_eq!(follower.interrupt(), Some(130));
    eventually(|| answer(other).is_none(), || "a server is left".into());
}

#[test]
fn a_port_in_use_is_named_with_its_process_and_the_remedy() {
    let project = shop();
    let web = port(&project, "nextjs");
    let taken = std::net::TcpListener::bind(("127.0.0.1", web)).expect("it is free");
    let follower = Follower::start(&project, "store dev --store-id us --json");
    let state = follower.waits_for(0, "cannot-start", |event| event["state"] == "cannot-start");
    assert_eq!(state["name"], NEXT);
    let how = state["how"].as_str().unwrap_or_default();
    let start = format!("port {web} of `us/{NEXT}` is in use by ");
    assert!(how.starts_with(&start), "{how}");
    let help = state["help"].as_str().unwrap_or_default();
    assert!(help.contains("`localPorts`"), "{help}");
    // The server starts when the port is free.
    drop(taken);
    answers(web, "texts of us\n");
    drop(follower);
}

#[test]
fn without_compose_the_files_stay_until_the_first_change() {
    let project = shop();
    project.alokai("store compose --all").succeeds();
    let texts = format!("apps/stores/fashion/stores/us/{NEXT}/texts.txt");
    project.write(&texts, "later\n");
    let follower = Follower::start(&project, "store dev -s us --skip-compose --json");
    let web = port(&project, "nextjs");
    answers(web, "texts of us\n");
    project.write(&format!("apps/{NEXT}/other.txt"), "a change\n");
    answers(web, "later\n");
    drop(follower);
}

/// The answer of the proxy on a port to a request for a host.
fn proxied(port: u16, host: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn local_domains_lead_to_the_frontend_and_its_middleware_and_follow_the_config() {
    let project = shop();
    let config_of = |domain: &str| {
        let config = project.read("alokai.config.json");
        let ports = r#""localPorts""#;
        config.replacen(ports, &format!(r#""localDomain": "{domain}", {ports}"#), 1)
    };
    let with_domain = config_of("shop.local");
    let another = config_of("other.local");
    project.write("alokai.config.json", with_domain);
    let arguments = "store dev --all --with-local-domains --json";
    let follower = Follower::start(&project, arguments);
    let notice = follower.waits_for(0, "the addresses", |event| {
        let message = event["message"].as_str();
        message.is_some_and(|message| message.contains("http://us.localhost"))
    });
    let message = notice["message"].as_str().expect("a message");
    let url = message
        .split([' ', ','])
        .find(|it| it.contains("us.localhost"));
    let port = url.and_then(|url| url.rsplit_once(':')?.1.parse().ok());
    let port: u16 = port.unwrap_or(80);
    let answers = |host: &str, path: &str, expected: &str| {
        eventually(
            || proxied(port, host, path).is_some_and(|text| text.contains(expected)),
            || format!("{host}{path}: {:?}", proxied(port, host, path)),
        );
    };
    answers("us.localhost", "/", "texts of us");
    answers("shop.local", "/", "texts of us");
    answers("us.localhost", "/api/products", "middleware");
    let caddyfile = || project.read(".alokai/Caddyfile");
    assert!(
        caddyfile().contains("us.localhost, shop.local"),
        "{}",
        caddyfile()
    );
    // The list of stores has the last change.
    project.write(
        &format!("apps/stores/fashion/{NEXT}/header.tsx"),
        "edited\n",
    );
    answers("localhost", "/", "header.tsx");
    project.write("alokai.config.json", another);
    answers("other.local", "/", "texts of us");
    eventually(|| caddyfile().contains("other.local"), caddyfile);
    assert_eq!(follower.interrupt(), Some(130));
    assert!(proxied(port, "us.localhost", "/").is_none());
}
