//! Tags of a repository, and the removal of manifests.

use http_client::AttemptError;
use reqwest::header::{ACCEPT, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::RegistryRequest;
use oci::Digest;

/// Bytes that one page of a list may have.
const LONGEST_PAGE: u64 = 32 << 20;

/// Pages that are read at most, so that a registry whose pages repeat does not keep the reader going
/// forever.
const MOST_PAGES: usize = 1000;

/// A page of the list. Registries send `null` for an empty one.
#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository, without order. A repository that does not exist has none.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, Error> {
        let mut url = self.url(repository, "tags/list")?;
        let mut tags = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some((page, next)) = self.page(repository, &url).await? else {
                break;
            };
            tags.extend(page);
            match next.filter(|next| *next != url) {
                Some(next) => url = next,
                None => break,
            }
        }
        // Pages overlap if tags are added meanwhile.
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// One page, and the address of the next one.
    async fn page(
        &self,
        repository: &str,
        url: &Url,
    ) -> Result<Option<(Vec<String>, Option<Url>)>, Error> {
        let scope = TokenScope::pull(repository);
        let what = format!("{}/{repository}", self.host());
        let request = RegistryRequest::read(Method::GET, url.clone(), &scope, what.clone())
            .with(ACCEPT, "application/json");
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refusal(&request, response).await.into()),
            }
            let next = response.header(LINK.as_str()).and_then(next_page);
            // Only pages of the registry itself: the login is sent with the request.
            let next = next.and_then(|next| self.resolve(url, next));
            let next = next.filter(|next| self.is_same_origin(next));
            let body = self.body(response, LONGEST_PAGE).await?;
            let invalid = |message: String| Error::Server {
                what: what.clone(),
                message,
            };
            if !body.is_complete {
                let message = format!("the list of tags has more than {LONGEST_PAGE} bytes");
                return Err(invalid(message).into());
            }
            let page: Page = serde_json::from_slice(&body.bytes)
                .map_err(|error| invalid(format!("the list of tags is not valid: {error}")))?;
            Ok::<_, AttemptError<Error>>(Some((page.tags.unwrap_or_default(), next)))
        })
        .await
    }

    /// Removes a manifest with all of its tags. False if the registry does not support that; a
    /// manifest that does not exist counts as removed.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        let reference = digest.to_string();
        let url = self.manifest_url(repository, &reference)?;
        let scope = TokenScope::delete(repository);
        let what = self.full_reference(repository, &reference);
        let request = RegistryRequest::push(Method::DELETE, url, &scope, what);
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            match response.status() {
                StatusCode::OK
                | StatusCode::ACCEPTED
                | StatusCode::NO_CONTENT
                | StatusCode::NOT_FOUND => Ok(true),
                // Registries refuse with these what they do not support, or what the account may
                // not do.
                StatusCode::BAD_REQUEST
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_IMPLEMENTED
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN => Ok(false),
                _ => Err(self.refusal(&request, response).await.into()),
            }
        })
        .await
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once(';')?;
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim();
            let value = parameter.strip_prefix("rel=");
            value.is_some_and(|value| value.trim_matches('"') == "next")
        });
        let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn the_next_page_is_the_target_of_rel_next() {
        for (header, expected) in [
            (
                "</v2/a/tags/list?n=2&last=b>; rel=\"next\"",
                Some("/v2/a/tags/list?n=2&last=b"),
            ),
            ("</x>; rel=prev, </y>; title=z; rel=next", Some("/y")),
            ("</x>; rel=\"prev\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(header), expected, "{header}");
        }
    }
}
