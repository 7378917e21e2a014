//! The switch without a proxy: the containers of two releases have the same ports.

use futures_util::future::join_all;

use super::engine::{AppContainer, Engine};
use super::error::Error;
use super::steps::without_proxy;
use crate::ledger::RecordId;
use crate::target::SwitchToken;
use crate::target::haproxy::token;
use crate::target::labels::StoreLabels;

/// Stops what runs and starts a release on the same ports. If that fails, what ran before is started
/// again. False if the traffic has moved since the token was made.
pub async fn recreate(
    engine: &Engine,
    owner: &StoreLabels,
    release: &RecordId,
    expected: &SwitchToken,
) -> Result<bool, Error> {
    let containers = engine.app_containers(owner).await?;
    if token(&without_proxy(&containers)) != *expected {
        return Ok(false);
    }
    let (own, others): (Vec<_>, Vec<_>) = containers.iter().partition(|it| it.release == *release);
    let replaced: Vec<_> = others.into_iter().filter(|it| it.is_running).collect();
    let Err(error) = exchange(engine, &own, &replaced).await else {
        return Ok(true);
    };
    // The first failure matters. The ports have to be free before the earlier release is started.
    join_all(own.iter().map(|it| engine.stop(&it.id))).await;
    join_all(replaced.iter().map(|it| engine.start(&it.id))).await;
    join_all(own.iter().map(|it| engine.remove(&it.id))).await;
    Err(error)
}

async fn exchange(
    engine: &Engine,
    own: &[&AppContainer],
    replaced: &[&AppContainer],
) -> Result<(), Error> {
    // A stop that is abandoned could still happen later, so all of them are waited for.
    let stopped = join_all(replaced.iter().map(|it| engine.stop(&it.id))).await;
    stopped.into_iter().collect::<Result<(), Error>>()?;
    for container in own {
        let started = engine.start(&container.id).await;
        started.map_err(|message| Error::Start {
            container: container.name.clone(),
            message,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use bollard::Docker;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::recreate;
    use crate::ledger::{RecordId, RecordKind};
    use crate::target::SwitchToken;
    use crate::target::docker::engine::Engine;
    use crate::target::labels::{APP, PORT, PROJECT, RELEASE, STORE, StoreLabels};

    fn release(number: i64) -> RecordId {
        let at = Timestamp::from_second(number).unwrap();
        RecordId::from_parts(RecordKind::Release, at, 0)
    }

    fn labels() -> StoreLabels {
        StoreLabels {
            project: "shop".into(),
            store: "us".into(),
        }
    }

    /// An engine with two apps of an earlier release that run, and two of the next release. Each request
    /// of the form `stop old-a` that is listed in `refused` fails.
    struct FakeEngine {
        running: Mutex<BTreeMap<String, bool>>,
        refused: &'static [&'static str],
    }

    impl FakeEngine {
        fn start(refused: &'static [&'static str]) -> (Arc<Self>, Engine) {
            let names = ["old-a", "old-b", "new-a", "new-b"];
            let running = names.map(|name| (name.to_owned(), name.starts_with("old")));
            let fake = Arc::new(Self {
                running: Mutex::new(running.into()),
                refused,
            });
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let server = Arc::clone(&fake);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = Arc::clone(&server);
                    std::thread::spawn(move || server.answer(&stream));
                }
            });
            let version = bollard::API_DEFAULT_VERSION;
            let docker = Docker::connect_with_http(&address, 10, version).unwrap();
            let address = address.into();
            (fake, Engine { docker, address })
        }

        fn answer(&self, stream: &TcpStream) {
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            let Some(request) = lines.next() else { return };
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap();
            let path = path.split('?').next().unwrap();
            let mut parts = path.rsplit('/');
            let (status, body) = match (parts.next().unwrap(), parts.next().unwrap()) {
                ("json", "containers") => ("200 OK", self.list().to_string()),
                (verb @ ("start" | "stop"), name) => {
                    if self.refused.contains(&format!("{verb} {name}").as_str()) {
                        ("500 Error", json!({ "message": "refused" }).to_string())
                    } else {
                        let starts = verb == "start";
                        self.running.lock().unwrap().insert(name.into(), starts);
                        ("204 No Content", String::new())
                    }
                }
                // A removal.
                _ if self.refused.contains(&"remove") => {
                    ("500 Error", json!({ "message": "refused" }).to_string())
                }
                (name, _) => {
                    self.running.lock().unwrap().remove(name);
                    ("204 No Content", String::new())
                }
            };
            let length = body.len();
            let mut stream = stream;
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }

        fn list(&self) -> Value {
            let running = self.running.lock().unwrap();
            let containers = running.iter().map(|(name, runs)| {
                let number = if name.starts_with("old") { 1 } else { 2 };
                json!({
                    "Id": name,
                    "Names": [format!("/{name}")],
                    "State": if *runs { "running" } else { "exited" },
                    "Labels": {
                        PROJECT: "shop", STORE: "us", APP: name.as_str(), PORT: "20000",
                        RELEASE: release(number).to_string(),
                    },
                })
            });
            containers.collect()
        }

        fn running(&self) -> Vec<String> {
            let running = self.running.lock().unwrap();
            let running = running.iter().filter(|(_, runs)| **runs);
            running.map(|(name, _)| name.clone()).collect()
        }
    }

    #[tokio::test]
    async fn the_earlier_release_runs_again_after_every_failure() {
        let expected = SwitchToken(release(1).to_string());
        let attempts: [&[&str]; 4] = [
            &["stop old-a"],
            &["start new-a"],
            &["start new-b"],
            &["start new-b", "remove"],
        ];
        for refused in attempts {
            let (fake, engine) = FakeEngine::start(refused);
            let switched = recreate(&engine, &labels(), &release(2), &expected).await;
            assert!(switched.is_err(), "{refused:?}");
            assert_eq!(fake.running(), ["old-a", "old-b"], "{refused:?}");
        }
        let (fake, engine) = FakeEngine::start(&[]);
        let switched = recreate(&engine, &labels(), &release(2), &expected).await;
        assert!(switched.unwrap());
        assert_eq!(fake.running(), ["new-a", "new-b"]);
        let switched = recreate(&engine, &labels(), &release(1), &expected).await;
        assert!(!switched.unwrap(), "the token is old");
    }
}
