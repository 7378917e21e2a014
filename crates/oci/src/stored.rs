//! Where an image was pushed: the reference of an image in a registry or in an image layout.

/// The prefix of the folder of an image layout, as in `skopeo` and `umoci`.
pub const LAYOUT_PREFIX: &str = "oci:";

/// A pushed image: `<registry>/<repository>:<tag>`, or `oci:<folder>:<repository>:<tag>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredImage {
    /// The host of the registry, or `oci:<folder>`.
    pub place: String,
    /// The repository, with the path of the registry if it has one.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

impl StoredImage {
    /// Parses a reference. `None` if a part is missing.
    pub fn parse(reference: &str) -> Option<Self> {
        let (name, tag) = reference.rsplit_once(':')?;
        let (place, repository) = if name.starts_with(LAYOUT_PREFIX) {
            let is_complete = |place: &str| place.len() > LAYOUT_PREFIX.len();
            name.rsplit_once(':')
                .filter(|(place, _)| is_complete(place))?
        } else {
            name.split_once('/')?
        };
        // The colon before a port is not that of a tag.
        if repository.is_empty() || tag.is_empty() || tag.contains('/') {
            return None;
        }
        Some(Self {
            place: place.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// The folder of the image layout, as it is written in the reference. `None` for a registry.
    pub fn folder(&self) -> Option<&str> {
        self.place.strip_prefix(LAYOUT_PREFIX)
    }

    /// Repository and tag: the name in an image layout.
    pub fn within(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// The reference by digest: `<registry>/<repository>@<digest>`. `None` for an image layout, in which
    /// no name has a digest.
    pub fn by_digest(&self, digest: &str) -> Option<String> {
        let is_layout = self.folder().is_some();
        (!is_layout).then(|| format!("{}/{}@{digest}", self.place, self.repository))
    }
}

#[cfg(test)]
mod tests {
    use super::StoredImage;

    #[test]
    fn a_reference_is_split_into_place_repository_and_tag() {
        for (reference, parts) in [
            (
                "r.example.com:5000/team/a/b:1",
                Some(("r.example.com:5000", "team/a/b", "1")),
            ),
            (
                "oci:.alokai/registry:a/b:1",
                Some(("oci:.alokai/registry", "a/b", "1")),
            ),
            // The folder may have a colon.
            ("oci:/a:b/c:acme/us:1", Some(("oci:/a:b/c", "acme/us", "1"))),
            ("oci:a/b:1", None),
            ("oci::a/b:1", None),
            ("r.example.com:5000/team/a", None),
            ("r.example.com/team/a:", None),
            ("a/b", None),
            ("", None),
        ] {
            let image = StoredImage::parse(reference);
            let found = image
                .as_ref()
                .map(|it| (&*it.place, &*it.repository, &*it.tag));
            assert_eq!(found, parts, "{reference}");
        }
    }

    #[test]
    fn only_an_image_in_a_registry_has_a_name_by_digest() {
        let by_digest = |reference| StoredImage::parse(reference)?.by_digest("sha256:1");
        assert_eq!(
            by_digest("r.example.com:5000/a/b:1").as_deref(),
            Some("r.example.com:5000/a/b@sha256:1")
        );
        assert_eq!(by_digest("oci:registry:a/b:1"), None);
    }
}
