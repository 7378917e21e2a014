//! `store start` with what `.deploy` holds.

use serde_json::Value;

use super::{Served, built_shop, free_ports, is_alive, numbers, shop};
use crate::support::{FRONTEND, MIDDLEWARE, page};

#[test]
fn start_runs_stores_side_by_side_until_ctrl_c_and_leaves_no_process() {
    let ports = free_ports();
    let project = built_shop(ports);
    let mut served = Served::start(&project, "store start --all");
    for (store, port) in [("us", ports[1]), ("eu", ports[3])] {
        served.line(&format!("{store}     {FRONTEND}  http://localhost:{port}"));
    }
    let [us, us_page, eu, eu_page] = ports;
    assert_eq!(page(us_page, "/"), format!("page with products of {us}"));
    assert_eq!(page(eu_page, "/"), format!("page with products of {eu}"));
    let frontend = served.line(&format!("us/{FRONTEND} | frontend"));
    let middleware = served.line(&format!("us/{MIDDLEWARE} | middleware"));
    assert!(middleware.ends_with("in production"), "{middleware}");
    let pids: Vec<&str> = [&frontend, &middleware]
        .into_iter()
        .flat_map(|it| numbers(it))
        .collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(pid)));

    served.interrupt();
    let (code, lines) = served.end();
    assert_eq!(code, 130, "{lines}");
    assert!(!pids.iter().any(|pid| is_alive(pid)), "{pids:?}");
    let stopped = |app: &str| lines.find(&format!("us/{app}: stopped")).expect(&lines);
    assert!(stopped(FRONTEND) < stopped(MIDDLEWARE), "{lines}");
}

#[test]
fn the_end_of_one_app_ends_all_others() {
    let ports = free_ports();
    let project = built_shop(ports);
    let mut served = Served::start(&project, "store start --all");
    served.line(&format!("eu     {FRONTEND}  http://"));
    let frontend = served.line(&format!("eu/{FRONTEND} | frontend"));
    // The server ends before it answers.
    let _ = std::process::Command::new("curl")
        .args(["--silent", &format!("http://127.0.0.1:{}/crash", ports[0])])
        .output();
    let (code, lines) = served.end();
    assert_eq!(code, 1, "{lines}");
    for text in [
        &format!("`us/{MIDDLEWARE}` does not run, so all servers were stopped"),
        "`node lib/index.js` exited with code 3",
        "│ the backend is gone",
    ] {
        assert!(lines.contains(text), "{text}: {lines}");
    }
    assert!(!numbers(&frontend).into_iter().any(is_alive), "{frontend}");
}

#[test]
fn start_never_builds_and_says_what_does() {
    let ports = free_ports();
    let project = shop(ports);
    let run = project.alokai("store start --store us").fails_with(2);
    run.stderr_contains(&format!(
        "apps are not built: us/{MIDDLEWARE}, us/{FRONTEND}"
    ))
    .stderr_contains("alokai store deploy --store us --local --until prune");
    assert!(!project.exists(".out"));

    // An artifact of other files is started, with a notice.
    let project = built_shop(ports);
    let index = format!("apps/{MIDDLEWARE}/src/index.js");
    let text = project.read(&index);
    let only = format!("store start --store us --filter {MIDDLEWARE}-us");
    let outdated = "`.deploy` was made from other files";
    for (text, is_outdated) in [(text.clone(), false), (format!("{text}\n"), true)] {
        project.write(&index, text);
        let mut served = Served::start(&project, &only);
        served.line(&format!("us     {MIDDLEWARE}  http://"));
        served.interrupt();
        let (code, lines) = served.end();
        assert_eq!(code, 130);
        assert_eq!(lines.contains(outdated), is_outdated, "{lines}");
        assert!(!lines.contains(FRONTEND), "{lines}");
    }
}

#[test]
fn a_port_in_use_names_the_process() {
    let ports = free_ports();
    let project = built_shop(ports);
    let _listener = std::net::TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    let run = project.alokai("store start --store us").fails_with(1);
    run.stderr_contains(&format!("port {} of `us/{MIDDLEWARE}` is in use", ports[0]))
        .stderr_contains(&format!("(pid {})", std::process::id()));
}

#[test]
fn a_shared_middleware_is_one_process() {
    let ports = free_ports();
    let project = shop(ports).setting("build", &serde_json::json!({ "shared": [MIDDLEWARE] }));
    project.commit();
    project
        .alokai("store deploy --all --until prune")
        .succeeds();
    let mut served = Served::start(&project, "store start --all --json");
    // `eu` is the first store.
    for port in [ports[1], ports[3]] {
        served.line(&format!("\"url\":\"http://localhost:{port}\""));
        assert_eq!(
            page(port, "/"),
            format!("page with products of {}", ports[2])
        );
    }
    served.interrupt();
    let (code, lines) = served.end();
    assert_eq!(code, 130, "{lines}");
    let events = lines.lines().filter(|line| line.starts_with("{\"event\""));
    let events: Vec<Value> = events
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |state: &str| {
        let events = events
            .iter()
            .filter(|it| it["event"] == "server" && it["state"] == state);
        events
            .filter(|it| it["name"] == MIDDLEWARE)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("ready").len(), 1, "{lines}");
    assert_eq!(of("stopped").len(), 1, "{lines}");
    assert_eq!(of("waiting")[0]["stores"], serde_json::json!(["eu", "us"]));

    // Another file is another middleware.
    let project = project.file(
        &format!("apps/stores/fashion/stores/eu/{MIDDLEWARE}/extra.js"),
        "",
    );
    project.commit();
    project
        .alokai("store deploy --all --until prune")
        .succeeds();
    let mut served = Served::start(&project, "store start --all");
    served.line(&format!("us     {FRONTEND}  http://"));
    assert_eq!(
        page(ports[1], "/"),
        format!("page with products of {}", ports[0])
    );
}

#[test]
fn local_domains_lead_to_the_apps_of_each_store() {
    let ports = free_ports();
    let project = built_shop(ports);
    let arguments = "store start --all --with-local-domains";
    let mut served = Served::start(&project, arguments);
    served.line(&format!("eu     {FRONTEND}  http://localhost:"));
    let address = served.line("note: eu: http://eu.localhost");
    let port = address.rsplit(':').next().unwrap().parse().unwrap_or(80);
    let get = |host: &str, path: &str| {
        let host = format!("Host: {host}");
        let url = format!("http://127.0.0.1:{port}{path}");
        let mut curl = std::process::Command::new("curl");
        crate::support::output_of(curl.args(["--silent", "--show-error", "--header", &host, &url]))
    };
    for (host, middleware) in [("us.localhost", ports[0]), ("eu.localhost", ports[2])] {
        let products = format!("products of {middleware}");
        assert_eq!(get(host, "/"), format!("page with {products}"));
        assert_eq!(get(host, "/api/anything"), products);
    }
    let caddyfile = project.read(".alokai/Caddyfile");
    assert!(caddyfile.contains(&format!("reverse_proxy localhost:{}", ports[3])));
    served.interrupt();
    assert_eq!(served.end().0, 130);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}
