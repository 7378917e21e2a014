//! Chooses an image of an index by its platform, for a layout on disk and for a registry.

use serde_json::Value;

use super::{Descriptor, Error, Index, Manifest, Platform, is_index, is_manifest};

/// Levels of nested indexes: the index of a layout or a tag, and an index in it.
const DEPTH: usize = 2;

/// Chooses the image of an index for a platform. Errors call the index `what`. The result is a
/// manifest or a nested index.
pub fn choose<'a>(
    what: &str,
    index: &'a Index,
    platform: &Platform,
) -> Result<&'a Descriptor, Error> {
    // Indexes can list artifacts, such as signatures and provenance, beside images.
    let images = || {
        index.manifests.iter().filter(|listed| {
            let is_image = is_manifest(&listed.media_type) || is_index(&listed.media_type);
            is_image && listed.artifact_type.is_none()
        })
    };
    let wanted = plain(platform);
    let fitting = images().filter(|listed| {
        let offered = listed.platform.as_ref().map(plain);
        offered.is_some_and(|offered| wanted.takes(&offered))
    });
    // Without a requested variant: the image without a variant, else the newest one.
    let best = fitting.max_by_key(|listed| {
        let offered = listed.platform.as_ref().map(plain);
        let variant = offered.and_then(|offered| offered.variant);
        (variant == wanted.variant, variant)
    });
    let mut unnamed = images().filter(|listed| listed.platform.is_none());
    match (best, unnamed.next(), unnamed.next()) {
        (Some(best), _, _) => Ok(best),
        // The platform of a single image without a platform is in its config.
        (None, Some(only), None) if images().count() == 1 => Ok(only),
        _ => {
            let platforms = images().filter_map(|listed| listed.platform.as_ref());
            let mut offered: Vec<String> = platforms.map(Platform::to_string).collect();
            offered.sort();
            offered.dedup();
            Err(Error::Platform {
                what: what.to_owned(),
                platform: platform.clone(),
                offered,
            })
        }
    }
}

/// Resolves the descriptor of a manifest or an index to an image for a platform: its descriptor and
/// its manifest. `read` returns a blob. If no index has the image's platform, the image's config
/// is checked.
pub fn resolve(
    descriptor: &Descriptor,
    platform: &Platform,
    mut read: impl FnMut(&Descriptor) -> Result<Vec<u8>, Error>,
) -> Result<(Descriptor, Manifest), Error> {
    let mut found = descriptor.clone();
    for _ in 0..DEPTH {
        if is_manifest(&found.media_type) {
            break;
        }
        let index = index(&found, &read(&found)?)?;
        found = choose(&found.digest.to_string(), &index, platform)?.clone();
    }
    let manifest = manifest(&found, &read(&found)?)?;
    if found.platform.is_none() {
        fits(&found, &read(&manifest.config)?, platform)?;
    }
    Ok((found, manifest))
}

/// Parses an index.
pub fn index(descriptor: &Descriptor, bytes: &[u8]) -> Result<Index, Error> {
    let wrong = |reason: String| Error::Document {
        what: descriptor.digest.to_string(),
        kind: "image index",
        reason,
    };
    if !is_index(&descriptor.media_type) {
        return Err(wrong(format!(
            "its media type is `{}`",
            descriptor.media_type
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}

/// Parses a manifest.
pub fn manifest(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, Error> {
    let wrong = |reason: String| Error::Document {
        what: descriptor.digest.to_string(),
        kind: "image manifest",
        reason,
    };
    if !is_manifest(&descriptor.media_type) {
        return Err(wrong(format!(
            "its media type is `{}`",
            descriptor.media_type
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}

/// Checks that an image with this config runs on a platform.
pub fn fits(image: &Descriptor, config: &[u8], platform: &Platform) -> Result<(), Error> {
    let config: Value = serde_json::from_slice(config).map_err(|error| Error::Document {
        what: image.digest.to_string(),
        kind: "image config",
        reason: error.to_string(),
    })?;
    let text = |key: &str| config[key].as_str().map(str::to_owned);
    let own = Platform {
        os: text("os").unwrap_or_default(),
        architecture: text("architecture").unwrap_or_default(),
        variant: text("variant").filter(|variant| !variant.is_empty()),
    };
    if plain(platform).takes(&plain(&own)) {
        Ok(())
    } else {
        Err(Error::Platform {
            what: image.digest.to_string(),
            platform: platform.clone(),
            offered: vec![own.to_string()],
        })
    }
}

/// Removes the variant `v8`, which every 64-bit ARM platform has.
fn plain(platform: &Platform) -> Platform {
    let mut plain = platform.clone();
    if plain.architecture == "arm64" && plain.variant.as_deref() == Some("v8") {
        plain.variant = None;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::{choose, resolve};
    use crate::{CONFIG, Descriptor, Digest, Error, INDEX, Index, MANIFEST, Platform};

    fn platform(text: &str) -> Platform {
        text.parse().expect("a platform")
    }

    fn listed(name: &str) -> Descriptor {
        let mut descriptor = Descriptor::of(MANIFEST, name.as_bytes());
        descriptor.platform = Some(platform(name));
        descriptor
    }

    fn index(names: &[&str]) -> Index {
        Index {
            manifests: names.iter().map(|name| listed(name)).collect(),
            ..Index::default()
        }
    }

    #[test]
    fn the_nearest_variant_is_chosen() {
        let offered = index(&[
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "unknown/unknown",
        ]);
        for (wanted, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/arm64/v8"),
        ] {
            let chosen = choose("x", &offered, &platform(wanted)).expect(wanted);
            assert_eq!(chosen, &listed(expected), "{wanted}");
        }
        let plain = index(&["linux/arm64"]);
        assert!(choose("x", &plain, &platform("linux/arm64/v8")).is_ok());
    }

    #[test]
    fn a_missing_platform_is_reported_with_the_existing_ones() {
        let offered = index(&["linux/arm64/v8", "linux/amd64"]);
        let error = choose("node:22", &offered, &platform("linux/s390x")).expect_err("not there");
        assert_eq!(
            error.to_string(),
            "`node:22` does not exist for the platform `linux/s390x`"
        );
        assert_eq!(
            error.help(),
            "available platforms: `linux/amd64`, `linux/arm64/v8`"
        );
    }

    #[test]
    fn an_image_is_found_through_an_index_in_an_index() {
        let mut blobs: Vec<(Digest, Vec<u8>)> = Vec::new();
        let mut keep = |media_type: &str, bytes: &[u8]| {
            let descriptor = Descriptor::of(media_type, bytes);
            blobs.push((descriptor.digest, bytes.to_vec()));
            descriptor
        };
        let config = keep(CONFIG, br#"{"os":"linux","architecture":"amd64"}"#);
        let text = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []});
        let image = keep(MANIFEST, text.to_string().as_bytes());
        let list = |of: &Descriptor| {
            let index = Index {
                manifests: vec![of.clone()],
                ..Index::default()
            };
            serde_json::to_vec(&index).expect("JSON")
        };
        let inner = keep(INDEX, &list(&image));
        let outer = keep(INDEX, &list(&inner));
        let beyond = keep(INDEX, &list(&outer));
        let read = |descriptor: &Descriptor| {
            let blob = blobs
                .iter()
                .find(|(digest, _)| *digest == descriptor.digest);
            Ok(blob.expect("it is there").1.clone())
        };
        for start in [&image, &inner, &outer] {
            let (found, manifest) = resolve(start, &platform("linux/amd64"), read).expect("there");
            assert_eq!((&found, &manifest.config), (&image, &config));
            // Only the config has the platform.
            let other = resolve(start, &platform("linux/arm64"), read);
            assert!(matches!(other, Err(Error::Platform { .. })), "{other:?}");
        }
        let too_deep = resolve(&beyond, &platform("linux/amd64"), read);
        assert!(
            matches!(too_deep, Err(Error::Document { .. })),
            "{too_deep:?}"
        );
    }
}
