//! The maintenance page: the public Service selects its pods, and releases are switched behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use alokai::target::Target;
use alokai::target::kubernetes::KubernetesTarget;
use reqwest::Method;
use serde_json::{Value, json};

use super::releases::until;
use super::{World, release, us};

const APPS: &str = "apis/apps/v1";
const CORE: &str = "api/v1";

/// The program of the pods.
const PROGRAM: &str = include_str!("../../../src/target/kubernetes/maintenance.js");

fn page_name(world: &World) -> String {
    format!("{}-us-us-maintenance", world.namespace)
}

fn page_objects(world: &World) -> [(u16, Value); 2] {
    let name = page_name(world);
    [(CORE, "configmaps"), (APPS, "deployments")].map(|(group, kind)| {
        let path = format!("{}/{name}", world.path(group, kind));
        world.ask(Method::GET, &path, None)
    })
}

fn set(world: &World, target: &KubernetesTarget, page: Option<&str>) {
    world.wait(target.maintenance(&us(), page)).unwrap();
}

/// Whether the public Service selects the page. Its ports always fit what it selects.
fn is_behind_page(service: &Value) -> bool {
    let selector = &service["spec"]["selector"];
    let is_page = selector["alokai.com/maintenance"] == "page";
    assert_ne!(
        is_page,
        selector["alokai.com/release"].is_string(),
        "{service}"
    );
    for port in service["spec"]["ports"].as_array().unwrap() {
        let wanted = if is_page { &json!(8080) } else { &port["name"] };
        assert_eq!(port["targetPort"], *wanted, "{service}");
    }
    is_page
}

#[test]
fn a_page_stays_in_front_of_every_release_until_it_is_removed() {
    let section = json!({ "probe": "readiness", "ingress": {} });
    let Some(world) = World::with("maintained", &section) else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let (first, mut second) = (release(), release());
    let early = world.wait(target.maintenance(&us(), Some("page")));
    let early = early.unwrap_err().to_string();
    assert!(early.contains("no release of `us`"), "{early}");
    world.stage(&target, &first);
    world.switch(&target, &first);
    let ports = |service: &Value| {
        let ports = service["spec"]["ports"].as_array().unwrap().iter();
        let ports = ports.map(|it| (it["name"].to_string(), it["port"].clone()));
        ports.collect::<Vec<_>>()
    };
    let before = (
        world.wait(target.observe(&us())).unwrap(),
        ports(&world.public()),
    );

    set(&world, &target, Some("<p>für später</p>"));
    assert!(is_behind_page(&world.public()));
    // Routes name these ports.
    assert_eq!(ports(&world.public()), before.1);
    let [(_, page), (_, deployment)] = page_objects(&world);
    assert_eq!(page["data"]["page.html"], "<p>für später</p>");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"], json!(["node", "--eval", PROGRAM]));
    let image = container["image"].as_str().unwrap();
    assert!(
        image.contains("storefront-unified-nextjs@sha256"),
        "{image}"
    );
    let mut observed = world.wait(target.observe(&us())).unwrap();
    assert!(observed.maintenance && !before.0.maintenance);
    // Nothing else has changed, and a run that has observed the store before can switch it.
    observed.maintenance = false;
    assert_eq!(observed, before.0);

    // A release with one app less becomes live behind the page.
    second.apps.retain(|app| app.app.as_str() != "back_office");
    world.stage(&target, &second);
    world.wait(target.switch(&second, &before.0.token)).unwrap();
    assert!(is_behind_page(&world.public()));
    assert_eq!(world.public()["spec"]["ports"].as_array().unwrap().len(), 2);
    let observed = world.wait(target.observe(&us())).unwrap();
    assert!(observed.maintenance);
    assert_eq!(observed.active, Some(second.id.clone()));
    let live = world.wait(target.retire(&us(), &second.id, false));
    assert!(live.unwrap_err().to_string().contains("gets the traffic"));
    world.wait(target.retire(&us(), &first.id, false)).unwrap();

    // Another page, and the same page again.
    set(&world, &target, Some("<p>second</p>"));
    let [(_, page), (_, changed)] = page_objects(&world);
    assert_eq!(page["data"]["page.html"], "<p>second</p>");
    let generation = |it: &Value| it["metadata"]["generation"].as_u64();
    assert!(generation(&changed) > generation(&deployment));
    set(&world, &target, Some("<p>second</p>"));
    let [_, (_, again)] = page_objects(&world);
    assert_eq!(generation(&again), generation(&changed));

    set(&world, &target, None);
    assert!(!is_behind_page(&world.public()));
    assert_eq!(
        world.public()["spec"]["selector"]["alokai.com/release"],
        second.id.as_str()
    );
    assert!(world.public()["metadata"]["annotations"]["alokai.com/release"].is_null());
    let observed = world.wait(target.observe(&us())).unwrap();
    assert_eq!(observed.active, Some(second.id));
    assert!(!observed.maintenance);
    until("the page is gone", || {
        page_objects(&world)
            .iter()
            .all(|(status, _)| *status == 404)
    });
    set(&world, &target, None);
}

#[test]
fn a_page_that_cannot_be_served_changes_nothing() {
    let Some(world) = World::new("unserved") else {
        return;
    };
    let (target, kubelet) = (world.target(), world.kubelet());
    let spec = release();
    world.stage(&target, &spec);
    world.switch(&target, &spec);
    let before = world.public();
    kubelet.failing.store(127, Ordering::SeqCst);
    let error = world.wait(target.maintenance(&us(), Some("page")));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("exited with code 127"), "{error}");
    assert_eq!(world.public()["spec"], before["spec"]);
    until("nothing is left", || {
        page_objects(&world)
            .iter()
            .all(|(status, _)| *status == 404)
    });

    // The name belongs to something else.
    let object = json!({ "metadata": { "name": page_name(&world) }, "data": { "a": "b" } });
    let path = world.path(CORE, "configmaps");
    assert_eq!(world.ask(Method::POST, &path, Some(&object)).0, 201);
    let error = world.wait(target.maintenance(&us(), Some("page")));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does not belong to this store"), "{error}");
    set(&world, &target, None);
    assert_eq!(page_objects(&world)[0].1["data"]["a"], "b");
}

#[test]
fn maintenance_and_switches_at_the_same_time_lose_nothing() {
    let Some(world) = World::new("racing") else {
        return;
    };
    let (target, _kubelet) = (world.target(), world.kubelet());
    let releases = [release(), release()];
    for spec in &releases {
        world.stage(&target, spec);
    }
    world.switch(&target, &releases[0]);
    let (mut last, pages) = (0, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let toggling = scope.spawn(|| {
            let target = world.target();
            // Until a switch has met the page, which is a matter of time.
            for _ in 0..20 {
                for page in [Some("a"), None, Some("b"), None] {
                    set(&world, &target, page);
                }
                if pages.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
        });
        while !toggling.is_finished() {
            last = 1 - last;
            world.switch(&target, &releases[last]);
            let met = usize::from(is_behind_page(&world.public()));
            pages.fetch_add(met, Ordering::Relaxed);
            let observed = world.wait(target.observe(&us())).unwrap();
            assert_eq!(observed.active.as_ref(), Some(&releases[last].id));
        }
        toggling.join().unwrap();
    });
    assert!(pages.into_inner() > 0);
    let service = world.public();
    assert!(!is_behind_page(&service));
    let selected = &service["spec"]["selector"]["alokai.com/release"];
    assert_eq!(selected, releases[last].id.as_str());
}

/// The program of the pods, on this machine.
struct PageServer {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl PageServer {
    fn start(page: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, page).unwrap();
        // The system chooses the port, which the test has to learn.
        let tells = "server.on('listening', () => console.log(server.address().port))";
        let mut child = Command::new("node")
            .args(["--eval", &format!("{PROGRAM}\n{tells}")])
            .env("PAGE", path)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut port).unwrap();
        Self {
            child,
            port: port.trim().parse().unwrap(),
            _folder: folder,
        }
    }

    /// The head and the body of the answer. It ends with the connection.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_pods_answer_every_request_with_the_page() {
    let page = "<p>für später</p>";
    let server = PageServer::start(page);
    let large = "x".repeat(1 << 20);
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "DELETE /api/cart?x=1 HTTP/1.1\r\nhost: b\r\nconnection: keep-alive\r\n\r\n".to_owned(),
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            .to_owned(),
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{large}",
            large.len()
        ),
    ] {
        let (head, body) = server.ask(&request);
        assert!(head.starts_with("http/1.1 503 "), "{head}");
        for line in [
            "retry-after: 60",
            "cache-control: no-store",
            "content-type: text/html; charset=utf-8",
            "connection: close",
            &format!("content-length: {}", page.len()),
        ] {
            assert!(head.contains(line), "{head}");
        }
        assert_eq!(body, page);
    }
    let (head, body) = server.ask("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(
        head.starts_with("http/1.1 503 ") && body.is_empty(),
        "{head}"
    );

    // A pod that is deleted still answers while proxies learn of it.
    let id = server.child.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").1, page);
}
