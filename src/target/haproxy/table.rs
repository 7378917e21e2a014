//! What HAProxy routes: the table, and the config and map files that are written from it.
//!
//! The config has one backend with one server for each app of each release. Six map files choose the
//! server of a request: host → store, store → release, release and path → server. So the switch of a
//! whole store is the change of one entry of `active.map`.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::target::hosts::EarlierNames;

/// The backend with all servers.
pub const BACKEND: &str = "apps";

/// Host → store.
pub const HOSTS: &str = "hosts.map";
/// Host → release, for the addresses of staged releases.
pub const STAGED: &str = "staged.map";
/// Store → release that gets the traffic.
pub const ACTIVE: &str = "active.map";
/// Store → maintenance page, in base 64.
pub const PAGES: &str = "pages.map";
/// Release and path → server.
pub const ROUTES: &str = "routes.map";
/// Release and path → the number of path segments that the app does not see.
pub const STRIPS: &str = "strips.map";

/// All map files, in the order in which entries are added: the traffic moves after its routes exist, and a
/// host name moves to a store that has a live release.
pub const MAPS: [&str; 6] = [ROUTES, STRIPS, STAGED, ACTIVE, HOSTS, PAGES];

/// The most segments of a path prefix that can be stripped.
pub const MOST_SEGMENTS: usize = 6;

/// The most bytes of a maintenance page that [`page_as_ascii`] returns. HAProxy reads a command into a buffer
/// of 16 kB, and base 64 makes four bytes of three.
pub const LARGEST_PAGE: usize = 11_000;

/// The version of the frontend's rules. A running HAProxy with another version is reloaded.
const RULES_VERSION: u32 = 1;

/// A map file: values by key.
pub type Map = BTreeMap<String, String>;

/// What HAProxy routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoutingTable {
    /// The identity of the proxy, which engines record for each of its stores.
    pub identity: String,
    /// Stores, by `<project>/<store>`.
    pub stores: BTreeMap<String, RoutedStore>,
    /// Releases that run, by id.
    pub releases: BTreeMap<String, RoutedRelease>,
}

/// A store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoutedStore {
    /// Its public host names, in lower case.
    pub hosts: Vec<String>,
    /// The release that gets the traffic.
    pub active: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The page that is shown instead.
    pub page: Option<String>,
    /// The host names before the last switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<EarlierNames<String, String>>,
}

/// A release that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutedRelease {
    /// The key of its store.
    pub store: String,
    /// The host name at which it can be tried.
    pub host: Option<String>,
    /// Its apps.
    pub servers: Vec<RoutedServer>,
}

/// An app of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutedServer {
    /// Its name in HAProxy, which is the name of its container or service.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// The path below which the app answers, without slashes at its ends. Empty for the frontend.
    pub prefix: String,
    /// Whether the app sees the path without the prefix.
    pub strips_prefix: bool,
}

impl RoutingTable {
    /// The entries of a map file.
    pub fn map(&self, name: &str) -> Map {
        let stores = self.stores.iter();
        match name {
            HOSTS => stores
                .flat_map(|(key, store)| store.hosts.iter().map(|host| (host.clone(), key.clone())))
                .collect(),
            ACTIVE => stores
                .filter_map(|(key, store)| Some((key.clone(), store.active.clone()?)))
                .collect(),
            PAGES => stores
                .filter_map(|(key, store)| Some((key.clone(), encode_page(store.page.as_ref()?))))
                .collect(),
            STAGED => {
                let releases = self.releases.iter();
                releases
                    .filter_map(|(id, release)| Some((release.host.clone()?, id.clone())))
                    .collect()
            }
            ROUTES => self.by_path(|server| Some(server.name.clone())),
            _ => self.by_path(|server| {
                let is_stripped = server.strips_prefix && !server.prefix.is_empty();
                is_stripped.then(|| server.prefix.split('/').count().to_string())
            }),
        }
    }

    fn by_path(&self, value: impl Fn(&RoutedServer) -> Option<String>) -> Map {
        let releases = self.releases.iter();
        let servers = releases.flat_map(|(id, release)| {
            let servers = release.servers.iter();
            servers.map(move |server| (id, server))
        });
        servers
            .filter_map(|(id, server)| {
                let slash = if server.prefix.is_empty() { "" } else { "/" };
                Some((format!("{id}/{}{slash}", server.prefix), value(server)?))
            })
            .collect()
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &RoutedServer> {
        self.releases.values().flat_map(|release| &release.servers)
    }

    /// Sets traffic and pages to those of the running HAProxy.
    pub fn set_running_state(&mut self, active: &Map, pages: &Map) {
        for (key, store) in &mut self.stores {
            let running = active.get(key).cloned();
            if store.active != running {
                store.active = running;
                store.since = None;
            }
            store.page = pages.get(key).and_then(|page| decode_page(page));
        }
    }
}

/// The text of a map file.
pub fn map_text(map: &Map) -> String {
    map.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key} {value}");
        text
    })
}

fn encode_page(page: &str) -> String {
    BASE64.encode(page_as_ascii(page))
}

/// HAProxy's `lf-string` changes line ends and bytes that are not ASCII. So line ends and characters are
/// replaced here by spaces and HTML character references.
pub fn page_as_ascii(page: &str) -> String {
    page.chars().fold(String::new(), |mut text, c| {
        let _ = match c {
            '\r' => Ok(()),
            c if c.is_ascii_control() => write!(text, " "),
            c if c.is_ascii() => write!(text, "{c}"),
            c => write!(text, "&#{};", u32::from(c)),
        };
        text
    })
}

fn decode_page(page: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(page).ok()?).ok()
}

/// The digest of the settings that HAProxy applies only after a reload.
pub fn description(bind: &[String]) -> String {
    let text = format!("{RULES_VERSION}\n{}", bind.join("\n"));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hex: Vec<String> = digest.as_ref()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("alokai-{}", hex.concat())
}

/// The config file. Paths in it are relative to its folder, in which HAProxy is started.
pub fn config(table: &RoutingTable, bind: &[String]) -> String {
    let mut text = format!(
        "# Written by alokai, which replaces this file at each release.\n{}",
        RULES.replace("{description}", &description(bind))
    );
    let binds = bind.iter().fold(String::new(), |mut text, bind| {
        let _ = writeln!(text, "  bind {bind}");
        text
    });
    let strips = (1..=MOST_SEGMENTS).fold(String::new(), |mut text, count| {
        let first = count + 2;
        let _ = writeln!(
            text,
            "  http-request set-path /%[path,field({first},/,0)] if {{ var(txn.strip) -m str {count} }}"
        );
        text
    });
    text = text.replace("{binds}\n", &binds);
    text = text.replace("{strips}\n", &strips);
    for server in table.servers() {
        let _ = writeln!(text, "  server {} {} weight 0", server.name, server.address);
    }
    text
}

/// The rules of the frontend, which never change while releases come and go.
///
/// A server has weight 0, so only its rule chooses it. `idle-close-on-response` keeps idle connections
/// of clients through a reload. A request is sent again only if its method may be repeated.
const RULES: &str = r#"global
  description {description}
  stats socket unix@runtime.sock mode 600 level admin expose-fd listeners
  stats timeout 1m

defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
  timeout http-request 30s
  timeout http-keep-alive 75s
  timeout tunnel 24h
  option idle-close-on-response
  option forwardfor
  retries 3
  retry-on conn-failure empty-response

frontend public
{binds}
  http-request disable-l7-retry unless METH_GET
  http-request set-var(txn.host) req.hdr(host),host_only,lower
  http-request set-var(txn.store) var(txn.host),map(hosts.map)
  http-request set-var(txn.release) var(txn.host),map(staged.map)
  http-request set-var(txn.release) var(txn.store),map(active.map) unless { var(txn.release) -m found }
  http-request return status 404 content-type text/plain string "no store has this host name" unless { var(txn.store) -m found } || { var(txn.release) -m found }
  http-request set-var(txn.page) var(txn.store),map(pages.map),b64dec
  http-request return status 503 content-type "text/html; charset=utf-8" lf-string %[var(txn.page)] hdr Retry-After 60 hdr Cache-Control no-store if { var(txn.page) -m found }
  http-request set-var(txn.slash) str(/)
  http-request set-var(txn.path) path
  http-request set-var(txn.route) var(txn.release),concat(,txn.path),concat(,txn.slash)
  http-request set-var(txn.server) var(txn.route),map_beg(routes.map)
  http-request set-var(txn.strip) var(txn.route),map_beg(strips.map)
  http-request return status 503 content-type text/plain string "this store has no live release" unless { var(txn.server) -m found }
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Proto http unless { ssl_fc } || { req.hdr(X-Forwarded-Proto) -m found }
{strips}
  default_backend apps

backend apps
  balance random
  use-server %[var(txn.server)] if { var(txn.server) -m found }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, prefix: &str, strips_prefix: bool) -> RoutedServer {
        RoutedServer {
            name: name.into(),
            address: "127.0.0.1:20000".into(),
            prefix: prefix.into(),
            strips_prefix,
        }
    }

    #[test]
    fn a_release_has_a_route_for_each_app() {
        let mut table = RoutingTable::default();
        let servers = vec![
            server("mw", "api", true),
            server("docs", "a/b", false),
            server("page", "", false),
        ];
        let release = RoutedRelease {
            store: "acme/us".into(),
            host: None,
            servers,
        };
        table.releases.insert("R1".into(), release);
        let routes = "R1/ page\nR1/a/b/ docs\nR1/api/ mw\n";
        assert_eq!(map_text(&table.map(ROUTES)), routes);
        assert_eq!(map_text(&table.map(STRIPS)), "R1/api/ 1\n");
        let config = config(&table, &["*:80".into()]);
        assert!(config.contains("\n  bind *:80\n"), "{config}");
        assert!(
            config.ends_with("  server page 127.0.0.1:20000 weight 0\n"),
            "{config}"
        );
        assert!(!config.contains("{binds}") && !config.contains("{strips}"));
    }

    #[test]
    fn a_page_keeps_its_meaning_on_one_line_of_ascii() {
        let page = "<p>\r\nZurück in 5 %\n</p>";
        let sent = decode_page(&encode_page(page)).unwrap();
        assert_eq!(sent, "<p> Zur&#252;ck in 5 % </p>");
        // Read from a running proxy and written again, it stays the same.
        assert_eq!(encode_page(&sent), encode_page(page));
    }

    #[test]
    fn a_running_proxy_decides_what_is_active() {
        let mut table = RoutingTable::default();
        let store = RoutedStore {
            active: Some("R1".into()),
            since: Some(Timestamp::UNIX_EPOCH),
            page: Some("closed".into()),
            ..RoutedStore::default()
        };
        table.stores.insert("acme/us".into(), store);
        let running = Map::from([("acme/us".into(), "R2".into())]);
        table.set_running_state(&running, &Map::new());
        let store = &table.stores["acme/us"];
        assert_eq!(store.active.as_deref(), Some("R2"));
        assert_eq!((store.since, &store.page), (None, &None));
    }
}
