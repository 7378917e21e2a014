//! `store dev` in a real browser: Next.js and Nuxt show changes of sources through the proxy, without a
//! reload by hand and without an error in between.

use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use super::follower::Follower;
use crate::example::example;
use crate::support::{Project, Run};

const NEXT: &str = "storefront-unified-nextjs";
const NUXT: &str = "storefront-unified-nuxt";

/// Different free ports. The listeners are open until all are known.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [_; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// The address of a store at the proxy.
fn address(dev: &Follower, store: &str) -> String {
    let start = format!("{store}: http://");
    let is_address = |event: &Value| {
        let message = event["message"].as_str();
        message.is_some_and(|message| message.starts_with(&start))
    };
    let notice = dev.waits_for(0, &start, is_address);
    let message = notice["message"].as_str().unwrap();
    message[store.len() + 2..].to_owned()
}

fn is_ready(dev: &Follower, store: &str, app: &str) {
    dev.waits_for(0, app, |event| {
        event["event"] == "server"
            && event["store"] == store
            && event["name"] == app
            && event["state"] == "ready"
    });
}

/// A step that replaces a text in a source, and the text that the page has to show then.
fn edit(project: &Project, path: &str, from: &str, to: &str, shows: &str) -> Value {
    let content = project.read(path);
    assert!(content.contains(from), "{path}: {content}");
    json!({ "write": project.path(path), "content": content.replace(from, to), "shows": shows })
}

/// Opens the page, takes the steps, and returns the milliseconds until each was shown.
fn browser(project: &Project, url: &str, steps: &[Value]) -> Vec<u64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/edits.cjs");
    let task = json!({ "url": url, "selector": "body", "steps": steps });
    let output = Command::new("node")
        .args([script, project.root().to_str().unwrap(), &task.to_string()])
        .output()
        .unwrap();
    let shown = Run::from(output).succeeds().json();
    assert_eq!(shown["errors"], json!([]), "{url}: {shown}");
    let milliseconds = shown["milliseconds"].as_array().unwrap();
    assert_eq!(milliseconds.len(), steps.len());
    milliseconds.iter().filter_map(Value::as_u64).collect()
}

#[test]
fn a_browser_shows_edits_and_deletions_of_overrides() {
    let (_folder, project) = example("acme");
    let ports = free_ports::<4>();
    let mut config = project.read("alokai.config.json");
    let before = [
        "\"middleware\": 4000",
        "\"nextjs\": 3000",
        "\"middleware\": 4002",
        "\"nuxt\": 3333",
    ];
    for (before, port) in before.into_iter().zip(ports) {
        let name = before.split(' ').next().unwrap();
        config = config.replace(before, &format!("{name} {port}"));
    }
    let project = project.config(&config).env("NEXT_TELEMETRY_DISABLED", "1");
    let dev = "store dev --store us,outlet --with-local-domains --json";
    let dev = Follower::start(&project, dev);
    is_ready(&dev, "us", NEXT);
    is_ready(&dev, "outlet", NUXT);

    let page = format!("apps/{NEXT}/app/[locale]/(shop)/page.tsx");
    let header = format!("apps/stores/fashion/{NEXT}/components/Header.tsx");
    let steps = [
        edit(
            &project,
            &page,
            "<h1>",
            "<h1>edited base: ",
            "edited base: ",
        ),
        edit(
            &project,
            &header,
            "header: from fashion",
            "header: from edited override",
            "header: from edited override",
        ),
        json!({ "remove": project.path(&header), "shows": "header: from base" }),
    ];
    let url = format!("{}/en", address(&dev, "us"));
    println!("Next.js: {:?} ms", browser(&project, &url, &steps));

    let header = format!("apps/{NUXT}/app/components/SiteHeader.vue");
    let texts = format!("apps/stores/outlet/{NUXT}/app/texts/store.ts");
    let steps = [
        edit(
            &project,
            &header,
            "header: from base",
            "header: from edited base",
            "header: from edited base",
        ),
        edit(
            &project,
            &texts,
            "textsFrom: \"outlet\"",
            "textsFrom: \"edited override\"",
            "texts: from edited override",
        ),
        json!({ "remove": project.path(&texts), "shows": "texts: from base" }),
    ];
    let url = format!("{}/en", address(&dev, "outlet"));
    println!("Nuxt: {:?} ms", browser(&project, &url, &steps));
    assert_eq!(dev.interrupt(), Some(130));
}
