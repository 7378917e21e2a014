//! The addresses at which the apps of a release can be probed.
//!
//! This machine seldom reaches the pods of a cluster. Each app therefore gets a port on the loopback of this
//! machine while this program runs. A request to it is answered by the app, which the API server asks, as
//! soon as all pods of the app are ready.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::KubernetesTarget;
use super::api::Api;
use super::error::Error;
use super::kinds::DEPLOYMENT;
use super::names;
use crate::config::KubernetesProbe;
use crate::ledger::RecordId;
use crate::store::AppName;
use crate::target::{ReleaseSpec, ReleasedApp};

/// Where this program asks which permissions it has.
const REVIEWS: &str = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The open ports. They are closed with the target.
#[derive(Default)]
pub struct ProbePorts {
    open: Mutex<BTreeMap<(RecordId, AppName), ProbePort>>,
    /// Whether the user may send requests through the API server.
    may_forward: Arc<OnceCell<bool>>,
}

struct ProbePort {
    address: String,
    _task: AbortOnDropHandle<()>,
}

/// An app that is probed.
struct ProbedApp {
    api: Arc<Api>,
    deployment: String,
    /// `http:<service>:<port>`. None if only the readiness of the pods counts.
    service: Option<String>,
    may_forward: Arc<OnceCell<bool>>,
}

impl ProbePorts {
    /// The address at which an app can be probed.
    pub async fn address(
        &self,
        target: &KubernetesTarget,
        spec: &ReleaseSpec,
        app: &ReleasedApp,
    ) -> Result<String, Error> {
        let key = (spec.id.clone(), app.app.clone());
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open().get(&key) {
            return Ok(known.address.clone());
        }
        let failed = |error: std::io::Error| Error::Probe {
            app: app.app.to_string(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let staged = names::staged_service(&spec.store, &spec.id);
        let by_service = target.section().probe == KubernetesProbe::Service;
        let probed = ProbedApp {
            api: Arc::clone(target.api()?),
            deployment: names::deployment(spec, app),
            service: by_service.then(|| format!("http:{staged}:{}", names::port(app))),
            may_forward: Arc::clone(&self.may_forward),
        };
        let task = tokio::spawn(serve(listener, Arc::new(probed)));
        let address = format!("http://{address}");
        let port = ProbePort {
            address: address.clone(),
            _task: AbortOnDropHandle::new(task),
        };
        open().insert(key, port);
        Ok(address)
    }

    /// Closes the ports of a release.
    pub fn close(&self, release: &RecordId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(own, _), _| own != release);
    }
}

async fn serve(listener: TcpListener, app: Arc<ProbedApp>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let app = Arc::clone(&app);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let app = Arc::clone(&app);
                async move { Ok::<_, Infallible>(app.answer(&request).await) }
            });
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // The client sees the error of its connection.
            let _ = served.await;
        });
    }
}

impl ProbedApp {
    /// The answer of the app, or why there is none.
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
        let (status, text) = match self.ask(path).await {
            Ok(answer) => answer,
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, String), Error> {
        let deployment = self.api.get(DEPLOYMENT, &self.deployment).await?;
        let (ready, wanted) = ready(&deployment.unwrap_or_default());
        if ready < wanted || wanted == 0 {
            let text = format!("{ready} of {wanted} pods are ready\n");
            return Ok((StatusCode::SERVICE_UNAVAILABLE, text));
        }
        let Some(service) = self.service.as_ref() else {
            return Ok((StatusCode::OK, "all pods are ready\n".into()));
        };
        let may_forward = self.may_forward.get_or_try_init(|| may_forward(&self.api));
        if !*may_forward.await? {
            return Ok((StatusCode::OK, "all pods are ready\n".into()));
        }
        let response = self.api.proxied(service, path).await?;
        let status = response.status().as_u16();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok((status, response.text().await.unwrap_or_default()))
    }
}

/// How many pods of a Deployment are ready, and how many it shall have. Pods of an earlier state of the
/// Deployment do not count.
pub fn ready(deployment: &Value) -> (u64, u64) {
    let (metadata, status) = (&deployment["metadata"], &deployment["status"]);
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(0);
    let count = |name: &str| status[name].as_u64().unwrap_or_default();
    if status["observedGeneration"].as_u64() < metadata["generation"].as_u64() {
        return (0, wanted);
    }
    (count("readyReplicas").min(count("updatedReplicas")), wanted)
}

/// Whether the user may send requests to Services through the API server.
async fn may_forward(api: &Api) -> Result<bool, Error> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "namespace": api.namespace,
            "verb": "get",
            "resource": "services",
            "subresource": "proxy",
        } },
    });
    let answer = api.review(REVIEWS, &review).await?;
    Ok(answer["status"]["allowed"] == true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ready;

    #[test]
    fn pods_count_that_are_ready_and_of_the_newest_state() {
        let deployment = |observed: u64, updated: u64, ready: u64| {
            json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 2 },
                "status": {
                    "observedGeneration": observed,
                    "updatedReplicas": updated,
                    "readyReplicas": ready,
                },
            })
        };
        assert_eq!(ready(&deployment(2, 2, 2)), (2, 2));
        assert_eq!(ready(&deployment(1, 2, 2)), (0, 2));
        assert_eq!(ready(&deployment(2, 1, 2)), (1, 2));
        assert_eq!(ready(&deployment(2, 2, 1)), (1, 2));
        assert_eq!(ready(&json!({})), (0, 0));
    }
}
