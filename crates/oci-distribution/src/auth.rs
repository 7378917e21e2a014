//! Authentication: a password, or a token that a token server issues for a scope. The registry says
//! which in a challenge, which the client learns from the first 401.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_client::{
    AttemptError, TransferProgress, display_address, is_loopback, is_plain_http, redirect_target,
    while_active,
};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::client::Client;
use super::request::RegistryRequest;
use super::response::{ErrorMessage, RegistryResponse};
use super::{Error, Login};

/// Lifetime in seconds of a token whose server does not name one.
const DEFAULT_LIFETIME: f64 = 60.0;

/// Lifetime in seconds after which every token is renewed.
const LONGEST_LIFETIME: f64 = 24.0 * 3600.0;

/// How long before its end a token counts as expired: a request with it has to arrive in time.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);

/// Bytes of a token server's response. A token lists rights, and is long where there are many.
const LONGEST_RESPONSE: u64 = 1 << 20;

/// The rights that a request needs, as token servers write them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TokenScope(Vec<String>);

impl TokenScope {
    /// To read a repository.
    pub fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// To read and write a repository.
    pub fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// To remove from a repository.
    pub fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:delete,pull")])
    }

    /// And to read another repository.
    pub fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

/// The authentication that a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AuthScheme {
    /// User and password.
    Basic,
    /// A token of the token server at `realm`.
    Bearer { realm: Url, service: Option<String> },
}

#[derive(Default)]
struct TokenSlot {
    /// The scope that the registry's challenge named. It may be more than the client asks for.
    challenged_scope: Option<String>,
    token: Option<AccessToken>,
}

struct AccessToken {
    header: HeaderValue,
    expires: Instant,
}

/// Authenticates the requests to one registry.
pub struct Authenticator {
    login: Option<Login>,
    /// Whether credentials may be sent to other machines over plain HTTP.
    allow_insecure: bool,
    scheme: Mutex<Option<AuthScheme>>,
    /// By scope. A task that needs a token which another task is fetching waits for it.
    tokens: Mutex<HashMap<TokenScope, Arc<tokio::sync::Mutex<TokenSlot>>>>,
}

/// The token of a token server's response, under either of its names, and its lifetime. Servers
/// leave fields out or write `null`, and write numbers with a fraction or as text.
fn parse_token(body: &[u8]) -> Option<(String, Duration)> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let names = ["token", "access_token"];
    let mut tokens = names.iter().filter_map(|name| document[name].as_str());
    let token = tokens.find(|token| !token.is_empty())?;
    let seconds = match &document["expires_in"] {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    let seconds: f64 = seconds
        .filter(|seconds| *seconds >= 0.0)
        .unwrap_or(DEFAULT_LIFETIME);
    let lifetime = Duration::from_secs_f64(seconds.min(LONGEST_LIFETIME));
    Some((token.to_owned(), lifetime))
}

impl Authenticator {
    pub fn new(login: Option<Login>, allow_insecure: bool) -> Self {
        Self {
            login,
            allow_insecure,
            scheme: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    fn slot(&self, scope: &TokenScope) -> Arc<tokio::sync::Mutex<TokenSlot>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.entry(scope.clone()) {
            Entry::Occupied(slot) => Arc::clone(slot.get()),
            Entry::Vacant(vacant) => Arc::clone(vacant.insert(Arc::default())),
        }
    }

    /// Remembers the challenge of a 401.
    pub async fn learn(&self, scope: &TokenScope, headers: &HeaderMap) {
        let Some((scheme, challenged_scope)) = best_challenge(headers) else {
            return;
        };
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
        // A request outside of every repository needs no rights, whatever the challenge names.
        if !scope.0.is_empty() {
            self.slot(scope).lock().await.challenged_scope = challenged_scope;
        }
    }

    /// The `Authorization` header of a request. `None` before the first challenge, or without
    /// credentials. `rejected` is the header that the registry has just rejected.
    pub async fn header(
        &self,
        client: &Client,
        request: &RegistryRequest<'_>,
        rejected: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, AttemptError<Error>> {
        let scheme = self
            .scheme
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (realm, service) = match scheme {
            None => return Ok(None),
            Some(AuthScheme::Basic) => return Ok(self.login.as_ref().and_then(Login::basic)),
            Some(AuthScheme::Bearer { realm, service }) => (realm, service),
        };
        let slot = self.slot(request.scope);
        let mut slot = slot.lock().await;
        if let Some(token) = &slot.token
            && Instant::now() < token.expires
            && rejected != Some(&token.header)
        {
            return Ok(Some(token.header.clone()));
        }
        slot.token = None;
        let mut scopes: Vec<&str> = request.scope.0.iter().map(String::as_str).collect();
        if let Some(challenged) = &slot.challenged_scope {
            for scope in challenged.split(' ').filter(|scope| !scope.is_empty()) {
                if !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
        }
        let token = self
            .fetch_token(client, request, realm, service.as_deref(), &scopes)
            .await?;
        let header = token.header.clone();
        slot.token = Some(token);
        Ok(Some(header))
    }

    /// Requests a token from the token server.
    async fn fetch_token(
        &self,
        client: &Client,
        request: &RegistryRequest<'_>,
        realm: Url,
        service: Option<&str>,
        scopes: &[&str],
    ) -> Result<AccessToken, AttemptError<Error>> {
        let unauthorized = |message: String| {
            AttemptError::Final(client.status_error(request, StatusCode::UNAUTHORIZED, message))
        };
        let is_safe = self.allow_insecure || may_receive_credentials(client.root(), &realm);
        if self.login.is_some() && !is_safe {
            return Err(AttemptError::Final(Error::InsecureTokenServer {
                registry: client.host().to_owned(),
                realm: display_address(&realm),
            }));
        }
        let token_request = match self.login.as_ref().and_then(Login::identity_token) {
            Some(token) => oauth_request(client, realm, service, scopes, token),
            None => self.token_request(client, realm, service, scopes),
        };
        let limits = client.limits().silence.into();
        let sent = while_active(token_request.send(), &TransferProgress::default(), limits).await;
        let response = sent.map_err(|error| client.disconnected(&error))?;
        if let Some(target) = redirect_target(&response) {
            return Err(unauthorized(format!(
                "the token server redirects to `{}`; credentials are not sent there",
                display_address(&target)
            )));
        }
        let response = RegistryResponse::new(response, None);
        let response = client.classify(request, response).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                // Token servers reject a login with any of these.
                let ErrorMessage { message, .. } = client.error_message(response).await;
                return Err(unauthorized(message));
            }
            _ => return Err(client.refusal(request, response).await.into()),
        }
        let body = client.body(response, LONGEST_RESPONSE).await?;
        let no_token = || unauthorized("the token server's response has no token".into());
        let token = body.is_complete.then(|| parse_token(&body.bytes)).flatten();
        let (token, lifetime) = token.ok_or_else(no_token)?;
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| no_token())?;
        header.set_sensitive(true);
        Ok(AccessToken {
            header,
            expires: Instant::now() + lifetime.saturating_sub(EXPIRY_MARGIN.min(lifetime / 2)),
        })
    }

    /// The request of a token with a password, or without credentials.
    fn token_request(
        &self,
        client: &Client,
        mut realm: Url,
        service: Option<&str>,
        scopes: &[&str],
    ) -> RequestBuilder {
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Some(login) = &self.login {
                query.append_pair("account", login.user());
            }
        }
        let request = client.http(false).get(realm);
        match self.login.as_ref().and_then(Login::basic) {
            Some(basic) => request.header(AUTHORIZATION, basic),
            None => request,
        }
    }
}

/// The request of a token with an identity token, by OAuth 2.
fn oauth_request(
    client: &Client,
    realm: Url,
    service: Option<&str>,
    scopes: &[&str],
    token: &SecretString,
) -> RequestBuilder {
    // The query of an address has the encoding of a form.
    let mut form = client.root().clone();
    form.query_pairs_mut()
        .clear()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", service.unwrap_or_default())
        .append_pair("client_id", client.client_id())
        .append_pair("scope", &scopes.join(" "))
        .append_pair("refresh_token", token.expose_secret());
    client
        .http(false)
        .post(realm)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
}

/// Whether a token server may get the registry's credentials: it has TLS, or neither server has and
/// both are the same machine.
fn may_receive_credentials(registry: &Url, realm: &Url) -> bool {
    let is_same = registry.host() == realm.host();
    let are_local = is_loopback(registry) && is_loopback(realm);
    !is_plain_http(realm) || is_plain_http(registry) && (is_same || are_local)
}

/// The strongest supported challenge of a response, and the scope that it names.
fn best_challenge(headers: &HeaderMap) -> Option<(AuthScheme, Option<String>)> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Some(challenges) = value
            .to_str()
            .ok()
            .and_then(|text| http_auth::parse_challenges(text).ok())
        else {
            continue;
        };
        for challenge in challenges {
            let parameter = |name: &str| {
                let mut all = challenge.params.iter();
                let (_, value) = all.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
                let is_http = |realm: &Url| ["http", "https"].contains(&realm.scheme());
                if let Some(realm) = realm.filter(is_http) {
                    let service = parameter("service");
                    return Some((AuthScheme::Bearer { realm, service }, parameter("scope")));
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some((AuthScheme::Basic, None));
            }
        }
    }
    basic
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

    use reqwest::Url;

    use super::{AuthScheme, best_challenge, may_receive_credentials, parse_token};

    #[test]
    fn credentials_are_not_sent_from_tls_to_plain_http() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (registry, realm, may) in [
            (
                "https://r.example.com",
                "https://auth.example.com/token",
                true,
            ),
            (
                "https://r.example.com",
                "http://auth.example.com/token",
                false,
            ),
            ("https://r.example.com", "http://r.example.com/token", false),
            (
                "https://r.example.com",
                "http://127.0.0.1:5001/token",
                false,
            ),
            (
                "http://r.example.com",
                "http://auth.example.com/token",
                false,
            ),
            (
                "http://r.example.com",
                "http://r.example.com:81/token",
                true,
            ),
            ("http://127.0.0.1:5000", "http://localhost:5001/token", true),
            (
                "http://127.0.0.1:5000",
                "http://auth.example.com/token",
                false,
            ),
            (
                "http://127.0.0.1:5000",
                "https://auth.example.com/token",
                true,
            ),
        ] {
            let actual = may_receive_credentials(&url(registry), &url(realm));
            assert_eq!(actual, may, "{registry} and {realm}");
        }
    }

    #[test]
    fn a_token_is_parsed_in_every_servers_format() {
        for (body, token, seconds) in [
            (r#"{"token":"a"}"#, "a", 60.0),
            (r#"{"access_token":"a","expires_in":300}"#, "a", 300.0),
            (
                r#"{"token":null,"access_token":"a","expires_in":null}"#,
                "a",
                60.0,
            ),
            (
                r#"{"token":"","access_token":"a","expires_in":299.5}"#,
                "a",
                299.5,
            ),
            (r#"{"token":"a","expires_in":"300"}"#, "a", 300.0),
            (r#"{"token":"a","expires_in":"soon"}"#, "a", 60.0),
            (r#"{"token":"a","expires_in":-1}"#, "a", 60.0),
            (r#"{"token":"a","expires_in":1e300}"#, "a", 86400.0),
            (r#"{"token":"a","expires_in":"NaN"}"#, "a", 60.0),
        ] {
            let (parsed, lifetime) = parse_token(body.as_bytes()).expect(body);
            assert_eq!(parsed, token, "{body}");
            assert!((lifetime.as_secs_f64() - seconds).abs() < 0.001, "{body}");
        }
        for wrong in ["", "[]", "{}", r#"{"token":null}"#, r#"{"token":7}"#] {
            assert_eq!(parse_token(wrong.as_bytes()), None, "{wrong}");
        }
    }

    fn challenge(values: &[&'static str]) -> Option<(AuthScheme, Option<String>)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        best_challenge(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#;
        let (scheme, scope) = challenge(&[r#"Basic realm="r""#, bearer]).unwrap();
        let AuthScheme::Bearer { realm, service } = scheme else {
            panic!("not a bearer challenge");
        };
        assert_eq!(realm.as_str(), "https://auth.example.com/token");
        assert_eq!(service.as_deref(), Some("registry"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn an_unsupported_challenge_is_ignored() {
        assert_eq!(
            challenge(&["basic realm=\"r\""]),
            Some((AuthScheme::Basic, None))
        );
        for wrong in [
            "Bearer",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"nowhere\"",
            "Digest realm=\"r\"",
            "\"",
        ] {
            assert_eq!(challenge(&[wrong]), None, "{wrong}");
        }
    }
}
