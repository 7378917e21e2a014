//! Server-side apply: the server knows which fields of an object belong to this program. A field of another
//! program is never overwritten.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::api::{Api, ApiRequest, MANAGER, StatusCause, name_of, status};
use super::error::Error;
use super::kinds::ObjectKind;

/// The result of an apply.
pub enum Applied {
    /// The object as it is now.
    Done(Value),
    /// The object is not the one that was read.
    Stale,
}

impl Api {
    /// Makes the fields of an object be as given, and creates the object if it does not exist. With
    /// `metadata.resourceVersion`, the object has to be the one that was read. After [`Applied::Stale`], the
    /// object can be read and applied again.
    pub async fn apply(&self, kind: ObjectKind, object: &Value) -> Result<Applied, Error> {
        let name = name_of(object);
        let request = ApiRequest {
            method: Method::PATCH,
            path: self.path(kind, Some(name)),
            query: vec![("fieldManager", MANAGER.into())],
            // JSON is YAML.
            body: Some(("application/apply-patch+yaml", object)),
            doing: format!("apply {}", kind.object(name)),
        };
        let response = self.send(&request).await?;
        if response.status() != StatusCode::CONFLICT {
            return Ok(Applied::Done(self.value(response, &request).await?));
        }
        let causes = status(response).await.details.unwrap_or_default().causes;
        let is_field = |cause: &&StatusCause| cause.reason == "FieldManagerConflict";
        let own = format!("conflict with \"{MANAGER}\"");
        let conflicts: Vec<&StatusCause> = causes.iter().filter(is_field).collect();
        let foreign = conflicts.iter().filter(|it| !it.message.starts_with(&own));
        let foreign: Vec<String> = foreign
            .map(|it| format!("{} ({})", it.message, it.field))
            .collect();
        if !foreign.is_empty() {
            return Err(Error::Conflict {
                object: kind.object(name),
                conflicts: foreign,
            });
        }
        if !conflicts.is_empty()
            && let Some(found) = self.get(kind, name).await?
        {
            self.adopt(kind, &found).await?;
        }
        Ok(Applied::Stale)
    }

    /// Makes fields that this program has written by other requests count as applied. The server takes
    /// creating, changing and applying for different programs of one name: it would report conflicts between
    /// them, and keep fields that are not applied any more.
    pub async fn adopt(&self, kind: ObjectKind, object: &Value) -> Result<(), Error> {
        let metadata = &object["metadata"];
        let entries = metadata["managedFields"].as_array();
        let mut entries = entries.cloned().unwrap_or_default();
        let is_own = |entry: &Value, operation: &str| {
            entry["manager"] == MANAGER && entry["operation"] == operation
        };
        if entries.iter().any(|entry| is_own(entry, "Apply")) {
            entries.retain(|entry| !is_own(entry, "Update"));
        }
        for entry in &mut entries {
            if is_own(entry, "Update") {
                entry["operation"] = "Apply".into();
            }
        }
        let name = name_of(object);
        let version = &metadata["resourceVersion"];
        let change = json!([
            { "op": "replace", "path": "/metadata/managedFields", "value": entries },
            // Only if nobody has changed the object since it was read.
            { "op": "replace", "path": "/metadata/resourceVersion", "value": version },
        ]);
        let request = ApiRequest {
            method: Method::PATCH,
            path: self.path(kind, Some(name)),
            query: vec![("fieldManager", MANAGER.into())],
            body: Some(("application/json-patch+json", &change)),
            doing: format!("change {}", kind.object(name)),
        };
        let response = self.send(&request).await?;
        if [StatusCode::CONFLICT, StatusCode::NOT_FOUND].contains(&response.status()) {
            return Ok(());
        }
        self.value(response, &request).await.map(drop)
    }
}
