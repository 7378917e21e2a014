//! What a registry wants to see before it answers: a password, or a token that a token server
//! gives for a scope. A registry says which in a challenge, which is learnt from its first 401.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::Login;
use super::address::{is_on_loopback, is_plain, place, redirected};
use super::client::Client;
use super::request::RegistryRequest;
use super::response::RegistryResponse;
use super::retry::AttemptError;

/// Seconds that a token holds whose server does not say.
const HOLDS: f64 = 60.0;

/// Seconds after which every token is asked for anew.
const LONGEST_HOLD: f64 = 24.0 * 3600.0;

/// Before a token ends, by so much it is taken for ended: its request has to arrive.
const MARGIN: Duration = Duration::from_secs(10);

/// Bytes of a token server's answer. A token lists rights, and is long where there are many.
const LONGEST_ANSWER: u64 = 1 << 20;

/// What a request needs: rights on repositories, as token servers write them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TokenScope(Vec<String>);

impl TokenScope {
    /// To read there.
    pub fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// To read and write there.
    pub fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// To read there too.
    pub fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }
}

/// How a registry wants to be told who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AuthScheme {
    /// User and password.
    Basic,
    /// A token from there.
    Bearer { realm: Url, service: Option<String> },
}

#[derive(Default)]
struct TokenSlot {
    /// What the registry's challenge named, where that is more than what we ask for.
    named: Option<String>,
    token: Option<AccessToken>,
}

struct AccessToken {
    header: HeaderValue,
    until: Instant,
}

/// The state of one registry's authentication.
pub struct Authenticator {
    login: Option<Login>,
    /// Whether secrets may go to other machines over plain HTTP.
    allow_insecure: bool,
    scheme: Mutex<Option<AuthScheme>>,
    /// By scope. Whoever needs a token that another is fetching waits for it.
    tokens: Mutex<HashMap<TokenScope, Arc<tokio::sync::Mutex<TokenSlot>>>>,
}

/// The token of a token server's answer, under either of its names, and the seconds that it holds.
/// Servers leave fields out or write `null`, and write numbers with a fraction or as text.
fn given(body: &[u8]) -> Option<(String, Duration)> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let names = ["token", "access_token"];
    let mut tokens = names.iter().filter_map(|name| document[name].as_str());
    let token = tokens.find(|token| !token.is_empty())?;
    let seconds = match &document["expires_in"] {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    let seconds: f64 = seconds.filter(|seconds| *seconds >= 0.0).unwrap_or(HOLDS);
    let holds = Duration::from_secs_f64(seconds.min(LONGEST_HOLD));
    Some((token.to_owned(), holds))
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
            Entry::Vacant(place) => Arc::clone(place.insert(Arc::default())),
        }
    }

    /// Takes the challenge of a 401.
    pub async fn learn(&self, scope: &TokenScope, headers: &HeaderMap) {
        let Some((scheme, named)) = challenged(headers) else {
            return;
        };
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
        // What it names for a request that is in no repository is nobody's right.
        if !scope.0.is_empty() {
            self.slot(scope).lock().await.named = named;
        }
    }

    /// What to send with a request; nothing as long as the registry has not asked for it, or
    /// where there is nothing. `refused` is what the registry has just not accepted.
    pub async fn header(
        &self,
        client: &Client,
        ask: &RegistryRequest<'_>,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, AttemptError> {
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
        let slot = self.slot(ask.scope);
        let mut slot = slot.lock().await;
        if let Some(token) = &slot.token
            && Instant::now() < token.until
            && refused != Some(&token.header)
        {
            return Ok(Some(token.header.clone()));
        }
        slot.token = None;
        let mut scopes: Vec<&str> = ask.scope.0.iter().map(String::as_str).collect();
        if let Some(named) = &slot.named {
            for scope in named.split(' ').filter(|scope| !scope.is_empty()) {
                if !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
        }
        let token = self
            .fetch(client, ask, realm, service.as_deref(), &scopes)
            .await?;
        let header = token.header.clone();
        slot.token = Some(token);
        Ok(Some(header))
    }

    /// Asks the token server.
    async fn fetch(
        &self,
        client: &Client,
        ask: &RegistryRequest<'_>,
        mut realm: Url,
        service: Option<&str>,
        scopes: &[&str],
    ) -> Result<AccessToken, AttemptError> {
        let refused = |message: String| {
            AttemptError::Final(client.refused(ask, StatusCode::UNAUTHORIZED, message))
        };
        let may = self.allow_insecure || may_see_passwords(client.root(), &realm);
        if self.login.is_some() && !may {
            return Err(refused(format!(
                "its token server `{}` is plain HTTP, so no password is sent there (`--allow-insecure` sends it)",
                place(&realm)
            )));
        }
        let request = if let Some(token) = self.login.as_ref().and_then(Login::refresh_token) {
            let mut form = Url::parse("form:").expect("a constant");
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("service", service.unwrap_or_default())
                .append_pair("client_id", "alokai")
                .append_pair("scope", &scopes.join(" "))
                .append_pair("refresh_token", token.expose_secret());
            client
                .http(false)
                .post(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().to_owned())
        } else {
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
        };
        let response = client.in_time(request.send()).await?;
        if let Some(to) = redirected(&response) {
            return Err(refused(format!(
                "its token server redirects to `{to}`, where no password is sent"
            )));
        }
        let answer = RegistryResponse::new(response, None);
        let answer = client.judge(ask, answer).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                // Whatever its number, it is the login that a token server refuses.
                let (_, message) = client.said(answer).await;
                return Err(refused(message));
            }
            _ => return Err(client.refusal(ask, answer).await.into()),
        }
        let body = client.body(answer, LONGEST_ANSWER).await?;
        let no_token = || refused("its token server gives no token".into());
        let (token, holds) = body.and_then(|body| given(&body)).ok_or_else(no_token)?;
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| no_token())?;
        header.set_sensitive(true);
        Ok(AccessToken {
            header,
            until: Instant::now() + holds.saturating_sub(MARGIN.min(holds / 2)),
        })
    }
}

/// Whether a token server may be sent what its registry is sent: it speaks TLS, or neither does
/// and both are one machine.
fn may_see_passwords(registry: &Url, realm: &Url) -> bool {
    let is_same = registry.host() == realm.host();
    let is_here = is_on_loopback(registry) && is_on_loopback(realm);
    !is_plain(realm) || is_plain(registry) && (is_same || is_here)
}

/// The best challenge of an answer, and the scope that it names.
fn challenged(headers: &HeaderMap) -> Option<(AuthScheme, Option<String>)> {
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

    use super::{AuthScheme, challenged, given, may_see_passwords};

    #[test]
    fn a_password_does_not_leave_tls() {
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
            let said = may_see_passwords(&url(registry), &url(realm));
            assert_eq!(said, may, "{registry} and {realm}");
        }
    }

    #[test]
    fn a_token_is_read_however_its_server_writes_it() {
        for (answer, token, seconds) in [
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
            let (read, holds) = given(answer.as_bytes()).expect(answer);
            assert_eq!(read, token, "{answer}");
            assert!((holds.as_secs_f64() - seconds).abs() < 0.001, "{answer}");
        }
        for wrong in ["", "[]", "{}", r#"{"token":null}"#, r#"{"token":7}"#] {
            assert_eq!(given(wrong.as_bytes()), None, "{wrong}");
        }
    }

    fn challenge(values: &[&'static str]) -> Option<(AuthScheme, Option<String>)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenged(&headers)
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let bearer = r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#;
        let (scheme, scope) = challenge(&[r#"Basic realm="r""#, bearer]).unwrap();
        let AuthScheme::Bearer { realm, service } = scheme else {
            panic!("it is a token");
        };
        assert_eq!(realm.as_str(), "https://auth.example.com/token");
        assert_eq!(service.as_deref(), Some("registry"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn what_cannot_be_followed_is_no_challenge() {
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
