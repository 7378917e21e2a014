//! Manifests: small, read and written whole, and never believed without their digest.

use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::{RegistryRequest, RequestBody};
use super::response::RegistryResponse;
use super::retry::AttemptError;
use oci::{Descriptor, Digest, INDEX, is_index};

/// Bytes that a manifest may have, as registries hold it.
const LONGEST: u64 = 4 << 20;

/// What we read.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const DIGEST: &str = "docker-content-digest";

/// What says that a manifest was taken. The specification has 201; Quay has answered 202
/// (<https://github.com/containers/image/issues/381>), and proxies answer 200.
const TAKEN: [StatusCode; 3] = [StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED];

/// A manifest or an index as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// It, to the byte.
    pub bytes: Vec<u8>,
    /// What it is.
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
}

/// What a registry says to a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutManifest {
    /// By which it is found.
    pub digest: Digest,
    /// Whether the registry lists it among the referrers of its subject. If there is a subject
    /// and this is false, [`Client::add_referrer`] does.
    pub subject_taken: bool,
}

impl Client {
    /// The manifest of a tag or digest; nothing where there is none.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<FetchedManifest>, Error> {
        let url = self.manifest_url(repository, reference)?;
        let scope = TokenScope::pull(repository);
        let what = self.named(repository, reference);
        let ask =
            RegistryRequest::read(Method::GET, url, &scope, what.clone()).with(ACCEPT, ACCEPTED);
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refusal(&ask, answer).await.into()),
            }
            let said = answer.header(DIGEST).map(str::to_owned);
            let media_type = media_type(&answer);
            let Some(bytes) = self.body(answer, LONGEST).await? else {
                let message = format!("it has more than {LONGEST} bytes");
                return Err(mismatch(&what, message).into());
            };
            let digest = Digest::of(&bytes);
            is_named(&what, reference, &bytes)?;
            is_named(&what, said.as_deref().unwrap_or_default(), &bytes)?;
            let media_type = media_type.unwrap_or_else(|| own_media_type(&bytes));
            Ok(Some(FetchedManifest {
                bytes,
                media_type,
                digest,
            }))
        })
        .await
    }

    /// What a tag or digest names, without reading it; nothing where there is nothing.
    pub async fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Descriptor>, Error> {
        let url = self.manifest_url(repository, reference)?;
        let scope = TokenScope::pull(repository);
        let what = self.named(repository, reference);
        let ask =
            RegistryRequest::read(Method::HEAD, url, &scope, what.clone()).with(ACCEPT, ACCEPTED);
        let found = self.patiently(|| async {
            let answer = self.once(&ask).await?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refusal(&ask, answer).await.into()),
            }
            let digest = answer.header(DIGEST).and_then(|said| said.parse().ok());
            let size = answer
                .header(CONTENT_LENGTH.as_str())
                .and_then(|said| said.parse().ok());
            Ok::<_, AttemptError>(Some((media_type(&answer), digest, size)))
        });
        match found.await? {
            None => Ok(None),
            Some((Some(media_type), Some(digest), Some(size))) if may_be_one(reference, digest) => {
                Ok(Some(Descriptor::new(&media_type, digest, size)))
            }
            // A registry need not say all that, or says another digest: then it is read.
            Some(_) => {
                let fetched = self.manifest(repository, reference).await?;
                Ok(fetched.map(|fetched| Descriptor::of(&fetched.media_type, &fetched.bytes)))
            }
        }
    }

    /// Writes a manifest under a tag or its digest. The registry has to have all that it names.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<PutManifest, Error> {
        let digest = Digest::of(bytes);
        let what = self.named(repository, reference);
        let scope = TokenScope::push(repository);
        let url = self.manifest_url(repository, reference)?;
        is_named(&what, reference, bytes)?;
        let mut ask = RegistryRequest::push(Method::PUT, url, &scope, what.clone());
        ask = ask.with(CONTENT_TYPE, media_type);
        ask.payload = RequestBody::Bytes(bytes);
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            if !TAKEN.contains(&answer.status()) {
                return Err(self.refusal(&ask, answer).await.into());
            }
            is_named(&what, answer.header(DIGEST).unwrap_or_default(), bytes)?;
            Ok(PutManifest {
                digest,
                subject_taken: answer.header("oci-subject").is_some(),
            })
        })
        .await
    }

    /// Adds to the list of what refers to an image, where the registry keeps none itself: an
    /// index whose tag is the image's digest. What others have put there stays as it is. The
    /// protocol knows no lock: of two runs that add at the same moment one may be forgotten,
    /// which a tag that is pushed again repairs.
    pub async fn add_referrer(
        &self,
        repository: &str,
        subject: &Digest,
        referrer: Descriptor,
    ) -> Result<(), Error> {
        let tag = subject.to_string().replace(':', "-");
        // Of our own tasks one at a time.
        let _turn = self.known().turn(*subject, &format!("{repository}@")).await;
        let what = self.named(repository, &tag);
        let odd = |message: &str| Error::Push {
            what: what.clone(),
            message: message.into(),
        };
        let mut index = match self.manifest(repository, &tag).await? {
            None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
            Some(found) if is_index(&found.media_type) => serde_json::from_slice(&found.bytes)
                .map_err(|_| odd("what is there is no index"))?,
            Some(_) => return Err(odd("what is there is no index")),
        };
        let referrer = json!(referrer);
        let Some(list) = index["manifests"].as_array_mut() else {
            return Err(odd("what is there lists nothing"));
        };
        if list.contains(&referrer) {
            return Ok(());
        }
        list.retain(|other| other["digest"] != referrer["digest"]);
        list.push(referrer);
        let media_type = match index["mediaType"].as_str() {
            Some(media_type) => media_type.to_owned(),
            None => INDEX.to_owned(),
        };
        let bytes = index.to_string();
        self.put_manifest(repository, &tag, &media_type, bytes.as_bytes())
            .await
            .map(drop)
    }
}

/// Fails where a name is a digest of something else. What is no digest that can be made here says
/// nothing: a registry may know a manifest by another algorithm.
fn is_named(what: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let Ok(named) = name.parse::<Digest>() else {
        return Ok(());
    };
    let digest = named.like(bytes);
    if digest == named {
        return Ok(());
    }
    Err(mismatch(what, format!("`{digest}` and not `{named}`")))
}

/// Whether a digest that was said may be that of what was asked for.
fn may_be_one(reference: &str, said: Digest) -> bool {
    !reference.contains(':') || reference == said.to_string()
}

fn mismatch(what: &str, message: String) -> Error {
    Error::Mismatch {
        what: what.to_owned(),
        message,
    }
}

fn media_type(answer: &RegistryResponse) -> Option<String> {
    let text = answer.header(CONTENT_TYPE.as_str())?;
    let plain = text.split(';').next()?.trim();
    Some(plain.to_owned())
}

/// As the manifest itself says.
fn own_media_type(bytes: &[u8]) -> String {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    document["mediaType"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
