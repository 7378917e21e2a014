//! Which hosts get credentials: passwords and tokens follow no redirect to another host, and are
//! not sent without TLS.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::deploy::unique;
use crate::support::{
    Before, Project, Recorder, Registry, RemoteCache, Socks, Turn, base_layout, git, registry,
    second_registry,
};

const DEPLOY: &str = "store deploy --store us";

/// A project whose images are made without the engine, which is fast.
fn project(registry: &Registry, console: &str, base: &str) -> Project {
    let project =
        Project::shop_named(&unique("outward")).setting("image", &json!({ "base": base }));
    project.commit();
    registry.used_by(project, console)
}

#[test]
fn a_console_that_redirects_is_followed_nowhere() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let elsewhere = Recorder::start();
    let mut project = project(&registry, "http://127.0.0.1:9", &base);
    for status in [301, 302, 303, 307, 308] {
        for host in [None, Some(elsewhere.address.clone())] {
            let console = Recorder::answering({
                let host = host.clone();
                move |method, _| {
                    if method != "PATCH" {
                        return (200, Vec::new(), String::new());
                    }
                    let host = host.as_ref().map(|host| format!("http://u:s3cret@{host}"));
                    let to = format!("{}/there?token=t0ken", host.unwrap_or_default());
                    (status, vec![("location", to)], String::new())
                }
            });
            project = project.env(
                "CLI_CONSOLE_API_URL",
                &format!("http://{}", console.address),
            );
            let run = project.alokai(&format!("{DEPLOY} --json")).fails_with(1);
            let to = host.as_ref().unwrap_or(&console.address);
            run.stderr_contains(&format!("it redirected ({status}) to `{to}/there`"));
            for secret in ["s3cret", "t0ken"] {
                run.stderr_lacks(secret);
            }
            let summary = run.stdout.lines().last().expect("a summary");
            let summary: serde_json::Value = serde_json::from_str(summary).expect("JSON");
            assert_eq!(summary["event"], "summary");
            assert_eq!(summary["deployed"], json!([]), "{summary}");
            // The console gets one request, at its own path.
            assert_eq!(console.count("PATCH /cloud/instances/"), 1);
            assert!(console.knows(&registry.password), "the request was made");
            assert!(!console.seen().iter().any(|text| text.contains("/there")));
        }
    }
    assert_eq!(elsewhere.seen(), Vec::<String>::new());
}

#[test]
fn plain_http_to_others_is_refused_before_anything_is_asked() {
    let Some(registry) = registry() else { return };
    let proxy = Recorder::start();
    let others = Project::shop()
        .env("HTTP_PROXY", &format!("http://{}", proxy.address))
        .env("CLI_CLOUD_USERNAME", &registry.user)
        .env("CLI_CLOUD_PASSWORD", &registry.password);
    let project = others
        .env(
            "CLI_DOCKER_REGISTRY_URL",
            "http://registry.example.com/team",
        )
        .env("CLI_CONSOLE_API_URL", "http://console.example.com");
    let run = project.alokai(DEPLOY).fails_with(2);
    run.stderr_contains("the registry `http://registry.example.com/team` uses plain HTTP");
    run.stderr_contains("the console `http://console.example.com` uses plain HTTP");
    run.stderr_contains("--allow-insecure");
    assert!(!project.exists(".out"), "nothing was composed or built");

    let until_push = format!("{DEPLOY} --until push");
    let run = project.alokai(&until_push).fails_with(2);
    run.stderr_lacks("console.example.com");

    // `registry.insecure` applies to the registry of the config only.
    let insecure = json!({ "url": "registry.other.example.com", "insecure": true });
    let project = project.setting("registry", &insecure);
    project.commit();
    project.alokai(&until_push).fails_with(2);
    assert_eq!(proxy.seen(), Vec::<String>::new());

    // The last value wins; the program reaches the console through the proxy.
    let project = project
        .env("CLI_DOCKER_REGISTRY_URL", &registry.address)
        .env("CLI_CONSOLE_API_URL", "http://console.example.com");
    let run = project.alokai(DEPLOY).fails_with(2);
    run.stderr_lacks("the registry `");
    assert_eq!(proxy.seen(), Vec::<String>::new());
}

#[test]
fn allow_insecure_permits_plain_http_to_other_hosts() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let proxy = Recorder::start();
    let project = project(&registry, "http://console.example.com", &base)
        .env("HTTP_PROXY", &format!("http://{}", proxy.address));
    let deploy = format!("{DEPLOY} --allow-insecure");
    project.alokai(&deploy).succeeds();
    let patch = "PATCH http://console.example.com/cloud/instances/";
    assert_eq!(proxy.count(patch), 1, "{:?}", proxy.seen());
}

/// The registry of the run is another host without TLS, which is reached through a proxy. The base
/// image is in the same registry, and its name has no scheme.
#[test]
fn an_insecure_registry_is_reached_through_proxies_and_gives_its_base() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let name = unique("base").to_string();
    registry.put_image(&base, &format!("{name}:1"), &[]);
    let door = Before::new(&registry.address, |_| Turn::Pass);
    let socks = Socks::to(&registry.address);
    for proxy in [
        ("HTTP_PROXY", format!("http://{}", door.address)),
        ("ALL_PROXY", format!("socks5h://{}", socks.address)),
    ] {
        let project = Project::shop_named(&unique("insecure"))
            .setting(
                "registry",
                &json!({ "url": "registry.example.com", "insecure": true }),
            )
            .setting(
                "image",
                &json!({ "base": format!("registry.example.com/{name}:1") }),
            );
        project.commit();
        let project = project
            .env("CLI_CLOUD_USERNAME", &registry.user)
            .env("CLI_CLOUD_PASSWORD", &registry.password)
            .env(proxy.0, &proxy.1);
        let until_push = format!("{DEPLOY} --until push");
        project.alokai(&until_push).succeeds();
    }
    let manifest = format!("/v2/{name}/manifests/1");
    assert!(door.count("GET", &manifest) > 0);
    assert!(door.count("PUT", "/manifests/") > 0);
    let names = socks.names();
    assert!(!names.is_empty());
    assert!(
        names.iter().all(|name| name == "registry.example.com"),
        "{names:?}"
    );
}

#[test]
fn a_missing_credential_helper_stops_no_anonymous_read() {
    let (Some(second), Some(base)) = (second_registry(), base_layout()) else {
        return;
    };
    let name = unique("helperless").to_string();
    let public = format!("{}/{name}:1", second.address);
    second.put_image(&base, &format!("{name}:1"), &[]);
    let project = Project::shop().setting("image", &json!({ "base": public }));
    project.commit();
    let docker = project.root().with_file_name("docker");
    std::fs::create_dir(&docker).unwrap();
    let config = json!({ "credsStore": "not-installed" }).to_string();
    std::fs::write(docker.join("config.json"), config).unwrap();
    let project = project
        .env("DOCKER_CONFIG", docker.to_str().unwrap())
        .env("CLI_DOCKER_REGISTRY_URL", "oci:images");
    let run = project.alokai(&format!("{DEPLOY} --until push")).succeeds();
    run.stderr_contains("`docker-credential-not-installed`");
    run.stderr_contains("the registry is used without credentials");
    // A helper that exists and fails is an error, since it may know a login.
    let helper = docker.join("docker-credential-not-installed");
    std::fs::write(&helper, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", docker.display(), std::env::var("PATH").unwrap());
    let project = project.env("PATH", &path);
    project
        .alokai(&format!("{DEPLOY} --until push --force"))
        .fails_with(3);
}

/// A project whose builds use this remote cache.
fn cached(project: Project, api: &str) -> Project {
    project
        .env("TURBO_API", api)
        .env("TURBO_TOKEN", RemoteCache::TOKEN)
        .env("TURBO_TEAM", "acme")
}

const BUILD: &str = "store build --store us";

#[test]
fn the_remote_cache_gets_no_token_over_plain_http() {
    let proxy = Recorder::start();
    let project = cached(Project::shop(), "http://cache.example.com")
        .env("HTTP_PROXY", &format!("http://{}", proxy.address));
    let run = project.alokai(BUILD).succeeds();
    run.stderr_contains("the remote cache is not used");
    assert_eq!(proxy.seen(), Vec::<String>::new());
    let run = project
        .alokai(&format!("{BUILD} --force --allow-insecure"))
        .succeeds();
    run.stderr_lacks("the remote cache is not used");
    assert!(proxy.knows(RemoteCache::TOKEN));
}

#[test]
fn the_remote_caches_token_follows_no_redirect() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Recorder::start();
        let to = elsewhere.address.clone();
        let cache = Recorder::answering(move |_, uri| {
            let to = format!("http://{to}{}?signature=s3cret", uri.path());
            (status, vec![("location", to)], String::new())
        });
        let project = cached(Project::shop(), &format!("http://{}", cache.address));
        let run = project.alokai(BUILD).succeeds();
        run.stderr_contains(&format!(
            "it redirects ({status}) to `{}/v8/artifacts/status`",
            elsewhere.address
        ));
        run.stderr_lacks("s3cret");
        assert!(cache.knows(RemoteCache::TOKEN));
        assert_eq!(elsewhere.seen(), Vec::<String>::new());
    }
}

#[test]
fn an_artifact_is_fetched_from_where_the_remote_cache_keeps_it_without_the_token() {
    let cache = RemoteCache::start(None);
    let origin = Project::shop();
    cached(Project::at(origin.root().to_owned()), &cache.address)
        .alokai(BUILD)
        .succeeds();
    // A storage with signed URLs, played by the server of the cache.
    let inside = cache
        .address
        .strip_prefix("http://")
        .expect("plain")
        .to_owned();
    let storage = Before::new(&inside, |_| {
        Turn::PassAs(format!("Bearer {}", RemoteCache::TOKEN))
    });
    let to = storage.address.clone();
    let front = Before::new(&inside, move |seen| {
        if seen.method == "GET" && !seen.target.contains("/status") {
            let to = format!("http://{to}{}", seen.target);
            return Turn::Answer(302, vec![("location", to)], String::new());
        }
        Turn::Pass
    });
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (origin.root().to_str().unwrap(), folder.path().join("clone"));
    git(
        folder.path(),
        &["clone", "--quiet", from, to.to_str().unwrap()],
    );
    let clone = cached(Project::at(to), &format!("http://{}", front.address));
    let run = clone.alokai(&format!("{BUILD} --json")).succeeds();
    let hits = run.stdout.matches(r#""cache":"hit""#).count();
    assert!(hits >= 2, "{}\n{}", run.stdout, run.stderr);
    let seen = storage.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
}
