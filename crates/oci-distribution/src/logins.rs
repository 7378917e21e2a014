//! Logins: the caller's own credentials for one registry, and for every other registry what
//! `docker login` has stored.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::address::{host, is_docker_hub};
use super::docker_config::DockerConfig;
use super::{Account, Credentials, Error};

/// The user name that Docker stores with an identity token.
const TOKEN_USER: &str = "<token>";

/// A login for one registry.
#[derive(Clone)]
pub struct Login {
    kind: LoginKind,
    is_provided: bool,
}

#[derive(Clone)]
enum LoginKind {
    Password(Arc<Credentials>),
    /// A token that a token server accepts in place of a password.
    IdentityToken(Arc<Credentials>),
}

impl Login {
    /// Credentials that the caller provides for this registry.
    pub fn provided(credentials: Arc<Credentials>) -> Self {
        Self {
            kind: LoginKind::Password(credentials),
            is_provided: true,
        }
    }

    /// A user and a password, as `docker login` stores them.
    pub fn password(user: String, password: String) -> Self {
        if user == TOKEN_USER {
            return Self::with_identity_token(password);
        }
        Self {
            kind: LoginKind::Password(Arc::new(Credentials::new(user, password))),
            is_provided: false,
        }
    }

    /// An identity token, as `docker login` stores it.
    pub fn with_identity_token(token: String) -> Self {
        let credentials = Credentials::new(TOKEN_USER.into(), token);
        Self {
            kind: LoginKind::IdentityToken(Arc::new(credentials)),
            is_provided: false,
        }
    }

    /// Whether the caller provides it, so that it is not from Docker's config.
    pub(super) fn is_provided(&self) -> bool {
        self.is_provided
    }

    fn credentials(&self) -> &Credentials {
        let (LoginKind::Password(credentials) | LoginKind::IdentityToken(credentials)) = &self.kind;
        credentials
    }

    /// User and password, or the identity token alone, for another client that logs in.
    pub fn parts(&self) -> (Option<&str>, &SecretString) {
        let credentials = self.credentials();
        let user = match self.kind {
            LoginKind::Password(_) => Some(credentials.user.as_str()),
            LoginKind::IdentityToken(_) => None,
        };
        (user, &credentials.password)
    }

    /// As whom this login asks.
    pub fn account(&self) -> Account {
        match &self.kind {
            LoginKind::Password(credentials) => Account::User(credentials.user.clone()),
            LoginKind::IdentityToken(_) => Account::IdentityToken,
        }
    }

    /// The user name, as a token server knows it.
    pub(super) fn user(&self) -> &str {
        &self.credentials().user
    }

    /// The `Authorization` header of Basic authentication; `None` for an identity token.
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

    /// The identity token, if the login is one.
    pub(super) fn identity_token(&self) -> Option<&SecretString> {
        match &self.kind {
            LoginKind::Password(_) => None,
            LoginKind::IdentityToken(credentials) => Some(&credentials.password),
        }
    }

    pub(super) fn redact(&self, text: &str) -> String {
        self.credentials().redact(text)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.parts().0.unwrap_or("an identity token");
        write!(f, "Login({user})")
    }
}

/// Finds the login for each registry.
#[derive(Default)]
pub struct Logins {
    provided: Option<(String, Arc<Credentials>)>,
    docker_config: Option<PathBuf>,
}

impl Logins {
    /// The registry that the caller has credentials for, and the path of Docker's `config.json`,
    /// which need not exist.
    pub fn new(provided: Option<(&str, Arc<Credentials>)>, docker_config: Option<PathBuf>) -> Self {
        Self {
            provided: provided.map(|(registry, credentials)| (host(registry), credentials)),
            docker_config,
        }
    }

    /// The login for a registry; `None` if there is none.
    ///
    /// It may run a credential helper, which takes up to ten seconds.
    /// [`Error::MissingCredentialHelper`] if the helper is not installed and there is no other
    /// login.
    pub async fn for_host(&self, registry: &str) -> Result<Option<Login>, Error> {
        let host = host(registry);
        if let Some((provided, credentials)) = &self.provided
            && is_same_registry(provided, &host)
        {
            return Ok(Some(Login::provided(Arc::clone(credentials))));
        }
        let Some(path) = &self.docker_config else {
            return Ok(None);
        };
        match DockerConfig::read(path, &host).await? {
            Some(config) => config.login(path, &host).await,
            None => Ok(None),
        }
    }
}

/// Whether both hosts are the same registry.
pub fn is_same_registry(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || is_docker_hub(one) && is_docker_hub(other)
}
