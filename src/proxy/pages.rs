//! The pages of the proxy: the list of stores, and the page for an app that does not answer yet.
//!
//! They work without JavaScript. With JavaScript they reload themselves when something has changed.

use std::fmt::{self, Display, Write as _};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::gateway::ProxyBody;
use super::headers;
use super::routes::{RoutedApp, StoreRoutes};

const STYLE: &str = include_str!("pages/style.css");
const SCRIPT: &str = include_str!("pages/reload.js");

/// Nothing is loaded from elsewhere, and no script is part of a page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn response(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<ProxyBody> {
    let body = Full::new(text.into()).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed(body));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn html(status: StatusCode, text: String) -> Response<ProxyBody> {
    response(status, "text/html; charset=utf-8", text)
}

/// One line of text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<ProxyBody> {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Response<ProxyBody> {
    let text = serde_json::to_string(value).unwrap_or_default();
    response(StatusCode::OK, "application/json", text)
}

/// The style sheet of the pages.
pub(super) fn style() -> Response<ProxyBody> {
    response(StatusCode::OK, "text/css; charset=utf-8", STYLE)
}

/// The script that reloads a page.
pub(super) fn script() -> Response<ProxyBody> {
    response(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}

/// Text that HTML cannot take for markup.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A whole page. `title` and `body` are HTML. `script` is the part between `<script` and `>`.
fn page(title: &str, script: &str, interval: &str, body: &str) -> String {
    let links = format!(
        "<link rel=\"stylesheet\" href=\"/__alokai/style.css\">\n{interval}\
         <script src=\"/__alokai/reload.js\" defer {script}></script>\n"
    );
    document(title, &links, body)
}

/// A page with nothing but its HTML. `links` is the end of its head.
fn document(title: &str, links: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         {links}</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// The response for a host that is not local. It names the address of the list of stores and no
/// store. The style sheet and the script are not available to this host.
pub(super) fn unknown_host(authority: &str, list: &str) -> Response<ProxyBody> {
    let body = format!(
        "<h1>Not found</h1>\n<p>No store has the address <code>{}</code>. The list of stores is at <a href=\"{list}\">{list}</a>.</p>\n",
        Escaped(authority)
    );
    html(StatusCode::NOT_FOUND, document("Not found", "", &body))
}

/// The list of stores, for one request.
pub(super) struct StoreList<'a> {
    /// Host and port of the request.
    pub authority: &'a str,
    /// The scheme of the request.
    pub scheme: &'a str,
    /// The stores.
    pub stores: &'a [StoreRoutes],
    /// The number of the routing table.
    pub revision: u64,
}

impl StoreList<'_> {
    /// The page. With 404 it says first that the address belongs to no store.
    pub fn stores(&self, status: StatusCode) -> Response<ProxyBody> {
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut body, status);
        let title = if status == StatusCode::OK {
            "Stores"
        } else {
            "Not found"
        };
        let script = format!(
            "data-watched=\"/__alokai/revision\" data-known=\"{}\"",
            self.revision
        );
        html(status, page(title, &script, "", &body))
    }

    fn write(&self, out: &mut String, status: StatusCode) -> fmt::Result {
        let host = headers::host(self.authority);
        let own = self.stores.iter().find(|store| {
            let is_host = |it: &String| it.eq_ignore_ascii_case(host);
            store.hosts.iter().any(is_host)
        });
        match own {
            _ if status == StatusCode::OK => out.write_str("<h1>Stores</h1>\n")?,
            Some(store) => {
                writeln!(
                    out,
                    "<h1>Not found</h1>\n<p>No running app of the store <code>{}</code> answers for this path.</p>",
                    Escaped(&store.store)
                )?;
                for path in store.apps.iter().filter_map(|app| app.path_prefix.as_ref()) {
                    writeln!(
                        out,
                        "<p>An app of it answers below <a href=\"{0}\">{0}</a>.</p>",
                        Escaped(path)
                    )?;
                }
                writeln!(out, "<h2>Stores</h2>")?;
            }
            None => writeln!(
                out,
                "<h1>Not found</h1>\n<p>No store has the address <code>{}</code>.</p>\n<h2>Stores</h2>",
                Escaped(self.authority)
            )?,
        }
        if self.stores.is_empty() {
            return out.write_str("<p>No store is running.</p>\n");
        }
        out.write_str("<table>\n<thead><tr><th scope=\"col\">Store</th><th scope=\"col\">App</th><th scope=\"col\">Port</th><th scope=\"col\">State</th><th scope=\"col\">Last change</th></tr></thead>\n")?;
        for store in self.stores {
            self.write_store(out, store)?;
        }
        out.write_str("</table>\n")
    }

    fn write_store(&self, out: &mut String, store: &StoreRoutes) -> fmt::Result {
        let rows = store.apps.len().max(1);
        write!(
            out,
            "<tbody>\n<tr><th scope=\"rowgroup\" rowspan=\"{rows}\">{}",
            Escaped(&store.store)
        )?;
        for host in &store.hosts {
            let url = self.url(host);
            write!(out, "<br><a href=\"{0}\">{0}</a>", Escaped(url))?;
        }
        out.write_str("</th>")?;
        let change = store.last_change.as_deref().unwrap_or("none");
        let change = format!("<td rowspan=\"{rows}\">{}</td></tr>\n", Escaped(change));
        if store.apps.is_empty() {
            write!(out, "<td>none</td><td>-</td><td>-</td>{change}")?;
        }
        for (index, app) in store.apps.iter().enumerate() {
            let (name, port, state) = (Escaped(&app.app), app.port, Escaped(&app.state));
            if index > 0 {
                out.write_str("<tr>")?;
            }
            write!(out, "<td>{name}</td><td>{port}</td><td>{state}</td>")?;
            out.write_str(if index == 0 { &change } else { "</tr>\n" })?;
        }
        out.write_str("</tbody>\n")
    }

    /// The address of a host at the port of the request.
    fn url(&self, host: &str) -> String {
        let own = headers::host(self.authority);
        let port = self.authority.get(own.len()..).unwrap_or_default();
        format!("{}://{host}{port}/", self.scheme)
    }
}

/// The response for an app that does not listen yet. The page reloads itself when the app answers.
pub(super) fn starting(target: &RoutedApp, is_page: bool) -> Response<ProxyBody> {
    let RoutedApp {
        store, app, port, ..
    } = target;
    let status = StatusCode::BAD_GATEWAY;
    let mut response = if is_page {
        let body = format!(
            "<h1>{app} is starting</h1>\n<p role=\"status\">The app <code>{app}</code> of the store <code>{store}</code> does not answer on port {port} yet. Its state is: {}. This page reloads itself.</p>\n",
            Escaped(&target.state)
        );
        let interval = "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n";
        let script = format!("data-watched=\"/__alokai/answers/{app}\" data-known=\"false\"");
        let title = format!("{app} is starting");
        html(status, page(&title, &script, interval, &body))
    } else {
        let text = format!("`{app}` of the store `{store}` does not answer on port {port} yet");
        plain(status, &text)
    };
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// The page that is shown instead of a store. It may load anything, since the user has written it.
pub(super) fn maintenance(page: &str) -> Response<ProxyBody> {
    let mut response = html(StatusCode::SERVICE_UNAVAILABLE, page.to_owned());
    let headers = response.headers_mut();
    headers.remove(CONTENT_SECURITY_POLICY);
    headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// The response for an app that closed the connection without a response.
pub(super) fn broken(target: &RoutedApp, error: &dyn std::error::Error) -> Response<ProxyBody> {
    let RoutedApp {
        store, app, port, ..
    } = target;
    let mut text =
        format!("`{app}` of the store `{store}` on port {port} sent no valid response: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    plain(StatusCode::BAD_GATEWAY, &text)
}

#[cfg(test)]
mod tests {
    use super::Escaped;

    #[test]
    fn text_is_never_markup() {
        assert_eq!(
            Escaped("a\"b<script>&'").to_string(),
            "a&quot;b&lt;script&gt;&amp;&#39;"
        );
    }
}
