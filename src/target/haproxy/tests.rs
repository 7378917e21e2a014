//! A real HAProxy, and the traffic of stores without apps.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use miette::Diagnostic;

use super::table::LARGEST_PAGE;
use super::*;
use crate::config::Project;
use crate::pipeline::DeployFault;
use crate::store::StoreId;
use crate::target::labels::StoreLabels;
use crate::target::{ReleaseSpec, hosts};

const SECTION: &str = "deploy.docker.proxy";

/// A folder with a HAProxy that ends with the test.
struct Place(tempfile::TempDir);

impl Place {
    /// None if the test is skipped, because HAProxy is not installed.
    fn new() -> Option<Self> {
        let programs = ["haproxy", "/usr/sbin/haproxy"].into_iter();
        let mut found = programs.map(|program| Command::new(program).arg("-v").output());
        found
            .any(|it| it.is_ok())
            .then(|| Self(tempfile::tempdir().unwrap()))
    }

    fn proxy(&self, bind: &str) -> Haproxy {
        Haproxy::new(SECTION, self.0.path().join("proxy"), vec![bind.to_owned()])
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join("proxy").join(name)).unwrap()
    }

    /// Ends HAProxy, as a crash does.
    fn end(&self) {
        let Ok(pids) = std::fs::read_to_string(self.0.path().join("proxy/haproxy.pid")) else {
            return;
        };
        for pid in pids.split_whitespace() {
            let _ = Command::new("kill").arg(pid).output();
            while PathBuf::from(format!("/proc/{pid}")).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The project of a config with these stores: id, project name and `localDomain`.
    fn project(&self, stores: &[(&str, &str, Option<&str>)]) -> Project {
        let stores = stores.iter().map(|(id, name, domain)| {
            let deployment = serde_json::json!({ "projectName": name, "cloudRegion": "x" });
            let mut entry = serde_json::json!({ "deployment": deployment });
            if let Some(domain) = domain {
                entry["localDomain"] = (*domain).into();
            }
            ((*id).to_owned(), entry)
        });
        let stores: serde_json::Map<_, _> = stores.collect();
        let config = serde_json::json!({ "stores": stores }).to_string();
        std::fs::write(self.0.path().join("alokai.config.json"), config).unwrap();
        Project::load(self.0.path()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_bind() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A store, with the names of its config.
struct Traffic<'a> {
    proxy: &'a Haproxy,
    project: &'a Project,
    store: StoreId,
    owner: StoreLabels,
}

impl<'a> Traffic<'a> {
    fn new(proxy: &'a Haproxy, project: &'a Project, store: &str) -> Self {
        let store = StoreId::new(store).unwrap();
        Self {
            proxy,
            project,
            owner: StoreLabels::of(project, &store).unwrap(),
            store,
        }
    }

    fn of(&self) -> StoreTraffic<'_> {
        StoreTraffic {
            proxy: self.proxy,
            project: self.project,
            owner: &self.owner,
            store: &self.store,
        }
    }

    async fn check(&self) -> Result<(), Error> {
        let stores = self.project.stores.deployables();
        self.of().check_names(stores).await
    }

    fn spec(&self) -> ReleaseSpec {
        // The ids of releases sort by time.
        std::thread::sleep(Duration::from_millis(2));
        let id = RecordId::new(RecordKind::Release, Timestamp::now());
        ReleaseSpec {
            hosts: hosts(self.project, &self.store),
            ..ReleaseSpec::without_apps(id, self.store.clone())
        }
    }

    /// Makes a release live. Returns its public address.
    async fn release(&self) -> Result<String, Error> {
        let (spec, traffic) = (self.spec(), self.of());
        let address = traffic.public_address(&spec).await?;
        traffic.stage(&spec, Vec::new()).await?;
        let before = token(&traffic.observe().await?.0);
        assert!(traffic.switch(&spec, &before).await?);
        Ok(address.unwrap_or_default())
    }

    async fn hosts(&self) -> Vec<String> {
        self.of().look().await.unwrap().0.hosts
    }
}

fn help(error: &dyn Diagnostic) -> String {
    error
        .help()
        .map(|help| help.to_string())
        .unwrap_or_default()
}

#[test]
fn an_address_has_the_port_of_the_first_bind_line() {
    for (bind, url) in [
        ("127.0.0.1:8080", "http://us.example:8080"),
        ("*:80", "http://us.example"),
        (":443 ssl crt /etc/cert.pem", "https://us.example"),
        ("*:8443 ssl crt x", "https://us.example:8443"),
        ("[::]:8080 v4v6", "http://us.example:8080"),
    ] {
        let haproxy = Haproxy::new(SECTION, "/proxy".into(), vec![bind.into()]);
        assert_eq!(haproxy.url("us.example"), url, "{bind}");
    }
}

#[test]
fn an_address_on_which_a_program_listens_is_not_free() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = |bind: String| Haproxy::new("deploy.swarm.proxy", "/proxy".into(), vec![bind]);
    for bind in [format!("127.0.0.1:{port} ssl crt x"), format!("*:{port}")] {
        let error = proxy(bind).check_free().unwrap_err();
        // The help names the section of the target, and not that of another one.
        let help = help(&error);
        assert!(help.contains("change `deploy.swarm.proxy.bind`"), "{help}");
        assert!(help.contains("`deploy.swarm.proxy.folder`"), "{help}");
    }
    drop(listener);
    assert!(proxy(format!("127.0.0.1:{port}")).check_free().is_ok());
}

#[tokio::test]
async fn a_switch_back_returns_the_names_of_both_stores() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let names = [
        ("en", "acme-en", Some("shop.test")),
        ("us", "acme", Some("other.test")),
    ];
    let before = place.project(&names);
    let en = Traffic::new(&proxy, &before, "en");
    en.release().await.unwrap();
    let us = Traffic::new(&proxy, &before, "us");
    let switch = async |traffic: &Traffic, spec: &ReleaseSpec| {
        let token = token(&traffic.of().observe().await.unwrap().0);
        assert!(traffic.of().switch(spec, &token).await.unwrap());
    };
    let old = us.spec();
    us.of().stage(&old, Vec::new()).await.unwrap();
    switch(&us, &old).await;

    let after = place.project(&[("en", "acme-en", None), ("us", "acme", Some("shop.test"))]);
    let us = Traffic::new(&proxy, &after, "us");
    let new = us.spec();
    us.of().stage(&new, Vec::new()).await.unwrap();
    switch(&us, &new).await;
    assert_eq!(us.hosts().await, ["us.localhost", "shop.test"]);
    assert_eq!(en.hosts().await, ["en.localhost"]);
    // The config gives the names of the new release to the earlier one too.
    let id = old.id.clone();
    let old = ReleaseSpec { id, ..new.clone() };
    switch(&us, &old).await;
    assert_eq!(us.hosts().await, ["us.localhost", "other.test"]);
    assert_eq!(en.hosts().await, ["en.localhost", "shop.test"]);
    let map = place.file("hosts.map");
    assert!(map.contains("shop.test acme-en/en\n"), "{map}");

    // A release that is staged again is not a switch back.
    switch(&us, &new).await;
    us.of().stage(&old, Vec::new()).await.unwrap();
    switch(&us, &old).await;
    assert_eq!(us.hosts().await, ["us.localhost", "shop.test"]);
    assert_eq!(en.hosts().await, ["en.localhost"]);
}

#[tokio::test]
async fn a_store_with_another_id_gets_the_names_of_the_earlier_one_at_its_switch() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let before = place.project(&[("us", "acme", Some("Shop.example"))]);
    let old = Traffic::new(&proxy, &before, "us");
    old.release().await.unwrap();
    assert_eq!(old.hosts().await, ["us.localhost", "shop.example"]);

    let after = place.project(&[("shop", "acme", Some("shop.example"))]);
    let new = Traffic::new(&proxy, &after, "shop");
    new.check().await.unwrap();
    let spec = new.spec();
    new.of().stage(&spec, Vec::new()).await.unwrap();
    // The earlier id has the traffic of the name until the switch.
    assert_eq!(new.hosts().await, ["shop.localhost"]);
    assert_eq!(old.hosts().await, ["us.localhost", "shop.example"]);
    let token = token(&new.of().observe().await.unwrap().0);
    assert!(new.of().switch(&spec, &token).await.unwrap());
    assert_eq!(new.hosts().await, ["shop.localhost", "shop.example"]);
    assert_eq!(old.hosts().await, ["us.localhost"]);
    let map = place.file("hosts.map");
    assert!(map.contains("shop.example acme/shop\n"), "{map}");
    // Stopped under its earlier id, nothing of it stays.
    old.of().end().await.unwrap();
    assert!(!place.file("table.json").contains("acme/us"));
    assert!(!place.file("active.map").contains("acme/us"));
}

#[tokio::test]
async fn two_stores_of_a_project_can_exchange_their_domains() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let stores = |us, eu| place.project(&[("us", "a-us", Some(us)), ("eu", "a-eu", Some(eu))]);
    let project = stores("one.example", "two.example");
    for id in ["us", "eu"] {
        Traffic::new(&proxy, &project, id).release().await.unwrap();
    }
    let project = stores("two.example", "one.example");
    let both = ["us", "eu"].map(|id| Traffic::new(&proxy, &project, id));
    for traffic in &both {
        traffic.check().await.unwrap();
    }
    for traffic in &both {
        traffic.release().await.unwrap();
    }
    assert_eq!(both[0].hosts().await, ["us.localhost", "two.example"]);
    assert_eq!(both[1].hosts().await, ["eu.localhost", "one.example"]);
    // One domain for two stores is an error before one of them is live.
    let project = stores("new.example", "new.example");
    let error = Traffic::new(&proxy, &project, "eu").check().await;
    let error = error.unwrap_err();
    assert_eq!(error.fault(), DeployFault::Input);
    let expected = "the host name `new.example` belongs to `us`, so `eu` cannot use it";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_default_name_of_another_project_is_left_out_and_its_domain_is_an_error() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let first = place.project(&[("us", "first", Some("first.example"))]);
    Traffic::new(&proxy, &first, "us").release().await.unwrap();
    let project = |domain| place.project(&[("us", "second", domain)]);
    for domain in [None, Some("first.example")] {
        let project = project(domain);
        let second = Traffic::new(&proxy, &project, "us");
        let error = second.check().await.unwrap_err();
        let host = domain.unwrap_or("us.localhost");
        let expected = format!("the host name `{host}` belongs to `first/us`");
        assert!(error.to_string().starts_with(&expected), "{error}");
        let command = "`alokai store stop --target docker --store first/us`";
        assert!(help(&error).contains(command), "{}", help(&error));
        assert!(second.release().await.is_err());
    }
    let project = project(Some("second.example"));
    let second = Traffic::new(&proxy, &project, "us");
    second.check().await.unwrap();
    let address = second.release().await.unwrap();
    assert!(address.starts_with("http://second.example:"), "{address}");
    assert_eq!(second.hosts().await, ["second.example"]);
}

#[tokio::test]
async fn a_release_that_was_never_live_reserves_no_name() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let first = place.project(&[("us", "z-first", None)]);
    let first = Traffic::new(&proxy, &first, "us");
    let spec = first.spec();
    first.of().stage(&spec, Vec::new()).await.unwrap();
    let second = place.project(&[("us", "second", None)]);
    let second = Traffic::new(&proxy, &second, "us");
    assert!(second.check().await.is_err());
    first.of().leave(&spec.id).await.unwrap();
    second.check().await.unwrap();
    second.of().stage(&second.spec(), Vec::new()).await.unwrap();
    assert_eq!(place.file("hosts.map"), "us.localhost second/us\n");
}

#[tokio::test]
async fn a_change_that_haproxy_does_not_accept_is_not_saved() {
    let Some(place) = Place::new() else { return };
    let bind = free_bind();
    let proxy = place.proxy(&bind);
    let project = place.project(&[("us", "acme", None)]);
    let traffic = Traffic::new(&proxy, &project, "us");
    traffic.release().await.unwrap();
    let spec = traffic.spec();
    traffic.of().stage(&spec, Vec::new()).await.unwrap();
    let (routed, _) = traffic.of().observe().await.unwrap();

    place.end();
    let certificate = place.0.path().join("no.pem");
    let broken = format!("{bind} ssl crt {}", certificate.display());
    let broken = place.proxy(&broken);
    let dead = Traffic::new(&broken, &project, "us");
    let switched = dead.of().switch(&spec, &token(&routed)).await;
    let error = switched.unwrap_err();
    assert!(matches!(error, Error::ProxyStart { .. }), "{error}");
    assert!(error.to_string().contains("no.pem"), "{error}");
    // The release is not live by the files, and no release is live without HAProxy.
    assert_eq!(dead.of().look().await.unwrap().0.active, routed.active);
    let error = dead.of().observe().await.unwrap_err();
    assert_eq!(error.fault(), DeployFault::Unreachable);
    let live = routed.active.as_deref().unwrap();
    let expected = format!("HAProxy does not run, so release {live} of `us` gets no traffic");
    assert!(error.to_string().starts_with(&expected), "{error}");
    // The config with which HAProxy can be started is still there.
    let config = place.file("haproxy.cfg");
    assert!(config.contains(&format!("  bind {bind}\n")), "{config}");
    assert!(traffic.of().switch(&spec, &token(&routed)).await.unwrap());
    let (routed, _) = traffic.of().observe().await.unwrap();
    assert_eq!(routed.active.as_deref(), Some(spec.id.as_str()));
}

#[tokio::test]
async fn a_look_at_a_store_starts_no_haproxy_and_writes_no_file() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let project = place.project(&[("us", "acme", None)]);
    let traffic = Traffic::new(&proxy, &project, "us");
    assert_eq!(
        traffic.of().observe().await.unwrap().0,
        RoutedStore::default()
    );
    traffic.check().await.unwrap();
    let recorded = std::collections::HashMap::from([
        ("com.alokai.proxy".to_owned(), "E1".to_owned()),
        ("com.alokai.proxy-place".to_owned(), "there".to_owned()),
    ]);
    let checked = traffic.of().check_record(&recorded, "rm".into()).await;
    let error = checked.unwrap_err();
    assert!(
        error.to_string().ends_with("another proxy: there"),
        "{error}"
    );
    let help = help(&error);
    assert!(help.contains("`deploy.docker.proxy.folder`"), "{help}");
    assert!(!proxy.folder().exists());
}

#[tokio::test]
async fn the_largest_page_is_shown_and_survives_a_restart() {
    let Some(place) = Place::new() else { return };
    let bind = free_bind();
    let proxy = place.proxy(&bind);
    let name = "a-long-project-name-of-a-store".repeat(4);
    let project = place.project(&[("us", &name, None)]);
    let traffic = Traffic::new(&proxy, &project, "us");
    traffic.release().await.unwrap();
    // Each of these characters is sent as a reference of six characters.
    let page = "\u{fc}".repeat(LARGEST_PAGE / 6);
    let shown = || {
        let url = format!("http://{bind}/");
        let get = ["-s", "--noproxy", "*", "-H", "Host: us.localhost", &url];
        let page = Command::new("curl").args(get).output().unwrap();
        String::from_utf8(page.stdout).unwrap()
    };
    for text in [page.as_str(), &"x".repeat(LARGEST_PAGE)] {
        traffic.of().show_page(Some(text)).await.unwrap();
        assert_eq!(shown(), text.replace('\u{fc}', "&#252;"));
        place.end();
        proxy.change(|_| Ok(())).await.unwrap();
        assert_eq!(shown(), text.replace('\u{fc}', "&#252;"));
    }
    for text in ["x".repeat(LARGEST_PAGE + 1), format!("{page}\u{fc}")] {
        let error = traffic.of().show_page(Some(&text)).await.unwrap_err();
        assert!(matches!(error, Error::PageSize { .. }), "{error}");
        assert_eq!(error.fault(), DeployFault::Input);
    }
}

#[tokio::test]
async fn servers_can_have_addresses_of_both_kinds() {
    let Some(place) = Place::new() else { return };
    let proxy = place.proxy(&free_bind());
    let set = async |address: &str| {
        let release = RoutedRelease {
            store: "acme/us".into(),
            host: None,
            servers: vec![RoutedServer {
                name: "page".into(),
                address: address.into(),
                prefix: String::new(),
                strips_prefix: false,
            }],
        };
        let change = |table: &mut RoutingTable| {
            table.releases.insert("R1".into(), release);
            Ok(())
        };
        proxy.change(change).await.unwrap();
        proxy.runtime.servers().await.unwrap()[0].address.clone()
    };
    // Added, moved, and read from a config.
    for address in ["[::1]:20000", "127.0.0.1:20001", "[fd00::2]:20002"] {
        assert_eq!(set(address).await, address);
    }
    place.end();
    assert_eq!(set("[fd00::2]:20002").await, "[fd00::2]:20002");
}
