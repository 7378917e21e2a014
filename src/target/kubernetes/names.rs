//! The names and labels of a store's objects.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::ledger::RecordId;
use crate::store::{AppKind, StoreId};
use crate::target::{ReleaseSpec, ReleasedApp};

/// The label with the project name.
pub const PROJECT: &str = "alokai.com/project";
/// The label with the id of the store.
pub const STORE: &str = "alokai.com/store";
/// The label with the name of the app. The annotation has it as it is written.
pub const APP: &str = "alokai.com/app";
/// The label with the id of the release.
pub const RELEASE: &str = "alokai.com/release";
/// The label of pods with the claim of their data.
pub const STORAGE: &str = "alokai.com/storage";
/// The label of pods that serve the maintenance page.
pub const MAINTENANCE: &str = "alokai.com/maintenance";
/// The annotation with the digest of the maintenance page.
pub const PAGE: &str = "alokai.com/page";
/// The annotation with the time of the last switch.
pub const SWITCHED: &str = "alokai.com/switched-at";
/// The annotation with the holder of a lock.
pub const CLAIM: &str = "alokai.com/lock";
/// The annotation with the public addresses of a store.
pub const ADDRESSES: &str = "alokai.com/addresses";

/// The most characters of a name that is a part of a host name.
const LONGEST: usize = 63;

/// Characters of the digest that makes a changed name unique.
const DIGEST: usize = 8;

/// The owner of objects: a store of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOwner {
    /// The project name of the store's deployment.
    pub project: String,
    /// The store.
    pub store: StoreId,
}

impl StoreOwner {
    /// The labels of all objects of the store.
    pub fn labels(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".into(), "alokai".into());
        labels
    }

    /// The labels by which objects of the store are found.
    pub fn selector(&self) -> Map<String, Value> {
        let labels = json!({
            PROJECT: label(&self.project),
            STORE: label(self.store.as_str()),
        });
        match labels {
            Value::Object(labels) => labels,
            _ => Map::new(),
        }
    }

    /// A query for these pods.
    pub fn query(&self) -> String {
        format!(
            "{PROJECT}={},{STORE}={}",
            label(&self.project),
            label(self.store.as_str())
        )
    }

    /// The query for the objects of a release.
    pub fn query_release(&self, release: &RecordId) -> String {
        format!("{},{RELEASE}={release}", self.query())
    }

    /// Whether an object belongs to the store.
    pub fn owns(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let mut own = self.selector().into_iter();
        own.all(|(name, value)| labels[&name] == value)
    }

    /// The name of the public Service.
    pub fn service(&self) -> String {
        name(&format!("{}-{}", self.project, self.store), LONGEST)
    }

    /// The name of the lock.
    pub fn lock(&self) -> String {
        format!("alokai-lock-{}", self.service())
    }

    /// The name of the `PersistentVolumeClaim`.
    pub fn claim(&self) -> String {
        format!("{}-data", self.service())
    }

    /// The name of the objects of the maintenance page.
    pub fn page(&self) -> String {
        format!("{}-maintenance", self.service())
    }

    /// The labels of the pods that serve the maintenance page.
    pub fn page_selector(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        labels.insert(MAINTENANCE.into(), "page".into());
        labels
    }

    /// A query for these pods.
    pub fn query_page(&self) -> String {
        format!("{},{MAINTENANCE}=page", self.query())
    }

    /// The name of the Secret with a version of the settings.
    pub fn settings(&self, version: &str) -> String {
        let version = name(&version.to_ascii_lowercase(), LONGEST);
        format!("{}-settings-{version}", self.service())
    }
}

/// The name of the Service of a release without traffic.
pub fn staged_service(store: &StoreId, release: &RecordId) -> String {
    let release = lower(release);
    let store = name(store.as_str(), LONGEST - release.len() - 1);
    format!("{store}-{release}")
}

/// The name of the Deployment of an app.
pub fn deployment(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
    let (store, app) = (spec.store.as_str(), app.app.as_str());
    format!("{}-{}-{}", name(store, 18), name(app, 26), lower(&spec.id))
}

/// The name of the Secret with the values of an app's `.env` files.
pub fn environment_secret(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
    environment_secret_of(&deployment(spec, app))
}

/// The name of the Secret with the values of `.env` files that the pods of a Deployment get.
pub fn environment_secret_of(deployment: &str) -> String {
    format!("{deployment}-env")
}

/// The name of an app's port, which is the same in each release. It has at most 15 characters.
pub fn port(app: &ReleasedApp) -> String {
    match app.kind {
        AppKind::Middleware => "middleware".into(),
        AppKind::Frontend(_) => "frontend".into(),
        AppKind::Playwright | AppKind::Other => format!("app-{}", short_digest(app.app.as_str())),
    }
}

/// A release as a part of names.
pub fn lower(release: &RecordId) -> String {
    release.as_str().to_ascii_lowercase()
}

/// A text as a name: lower-case letters, digits and `-`, with a letter first. A text that has to be changed
/// gets a part of its digest, so that different texts have different names.
fn name(text: &str, longest: usize) -> String {
    let allowed = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        _ => '-',
    };
    let mut changed: String = text.chars().map(allowed).collect();
    if !changed.starts_with(|c: char| c.is_ascii_lowercase()) {
        changed.insert_str(0, "s-");
    }
    if changed == text && text.len() <= longest && !text.ends_with('-') {
        return changed;
    }
    changed.truncate(longest - DIGEST - 1);
    let changed = changed.trim_end_matches('-');
    format!("{changed}-{}", short_digest(text))
}

/// A text as the value of a label.
pub fn label(text: &str) -> String {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let is_allowed = |c: char| is_end(c) || matches!(c, '-' | '_' | '.');
    let is_valid = text.len() <= LONGEST
        && text.chars().all(is_allowed)
        && text.starts_with(is_end)
        && text.ends_with(is_end);
    if is_valid {
        text.to_owned()
    } else {
        name(text, LONGEST)
    }
}

fn short_digest(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let mut digits = String::new();
    for byte in &digest.as_ref()[..DIGEST / 2] {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{LONGEST, label, name};

    #[test]
    fn every_name_is_valid_and_no_two_texts_have_the_same() {
        let long = "a".repeat(100);
        let longer = format!("{long}b");
        let texts = [
            "us", "US", "u.s", "u_s", "u-s", "1us", "s-1us", "us-", "us.", &long, &longer,
        ];
        let names: BTreeSet<String> = texts.iter().map(|text| name(text, 30)).collect();
        assert_eq!(names.len(), texts.len(), "{names:?}");
        let labels: BTreeSet<String> = texts.iter().map(|text| label(text)).collect();
        assert_eq!(labels.len(), texts.len(), "{labels:?}");
        for name in names {
            assert!(name.len() <= 30, "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(
                name.ends_with(|c: char| c.is_ascii_alphanumeric()),
                "{name}"
            );
        }
        assert!(labels.iter().all(|label| label.len() <= LONGEST));
        assert_eq!(name("fashion-brand", 30), "fashion-brand");
        assert_eq!(label("B2B.eu_1"), "B2B.eu_1");
    }
}
