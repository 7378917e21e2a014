//! The wait for a store after the request to the console.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::TEXTS;
use crate::support::{Console, Project, registry};

/// A public page: each request takes the next answer, and the last one stays.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<(u16, String)>>>);

impl Pages {
    fn set(&self, mut pages: Vec<(u16, String)>) {
        pages.reverse();
        *self.0.lock().unwrap() = pages;
    }

    fn serve(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let pages = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.read(&mut [0; 4096]);
                let mut pages = pages.0.lock().unwrap();
                let (status, page) = pages.last().unwrap().clone();
                if pages.len() > 1 {
                    pages.pop();
                }
                let length = page.len();
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}");
                let answer = format!("{head}\r\nconnection: close\r\n\r\n{page}");
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}")
    }
}

/// A page with its variables for browsers.
fn page_of(tag: &str) -> (u16, String) {
    let name = "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID";
    (200, json!({ name: tag }).to_string())
}

fn configure(project: &Project, address: &str, deadline: u16) {
    let config = project.read("alokai.config.json");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["stores"]["us"]["deployment"]["address"] = address.into();
    let health = json!({ "interval": 0, "consecutive": 2, "deadline": deadline });
    config["deploy"] = json!({ "health": { "*": health } });
    project.write("alokai.config.json", format!("{config:#}"));
    project.write(TEXTS, format!("texts of {deadline}\n"));
    project.commit();
}

#[test]
fn a_deploy_by_the_console_waits_until_the_store_answers_with_the_release() {
    let Some(registry) = registry() else { return };
    let (console, pages) = (Console::start(), Pages::default());
    let name = crate::deploy::unique("waits");
    let project = registry.used_by(Project::shop_named(&name), &console.address);
    let project = project.env("CLI_CONSOLE_NO_WAIT", "");
    let address = pages.serve();
    configure(&project, &address, 60);
    let old = || page_of("059b47786beed5d07b0b3902af6675a793ed6240");
    let deploy = "store deploy --store us";

    // The earlier release answers first, then the instance is restarted.
    let new = page_of(&project.sha());
    pages.set(vec![old(), (503, String::new()), new.clone(), old(), new]);
    let run = project.alokai(deploy).succeeds();
    run.stdout_contains(&format!("deployed us: {address}"));
    run.stderr_lacks("does not say");
    assert_eq!(pages.0.lock().unwrap().len(), 1);

    // A page without the variable.
    pages.set(vec![(200, "<h1>Shop</h1>".into())]);
    let run = project.alokai(deploy).succeeds();
    run.stderr_contains("its page does not say which release it is from");

    configure(&project, &address, 1);
    for (page, reason) in [
        (old(), "the page is from another release"),
        ((503, String::new()), "status 503"),
        ((404, String::new()), "status 404"),
    ] {
        pages.set(vec![page]);
        let run = project.alokai(deploy).fails_with(1);
        run.stderr_contains("the console accepted the deploy of `us`");
        run.stderr_contains(reason);
        let releases = project
            .alokai("store releases --store us --json")
            .succeeds();
        assert_eq!(releases.json()["releases"][0]["status"], "failed");
    }
    let asked = console.requests().len();
    assert_eq!(asked, 5);
    project
        .alokai(&format!("{deploy} --no-wait") as &str)
        .succeeds();

    // Ctrl-C ends the wait.
    configure(&project, &address, 600);
    let run = project.start(deploy);
    while console.requests().len() < asked + 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run: crate::support::Run = run.wait_with_output().unwrap().into();
    run.fails_with(130);
}

#[test]
fn an_address_with_credentials_is_a_problem_of_the_config() {
    let project = Project::shop();
    configure(&project, "https://user:secret@shop.example.com", 1);
    let run = project.alokai("store list").fails_with(2);
    run.stderr_contains("`shop.example.com` is not a valid address");
}
