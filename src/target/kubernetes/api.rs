//! Requests to an API server: objects as JSON, by kind and name.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http_client::{
    AttemptError, RetryPolicy, TransferError, clock_difference, display_address, read_at_most,
    retry, retry_after,
};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode, Url};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::error::Error;
use super::kinds::{ObjectKind, POD, SERVICE};
use super::kubeconfig::{ApiLogin, Cluster};
use super::names::StoreOwner;
use super::session::ApiSession;

/// The name under which the server knows the fields of this program.
pub const MANAGER: &str = "alokai";

/// The time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of an answer.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Reading is repeated, and writing if the server has certainly not carried it out.
const RETRY: RetryPolicy = RetryPolicy {
    retries: 4,
    pause: Duration::from_millis(250),
    factor: 2,
};

/// The API server, with the namespace of the stores.
pub struct Api {
    /// The namespace.
    pub namespace: String,
    cluster: Cluster,
    session: Mutex<Option<ApiSession>>,
    /// Seconds by which the clock of this machine is ahead of the server's.
    ahead: AtomicI64,
}

/// The message of the server about a failed request.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ApiStatus {
    pub(super) message: String,
    pub(super) details: Option<StatusDetails>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct StatusDetails {
    pub(super) causes: Vec<StatusCause>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct StatusCause {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) field: String,
}

/// A request.
pub(super) struct ApiRequest<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) body: Option<(&'static str, &'a Value)>,
    /// What it does, for errors.
    pub(super) doing: String,
}

impl Api {
    /// The server of a cluster. Nothing is sent yet.
    pub fn new(cluster: Cluster, namespace: Option<&str>) -> Self {
        let namespace = namespace.map(str::to_owned);
        let namespace = namespace.or_else(|| cluster.namespace.clone());
        Self {
            namespace: namespace.unwrap_or_else(|| "default".into()),
            cluster,
            session: Mutex::default(),
            ahead: AtomicI64::new(0),
        }
    }

    /// The address of the server, for people.
    pub fn server(&self) -> String {
        display_address(&self.cluster.server)
    }

    /// The time by the clock of the server, as of its last answer.
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_secs(self.ahead.load(Ordering::Relaxed));
        Timestamp::now() - ahead
    }

    /// The path of objects of a kind, or of one object.
    pub(super) fn path(&self, kind: ObjectKind, name: Option<&str>) -> String {
        let name = name.map_or_else(String::new, |name| format!("/{name}"));
        format!(
            "{}/namespaces/{}/{}{name}",
            kind.group(),
            self.namespace,
            kind.plural
        )
    }

    /// An object, if it exists.
    pub async fn get(&self, kind: ObjectKind, name: &str) -> Result<Option<Value>, Error> {
        let request = ApiRequest {
            method: Method::GET,
            path: self.path(kind, Some(name)),
            query: Vec::new(),
            body: None,
            doing: format!("read {}", kind.object(name)),
        };
        self.read(request).await
    }

    /// An object of a store, if it exists. Fails if an object with its name belongs to something else.
    pub async fn owned(
        &self,
        kind: ObjectKind,
        name: &str,
        owner: &StoreOwner,
    ) -> Result<Option<Value>, Error> {
        match self.get(kind, name).await? {
            Some(found) if !owner.owns(&found) => Err(Error::Foreign {
                object: kind.object(name),
            }),
            found => Ok(found),
        }
    }

    /// The objects with these labels. None if the server does not know the kind.
    pub async fn list(&self, kind: ObjectKind, labels: &str) -> Result<Option<Vec<Value>>, Error> {
        let request = ApiRequest {
            method: Method::GET,
            path: self.path(kind, None),
            query: vec![("labelSelector", labels.to_owned())],
            body: None,
            doing: format!("list objects of the kind {}", kind.name),
        };
        let answer = self.read(request).await?;
        Ok(answer.map(|mut answer| match answer["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }))
    }

    /// The answer to any other address below the server's, if it exists.
    pub async fn get_path(&self, path: &str, doing: &str) -> Result<Option<Value>, Error> {
        let request = ApiRequest {
            method: Method::GET,
            path: path.to_owned(),
            query: Vec::new(),
            body: None,
            doing: doing.to_owned(),
        };
        self.read(request).await
    }

    async fn read(&self, request: ApiRequest<'_>) -> Result<Option<Value>, Error> {
        let response = self.send(&request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.value(response, &request).await.map(Some)
    }

    /// Creates an object. None if there is an object with this name.
    pub async fn create(&self, kind: ObjectKind, object: &Value) -> Result<Option<Value>, Error> {
        let name = name_of(object);
        let request = ApiRequest {
            method: Method::POST,
            path: self.path(kind, None),
            query: vec![("fieldManager", MANAGER.into())],
            body: Some(("application/json", object)),
            doing: format!("create {}", kind.object(name)),
        };
        let response = self.send(&request).await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(None);
        }
        self.value(response, &request).await.map(Some)
    }

    /// The answer to a question that is put as an object, such as a review of access.
    pub async fn review(&self, path: &str, object: &Value) -> Result<Value, Error> {
        let request = ApiRequest {
            method: Method::POST,
            path: path.to_owned(),
            query: Vec::new(),
            body: Some(("application/json", object)),
            doing: "tell which permissions the user has".into(),
        };
        let response = self.send(&request).await?;
        self.value(response, &request).await
    }

    /// Changes some fields of an object. False if the object does not exist.
    pub async fn merge(&self, kind: ObjectKind, name: &str, change: &Value) -> Result<bool, Error> {
        let request = ApiRequest {
            method: Method::PATCH,
            path: self.path(kind, Some(name)),
            query: vec![("fieldManager", MANAGER.into())],
            body: Some(("application/merge-patch+json", change)),
            doing: format!("change {}", kind.object(name)),
        };
        Ok(self.read(request).await?.is_some())
    }

    /// Replaces an object by one with the same `metadata.resourceVersion`. False if the object has changed
    /// or does not exist any more.
    pub async fn replace(&self, kind: ObjectKind, object: &Value) -> Result<bool, Error> {
        let name = name_of(object);
        let request = ApiRequest {
            method: Method::PUT,
            path: self.path(kind, Some(name)),
            query: vec![("fieldManager", MANAGER.into())],
            body: Some(("application/json", object)),
            doing: format!("replace {}", kind.object(name)),
        };
        let response = self.send(&request).await?;
        let is_changed = [StatusCode::CONFLICT, StatusCode::NOT_FOUND];
        if is_changed.contains(&response.status()) {
            return Ok(false);
        }
        self.value(response, &request).await?;
        Ok(true)
    }

    /// Deletes an object as it was read, and what it owns. It is no error if the object has changed or does
    /// not exist any more.
    pub async fn delete(
        &self,
        kind: ObjectKind,
        object: &Value,
        exactly: bool,
    ) -> Result<(), Error> {
        let (name, metadata) = (name_of(object), &object["metadata"]);
        let mut preconditions = json!({ "uid": metadata["uid"] });
        if exactly {
            preconditions["resourceVersion"] = metadata["resourceVersion"].clone();
        }
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        });
        let request = ApiRequest {
            method: Method::DELETE,
            path: self.path(kind, Some(name)),
            query: Vec::new(),
            body: Some(("application/json", &options)),
            doing: format!("delete {}", kind.object(name)),
        };
        let response = self.send(&request).await?;
        if [StatusCode::CONFLICT, StatusCode::NOT_FOUND].contains(&response.status()) {
            return Ok(());
        }
        self.value(response, &request).await.map(drop)
    }

    /// The output of a pod. None if its container has not started, or if the pod does not exist any more.
    pub async fn log(
        &self,
        pod: &str,
        query: &[(&str, String)],
    ) -> Result<Option<Response>, Error> {
        let follows = query.iter().any(|(name, _)| *name == "follow");
        let path = format!("{}/log", self.path(POD, Some(pod)));
        let url = self.url(&path)?;
        let session = self.session().await?;
        let mut sending = session.client.get(url).query(query);
        if let Some(token) = &session.token {
            sending = sending.bearer_auth(token.expose_secret());
        }
        if !follows {
            sending = sending.timeout(TIMEOUT);
        }
        let response = sending.send().await.map_err(|error| self.lost(error))?;
        if response.status().is_success() {
            return Ok(Some(response));
        }
        let doing = format!("read the output of {}", POD.object(pod));
        match self.refused(response, &doing).await {
            Error::Refused { status: 404, .. } => Ok(None),
            Error::Refused {
                status: 400,
                message,
                ..
            } if message.contains("waiting to start") => Ok(None),
            error => Err(error),
        }
    }

    /// The answer of an app, by the proxy of the server: `http:<service>:<port>` and a path.
    pub async fn proxied(&self, service: &str, path: &str) -> Result<Response, Error> {
        let base = format!("{}/proxy", self.path(SERVICE, Some(service)));
        let mut url = self.url(&base)?;
        let (path, query) = path
            .split_once('?')
            .map_or((path, None), |(p, q)| (p, Some(q)));
        url.set_path(&format!("{}{path}", url.path()));
        url.set_query(query);
        let session = self.session().await?;
        let mut sending = session.client.get(url).timeout(TIMEOUT);
        if let Some(token) = &session.token {
            sending = sending.bearer_auth(token.expose_secret());
        }
        sending.send().await.map_err(|error| self.lost(error))
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        let mut base = self.cluster.server.clone();
        let own = base.path().trim_end_matches('/').to_owned();
        if base.cannot_be_a_base() {
            return Err(Error::Config {
                reason: format!("`{base}` is not a valid address of a server"),
                help: "write an address such as `https://10.0.0.1:6443`".into(),
            });
        }
        base.set_path(&format!("{own}/{path}"));
        Ok(base)
    }

    async fn session(&self) -> Result<ApiSession, Error> {
        let mut session = self.session.lock().await;
        if let Some(known) = session.as_ref().filter(|known| known.is_valid()) {
            return Ok(known.clone());
        }
        let new = ApiSession::open(&self.cluster).await?;
        *session = Some(new.clone());
        Ok(new)
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        Error::Unreachable {
            server: self.server(),
            reason: TransferError::from(error).to_string(),
        }
    }

    /// Sends a request, and again if the login has ended or the server is busy.
    pub(super) async fn send(&self, request: &ApiRequest<'_>) -> Result<Response, Error> {
        let response = retry(RETRY, || self.attempt(request)).await?;
        let renews = matches!(self.cluster.login, ApiLogin::File(_) | ApiLogin::Plugin(_));
        if response.status() != StatusCode::UNAUTHORIZED || !renews {
            return Ok(response);
        }
        *self.session.lock().await = None;
        retry(RETRY, || self.attempt(request)).await
    }

    async fn attempt(&self, request: &ApiRequest<'_>) -> Result<Response, AttemptError<Error>> {
        let session = self.session().await?;
        let mut sending = session
            .client
            .request(request.method.clone(), self.url(&request.path)?)
            .query(&request.query)
            .header(ACCEPT, "application/json")
            .timeout(TIMEOUT);
        if let Some(token) = &session.token {
            sending = sending.bearer_auth(token.expose_secret());
        }
        if let Some((kind, body)) = request.body {
            sending = sending.header(CONTENT_TYPE, kind).body(body.to_string());
        }
        let response = match sending.send().await {
            Ok(response) => response,
            Err(error) => {
                let is_unsent = error.is_connect() || request.method == Method::GET;
                let error = self.lost(error);
                return Err(if is_unsent {
                    AttemptError::disconnected(error)
                } else {
                    AttemptError::Final(error)
                });
            }
        };
        if let Some(ahead) = clock_difference(response.headers()) {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        let status = response.status();
        let is_read = request.method == Method::GET && status.is_server_error();
        // The server has not carried out a request that it answers so.
        if status == StatusCode::TOO_MANY_REQUESTS || is_read {
            let retry_after = retry_after(response.headers());
            return Err(AttemptError::Transient {
                error: self.refused(response, &request.doing).await,
                status: Some(status),
                retry_after,
                is_disconnect: false,
            });
        }
        Ok(response)
    }

    pub(super) async fn value(
        &self,
        response: Response,
        request: &ApiRequest<'_>,
    ) -> Result<Value, Error> {
        if !response.status().is_success() {
            return Err(self.refused(response, &request.doing).await);
        }
        let status = response.status().as_u16();
        let unreadable = |message: String| Error::Refused {
            doing: request.doing.clone(),
            status,
            message,
        };
        let body = read_at_most(response, LONGEST_ANSWER, TIMEOUT)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        // A message of the parser could show the value of a Secret.
        serde_json::from_slice(&body.bytes)
            .map_err(|_| unreadable("the answer is not valid JSON".into()))
    }

    async fn refused(&self, response: Response, doing: &str) -> Error {
        let code = response.status();
        let message = status(response).await.message;
        match code {
            StatusCode::UNAUTHORIZED => Error::Login {
                server: self.server(),
                message,
            },
            StatusCode::FORBIDDEN => Error::Forbidden {
                doing: doing.to_owned(),
                message,
            },
            _ => Error::Refused {
                doing: doing.to_owned(),
                status: code.as_u16(),
                message,
            },
        }
    }
}

/// The message of a failed request. An answer of another server is shown as it is.
pub(super) async fn status(response: Response) -> ApiStatus {
    let body = read_at_most(response, 64 << 10, TIMEOUT).await;
    let bytes = body.map(|body| body.bytes).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&bytes);
        ApiStatus {
            message: text.trim().chars().take(500).collect(),
            details: None,
        }
    })
}

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
