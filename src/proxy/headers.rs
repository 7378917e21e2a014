//! The headers of a request and a response on their way through the proxy.

use std::net::IpAddr;

use hyper::body::Body;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;

/// Headers that a client may not set for the app, since the app trusts them.
const FORWARDED: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
];

/// How a request reached the proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    /// The address of the client.
    pub client: IpAddr,
    /// Whether the client uses HTTPS.
    pub is_secure: bool,
}

impl Connection {
    /// The scheme of the request.
    pub fn scheme(self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }
}

/// The authority of a request: that of an absolute URI or of HTTP/2, else the `Host` header. `Err`
/// if the header occurs twice or is not text, or if both are missing in HTTP/1.1.
pub(super) fn authority(parts: &Parts) -> Result<String, &'static str> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("the request has more than one `Host` header");
    }
    if let Some(authority) = parts.uri.authority() {
        if authority.as_str().contains('@') {
            return Err("the address of the request has a user name");
        }
        return Ok(authority.as_str().to_owned());
    }
    match host.map(HeaderValue::to_str) {
        Some(Ok(host)) => Ok(host.to_owned()),
        Some(Err(_)) => Err("the `Host` header has characters that are not allowed"),
        None if parts.version < hyper::Version::HTTP_11 => Ok(String::new()),
        None => Err("the request has no `Host` header"),
    }
}

/// The host of an authority, without its port.
pub(super) fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The protocol to which a request or a response switches, such as `websocket`.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| named).cloned()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// Removes the headers that are about one connection and not about the message. An upgrade stays.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let upgrade = upgrade(headers);
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        // A request without its host or its length is another request.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Makes the headers of a client those of the request to an app.
pub(super) fn to_app(headers: &mut HeaderMap, authority: &HeaderValue, connection: Connection) {
    remove_hop_by_hop(headers);
    // This program has answered `100 Continue` when it reads the body.
    headers.remove(EXPECT);
    for name in FORWARDED {
        headers.remove(name);
    }
    join_cookies(headers);
    headers.insert(HOST, authority.clone());
    headers.insert("x-forwarded-host", authority.clone());
    headers.insert(
        "x-forwarded-proto",
        HeaderValue::from_static(connection.scheme()),
    );
    // The text of an address is a valid header.
    if let Ok(client) = connection.client.to_canonical().to_string().parse() {
        headers.insert("x-forwarded-for", client);
    }
}

/// Makes the body of a request to an app chunked if its length is not known. Without this header
/// hyper sends `GET` and `HEAD` without their body.
pub(super) fn set_body_length(headers: &mut HeaderMap, body: &impl Body) {
    if body.is_end_stream() || body.size_hint().exact().is_some() {
        return;
    }
    // Two lengths of one body allow request smuggling.
    headers.remove(CONTENT_LENGTH);
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
}

/// HTTP/2 sends cookies as several headers. HTTP/1.1 allows one header only.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() < 2 {
        return;
    }
    // The parts are valid, so the whole is valid too.
    if let Ok(whole) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderMap;

    use super::{Connection, host, remove_hop_by_hop, to_app};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn headers_of_one_connection_are_removed() {
        let mut headers = headers(&[
            ("connection", "close, x-private"),
            ("connection", "Content-Length"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("x-public", "2"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(lines(&headers), ["content-length: 3", "x-public: 2"]);
    }

    #[test]
    fn an_upgrade_stays() {
        let mut headers = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(
            lines(&headers),
            ["connection: upgrade", "upgrade: websocket"]
        );
    }

    #[test]
    fn an_app_sees_the_address_of_the_client_and_nothing_that_the_client_claims() {
        let mut headers = headers(&[
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("expect", "100-continue"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded-proto", "https"),
        ]);
        let connection = Connection {
            client: "::ffff:127.0.0.1".parse().unwrap(),
            is_secure: false,
        };
        let authority = "us.localhost:8080".parse().unwrap();
        to_app(&mut headers, &authority, connection);
        assert_eq!(
            lines(&headers),
            [
                "cookie: a=1; b=2",
                "host: us.localhost:8080",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: us.localhost:8080",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn a_host_has_no_port() {
        assert_eq!(host("us.localhost:8080"), "us.localhost");
        assert_eq!(host("us.localhost"), "us.localhost");
        assert_eq!(host("[::1]:80"), "[::1]");
        assert_eq!(host("a\"b<script>"), "a\"b<script>");
    }
}
