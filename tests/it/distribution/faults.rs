//! Faults of the network and of registries: a push succeeds or says why not, and its tag never
//! names a part of an image.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oci::Digest;
use oci_distribution::{Error, PutBlob, RetryPolicy, TransferLimits};

use super::{CHUNKS, Image, QUICK, World};
use crate::support::{Before, Random, Resuming, Turn, cutting, http_client};

#[tokio::test]
async fn a_push_succeeds_although_connections_break_repeatedly() {
    let Some(world) = World::new() else { return };
    for (kilobytes, limits) in [(300, QUICK), (64, CHUNKS), (40, CHUNKS)] {
        let address = cutting(&world.registry.address, kilobytes * 1000);
        let pushed = world.push(&address, limits, 1_000_000).await;
        pushed.ends_right().await;
    }
}

#[tokio::test]
async fn pieces_shrink_as_often_as_they_have_to() {
    let registry = Resuming::brittle();
    let limits = TransferLimits {
        chunk: 16 << 20,
        ..CHUNKS
    };
    let image = Image::new(3_000_000);
    let client = super::client(&cutting(&registry.address, 30_000), None, limits).unwrap();
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    // Pieces are halved until one is below 30 kB, more often than the number of tries for one size.
    assert!(registry.sessions() > 2);
}

#[tokio::test]
async fn a_connection_that_passes_no_piece_at_all_is_an_error() {
    let Some(world) = World::new() else { return };
    for kilobytes in [1, 7, 64] {
        let address = cutting(&world.registry.address, kilobytes * 1000);
        let pushed = world.push(&address, QUICK, 500_000).await;
        let told = pushed.fails_clearly().await;
        assert!(
            told.contains(&address) && told.contains("cannot be reached"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn bytes_that_a_registry_kept_of_a_broken_upload_are_not_sent_again() {
    for registry in [Resuming::start(), Resuming::forgetful()] {
        for kilobytes in [7, 64, 300] {
            for limits in [QUICK, CHUNKS] {
                // The registry needs time to store what came before the break.
                let pause = Duration::from_millis(20);
                let retry = RetryPolicy {
                    pause,
                    ..limits.retry
                };
                let limits = TransferLimits { retry, ..limits };
                let image = Image::new(400_000);
                let address = cutting(&registry.address, kilobytes * 1000);
                let client = super::client(&address, None, limits).unwrap();
                let before = registry.sessions();
                let sent = image.put_layer(&client, "a").await.unwrap();
                assert_eq!(sent, PutBlob::Uploaded);
                assert!(registry.has(&image.layer.digest));
                // Two sessions with the whole blob, and one that continued after the break.
                assert!(registry.sessions() <= before + 3);
            }
        }
    }
}

#[tokio::test]
async fn a_session_that_vanishes_is_begun_anew() {
    let Some(world) = World::new() else { return };
    for gone_after in [1, 2, 3] {
        // The registry loses the first session at its n-th request.
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
        let pushed = world.push(&proxy.address, CHUNKS, 700_000).await;
        pushed.ends_right().await;
    }
}

#[tokio::test]
async fn a_registry_that_loses_every_session_ends_in_an_error() {
    let Some(world) = World::new() else { return };
    let proxy = Before::when(
        &world.registry.address,
        |seen| seen.is("PUT", "/uploads/"),
        || Turn::error(404, "BLOB_UPLOAD_UNKNOWN"),
    );
    let pushed = world.push(&proxy.address, CHUNKS, 300_000).await;
    let told = pushed.fails_clearly().await;
    assert!(
        told.contains("the upload session no longer exists"),
        "{told}"
    );
}

#[tokio::test]
async fn a_third_of_all_requests_may_fail() {
    let Some(world) = World::new() else { return };
    for status in [429, 502, 500] {
        let proxy = Before::when(
            &world.registry.address,
            // A random third: with every third request, a retry fails always, since it takes three
            // requests.
            move |seen| Random::new(seen.number as u64).below(3) == 0,
            move || Turn::error(status, "TOOMANYREQUESTS"),
        );
        let pushed = world.push(&proxy.address, CHUNKS, 600_000).await;
        pushed.ends_right().await;
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
    let pushed = world.push(&proxy.address, QUICK, 1000).await;
    pushed.ends_right().await;
}

#[tokio::test]
async fn a_permanent_failure_shows_the_registrys_message() {
    let Some(world) = World::new() else { return };
    let password = world.registry.password.clone();
    for (method, part, status, words) in [
        ("POST", "/uploads/", 500, "failed to process"),
        ("PUT", "/uploads/", 503, "failed to process"),
        ("PATCH", "/uploads/", 503, "failed to process"),
        ("PUT", "/uploads/", 403, "does not allow a push"),
        ("PUT", "/manifests/", 400, "pushing"),
        ("PUT", "/manifests/", 404, "does not have"),
        ("PUT", "/manifests/", 413, "too large"),
        ("HEAD", "/blobs/", 401, "does not accept the credentials"),
    ] {
        let said = format!("no {password} here, but dust");
        let proxy = Before::new(&world.registry.address, move |seen| {
            if method == "PATCH" && seen.is("PUT", "/uploads/") && seen.has_body() {
                return Turn::error(413, "TOO_LARGE");
            }
            if seen.is(method, part) {
                let body = serde_json::json!({ "errors": [{ "message": said }] });
                return Turn::Answer(status, Vec::new(), body.to_string());
            }
            Turn::Pass
        });
        let client = world.through(&proxy.address, CHUNKS);
        let image = Image::new(300_000);
        let pushed = image.push(&client, &world.repository).await;
        let told = world
            .ends_clearly(&image, pushed)
            .await
            .expect("the push fails");
        assert!(told.contains(words), "{method} {status}: {told}");
        let has_word = method == "HEAD" || told.contains("no *** here, but dust");
        assert!(has_word, "{told}");
        assert!(!image.is_whole(&world.direct(), &world.repository).await);
    }
}

#[tokio::test]
async fn blobs_above_a_proxys_limit_are_sent_in_smaller_pieces() {
    let Some(world) = World::new() else { return };
    let limited = |limit: u64| {
        Before::when(
            &world.registry.address,
            move |seen| seen.length.is_some_and(|length| length > limit),
            move || Turn::Answer(413, Vec::new(), "<html>nginx</html>".into()),
        )
    };
    let pushed = world
        .push(&limited(100_000).address, QUICK, 1_000_000)
        .await;
    pushed.ends_right().await;
    let image = Image::new(1_000_000);
    let client = world.through(&limited(1000).address, QUICK);
    let pushed = image.push(&client, &world.repository).await;
    assert!(matches!(pushed, Err(Error::TooLarge { .. })), "{pushed:?}");
}

#[tokio::test]
async fn a_registry_that_refuses_a_piece_gets_it_whole() {
    let Some(world) = World::new() else { return };
    for status in [400, 404, 405, 411, 416, 500, 501] {
        for passing in 0..3 {
            let (puts, pieces) = (AtomicUsize::new(0), AtomicUsize::new(0));
            // A registry that takes pieces may fail once for another reason.
            let times = if status == 500 && passing > 0 { 2 } else { 1 };
            let proxy = Before::new(&world.registry.address, move |seen| {
                let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
                if seen.is("PUT", "/uploads/") && seen.has_body() && count(&puts) == 0 {
                    return Turn::error(413, "TOO_LARGE");
                }
                let is_refused = |piece: usize| (passing..passing + times).contains(&piece);
                if seen.method == "PATCH" && is_refused(count(&pieces)) {
                    return Turn::error(status, "UNSUPPORTED");
                }
                Turn::Pass
            });
            let image = Image::new(700_000);
            let client = world.through(&proxy.address, CHUNKS);
            image.put_layer(&client, &world.repository).await.unwrap();
            assert_eq!(proxy.count("PATCH", ""), passing + times);
            let pushed = image.push(&client, &world.repository).await;
            world.ends_right(&image, pushed).await;
            let puts = proxy.count("PUT", "/uploads/");
            assert_eq!(puts, 3, "two uploads of the whole blob, and the config");
        }
    }
}

#[tokio::test]
async fn a_range_that_stands_still_is_no_progress() {
    let registry = Resuming::start();
    let puts = AtomicUsize::new(0);
    let proxy = Before::new(&registry.address, move |seen| {
        if seen.is("PUT", "") && seen.has_body() && puts.fetch_add(1, Ordering::Relaxed) == 0 {
            return Turn::error(413, "TOO_LARGE");
        }
        if seen.method == "PATCH" {
            return Turn::Lie("range", "0-262143".into());
        }
        Turn::Pass
    });
    let image = Image::new(700_000);
    let client = super::client(&proxy.address, None, CHUNKS).unwrap();
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    assert_eq!(proxy.count("PATCH", ""), 2);
}

#[tokio::test]
async fn the_accepted_way_of_upload_is_found_once_a_run() {
    let registry = Resuming::start();
    // A proxy with a size limit, like nginx: from the second blob on, pieces are sent.
    let limited = Before::when(
        &registry.address,
        |seen| seen.length.is_some_and(|length| length > 300_000),
        || Turn::error(413, "TOO_LARGE"),
    );
    let client = super::client(&limited.address, None, CHUNKS).unwrap();
    for _ in 0..3 {
        Image::new(700_000).put_layer(&client, "a").await.unwrap();
        Image::new(100_000).put_layer(&client, "a").await.unwrap();
    }
    assert_eq!(registry.sessions(), 7, "one request is for the large blob");
    // A registry that takes no pieces, and whose first connections break.
    let puts = AtomicUsize::new(0);
    let whole = Before::new(&registry.address, move |seen| {
        if seen.is("PUT", "") && seen.has_body() && puts.fetch_add(1, Ordering::Relaxed) < 2 {
            return Turn::error(502, "UNAVAILABLE");
        }
        if seen.method == "PATCH" {
            return Turn::error(405, "UNSUPPORTED");
        }
        Turn::Pass
    });
    let client = super::client(&whole.address, None, CHUNKS).unwrap();
    for _ in 0..3 {
        Image::new(700_000).put_layer(&client, "a").await.unwrap();
    }
    assert_eq!(whole.count("PATCH", ""), 1);
}

#[tokio::test]
async fn a_commit_that_takes_longer_than_a_proxy_waits_is_asked_about() {
    for in_pieces in [false, true] {
        let registry = Resuming::committing_late(Duration::from_millis(600));
        let puts = AtomicUsize::new(0);
        let door = Before::new(&registry.address, move |seen| {
            if !seen.is("PUT", "") {
                return Turn::Pass;
            }
            if in_pieces && puts.fetch_add(1, Ordering::Relaxed) == 0 {
                return Turn::error(413, "TOO_LARGE");
            }
            Turn::GiveUpAfter(Duration::from_millis(200))
        });
        let image = Image::new(700_000);
        let client = super::client(&door.address, None, CHUNKS).unwrap();
        image.put_layer(&client, "a").await.unwrap();
        assert!(registry.has(&image.layer.digest));
        assert!(
            door.count("HEAD", "/blobs/") > 2,
            "the registry is asked for the blob"
        );
        let sent = 1 + usize::from(in_pieces);
        assert_eq!(door.count("POST", ""), sent, "the blob is not sent again");
    }
}

#[tokio::test]
async fn a_commit_may_take_longer_than_silence() {
    let registry = Resuming::committing_late(Duration::from_millis(500));
    let limits = TransferLimits {
        silence: Duration::from_millis(100),
        ..CHUNKS
    };
    let client = super::client(&registry.address, None, limits).unwrap();
    let image = Image::new(700_000);
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    assert_eq!(registry.sessions(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_registry_and_nowhere_else() {
    let registry = Resuming::start();
    let other = Before::new(&registry.address, |_| Turn::Pass);
    for (status, inside) in [
        (307, true),
        (308, true),
        (307, false),
        (308, false),
        (301, true),
    ] {
        let elsewhere = (!inside).then(|| other.address.clone());
        let proxy = Before::new(&registry.address, move |seen| {
            if seen.target.contains("moved") || !["POST", "PUT"].contains(&&*seen.method) {
                return Turn::Pass;
            }
            let host = elsewhere.as_ref().map(|host| format!("http://{host}"));
            let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
            let to = format!("{}{path}?moved=1&{query}", host.unwrap_or_default());
            Turn::Answer(status, vec![("location", to)], String::new())
        });
        let image = Image::new(100_000);
        let client = super::client(&proxy.address, None, CHUNKS).unwrap();
        let pushed = image.push(&client, "a").await;
        let is_followed = inside && status != 301;
        assert_eq!(pushed.is_ok(), is_followed, "{status} {pushed:?}");
        assert_eq!(registry.has(&image.layer.digest), is_followed);
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_manifest_is_taken_by_any_of_three_answers() {
    let Some(world) = World::new() else { return };
    for status in [200, 201, 202] {
        let proxy = Before::when(
            &world.registry.address,
            move |seen| seen.is("PUT", "/manifests/"),
            move || Turn::Status(status),
        );
        let pushed = world.push(&proxy.address, QUICK, 1000).await;
        pushed.ends_right().await;
    }
}

#[tokio::test]
async fn a_digest_by_another_algorithm_is_no_error() {
    let Some(world) = World::new() else { return };
    let image = Image::new(1000);
    let layer = std::fs::read(image.path()).unwrap();
    let longer = |bytes: &[u8]| {
        let any: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
        any.like(bytes).to_string()
    };
    let said = [longer(&image.manifest), longer(&layer), "unknown:0".into()];
    for said in said {
        let told = said.clone();
        let proxy = Before::new(&world.registry.address, move |seen| {
            let of_layer = seen.is("PUT", "/uploads/");
            if of_layer || seen.target.contains("/manifests/") {
                return Turn::Lie("docker-content-digest", told.clone());
            }
            Turn::Pass
        });
        let client = world.through(&proxy.address, QUICK);
        let pushed = image.push(&client, &world.repository).await;
        if said == longer(&layer) {
            // A manifest with another digest is a mismatch.
            assert!(
                matches!(pushed, Err(Error::DigestMismatch { .. })),
                "{pushed:?}"
            );
        } else {
            world.ends_right(&image, pushed).await;
            let found = client.head_manifest(&world.repository, "tag").await;
            assert_eq!(found.unwrap().unwrap().size, image.manifest.len() as u64);
        }
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
        let told = world
            .ends_clearly(&image, pushed)
            .await
            .expect("the push fails");
        assert!(told.contains("does not match its digest"), "{told}");
    }
}

#[tokio::test]
async fn a_blob_whose_answer_was_lost_is_not_sent_twice() {
    let Some(world) = World::new() else { return };
    // The registry accepts the request, and the proxy answers with an error.
    let registry = world.registry.address.clone();
    let inner = Before::new(&registry, |_| Turn::Pass);
    let address = inner.address.clone();
    let client = http_client().build().unwrap();
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
async fn too_many_requests_are_made_again_in_the_same_session() {
    let registry = Resuming::start();
    let proxy = Before::new(&registry.address, |seen| {
        let is_upload = seen.target.contains("session-");
        if is_upload && seen.has_body() && seen.number % 2 == 0 {
            return Turn::error(429, "TOOMANYREQUESTS");
        }
        if seen.length.is_some_and(|length| length > 300_000) {
            return Turn::error(413, "TOO_LARGE");
        }
        Turn::Pass
    });
    let image = Image::new(700_000);
    let client = super::client(&proxy.address, None, CHUNKS).unwrap();
    image.put_layer(&client, "a").await.unwrap();
    assert!(registry.has(&image.layer.digest));
    assert_eq!(registry.sessions(), 2, "whole, then in pieces");
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_given_up() {
    let silent = Before::new("127.0.0.1:9", |_| {
        loop {
            std::thread::park();
        }
    });
    let limits = TransferLimits {
        silence: Duration::from_millis(50),
        retry: QUICK.retry.at_most(1),
        ..QUICK
    };
    let client = super::client(&silent.address, None, limits).unwrap();
    let error = client.check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("no data was sent or received"),
        "{error}"
    );
}

#[tokio::test]
async fn an_upload_that_leads_to_another_host_goes_there_without_credentials() {
    let Some(world) = World::new() else { return };
    let storage = Resuming::start();
    let elsewhere = Before::when(
        &storage.address,
        |seen| seen.length.is_some_and(|length| length > 300_000),
        || Turn::error(413, "TOO_LARGE"),
    );
    let address = elsewhere.address.clone();
    let inside = storage.address.clone();
    let proxy = Before::when(
        &world.registry.address,
        move |seen| seen.is("POST", "/uploads/"),
        move || {
            Turn::Lie(
                "location",
                format!("http://{address}/v2/a/blobs/uploads/session-0"),
            )
        },
    );
    let opened = http_client().build().unwrap();
    let url = format!("http://{inside}/v2/a/blobs/uploads/");
    opened.post(url).send().await.unwrap();
    let image = Image::new(700_000);
    let client = world.through(&proxy.address, CHUNKS);
    image.put_layer(&client, &world.repository).await.unwrap();
    assert!(storage.has(&image.layer.digest));
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 5, "whole, three pieces and the end");
    assert!(seen.iter().all(|seen| seen.authorization.is_none()));
    assert!(proxy.seen().iter().any(|seen| seen.authorization.is_some()));
}
