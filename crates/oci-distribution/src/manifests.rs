//! Manifests: read and written as a whole, and verified by their digests.

use http_client::AttemptError;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::{RegistryRequest, RequestBody};
use super::response::RegistryResponse;
use oci::{Descriptor, Digest, INDEX, is_index};

/// Bytes that a manifest may have; registries have the same limit.
const LONGEST_MANIFEST: u64 = 4 << 20;

/// Media types that are accepted.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const DIGEST: &str = "docker-content-digest";

/// The message of Distribution for a manifest whose content has another digest.
const WRONG_DIGEST: &str = "provided digest did not match uploaded content";

/// Statuses that mean a manifest was stored. The specification has 201; Quay has answered 202
/// (<https://github.com/containers/image/issues/381>), and proxies answer 200.
const STORED: [StatusCode; 3] = [StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED];

/// A manifest or an index that was read from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// The media type.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
}

/// The result of writing a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutManifest {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Whether the registry lists the manifest among the referrers of its subject. If the manifest
    /// has a subject and this is false, [`Client::add_referrer`] lists it.
    pub subject_taken: bool,
}

impl Client {
    /// Reads the manifest of a tag or digest; `None` if it does not exist.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<FetchedManifest>, Error> {
        let url = self.manifest_url(repository, reference)?;
        let scope = TokenScope::pull(repository);
        let what = self.full_reference(repository, reference);
        let request =
            RegistryRequest::read(Method::GET, url, &scope, what.clone()).with(ACCEPT, ACCEPTED);
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refusal(&request, response).await.into()),
            }
            let digest_header = response.header(DIGEST).map(str::to_owned);
            let media_type = media_type(&response);
            let body = self.body(response, LONGEST_MANIFEST).await?;
            if !body.is_complete {
                let message = format!("it has more than {LONGEST_MANIFEST} bytes");
                return Err(mismatch(&what, message).into());
            }
            let bytes = body.bytes;
            verify(&what, reference, &bytes)?;
            verify(&what, digest_header.as_deref().unwrap_or_default(), &bytes)?;
            let media_type = media_type.unwrap_or_else(|| own_media_type(&bytes));
            Ok(Some(FetchedManifest {
                digest: Digest::of(&bytes),
                bytes,
                media_type,
            }))
        })
        .await
    }

    /// Looks up the descriptor of a tag or digest; `None` if it does not exist. The manifest is
    /// read only where the registry's headers are incomplete.
    pub async fn head_manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Option<Descriptor>, Error> {
        let url = self.manifest_url(repository, reference)?;
        let scope = TokenScope::pull(repository);
        let what = self.full_reference(repository, reference);
        let request = RegistryRequest::read(Method::HEAD, url, &scope, what).with(ACCEPT, ACCEPTED);
        let headers = self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refusal(&request, response).await.into()),
            }
            let digest = response.header(DIGEST).and_then(|text| text.parse().ok());
            let size = response
                .header(CONTENT_LENGTH.as_str())
                .and_then(|text| text.parse().ok());
            Ok::<_, AttemptError<Error>>(Some((media_type(&response), digest, size)))
        });
        match headers.await? {
            None => Ok(None),
            Some((Some(media_type), Some(digest), Some(size))) if may_name(reference, digest) => {
                Ok(Some(Descriptor::new(&media_type, digest, size)))
            }
            // The headers are optional, and may name another algorithm's digest.
            Some(_) => {
                let fetched = self.manifest(repository, reference).await?;
                Ok(fetched.map(|fetched| Descriptor::of(&fetched.media_type, &fetched.bytes)))
            }
        }
    }

    /// Writes a manifest under a tag or its digest. The repository must have every blob and
    /// manifest that it names.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<PutManifest, Error> {
        let what = self.full_reference(repository, reference);
        let scope = TokenScope::push(repository);
        let url = self.manifest_url(repository, reference)?;
        verify(&what, reference, bytes)?;
        let mut request = RegistryRequest::push(Method::PUT, url, &scope, what.clone());
        request = request.with(CONTENT_TYPE, media_type);
        request.body = RequestBody::Bytes(bytes);
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            if !STORED.contains(&response.status()) {
                let refusal = self.refusal(&request, response).await;
                return Err(match refusal {
                    // The digest was checked above. Distribution reads a manifest back that another
                    // client is writing at the same moment, and finds a part of it.
                    Error::PushFailed { ref message, .. } if message.contains(WRONG_DIGEST) => {
                        AttemptError::transient(refusal)
                    }
                    _ => refusal.into(),
                });
            }
            verify(&what, response.header(DIGEST).unwrap_or_default(), bytes)?;
            Ok(PutManifest {
                digest: Digest::of(bytes),
                subject_taken: response.header("oci-subject").is_some(),
            })
        })
        .await
    }

    /// Adds a manifest to the referrers of an image, for a registry that does not list them itself:
    /// to the index whose tag is the image's digest. Its other entries are kept.
    ///
    /// The protocol has no lock. If two processes add at the same moment, one entry may be lost;
    /// pushing again adds it.
    pub async fn add_referrer(
        &self,
        repository: &str,
        subject: &Digest,
        referrer: Descriptor,
    ) -> Result<(), Error> {
        let tag = subject.to_string().replace(':', "-");
        // Excludes the other tasks of this process.
        let list = format!("{repository}@");
        let _lock = self.locations().lock(*subject, &list).await;
        let what = self.full_reference(repository, &tag);
        let invalid = |message: &str| Error::PushFailed {
            what: what.clone(),
            message: message.into(),
        };
        let not_an_index = "the referrers tag does not point to an image index";
        let mut index = match self.manifest(repository, &tag).await? {
            None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
            Some(found) if is_index(&found.media_type) => {
                serde_json::from_slice(&found.bytes).map_err(|_| invalid(not_an_index))?
            }
            Some(_) => return Err(invalid(not_an_index)),
        };
        let referrer = json!(referrer);
        let Some(manifests) = index["manifests"].as_array_mut() else {
            return Err(invalid("the index has no `manifests`"));
        };
        if manifests.contains(&referrer) {
            return Ok(());
        }
        manifests.retain(|other| other["digest"] != referrer["digest"]);
        manifests.push(referrer);
        let media_type = index["mediaType"].as_str().unwrap_or(INDEX).to_owned();
        let bytes = index.to_string();
        self.put_manifest(repository, &tag, &media_type, bytes.as_bytes())
            .await
            .map(drop)
    }
}

/// Fails if a name is a digest of other bytes. A name that is not a supported digest proves
/// nothing: it may be a tag, or a digest by another algorithm.
fn verify(what: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let Ok(expected) = name.parse::<Digest>() else {
        return Ok(());
    };
    let digest = expected.like(bytes);
    if digest == expected {
        return Ok(());
    }
    let message = format!("its digest is `{digest}`, not `{expected}`");
    Err(mismatch(what, message))
}

/// Whether a manifest with this digest may be the one that was asked for.
fn may_name(reference: &str, digest: Digest) -> bool {
    !reference.contains(':') || reference == digest.to_string()
}

fn mismatch(what: &str, message: String) -> Error {
    Error::DigestMismatch {
        what: what.to_owned(),
        message,
    }
}

fn media_type(response: &RegistryResponse) -> Option<String> {
    let text = response.header(CONTENT_TYPE.as_str())?;
    let plain = text.split(';').next()?.trim();
    Some(plain.to_owned())
}

/// The media type that the manifest itself names.
fn own_media_type(bytes: &[u8]) -> String {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    document["mediaType"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
