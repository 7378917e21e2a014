//! Docker's `config.json`: stored logins and credential helpers.
//!
//! It is read here and not by a crate, for three reasons: a helper that hangs has to end with the
//! program, the output of a helper (which may be a password) must not reach an error, and a helper
//! that has no login is not a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::address::{host, is_docker_hub};
use super::logins::is_same_registry;
use super::{Error, Login};

/// How long a credential helper may take. Some ask a cloud service.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of a helper's message that an error shows.
const LONGEST_MESSAGE: usize = 200;

/// Docker Hub's name in Docker's config.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The part of Docker's config that has credentials.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, StoredLogin>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredLogin {
    /// User and password in base64.
    #[serde(rename = "auth")]
    pair: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl DockerConfig {
    /// Reads the config for the login of a host; `None` if the file does not exist.
    pub async fn read(path: &Path, host: &str) -> Result<Option<Self>, Error> {
        let text = match tokio::fs::read(path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::File {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        // The parser's message is left out: it may quote a password.
        let config = serde_json::from_slice(&text);
        config.map_err(|error: serde_json::Error| {
            let message = format!(
                "line {} is not in the format of Docker's config",
                error.line()
            );
            invalid(path, host, message)
        })
    }

    /// The login for a host: from its credential helper, or else stored in the config itself.
    pub async fn login(&self, path: &Path, host: &str) -> Result<Option<Login>, Error> {
        let (server, helper) = self.helper(host);
        let from_helper = match helper {
            Some(helper) => run_helper(helper, &server, host).await,
            None => Ok(None),
        };
        let stored = match (&from_helper, self.stored(host)) {
            (Ok(None) | Err(Error::MissingCredentialHelper { .. }), Some(stored)) => stored
                .login()
                .map_err(|message| invalid(path, host, message))?,
            _ => None,
        };
        match stored {
            Some(login) => Ok(Some(login)),
            None => from_helper,
        }
    }

    /// The name of a registry for its helper, and the helper: the registry's own, or the default.
    fn helper(&self, host: &str) -> (String, Option<&str>) {
        let own = find(&self.cred_helpers, host);
        let server = match own {
            // Helpers store logins under the names that `docker login` uses.
            _ if is_docker_hub(host) => DOCKER_HUB.to_owned(),
            Some((name, _)) => name.clone(),
            None => host.to_owned(),
        };
        let helper = own.map_or(&self.creds_store, |(_, helper)| helper);
        (server, (!helper.is_empty()).then_some(helper.as_str()))
    }

    fn stored(&self, host: &str) -> Option<&StoredLogin> {
        find(&self.auths, host).map(|(_, stored)| stored)
    }
}

fn invalid(path: &Path, host: &str, message: String) -> Error {
    Error::DockerConfig {
        path: path.to_owned(),
        host: host.to_owned(),
        message,
    }
}

/// A map's entry for a registry: by its host first, then by any other form of its address.
fn find<'a, T>(map: &'a BTreeMap<String, T>, registry: &str) -> Option<(&'a String, &'a T)> {
    map.get_key_value(registry).or_else(|| {
        map.iter()
            .find(|(name, _)| is_same_registry(&host(name), registry))
    })
}

impl StoredLogin {
    fn login(&self) -> Result<Option<Login>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::with_identity_token(self.identitytoken.clone())));
        }
        if self.pair.is_empty() {
            // Docker leaves an empty entry where a helper stores the login.
            return Ok((!self.username.is_empty())
                .then(|| Login::password(self.username.clone(), self.password.clone())));
        }
        let bytes = STANDARD_NO_PAD.decode(self.pair.trim_end_matches('=')).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) =
            pair.ok_or("`auth` is not a valid base64 value of `user:password`")?;
        // Old versions of Docker append zero bytes.
        let password = password.trim_end_matches('\0');
        Ok(Some(Login::password(user.into(), password.into())))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperReply {
    username: String,
    secret: String,
}

/// Asks a credential helper; `None` if it has no login for the server.
async fn run_helper(name: &str, server: &str, host: &str) -> Result<Option<Login>, Error> {
    let helper = format!("docker-credential-{name}");
    let failed = |message: String| Error::CredentialHelper {
        helper: helper.clone(),
        host: host.to_owned(),
        message,
    };
    if name.contains(['/', '\\']) {
        return Err(failed("the helper's name is a path".into()));
    }
    let output = match tokio::time::timeout(HELPER_TIMEOUT, output(&helper, server)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::MissingCredentialHelper {
                helper: helper.clone(),
                host: host.to_owned(),
            });
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => {
            let seconds = HELPER_TIMEOUT.as_secs();
            return Err(failed(format!("no output within {seconds} s")));
        }
    };
    if output.status.success() {
        let reply: HelperReply = serde_json::from_slice(&output.stdout).map_err(|_| {
            failed("its output is not valid JSON with `Username` and `Secret`".into())
        })?;
        return Ok(Some(Login::password(reply.username, reply.secret)));
    }
    // The protocol has no other sign of a missing login than this text.
    if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
        return Ok(None);
    }
    // Only standard error is meant for people; standard output may have the secret.
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    let message = last.unwrap_or_default().trim().chars();
    let message: String = message.take(LONGEST_MESSAGE).collect();
    let status = output.status;
    Err(failed(if message.is_empty() {
        status.to_string()
    } else {
        format!("{}, {status}", message.escape_debug())
    }))
}

async fn output(helper: &str, server: &str) -> std::io::Result<Output> {
    let mut child = Command::new(helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that has one login only may not read its input.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use super::{DOCKER_HUB, DockerConfig};

    fn user(config: &DockerConfig, host: &str) -> Option<String> {
        let login = config.stored(host)?.login().expect("a valid entry");
        login.map(|login| login.user().to_owned())
    }

    #[test]
    fn a_login_is_found_under_every_name_of_its_registry() {
        let config: DockerConfig = serde_json::from_value(serde_json::json!({
            "auths": {
                DOCKER_HUB: { "auth": "aHViOnA=" },
                "https://quay.io": { "auth": "cXVheTpw" },
                "registry.example.com:5000": { "username": "example", "password": "p" },
                "https://gitlab.example.com/v2/": { "auth": "Z2l0bGFiOnA" },
                "azure.example.com": { "auth": "MDA6", "identitytoken": "secret" },
                "helped.example.com": {},
            },
            "HttpHeaders": { "User-Agent": "Docker" },
        }))
        .unwrap();
        for (host, expected) in [
            ("docker.io", Some("hub")),
            ("registry-1.docker.io", Some("hub")),
            ("index.docker.io", Some("hub")),
            ("quay.io", Some("quay")),
            ("registry.example.com:5000", Some("example")),
            ("registry.example.com", None),
            ("gitlab.example.com", Some("gitlab")),
            ("azure.example.com", Some("<token>")),
            ("helped.example.com", None),
            ("io", None),
        ] {
            assert_eq!(user(&config, host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn a_registrys_own_helper_precedes_the_default_helper() {
        let config: DockerConfig = serde_json::from_value(serde_json::json!({
            "credsStore": "desktop",
            "credHelpers": { "gcr.io": "gcloud", "none.example.com": "" },
        }))
        .unwrap();
        assert_eq!(config.helper("gcr.io"), ("gcr.io".into(), Some("gcloud")));
        assert_eq!(
            config.helper("docker.io"),
            (DOCKER_HUB.into(), Some("desktop"))
        );
        assert_eq!(
            config.helper("quay.io"),
            ("quay.io".into(), Some("desktop"))
        );
        assert_eq!(config.helper("none.example.com").1, None);
    }
}
