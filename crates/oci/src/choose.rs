//! Which of the images that an index lists is meant. Pure, so that a layout on disk and a
//! registry ask the same way.

use serde_json::Value;

use super::{Descriptor, Error, Index, Manifest, Platform, is_index, is_manifest};

/// How deep indexes may lie in each other: the one of a layout or a tag, and one in it.
const DEPTH: usize = 2;

/// The image that an index, called `what` in errors, has for a platform. The result is a
/// manifest, or another index that lists it.
pub fn choose<'a>(
    what: &str,
    index: &'a Index,
    platform: &Platform,
) -> Result<&'a Descriptor, Error> {
    // Signatures and statements of origin are listed beside the images they are about.
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
    // Who asked for no variant gets the one without, else the newest: `v7` rather than `v6`.
    let best = fitting.max_by_key(|listed| {
        let offered = listed.platform.as_ref().map(plain);
        let variant = offered.and_then(|offered| offered.variant);
        (variant == wanted.variant, variant)
    });
    let mut unnamed = images().filter(|listed| listed.platform.is_none());
    match (best, unnamed.next(), unnamed.next()) {
        (Some(best), _, _) => Ok(best),
        // What runs where is said by the only one's config.
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

/// An image for a platform, of a descriptor that names it or an index: its descriptor and its
/// manifest. `read` gives a blob's bytes. The platform of an image that no index lists is looked
/// up in its config.
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

/// The index in these bytes.
pub fn index(descriptor: &Descriptor, bytes: &[u8]) -> Result<Index, Error> {
    let wrong = |reason: String| Error::Document {
        what: descriptor.digest.to_string(),
        kind: "image index",
        reason,
    };
    if !is_index(&descriptor.media_type) {
        return Err(wrong(format!(
            "it is of the type `{}`",
            descriptor.media_type
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}

/// The manifest in these bytes.
pub fn manifest(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, Error> {
    let wrong = |reason: String| Error::Document {
        what: descriptor.digest.to_string(),
        kind: "image manifest",
        reason,
    };
    if !is_manifest(&descriptor.media_type) {
        return Err(wrong(format!(
            "it is of the type `{}`",
            descriptor.media_type
        )));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}

/// Whether the image of this descriptor, whose config has these bytes, runs on the platform.
pub fn fits(image: &Descriptor, config: &[u8], platform: &Platform) -> Result<(), Error> {
    let config: Value = serde_json::from_slice(config).map_err(|error| Error::Document {
        what: image.digest.to_string(),
        kind: "image with a config",
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

/// `v8` is what every 64-bit ARM is, whether said or not.
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
    fn what_is_not_offered_is_told_with_what_is() {
        let offered = index(&["linux/arm64/v8", "linux/amd64"]);
        let error = choose("node:22", &offered, &platform("linux/s390x")).expect_err("not there");
        assert_eq!(
            error.to_string(),
            "`node:22` is not there for `linux/s390x`"
        );
        let help = miette::Diagnostic::help(&error).expect("help").to_string();
        assert_eq!(help, "it is there for `linux/amd64`, `linux/arm64/v8`");
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
            // Nothing but the config says what it runs on.
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
