//! Logins: passwords, tokens that expire, Docker's config, and secrets that never appear in errors.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci_distribution::{BlobSource, Error, Login, Logins, PutBlob, Trust};
use serde_json::{Value, json};

use super::{CHUNKS, Image, QUICK, World};
use crate::support::{Before, Recorder, Seen, Turn};

/// A token server, and a proxy in front of the registry that requires a token for the requested
/// scope. Each token is valid for this many requests.
fn with_tokens(world: &World, uses: usize) -> Before {
    let registry = &world.registry;
    let basic = |user: &str, password: &str| {
        format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
    };
    let inside = basic(&registry.user, &registry.password);
    let known = inside.clone();
    // For each token: its scopes, and the number of requests that are left.
    let tokens = Mutex::new(HashMap::<String, (Vec<String>, usize)>::new());
    Before::new(&registry.address, move |seen| {
        let mut tokens = tokens.lock().unwrap();
        if seen.target.starts_with("/token") {
            let is_known = seen.authorization.as_deref() == Some(&known)
                || seen.form.contains("refresh_token=an+identity");
            let is_wrong = seen.authorization.is_some() || seen.method == "POST";
            if is_wrong && !is_known {
                return Turn::error(401, "UNAUTHORIZED");
            }
            let query = format!("{}&{}", seen.target, seen.form);
            let query = query
                .replace("%3A", ":")
                .replace("%2F", "/")
                .replace("%2C", ",");
            let scopes = query.split(['?', '&']);
            let scopes = scopes.filter_map(|part| part.strip_prefix("scope="));
            let scopes = scopes.flat_map(|list| list.split('+')).map(str::to_owned);
            // Anonymous clients may read.
            let scopes = scopes.map(|scope| {
                if is_known {
                    scope
                } else {
                    scope.replace("push", "nothing")
                }
            });
            let token = format!("token-{}", tokens.len());
            tokens.insert(token.clone(), (scopes.collect(), uses));
            let body = if tokens.len().is_multiple_of(2) {
                json!({ "token": token, "expires_in": "3600" })
            } else {
                json!({ "token": null, "access_token": token, "expires_in": 3600.5 })
            };
            return Turn::Answer(200, Vec::new(), body.to_string());
        }
        let needed = needed(seen);
        let bearer = seen
            .authorization
            .as_deref()
            .and_then(|value| value.strip_prefix("Bearer "));
        if let Some((scopes, left)) = bearer.and_then(|token| tokens.get_mut(token)) {
            let covers = |(repository, action): &(String, &str)| {
                scopes.iter().any(|scope| {
                    let rest = scope.strip_prefix(&format!("repository:{repository}:"));
                    rest.is_some_and(|actions| actions.split(',').any(|other| other == *action))
                })
            };
            if *left > 0 && needed.iter().all(covers) {
                *left -= 1;
                return Turn::PassAs(inside.clone());
            }
        }
        let scope = needed
            .first()
            .map(|(repository, action)| format!(",scope=\"repository:{repository}:{action}\""));
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"test\"{}",
            seen.host,
            scope.unwrap_or_default()
        );
        let body = json!({ "errors": [{ "message": format!("not with {bearer:?}") }] });
        Turn::Answer(401, vec![("www-authenticate", challenge)], body.to_string())
    })
}

/// The scope that a request needs.
fn needed(seen: &Seen) -> Vec<(String, &'static str)> {
    let path = seen.target.strip_prefix("/v2/").unwrap_or_default();
    let Some((repository, _)) = path
        .split_once("/blobs/")
        .or(path.split_once("/manifests/"))
    else {
        return Vec::new();
    };
    let is_reading = ["GET", "HEAD"].contains(&seen.method.as_str());
    let mut needed = vec![(
        repository.to_owned(),
        if is_reading { "pull" } else { "push" },
    )];
    if let Some((_, from)) = seen.target.split_once("from=") {
        needed.push((from.replace("%2F", "/"), "pull"));
    }
    needed
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    let Some(world) = World::new() else { return };
    for uses in [1, 2, 3, 1000] {
        let door = with_tokens(&world, uses);
        let client = world.through(&door.address, CHUNKS);
        client.check().await.unwrap();
        let image = Image::new(600_000);
        let pushed = image.push(&client, &world.repository).await;
        world.ends_right(&image, pushed).await;
        assert!(image.is_whole(&client, &world.repository).await);
        let tokens = door
            .seen()
            .iter()
            .filter(|seen| seen.target.starts_with("/token"))
            .count();
        assert!(uses < 1000 || tokens <= 3, "{tokens}: login, push, pull");
    }
}

#[tokio::test]
async fn many_tasks_share_one_token() {
    let Some(world) = World::new() else { return };
    let door = with_tokens(&world, 1000);
    let client = world.through(&door.address, QUICK);
    client.check().await.unwrap();
    let before = door.count("GET", "/token");
    let image = Image::new(10);
    let head = || client.head_manifest(&world.repository, "tag");
    let _ = futures_util::future::join_all((0..10).map(|_| head())).await;
    drop(image);
    assert_eq!(door.count("GET", "/token"), before + 1);
}

#[tokio::test]
async fn a_token_for_a_mount_lets_read_where_it_mounts_from() {
    let Some(world) = World::new() else { return };
    let door = with_tokens(&world, 1000);
    let client = world.through(&door.address, QUICK);
    let image = Image::new(1000);
    let path = image.path();
    for (name, expected) in [("one", PutBlob::Uploaded), ("two", PutBlob::Mounted)] {
        let repository = format!("{}/{name}", world.repository);
        let put = client.put_blob(&repository, &image.layer, BlobSource::File(&path), None);
        assert_eq!(put.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn anonymous_clients_read_public_images() {
    let Some(world) = World::new() else { return };
    let image = Image::new(1000);
    image
        .push(&world.direct(), &world.repository)
        .await
        .unwrap();
    let door = with_tokens(&world, 1000);
    let client = super::client(&door.address, None, QUICK).unwrap();
    assert!(image.is_whole(&client, &world.repository).await);
    let another = Image::new(1000);
    let error = another
        .put_layer(&client, &world.repository)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(!error.to_string().contains("token-"), "{error}");
}

#[tokio::test]
async fn an_identity_token_is_changed_into_tokens() {
    let Some(world) = World::new() else { return };
    let door = with_tokens(&world, 2);
    let login = Login::with_identity_token("an identity".into());
    assert!(!format!("{login:?}").contains("an identity\""));
    let client = super::client(&door.address, Some(login), QUICK).unwrap();
    let image = Image::new(1000);
    let pushed = image.push(&client, &world.repository).await;
    world.ends_right(&image, pushed).await;
    assert!(door.count("POST", "/token") > 0);
    assert_eq!(door.count("GET", "/token"), 0);
}

/// A registry with this token server.
fn with_realm(realm: String) -> Before {
    Before::new("127.0.0.1:9", move |_| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"test\"");
        Turn::Answer(401, vec![("www-authenticate", challenge)], String::new())
    })
}

#[tokio::test]
async fn a_token_server_gets_no_password_over_plain_http_to_another_machine() {
    let login = || Some(Login::password("somebody".into(), "s3cret".into()));
    let registry = with_realm("http://auth.example.com/token?x=hidden".into());
    let client = super::client(&registry.address, login(), QUICK).unwrap();
    let told = client.check().await.unwrap_err().to_string();
    assert!(
        told.contains("token server `auth.example.com/token`") && !told.contains("hidden"),
        "{told}"
    );
    // With `allow_insecure` the request is made and fails because the host does not exist.
    let trust = Trust {
        allow_insecure: true,
        ..Trust::default()
    };
    let client = super::trusting(&registry.address, login(), &trust).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_token_server_that_redirects_is_followed_nowhere() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Recorder::start();
        let to = format!("http://{}/token?hidden=1", elsewhere.address);
        let server = Recorder::answering(move |_, _| {
            let location = vec![("location", to.clone())];
            (status, location, String::new())
        });
        let registry = with_realm(format!("http://{}/token", server.address));
        for login in [
            Login::password("somebody".into(), "s3cret".into()),
            Login::with_identity_token("an identity".into()),
        ] {
            let client = super::client(&registry.address, Some(login), QUICK).unwrap();
            let told = client.check().await.unwrap_err().to_string();
            let place = format!("redirects to `{}/token`", elsewhere.address);
            assert!(told.contains(&place) && !told.contains("hidden"), "{told}");
        }
        assert_eq!(server.seen().len(), 2, "both scopes are requested");
        assert_eq!(elsewhere.seen(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let Some(world) = World::new() else { return };
    let door = with_tokens(&world, 1000);
    for address in [&door.address, &world.registry.address] {
        let login = Login::password("somebody".into(), "wr0ng-secret".into());
        let client = super::client(address, Some(login), QUICK).unwrap();
        assert!(!format!("{client:?}").contains("wr0ng"));
        let error = client.check().await.unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, Error::Unauthorized { .. }), "{told}");
        assert!(
            told.contains("`somebody`") && !told.contains("wr0ng"),
            "{told}"
        );
    }
}

fn config(folder: &Path, document: &Value) -> Logins {
    let path = folder.join("config.json");
    std::fs::write(&path, document.to_string()).unwrap();
    Logins::new(None, Some(path))
}

#[tokio::test]
async fn dockers_config_has_the_logins_of_other_registries() {
    let Some(world) = World::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let address = &world.registry.address;
    let (user, password) = (&world.registry.user, &world.registry.password);
    let auth = BASE64.encode(format!("{user}:{password}"));
    for auths in [
        json!({ address: { "auth": auth } }),
        json!({ format!("http://{address}/v1/"): { "auth": auth } }),
        json!({ address: { "username": user, "password": password } }),
    ] {
        let logins = config(folder.path(), &json!({ "auths": auths }));
        let login = logins.for_host(address).await.unwrap();
        let client = super::client(address, login, QUICK).unwrap();
        client.check().await.unwrap();
        assert!(
            logins
                .for_host("another.example.com")
                .await
                .unwrap()
                .is_none()
        );
    }
    let logins = config(
        folder.path(),
        &json!({ "auths": { address: { "auth": "c2VjcmV0" } } }),
    );
    let told = logins.for_host(address).await.unwrap_err().to_string();
    assert!(
        told.contains("is not a valid base64 value") && !told.contains("c2VjcmV0"),
        "{told}"
    );
    let logins = Logins::new(None, Some(folder.path().join("nowhere/config.json")));
    assert!(logins.for_host(address).await.unwrap().is_none());
    std::fs::write(folder.path().join("config.json"), "{\"auths\": \"secret").unwrap();
    let logins = Logins::new(None, Some(folder.path().join("config.json")));
    let told = logins.for_host(address).await.unwrap_err().to_string();
    assert!(!told.contains("secret"), "{told}");
}

/// Helpers are found on the `PATH`, which a test can set only for a child process. So the test runs
/// itself again.
#[tokio::test]
async fn a_credential_helper_is_asked_and_never_quoted() {
    const INNER: &str = "ALOKAI_TEST_HELPERS";
    if let Some(folder) = std::env::var_os(INNER) {
        return with_helpers(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in [
        // A helper that returns its input as the user name.
        (
            "good",
            r#"read -r host; printf '{"ServerURL":"%s","Username":"%s","Secret":"s3cret"}' "$host" "$host""#,
        ),
        (
            "token",
            r#"printf '{"Username":"<token>","Secret":"s3cret"}'"#,
        ),
        (
            "none",
            "echo 'credentials not found in native keychain'; exit 1",
        ),
        (
            "bad",
            "echo s3cret; echo 'the keychain is locked' >&2; exit 3",
        ),
        ("odd", "echo s3cret"),
    ] {
        let path = folder.path().join(format!("docker-credential-{name}"));
        std::fs::write(
            &path,
            format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\n{script}\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let name = "distribution::logins::a_credential_helper_is_asked_and_never_quoted";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env(INNER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

async fn with_helpers(folder: &Path) {
    let kept = json!({ "username": "kept", "password": "s3cret" });
    let auths = json!({ "none.example.com": kept, "lost.example.com": kept });
    let logins = config(
        folder,
        &json!({
            "auths": auths,
            "credsStore": "good",
            "credHelpers": {
                "token.example.com": "token",
                "none.example.com": "none",
                "nobody.example.com": "none",
                "bad.example.com": "bad",
                "odd.example.com": "odd",
                "missing.example.com": "missing",
                "lost.example.com": "missing",
                "path.example.com": "../good",
            },
        }),
    );
    for (host, expected) in [
        ("quay.io", Some("Login(quay.io)")),
        ("docker.io", Some("Login(https://index.docker.io/v1/)")),
        ("token.example.com", Some("Login(an identity token)")),
        ("none.example.com", Some("Login(kept)")),
        ("lost.example.com", Some("Login(kept)")),
        ("nobody.example.com", None),
    ] {
        let login = logins.for_host(host).await.unwrap();
        let login = login.map(|login| format!("{login:?}"));
        assert_eq!(login.as_deref(), expected, "{host}");
    }
    for (host, words) in [
        ("bad.example.com", "the keychain is locked"),
        ("odd.example.com", "is not valid JSON"),
        ("missing.example.com", "is not on the `PATH`"),
        ("path.example.com", "a path"),
    ] {
        let told = logins.for_host(host).await.unwrap_err().to_string();
        assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn the_own_registry_has_its_own_credentials() {
    let Some(world) = World::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let address = &world.registry.address;
    std::fs::write(&path, json!({ "credsStore": "missing" }).to_string()).unwrap();
    let (user, password) = (&world.registry.user, &world.registry.password);
    let own = oci_distribution::Credentials::new(user.clone(), password.clone());
    let logins = Logins::new(Some((address, std::sync::Arc::new(own))), Some(path));
    let login = logins
        .for_host(&format!("http://{address}/v2/"))
        .await
        .unwrap();
    let client = super::client(address, login, QUICK).unwrap();
    client.check().await.unwrap();
}
