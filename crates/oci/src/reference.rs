//! Names of images, as a Dockerfile's `FROM` has them.

use std::fmt;

use super::Digest;

/// Where images come from that name no registry.
const HUB: &str = "docker.io";

/// The name of an image in a registry: `node:22-alpine` is `docker.io/library/node:22-alpine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Host, and port if any.
    pub registry: String,
    /// Repository.
    pub repository: String,
    /// Tag; `latest` where neither it nor a digest is given.
    pub tag: Option<String>,
    /// Digest; it counts more than the tag.
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// Reads it as Docker does: what stands before the first slash is a host if it has a dot, a
    /// colon, or is `localhost`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{}` names no image: {why}", text.escape_debug()));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match digest.parse::<Digest>() {
                Ok(digest) => (rest, Some(digest)),
                Err(message) => return wrong(message.as_str()),
            },
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((host, path))
                if host.contains(['.', ':']) || host == "localhost" || host.starts_with('[') =>
            {
                (host, path)
            }
            _ => (HUB, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => HUB,
            other => other,
        };
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if repository.is_empty() || !repository.chars().all(is_name) {
            return wrong("a repository has lower-case letters, digits, `.`, `_`, `-` and `/`");
        }
        let is_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag
            .as_ref()
            .is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(is_tag))
        {
            return wrong("a tag has letters, digits, `.`, `_` and `-`");
        }
        let repository = if registry == HUB && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".into()));
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn reference(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ImageReference;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, full) in [
            ("node", "docker.io/library/node:latest"),
            ("node:22-alpine", "docker.io/library/node:22-alpine"),
            ("acme/node", "docker.io/acme/node:latest"),
            ("index.docker.io/acme/node:1", "docker.io/acme/node:1"),
            ("localhost/node:1", "localhost/node:1"),
            ("127.0.0.1:5000/base/node:22", "127.0.0.1:5000/base/node:22"),
            (
                &format!("ghcr.io/a/b:1@{digest}"),
                &format!("ghcr.io/a/b:1@{digest}"),
            ),
            (
                &format!("ghcr.io/a/b@{digest}"),
                &format!("ghcr.io/a/b@{digest}"),
            ),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), full);
        }
        for text in [
            "",
            "Node",
            "node:",
            "node:a b",
            "ghcr.io/",
            "node@sha256:1",
            "$BASE",
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text}");
        }
    }
}
