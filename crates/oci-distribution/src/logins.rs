//! Who we are to registries: the run's own credentials for its own registry, and for every other
//! what `docker login` has left, in Docker's config or with its credential helpers.
//!
//! Docker's config is read here and not by a crate: a helper that hangs has to be ended with the
//! program, what a helper prints (which may be a password) must reach no error, and a helper that
//! knows no login means none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::address::{base, is_docker_hub};
use super::{Credentials, Error};

/// How long a credential helper may take. Some ask a cloud.
const HELPER: Duration = Duration::from_secs(10);

/// What Docker calls its Hub in its config.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The user whose password is an identity token.
const TOKEN_USER: &str = "<token>";

/// As whom a registry is asked.
#[derive(Clone)]
pub struct Login {
    kind: LoginKind,
    is_own: bool,
}

#[derive(Clone)]
enum LoginKind {
    /// User and password.
    Password(Arc<Credentials>),
    /// What a token server gave in exchange for them.
    Identity(Arc<Credentials>),
}

impl Login {
    /// The run's own credentials, which its settings give.
    pub fn own(credentials: Arc<Credentials>) -> Self {
        Self {
            kind: LoginKind::Password(credentials),
            is_own: true,
        }
    }

    /// A user's password, as `docker login` keeps it.
    pub fn password(user: String, password: String) -> Self {
        if user == TOKEN_USER {
            return Self::identity(password);
        }
        Self {
            kind: LoginKind::Password(Arc::new(Credentials::new(user, password))),
            is_own: false,
        }
    }

    /// An identity token: a token server gives tokens for it.
    pub fn identity(token: String) -> Self {
        Self {
            kind: LoginKind::Identity(Arc::new(Credentials::new(TOKEN_USER.into(), token))),
            is_own: false,
        }
    }

    /// Whether it comes from the run's settings, and not from Docker's.
    pub(super) fn is_own(&self) -> bool {
        self.is_own
    }

    /// User and password, or the identity token alone, for an engine that logs in for us.
    pub fn parts(&self) -> (Option<&str>, &SecretString) {
        match &self.kind {
            LoginKind::Password(credentials) => (Some(&credentials.user), &credentials.password),
            LoginKind::Identity(credentials) => (None, &credentials.password),
        }
    }

    /// As people are told.
    pub(super) fn user(&self) -> &str {
        match &self.kind {
            LoginKind::Password(credentials) => &credentials.user,
            LoginKind::Identity(_) => "an identity token",
        }
    }

    /// The value of a header; an identity token has none.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let LoginKind::Password(credentials) = &self.kind else {
            return None;
        };
        let password = credentials.password.expose_secret();
        let pair = BASE64.encode(format!("{}:{password}", credentials.user));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The identity token, where it is one.
    pub(super) fn refresh_token(&self) -> Option<&SecretString> {
        match &self.kind {
            LoginKind::Password(_) => None,
            LoginKind::Identity(credentials) => Some(&credentials.password),
        }
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let (LoginKind::Password(credentials) | LoginKind::Identity(credentials)) = &self.kind;
        credentials.redact(text)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user())
    }
}

/// All logins that a run has.
#[derive(Default)]
pub struct Logins {
    own: Option<(String, Arc<Credentials>)>,
    docker_config: Option<PathBuf>,
}

impl Logins {
    /// The own registry with its credentials, and the path of Docker's `config.json`, which need
    /// not be there.
    pub fn new(own: Option<(&str, Arc<Credentials>)>, docker_config: Option<PathBuf>) -> Self {
        Self {
            own: own.map(|(registry, credentials)| (base(registry).1, credentials)),
            docker_config,
        }
    }

    /// The login for a registry; none where nobody has logged in there. A credential helper may
    /// be asked, which takes up to ten seconds; [`Error::NoHelper`] where it is not installed and
    /// there is no other login.
    pub async fn for_host(&self, registry: &str) -> Result<Option<Login>, Error> {
        let host = base(registry).1;
        if let Some((own, credentials)) = &self.own
            && is_same(own, &host)
        {
            return Ok(Some(Login::own(Arc::clone(credentials))));
        }
        let Some(path) = &self.docker_config else {
            return Ok(None);
        };
        let text = match tokio::fs::read(path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::File {
                    action: "read",
                    path: path.clone(),
                    source,
                });
            }
        };
        let wrong = |message: String| Error::DockerConfig {
            path: path.clone(),
            host: host.clone(),
            message,
        };
        // Not the parser's own words in full: they may repeat what stands there.
        let config: DockerConfig = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("line {} is not as Docker writes it", error.line())))?;
        let (server, helper) = config.helper(&host);
        let given = match helper {
            Some(helper) => ask(helper, &server, &host).await,
            None => Ok(None),
        };
        let kept = match (&given, config.kept(&host)) {
            (Ok(None) | Err(Error::NoHelper { .. }), Some(kept)) => kept.login().map_err(wrong)?,
            _ => None,
        };
        match kept {
            Some(login) => Ok(Some(login)),
            None => given,
        }
    }
}

/// What is read of Docker's config.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
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
    /// How a registry is called to its helper, and the helper: its own, or the one for all.
    fn helper(&self, host: &str) -> (String, Option<&str>) {
        let own = find(&self.cred_helpers, host);
        let server = match own {
            // A helper knows logins under the names that `docker login` gives them.
            _ if is_docker_hub(host) => DOCKER_HUB.to_owned(),
            Some((name, _)) => name.clone(),
            None => host.to_owned(),
        };
        let helper = own.map_or(&self.creds_store, |(_, helper)| helper);
        (server, (!helper.is_empty()).then_some(helper.as_str()))
    }

    fn kept(&self, host: &str) -> Option<&StoredLogin> {
        find(&self.auths, host).map(|(_, kept)| kept)
    }
}

/// What is kept for that registry: under its plain name first, then under any spelling of it.
fn find<'a, T>(map: &'a BTreeMap<String, T>, host: &str) -> Option<(&'a String, &'a T)> {
    map.get_key_value(host)
        .or_else(|| map.iter().find(|(name, _)| is_same(&base(name).1, host)))
}

/// Whether both name one registry.
fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || is_docker_hub(one) && is_docker_hub(other)
}

impl StoredLogin {
    fn login(&self) -> Result<Option<Login>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::identity(self.identitytoken.clone())));
        }
        if self.pair.is_empty() {
            // An entry without a login is what Docker leaves where a helper has it.
            return Ok((!self.username.is_empty())
                .then(|| Login::password(self.username.clone(), self.password.clone())));
        }
        let bytes = STANDARD_NO_PAD.decode(self.pair.trim_end_matches('=')).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.ok_or("its `auth` is no user and password in base64")?;
        // Docker ends old ones with a zero byte.
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

/// Asks a credential helper; none if it knows no login.
async fn ask(name: &str, server: &str, host: &str) -> Result<Option<Login>, Error> {
    let helper = format!("docker-credential-{name}");
    let failed = |message: String| Error::Helper {
        helper: helper.clone(),
        host: host.to_owned(),
        message,
    };
    if name.contains(['/', '\\']) {
        return Err(failed("its name is a path".into()));
    }
    let asking = async {
        let mut child = Command::new(&helper)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever needs no question does not read it.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(HELPER, asking).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NoHelper {
                helper: helper.clone(),
                host: host.to_owned(),
            });
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => {
            let seconds = HELPER.as_secs();
            return Err(failed(format!("it says nothing for {seconds} s")));
        }
    };
    if output.status.success() {
        let given: HelperReply = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("what it prints is no login".into()))?;
        return Ok(Some(Login::password(given.username, given.secret)));
    }
    // The protocol has no other sign than this word.
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("credentials not found") {
        return Ok(None);
    }
    // Of what it prints only what is meant for people.
    let told = String::from_utf8_lossy(&output.stderr);
    let told = told.lines().rev().find(|line| !line.trim().is_empty());
    let told: String = told.unwrap_or_default().trim().chars().take(200).collect();
    let status = output.status;
    Err(failed(if told.is_empty() {
        status.to_string()
    } else {
        format!("{}, {status}", told.escape_debug())
    }))
}

#[cfg(test)]
mod tests {
    use super::{DOCKER_HUB, DockerConfig};

    fn user(config: &DockerConfig, host: &str) -> Option<String> {
        let login = config.kept(host)?.login().expect("it is right");
        login.map(|login| login.user().to_owned())
    }

    #[test]
    fn a_login_is_found_under_every_spelling_of_its_registry() {
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
            ("azure.example.com", Some("an identity token")),
            ("helped.example.com", None),
            ("io", None),
        ] {
            assert_eq!(user(&config, host).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn a_registrys_own_helper_comes_before_the_one_for_all() {
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
