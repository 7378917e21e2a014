//! One request: from a client to an app and back.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::headers::{self, Connection};
use super::pages::{self, StoreList};
use super::routes::{RouteMatch, RoutedApp, Routes};
use super::upstream::{self, Upstream, UpstreamError};

/// The body of a response.
pub(super) type ProxyBody = BoxBody<Bytes, hyper::Error>;

/// Answers requests. All connections share it.
#[derive(Debug)]
pub(super) struct Gateway {
    routes: Routes,
    upstream: Upstream,
    tunnels: TaskTracker,
    shutdown: CancellationToken,
    /// The address of the list of stores.
    list: String,
}

impl Gateway {
    /// `list` is the address of the list of stores.
    pub fn new(
        routes: Routes,
        tunnels: TaskTracker,
        shutdown: CancellationToken,
        list: String,
    ) -> Self {
        Self {
            list,
            routes,
            upstream: Upstream::new(),
            tunnels,
            shutdown,
        }
    }

    /// The response to a request. It is an app's response, or a page of the proxy.
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        connection: Connection,
    ) -> Response<ProxyBody> {
        let on_upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let authority = match headers::authority(&parts) {
            Ok(authority) if parts.method != Method::CONNECT => authority,
            Ok(_) => return pages::plain(StatusCode::BAD_REQUEST, "`CONNECT` is not supported"),
            Err(reason) => return pages::plain(StatusCode::BAD_REQUEST, reason),
        };
        let host = headers::host(&authority);
        // DNS can point a foreign name at this machine, and a web page below that name must not
        // read the stores.
        if !self.routes.is_local(host) {
            return pages::unknown_host(&authority, &self.list);
        }
        let path = parts.uri.path();
        if let Some(own) = path.strip_prefix("/__alokai/") {
            return self.own(own, host).await;
        }
        let status = match self.routes.find(host, path) {
            RouteMatch::App(target) => {
                let client = Client {
                    authority: &authority,
                    connection,
                    on_upgrade,
                };
                return self.forward(parts, body, target, client).await;
            }
            RouteMatch::Maintenance(page) => return pages::maintenance(&page),
            RouteMatch::Index if path == "/" => StatusCode::OK,
            RouteMatch::Index | RouteMatch::NoApp | RouteMatch::UnknownHost => {
                StatusCode::NOT_FOUND
            }
        };
        let (revision, stores) = self.routes.revision();
        let page = StoreList {
            authority: &authority,
            scheme: connection.scheme(),
            stores: &stores,
            revision,
        };
        page.stores(status)
    }

    /// The resources of the proxy's pages. `path` is below `/__alokai/`.
    async fn own(&self, path: &str, host: &str) -> Response<ProxyBody> {
        match path {
            "stores.json" => pages::json(&*self.routes.stores()),
            "revision" => pages::json(&self.routes.revision().0),
            "style.css" => pages::style(),
            "reload.js" => pages::script(),
            _ => {
                let app = path.strip_prefix("answers/");
                match app.and_then(|app| self.routes.port(host, app)) {
                    Some(port) => pages::json(&upstream::is_listening(port).await),
                    None => pages::plain(StatusCode::NOT_FOUND, "the proxy has no such page"),
                }
            }
        }
    }

    async fn forward(
        &self,
        mut parts: Parts,
        body: Incoming,
        target: RoutedApp,
        client: Client<'_>,
    ) -> Response<ProxyBody> {
        let is_page = wants_page(&parts);
        let Some(uri) = uri(&parts.uri, &target) else {
            return pages::plain(StatusCode::BAD_REQUEST, "the path is not valid");
        };
        let Ok(authority) = HeaderValue::from_str(client.authority) else {
            return pages::plain(StatusCode::BAD_REQUEST, "the host is not valid");
        };
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        headers::to_app(&mut parts.headers, &authority, client.connection);
        headers::set_body_length(&mut parts.headers, &body);
        let response = match self.upstream.send(parts, body).await {
            Ok(response) => response,
            Err(UpstreamError::NotListening) => return pages::starting(&target, is_page),
            Err(UpstreamError::Closed(error)) => return pages::broken(&target, &error),
        };
        let open = (target.in_flight, target.tunnel);
        self.respond(response, open, client.on_upgrade)
    }

    /// Makes the response of an app the response to the client.
    fn respond(
        &self,
        mut response: Response<Incoming>,
        (in_flight, open_tunnel): (TaskTrackerToken, TaskTrackerToken),
        client: OnUpgrade,
    ) -> Response<ProxyBody> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let app = hyper::upgrade::on(&mut response);
            let passing = tunnel(client, app, self.shutdown.clone());
            self.tunnels.spawn(async move {
                passing.await;
                drop(open_tunnel);
            });
        }
        headers::remove_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        response.map(|body| {
            BoxBody::new(CountedBody {
                body,
                _in_flight: in_flight,
            })
        })
    }
}

/// The client's side of a request.
struct Client<'a> {
    authority: &'a str,
    connection: Connection,
    on_upgrade: OnUpgrade,
}

/// The address of a request for an app. The path and the query are not changed in any byte.
fn uri(uri: &Uri, target: &RoutedApp) -> Option<Uri> {
    let path = &target.path;
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    let uri = Uri::builder().scheme("http");
    let uri = uri.authority(format!("localhost:{}", target.port));
    uri.path_and_query(path_and_query).build().ok()
}

/// Whether a browser shows the response to the user.
fn wants_page(parts: &Parts) -> bool {
    let accepts = |value: &HeaderValue| value.as_bytes().windows(9).any(|it| it == b"text/html");
    [Method::GET, Method::HEAD].contains(&parts.method)
        && parts.headers.get_all(ACCEPT).iter().any(accepts)
}

/// Passes bytes between a client and an app after both have switched to another protocol.
async fn tunnel(client: OnUpgrade, app: OnUpgrade, shutdown: CancellationToken) {
    let passing = async {
        let (client, app) = tokio::try_join!(client, app).ok()?;
        let (mut client, mut app) = (TokioIo::new(client), TokioIo::new(app));
        tokio::io::copy_bidirectional(&mut client, &mut app)
            .await
            .ok()
    };
    // An error ends the tunnel, and both sides see its end.
    let _ = shutdown.run_until_cancelled(passing).await;
}

/// The body of a response. Its request is in flight until the body is dropped.
struct CountedBody {
    body: Incoming,
    _in_flight: TaskTrackerToken,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
