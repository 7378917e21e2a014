//! Apps of the target `local`: images, variables, settings, output, ends.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use alokai::ledger::{RecordId, RecordKind};
use alokai::target::{Error, LogQuery, ReleaseSpec, Settings, SpecVariable};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::support::{
    FRONTEND, LONG, LocalStores, MIDDLEWARE, SERVER, copy, get, message, middleware_url, page,
    released, response, staged, us,
};

const SECRET: &str = "a-very-secret-value";

/// A release whose middleware has a value of a `.env` file.
fn with_secret(stores: &LocalStores, version: &str, secret: &str) -> ReleaseSpec {
    let mut spec = stores.release(version);
    let secret = SpecVariable::Secret(secret.to_owned().into());
    let middleware = &mut spec.apps[0].variables;
    middleware.insert("API_SECRET".into(), secret);
    spec
}

async fn variables(address: &str) -> BTreeMap<String, String> {
    let text = page(&format!("{address}/variables")).await;
    serde_json::from_str(&text).unwrap()
}

fn address_of(staged: &alokai::target::Staged, app: &str) -> String {
    let mut replicas = staged.replicas.iter();
    let replica = replicas.find(|it| it.app.as_str() == app).unwrap();
    replica.address.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_pair_is_reachable_and_talks_to_its_own_middleware() {
    let stores = LocalStores::new();
    let target = stores.target();
    let live = released(&*target, &stores.release("one")).await;
    let two = stores.release("two");
    let tried = staged(&*target, &two).await;
    let observed = target.observe(&us()).await.unwrap();
    assert_eq!(observed.staged.len(), 1);
    let address = observed.staged[0].address.clone().unwrap();
    assert_eq!(tried.address, Some(address.clone()));
    assert_eq!(page(&address).await, "two two");
    assert_eq!(page(&format!("{address}/api/")).await, "two");
    assert_eq!(page(&live.addresses[0]).await, "one one");
    assert_eq!(page(&format!("{}/api/", live.addresses[0])).await, "one");
    // Repeated, it changes nothing.
    let again = target.stage(&two).await.unwrap();
    assert_eq!(again, tried);
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_get_their_own_ports_and_the_values_of_their_release() {
    let stores = LocalStores::new();
    let target = stores.target();
    let mut spec = with_secret(&stores, "one", SECRET);
    let public = "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL";
    let frontend = &mut spec.apps[1].variables;
    frontend.insert(public.into(), middleware_url());
    frontend.insert("PORT".into(), SpecVariable::Secret("1".to_owned().into()));
    let tried = staged(&*target, &spec).await;
    let middleware = variables(&address_of(&tried, MIDDLEWARE)).await;
    assert_eq!(middleware["API_SECRET"], SECRET);
    assert_eq!(middleware["NODE_ENV"], "production");
    assert_eq!(middleware["API_PORT"], middleware["PORT"]);
    let of_frontend = variables(&address_of(&tried, FRONTEND)).await;
    assert_eq!(
        address_of(&tried, FRONTEND),
        format!("http://localhost:{}", of_frontend["PORT"])
    );
    assert_eq!(
        of_frontend["MIDDLEWARE_URL"],
        address_of(&tried, MIDDLEWARE)
    );
    let browsers = &of_frontend[public];
    assert!(browsers.starts_with("http://us.localhost"), "{browsers}");
    assert!(browsers.ends_with("/api"), "{browsers}");
    assert!(!of_frontend.contains_key("API_SECRET"));
    // Of the environment of the command, only variables of the system are there.
    assert!(!of_frontend.contains_key("CARGO_MANIFEST_DIR"));

    // A copy has the values of its original, and not those of the working tree now.
    let mut back = copy(&spec);
    let changed = SpecVariable::Secret("another value".to_owned().into());
    back.apps[0].variables.insert("API_SECRET".into(), changed);
    let tried = staged(&*target, &back).await;
    let middleware = variables(&address_of(&tried, MIDDLEWARE)).await;
    assert_eq!(middleware["API_SECRET"], SECRET);

    let mut unknown = copy(&spec);
    unknown.copy_of = Some(RecordId::new(RecordKind::Release, Timestamp::now()));
    let error = message(&target.stage(&unknown).await.unwrap_err());
    assert!(error.contains("are not on this machine"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_stored_by_version_and_win() {
    let shop = LocalStores::new();
    let local = shop.target();
    let of = |value: &str| Settings::from([("API_SECRET".to_owned(), value.to_owned().into())]);
    for _ in 0..2 {
        local
            .store_settings(&us(), "R1", &of("first value"))
            .await
            .unwrap();
    }
    let changed = local
        .store_settings(&us(), "R1", &of("changed value"))
        .await
        .unwrap_err();
    assert!(
        matches!(&changed, Error::SettingsExist { version, .. } if version == "R1"),
        "{changed}"
    );
    let stored = local.settings(&us(), "R1").await.unwrap().unwrap();
    let value = secrecy::ExposeSecret::expose_secret(&stored["API_SECRET"]);
    assert_eq!(value, "first value");
    assert!(local.settings(&us(), "R2").await.unwrap().is_none());
    let hostile = local.store_settings(&us(), "../../x", &of("x")).await;
    assert!(message(&hostile.unwrap_err()).contains("not a valid version"));
    let path = shop.folder().join("settings/us/R1.json");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let mut spec = with_secret(&shop, "one", SECRET);
    spec.settings = Some("R1".into());
    let tried = staged(&*local, &spec).await;
    let middleware = variables(&address_of(&tried, MIDDLEWARE)).await;
    assert_eq!(middleware["API_SECRET"], "first value");
    let mut missing = shop.release("two");
    missing.settings = Some("R2".into());
    let error = message(&local.stage(&missing).await.unwrap_err());
    assert!(
        error.contains("in the version `R2` are not on this machine"),
        "{error}"
    );
    let observed = local.observe(&us()).await.unwrap();
    assert_eq!(observed.staged.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_has_no_secrets_and_is_kept_per_release() {
    let stores = LocalStores::new();
    let target = stores.target();
    let spec = with_secret(&stores, "one", SECRET);
    released(&*target, &spec).await;
    let began = Instant::now();
    let line = loop {
        let (lines, mut received) = tokio::sync::mpsc::channel(100);
        let wanted = LogQuery {
            store: us(),
            release: None,
            app: Some(spec.apps[0].app.clone()),
            follow: false,
            since: None,
            lines,
        };
        target.logs(&wanted).await.unwrap();
        drop(wanted);
        if let Some(line) = received.recv().await {
            break line;
        }
        assert!(began.elapsed() < LONG);
    };
    assert_eq!(line.app.as_str(), MIDDLEWARE);
    assert_eq!(line.line, "started one with ***");
    for path in super::support::files(&stores.folder().join("logs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(SECRET), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ends_is_started_again_and_its_state_is_known() {
    let stores = LocalStores::new();
    let target = stores.target();
    let spec = stores.release("one");
    let live = released(&*target, &spec).await;
    let states = target.health(&us(), &spec.id).await.unwrap();
    assert!(states.iter().all(|it| it.running && it.restarts == 0));
    let address = &live.addresses[0];
    assert!(get(&format!("{address}/end")).await.is_err());
    assert_eq!(page(address).await, "one one");
    let states = target.health(&us(), &spec.id).await.unwrap();
    let frontend = states
        .iter()
        .find(|it| it.app.as_str() == FRONTEND)
        .unwrap();
    assert!(frontend.running);
    assert_eq!(frontend.restarts, 1);
    assert_eq!(frontend.ended.as_deref(), Some("exited with code 7"));
    assert!(
        frontend
            .tail
            .iter()
            .any(|line| line.starts_with("started one"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_maintenance_is_shown_while_releases_continue() {
    let stores = LocalStores::new();
    let target = stores.target();
    let live = released(&*target, &stores.release("one")).await;
    let address = &live.addresses[0];
    target
        .maintenance(&us(), Some("<h1>back soon</h1>"))
        .await
        .unwrap();
    let response = response(address).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(response.text().await.unwrap(), "<h1>back soon</h1>");
    let live = released(&*target, &stores.release("two")).await;
    assert!(live.maintenance);
    assert!(get(address).await.is_err());
    target.maintenance(&us(), None).await.unwrap();
    assert_eq!(page(address).await, "two two");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_needs_its_base_is_refused_before_the_switch() {
    let stores = LocalStores::new();
    let target = stores.target();
    let one = stores.release("one");
    let live = released(&*target, &one).await;
    let files = [("app/server.js", SERVER), ("app/version.txt", "two")];
    let run = json!({ "Cmd": ["npm", "start"], "WorkingDir": "/app" });
    let npm = stores.release_of(&files, &run);
    let error = message(&target.stage(&npm).await.unwrap_err());
    assert!(
        error.contains("its command `npm` is a program of the base image"),
        "{error}"
    );

    let run = json!({ "Cmd": ["node", "server.js"], "WorkingDir": "/app" });
    let (_, digest) = stores.image(&files, &run, "COPY . . # buildkit");
    let mut by_engine = stores.release("three");
    for app in &mut by_engine.apps {
        app.digest.clone_from(&digest);
    }
    let error = message(&target.stage(&by_engine).await.unwrap_err());
    assert!(error.contains("the Docker engine has built it"), "{error}");
    let observed = target.observe(&us()).await.unwrap();
    assert_eq!((observed.active, observed.staged.len()), (Some(one.id), 0));
    assert_eq!(page(&live.addresses[0]).await, "one one");
}

/// An entrypoint that becomes the server, which ends in order at SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn an_entrypoint_script_runs_before_the_app_and_passes_signals_on() {
    let stores = LocalStores::new();
    let target = stores.target();
    let ended = stores.project.path("ended");
    let at_end = format!(
        "process.on('SIGTERM', () => {{ fs.writeFileSync('{}', 'in order'); process.exit(0); }});",
        ended.display()
    );
    let server = format!("{SERVER}{at_end}");
    let files = [
        ("app/server.js", server.as_str()),
        ("app/version.txt", "one"),
        (
            "app/.alokai/entrypoint.sh",
            "echo prepared > prepared\nexec \"$@\"\n",
        ),
    ];
    let run: Value = json!({
        "Entrypoint": ["/bin/sh", "/app/.alokai/entrypoint.sh", "docker-entrypoint.sh"],
        "Cmd": ["node", "server.js"],
        "WorkingDir": "/app",
    });
    let spec = stores.release_of(&files, &run);
    let live = released(&*target, &spec).await;
    let unpacked = page(&format!("{}/folder", live.addresses[0])).await;
    let prepared = std::fs::read_to_string(format!("{unpacked}/prepared")).unwrap();
    assert_eq!(prepared, "prepared\n");
    released(&*target, &stores.release("two")).await;
    // Nobody waits for the end of the app.
    let began = Instant::now();
    while std::fs::read_to_string(&ended).unwrap_or_default() != "in order" {
        assert!(began.elapsed() < LONG, "the app has not ended in order");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_release_has_no_address_while_its_apps_still_end() {
    let stores = LocalStores::new();
    let target = stores.target();
    let server = format!("{SERVER}process.on('SIGTERM', () => {{}});");
    let files = [
        ("app/server.js", server.as_str()),
        ("app/version.txt", "one"),
    ];
    let run = json!({ "Cmd": ["node", "server.js"], "WorkingDir": "/app" });
    let one = stores.release_of(&files, &run);
    let replicas = staged(&*target, &one).await.replicas;
    released(&*target, &one).await;
    let two = released(&*target, &stores.release("two")).await;
    assert_eq!(get(&replicas[0].address).await, Ok("one".into()));
    assert_eq!((two.staged.len(), two.kept), (0, vec![one.id]));
    assert_eq!(page(&two.addresses[0]).await, "two two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_release_is_staged_again_from_its_folder() {
    let stores = LocalStores::new();
    let target = stores.target();
    let one = stores.release("one");
    let live = released(&*target, &one).await;
    let address = &live.addresses[0];
    let unpacked = page(&format!("{address}/folder")).await;
    released(&*target, &stores.release("two")).await;
    assert_ne!(page(&format!("{address}/folder")).await, unpacked);
    let back = copy(&one);
    released(&*target, &back).await;
    assert_eq!(page(&format!("{address}/folder")).await, unpacked);
    assert_eq!(page(address).await, "one one");
    let observed = target.observe(&us()).await.unwrap();
    // The folder belongs to the copy now.
    assert_eq!(observed.kept.len(), 1);
}
