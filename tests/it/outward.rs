//! What leaves the machine, and to whom: passwords and tokens go where they belong, and nowhere
//! that a redirect or an address without TLS would take them.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::deploy::unique;
use crate::support::{
    Before, Project, Recorder, Registry, RemoteCache, Run, Socks, Turn, base_layout, git, registry,
    second_registry,
};

const DEPLOY: [&str; 4] = ["store", "deploy", "--store", "us"];

/// A project whose images this program makes, so that it costs little.
fn project(registry: &Registry, console: &str, base: &str) -> Project {
    let project =
        Project::shop_named(&unique("outward")).setting("image", &json!({ "base": base }));
    project.commit();
    registry.used_by(project, console)
}

fn says(run: &Run, words: &str) {
    assert!(run.stderr.contains(words), "no `{words}`:\n{}", run.stderr);
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
            let run = project
                .alokai(&[&DEPLOY[..], &["--json"]].concat())
                .fails_with(1);
            let to = host.as_ref().unwrap_or(&console.address);
            says(&run, &format!("it redirects ({status}) to `{to}/there`"));
            for secret in ["s3cret", "t0ken"] {
                assert!(!run.stderr.contains(secret), "{}", run.stderr);
            }
            let summary = run.stdout.lines().last().expect("a summary");
            let summary: serde_json::Value = serde_json::from_str(summary).expect("JSON");
            assert_eq!(summary["event"], "summary");
            assert_eq!(summary["deployed"], json!([]), "{summary}");
            // It was asked itself, once, and at no other path.
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
    let run = project.alokai(&DEPLOY).fails_with(2);
    says(
        &run,
        "the registry `http://registry.example.com/team` uses plain HTTP",
    );
    says(
        &run,
        "the console `http://console.example.com` uses plain HTTP",
    );
    says(&run, "--allow-insecure");
    assert!(!project.exists(".out"), "nothing was composed or built");

    let until_push = [&DEPLOY[..], &["--until", "push"]].concat();
    let run = project.alokai(&until_push).fails_with(2);
    assert!(
        !run.stderr.contains("console.example.com"),
        "{}",
        run.stderr
    );

    // What the config says of its own registry holds for no other one.
    let insecure = json!({ "url": "registry.other.example.com", "insecure": true });
    let project = project.setting("registry", &insecure);
    project.commit();
    project.alokai(&until_push).fails_with(2);
    assert_eq!(proxy.seen(), Vec::<String>::new());

    // The last one wins; the program finds the console through its proxy.
    let project = project
        .env("CLI_DOCKER_REGISTRY_URL", &registry.address)
        .env("CLI_CONSOLE_API_URL", "http://console.example.com");
    let run = project.alokai(&DEPLOY).fails_with(2);
    assert!(!run.stderr.contains("the registry `"), "{}", run.stderr);
    assert_eq!(proxy.seen(), Vec::<String>::new());
}

#[test]
fn who_allows_it_speaks_plain_http_to_others() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let proxy = Recorder::start();
    let project = project(&registry, "http://console.example.com", &base)
        .env("HTTP_PROXY", &format!("http://{}", proxy.address));
    let deploy = [&DEPLOY[..], &["--allow-insecure"]].concat();
    project.alokai(&deploy).succeeds();
    let patch = "PATCH http://console.example.com/cloud/instances/";
    assert_eq!(proxy.count(patch), 1, "{:?}", proxy.seen());
}

/// The run's own registry is another machine without TLS, reached through a proxy; the base image
/// lies in it too, under a name that has no scheme.
#[test]
fn an_insecure_registry_is_reached_through_proxies_and_gives_its_base() {
    let (Some(registry), Some(base)) = (registry(), base_layout()) else {
        return;
    };
    let name = unique("base").to_string();
    let to = format!("docker://{}/{name}:1", registry.address);
    let copy = ["copy", "--dest-tls-verify=false", &base, &to];
    assert!(registry.skopeo(&copy).is_some());
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
        let until_push = [&DEPLOY[..], &["--until", "push"]].concat();
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
    let to = format!("docker://{public}");
    assert!(
        second
            .skopeo(&["copy", "--dest-tls-verify=false", &base, &to])
            .is_some()
    );
    let project = Project::shop().setting("image", &json!({ "base": public }));
    project.commit();
    let docker = project.root().with_file_name("docker");
    std::fs::create_dir(&docker).unwrap();
    let config = json!({ "credsStore": "not-installed" }).to_string();
    std::fs::write(docker.join("config.json"), config).unwrap();
    let project = project
        .env("DOCKER_CONFIG", docker.to_str().unwrap())
        .env("CLI_DOCKER_REGISTRY_URL", "oci:images");
    let run = project
        .alokai(&[&DEPLOY[..], &["--until", "push"]].concat())
        .succeeds();
    says(&run, "`docker-credential-not-installed`");
    says(&run, "the registry is asked without credentials");
    // One that is there and fails is another matter: it may know a login.
    let helper = docker.join("docker-credential-not-installed");
    std::fs::write(&helper, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", docker.display(), std::env::var("PATH").unwrap());
    let project = project.env("PATH", &path);
    project
        .alokai(&[&DEPLOY[..], &["--until", "push", "--force"]].concat())
        .fails_with(3);
}

/// A build that looks for its results in this remote cache.
fn cached(project: Project, api: &str) -> Project {
    project
        .env("TURBO_API", api)
        .env("TURBO_TOKEN", RemoteCache::TOKEN)
        .env("TURBO_TEAM", "acme")
}

const BUILD: [&str; 4] = ["store", "build", "--store", "us"];

#[test]
fn the_remote_cache_gets_no_token_over_plain_http() {
    let proxy = Recorder::start();
    let project = cached(Project::shop(), "http://cache.example.com")
        .env("HTTP_PROXY", &format!("http://{}", proxy.address));
    let run = project.alokai(&BUILD).succeeds();
    says(&run, "the remote cache is not used");
    assert_eq!(proxy.seen(), Vec::<String>::new());
    let run = project
        .alokai(&[&BUILD[..], &["--force", "--allow-insecure"]].concat())
        .succeeds();
    assert!(
        !run.stderr.contains("the remote cache is not used"),
        "{}",
        run.stderr
    );
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
        let run = project.alokai(&BUILD).succeeds();
        says(
            &run,
            &format!(
                "it redirects ({status}) to `{}/v8/artifacts/status`",
                elsewhere.address
            ),
        );
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
        assert!(cache.knows(RemoteCache::TOKEN));
        assert_eq!(elsewhere.seen(), Vec::<String>::new());
    }
}

#[test]
fn an_artifact_is_fetched_from_where_the_remote_cache_keeps_it_without_the_token() {
    let cache = RemoteCache::start(None);
    let origin = Project::shop();
    cached(Project::at(origin.root().to_owned()), &cache.address)
        .alokai(&BUILD)
        .succeeds();
    // A storage with signed URLs; the cache's own server stands for one.
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
    let run = clone.alokai(&[&BUILD[..], &["--json"]].concat()).succeeds();
    let hits = run.stdout.matches(r#""cache":"hit""#).count();
    assert!(hits >= 2, "{}\n{}", run.stdout, run.stderr);
    let seen = storage.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
}
