//! What goes wrong on the way: a push ends right or says why not, and its tag never names less
//! than a whole image.

use std::sync::Mutex;
use std::time::Duration;

use alokai::registry::{Client, Error, Limits, Sent};

use super::{Image, PIECES, QUICK, World};
use crate::support::{Before, Resuming, Turn, cutting};

#[tokio::test]
async fn connections_that_are_cut_again_and_again_bring_a_push_to_its_end() {
    let Some(world) = World::new() else { return };
    for (kilobytes, limits) in [(300, QUICK), (64, PIECES), (40, PIECES)] {
        let image = Image::new(1_000_000);
        let address = cutting(&world.registry.address, kilobytes * 1000);
        let client = world.through(&address, limits);
        let pushed = image.push(&client, &world.repository).await;
        world.ends_right(&image, pushed).await;
    }
}

#[tokio::test]
async fn pieces_shrink_as_often_as_they_have_to() {
    let registry = Resuming::brittle();
    let limits = Limits {
        piece: 16 << 20,
        ..PIECES
    };
    let image = Image::new(3_000_000);
    let client = Client::with(&cutting(&registry.address, 30_000), None, limits).unwrap();
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    // Halves of halves, until one is below 30 kB: more than there are tries of one size.
    assert!(registry.sessions() > 2);
}

#[tokio::test]
async fn where_not_even_the_smallest_piece_gets_through_it_is_said() {
    let Some(world) = World::new() else { return };
    for kilobytes in [1, 7, 64] {
        let image = Image::new(500_000);
        let address = cutting(&world.registry.address, kilobytes * 1000);
        let client = world.through(&address, QUICK);
        let pushed = image.push(&client, &world.repository).await;
        let told = world.ends_clearly(&image, pushed).await;
        let told = told.expect("this registry ends an upload that breaks");
        assert!(
            told.contains(&address) && told.contains("cannot be reached"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn what_a_registry_has_of_a_broken_upload_is_not_sent_again() {
    for registry in [Resuming::start(), Resuming::forgetful()] {
        for kilobytes in [7, 64, 300] {
            for limits in [QUICK, PIECES] {
                let image = Image::new(400_000);
                let address = cutting(&registry.address, kilobytes * 1000);
                let client = Client::with(&address, None, limits).unwrap();
                let before = registry.sessions();
                let sent = image.put_layer(&client, "a").await.unwrap();
                assert_eq!(sent, Sent::Uploaded);
                assert!(registry.has(&image.layer.digest));
                assert_eq!(registry.sessions(), before + 1, "one session is enough");
            }
        }
    }
}

#[tokio::test]
async fn a_session_that_vanishes_is_begun_anew() {
    let Some(world) = World::new() else { return };
    for gone_after in [1, 2, 3] {
        // The first session is lost at its n-th request.
        let first = Mutex::new((None::<String>, 0));
        let proxy = Before::new(&world.registry.address, move |seen| {
            let Some((_, id)) = seen.target.split_once("/uploads/") else {
                return Turn::Pass;
            };
            let id = id.split('?').next().unwrap_or_default().to_owned();
            if id.is_empty() {
                return Turn::Pass;
            }
            let mut first = first.lock().unwrap();
            if *first.0.get_or_insert(id.clone()) != id {
                return Turn::Pass;
            }
            first.1 += 1;
            if first.1 < gone_after {
                return Turn::Pass;
            }
            Turn::error(404, "BLOB_UPLOAD_UNKNOWN")
        });
        let image = Image::new(700_000);
        let client = world.through(&proxy.address, PIECES);
        let pushed = image.push(&client, &world.repository).await;
        world.ends_right(&image, pushed).await;
    }
}

#[tokio::test]
async fn a_registry_that_loses_every_session_is_not_sent_to_forever() {
    let Some(world) = World::new() else { return };
    let proxy = Before::new(&world.registry.address, |seen| {
        if seen.is("PUT", "/uploads/") {
            return Turn::error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        Turn::Pass
    });
    let image = Image::new(300_000);
    let client = world.through(&proxy.address, PIECES);
    let pushed = image.push(&client, &world.repository).await;
    let told = world.ends_clearly(&image, pushed).await.expect("it failed");
    assert!(told.contains("it has lost the upload"), "{told}");
}

#[tokio::test]
async fn every_third_request_may_fail() {
    let Some(world) = World::new() else { return };
    for status in [429, 502, 500] {
        let proxy = Before::new(&world.registry.address, move |seen| {
            if seen.number % 3 == 2 {
                return Turn::error(status, "TOOMANYREQUESTS");
            }
            Turn::Pass
        });
        let image = Image::new(600_000);
        let client = world.through(&proxy.address, PIECES);
        let pushed = image.push(&client, &world.repository).await;
        world.ends_right(&image, pushed).await;
    }
}

#[tokio::test]
async fn a_registry_that_asks_to_wait_is_asked_again() {
    let Some(world) = World::new() else { return };
    let proxy = Before::new(&world.registry.address, |seen| {
        if seen.is("HEAD", "") && seen.number < 2 {
            let fields = vec![("retry-after", "1".to_owned())];
            return Turn::Answer(429, fields, String::new());
        }
        Turn::Pass
    });
    let image = Image::new(1000);
    let client = world.through(&proxy.address, QUICK);
    let pushed = image.push(&client, &world.repository).await;
    world.ends_right(&image, pushed).await;
}

#[tokio::test]
async fn what_always_fails_is_told_in_the_registrys_words() {
    let Some(world) = World::new() else { return };
    let password = world.registry.password.clone();
    for (method, part, status, words) in [
        ("POST", "/uploads/", 500, "failed for"),
        ("PATCH", "/uploads/", 503, "failed for"),
        ("PUT", "/uploads/", 403, "refuses `alokai` to push"),
        ("PUT", "/manifests/", 400, "pushing"),
        ("PUT", "/manifests/", 404, "does not know"),
        ("PUT", "/manifests/", 413, "too large"),
        ("HEAD", "/blobs/", 401, "does not accept the credentials"),
    ] {
        let said = format!("no {password} here, but dust");
        let proxy = Before::new(&world.registry.address, move |seen| {
            if seen.is(method, part) {
                let body = serde_json::json!({ "errors": [{ "message": said }] });
                return Turn::Answer(status, Vec::new(), body.to_string());
            }
            Turn::Pass
        });
        let client = world.through(&proxy.address, PIECES);
        let image = Image::new(300_000);
        let pushed = image.push(&client, &world.repository).await;
        let told = world.ends_clearly(&image, pushed).await.expect("it failed");
        assert!(told.contains(words), "{method} {status}: {told}");
        let has_word = method == "HEAD" || told.contains("no *** here, but dust");
        assert!(has_word, "{told}");
        assert!(!image.is_whole(&world.direct(), &world.repository).await);
    }
}

#[tokio::test]
async fn what_is_too_large_for_a_proxy_goes_in_smaller_pieces() {
    let Some(world) = World::new() else { return };
    let limited = |limit: u64| {
        Before::new(&world.registry.address, move |seen| {
            if seen.length.is_some_and(|length| length > limit) {
                return Turn::Answer(413, Vec::new(), "<html>nginx</html>".into());
            }
            Turn::Pass
        })
    };
    let image = Image::new(1_000_000);
    let client = world.through(&limited(100_000).address, QUICK);
    let pushed = image.push(&client, &world.repository).await;
    world.ends_right(&image, pushed).await;
    let image = Image::new(1_000_000);
    let client = world.through(&limited(1000).address, QUICK);
    let pushed = image.push(&client, &world.repository).await;
    assert!(matches!(pushed, Err(Error::TooLarge { .. })), "{pushed:?}");
}

#[tokio::test]
async fn a_registry_that_takes_no_pieces_gets_it_whole() {
    let Some(world) = World::new() else { return };
    for status in [400, 405, 501] {
        let proxy = Before::new(&world.registry.address, move |seen| {
            if seen.method == "PATCH" {
                return Turn::error(status, "UNSUPPORTED");
            }
            Turn::Pass
        });
        let image = Image::new(700_000);
        let client = world.through(&proxy.address, PIECES);
        let pushed = image.push(&client, &world.repository).await;
        world.ends_right(&image, pushed).await;
        assert_eq!(proxy.count("PATCH", ""), 1);
    }
}

#[tokio::test]
async fn a_registry_that_says_it_took_something_else_is_not_believed() {
    let Some(world) = World::new() else { return };
    let image = Image::new(1000);
    for (method, part) in [("PUT", "/uploads/"), ("PUT", "/manifests/")] {
        let proxy = Before::new(&world.registry.address, move |seen| {
            if seen.is(method, part) {
                let other = format!("sha256:{}", "0".repeat(64));
                return Turn::Lie("docker-content-digest", other);
            }
            Turn::Pass
        });
        let client = world.through(&proxy.address, QUICK);
        let pushed = image.push(&client, &world.repository).await;
        let told = world.ends_clearly(&image, pushed).await.expect("it failed");
        assert!(told.contains("is not what was asked for"), "{told}");
    }
}

#[tokio::test]
async fn a_blob_whose_answer_was_lost_is_not_sent_twice() {
    let Some(world) = World::new() else { return };
    // The registry does its work, and a proxy says that it did not.
    let registry = world.registry.address.clone();
    let inner = Before::new(&registry, |_| Turn::Pass);
    let address = inner.address.clone();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let image = Image::new(50_000);
    let layer = std::fs::read(image.path()).unwrap();
    let (handle, login) = (tokio::runtime::Handle::current(), world.registry.clone());
    let proxy = Before::new(&address, move |seen| {
        if seen.is("PUT", "/uploads/") {
            let url = format!("http://{registry}{}", seen.target);
            let put = client.put(url).body(layer.clone());
            let put = put.basic_auth(&login.user, Some(&login.password));
            let (sender, receiver) = std::sync::mpsc::channel();
            handle.spawn(async move { sender.send(put.send().await.unwrap().status()) });
            assert_eq!(receiver.recv().unwrap(), 201);
            return Turn::Answer(502, Vec::new(), String::new());
        }
        Turn::Pass
    });
    let client = world.through(&proxy.address, QUICK);
    image.put_layer(&client, &world.repository).await.unwrap();
    assert_eq!(proxy.count("PUT", "/uploads/"), 1);
    assert_eq!(proxy.count("POST", "/uploads/"), 1);
}

#[tokio::test]
async fn a_piece_that_the_registry_wants_elsewhere_is_sent_there() {
    let registry = Resuming::start();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    let proxy = Before::new(&registry.address, move |seen| {
        let is_second = seen.method == "PATCH"
            && refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1;
        if is_second {
            return Turn::error(416, "BLOB_UPLOAD_INVALID");
        }
        Turn::Pass
    });
    let image = Image::new(700_000);
    let client = Client::with(&proxy.address, None, PIECES).unwrap();
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    assert_eq!(registry.sessions(), 1);
    assert_eq!(proxy.count("PATCH", ""), 4);
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_given_up() {
    let silent = Before::new("127.0.0.1:9", |_| {
        loop {
            std::thread::park();
        }
    });
    let limits = Limits {
        silence: Duration::from_millis(50),
        retries: 1,
        ..QUICK
    };
    let client = Client::with(&silent.address, None, limits).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("nothing moves"), "{error}");
}

#[tokio::test]
async fn an_upload_that_leads_to_another_host_goes_there_without_credentials() {
    let Some(world) = World::new() else { return };
    let storage = Resuming::start();
    let elsewhere = Before::new(&storage.address, |_| Turn::Pass);
    let address = elsewhere.address.clone();
    let inside = storage.address.clone();
    let proxy = Before::new(&world.registry.address, move |seen| {
        if seen.is("POST", "/uploads/") {
            return Turn::Lie(
                "location",
                format!("http://{address}/v2/a/blobs/uploads/session-0"),
            );
        }
        Turn::Pass
    });
    let opened = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{inside}/v2/a/blobs/uploads/");
    opened.post(url).send().await.unwrap();
    let image = Image::new(700_000);
    let client = world.through(&proxy.address, PIECES);
    image.put_layer(&client, &world.repository).await.unwrap();
    assert!(storage.has(&image.layer.digest));
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 4, "three pieces and the end");
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
    assert!(proxy.seen().iter().any(|seen| seen.authorization.is_some()));
}
