//! Stands in for the console, which nobody but its operator can have: a real HTTP server that
//! answers the deploy call of the contract, and keeps what it was sent.
//!
//! `console <folder>` listens on a free port of the loopback, prints its address, and writes
//! each request to `<folder>/<number>.json`: method, path, content type and body.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};

struct Recorder {
    folder: PathBuf,
    next: AtomicUsize,
}

async fn record(
    State(recorder): State<Arc<Recorder>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    if method != Method::PATCH {
        return (StatusCode::OK, Json(json!({ "service": "console" })));
    }
    let content_type = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let document = json!({
        "method": method.as_str(),
        "path": uri.path(),
        "contentType": content_type,
        "body": serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null),
    });
    let number = recorder.next.fetch_add(1, Ordering::Relaxed);
    let file = recorder.folder.join(format!("{number}.json"));
    match std::fs::write(&file, format!("{document:#}\n")) {
        Ok(()) => (StatusCode::OK, Json(json!({ "status": "accepted" }))),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({ "error": format!("{}: {error}", file.display()) })),
        ),
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other(
            "usage: console <folder for the requests>",
        ));
    };
    std::fs::create_dir_all(&folder)?;
    let recorder = Arc::new(Recorder {
        folder,
        next: AtomicUsize::new(0),
    });
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(
        listener,
        Router::new().fallback(record).with_state(recorder),
    )
    .await
}
