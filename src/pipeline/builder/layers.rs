//! Which layer of an image a path goes to. What many stores have in common lies apart from what
//! each has for itself, so that it is packed, sent and kept once.

use std::collections::BTreeSet;
use std::path::Path;

use crate::store::{AppKind, Framework};
use crate::workspace::installed;
use oci::TreeEntry;

/// A layer, from the one that changes least up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerPart {
    /// The framework and what it is upgraded with.
    Framework,
    /// All other dependencies.
    Dependencies,
    /// What the app's build has made.
    App,
}

/// Packages of a framework: scopes end in a slash. They change only when it is upgraded, while
/// other dependencies come and go with a store's pages.
fn packages(kind: AppKind) -> &'static [&'static str] {
    match kind {
        AppKind::Frontend(Framework::Nextjs) => &[
            "next",
            "@next/",
            "@swc/",
            "react",
            "react-dom",
            "scheduler",
            "styled-jsx",
        ],
        AppKind::Frontend(Framework::Nuxt) => &[
            "nuxt",
            "@nuxt/",
            "nitropack",
            "vue",
            "@vue/",
            "vue-router",
            "h3",
            "ofetch",
            "unhead",
            "@unhead/",
        ],
        AppKind::Middleware => &["@vue-storefront/", "@alokai/", "express"],
        _ => &[],
    }
}

/// Where a path of the image belongs.
pub fn part(path: &str, kind: AppKind) -> LayerPart {
    let path = Path::new(path);
    if !installed::is_installed(path) {
        return LayerPart::App;
    }
    let outermost = installed::packages(path).into_iter().next();
    // A scope's folder goes with its packages.
    let last = path.file_name().and_then(|name| name.to_str());
    let name = outermost.map_or_else(
        || last.unwrap_or_default().to_owned(),
        |package| package.name,
    );
    let is_of = |package: &&str| {
        package.strip_suffix('/').map_or(*package == name, |scope| {
            name.split('/').next() == Some(scope)
        })
    };
    if packages(kind).iter().any(is_of) {
        LayerPart::Framework
    } else {
        LayerPart::Dependencies
    }
}

/// The entries of each layer that has any, from the lowest up. Each has the folders that its
/// files lie in, so that it can be unpacked by itself.
pub fn split(entries: &[TreeEntry], kind: AppKind) -> Vec<(LayerPart, Vec<TreeEntry>)> {
    let parts = [
        LayerPart::Framework,
        LayerPart::Dependencies,
        LayerPart::App,
    ];
    let mut layers = Vec::new();
    for own in parts {
        let mut paths = BTreeSet::new();
        for entry in entries
            .iter()
            .filter(|entry| part(&entry.path, kind) == own)
        {
            paths.insert(entry.path.as_str());
            let slashes = entry.path.match_indices('/');
            paths.extend(slashes.map(|(at, _)| &entry.path[..at]));
        }
        let of_layer = entries
            .iter()
            .filter(|entry| paths.contains(entry.path.as_str()));
        let of_layer: Vec<TreeEntry> = of_layer.cloned().collect();
        if !of_layer.is_empty() {
            layers.push((own, of_layer));
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::{LayerPart, part, split};
    use crate::store::{AppKind, Framework};
    use oci::{FileOwner, TreeContent, TreeEntry};

    const NEXT: AppKind = AppKind::Frontend(Framework::Nextjs);

    #[test]
    fn packages_of_a_framework_lie_apart() {
        for (path, of) in [
            ("var/www/server.js", LayerPart::App),
            ("var/www/node_modules", LayerPart::Dependencies),
            ("var/www/node_modules/next/dist/x.js", LayerPart::Framework),
            ("var/www/node_modules/nextra/x.js", LayerPart::Dependencies),
            ("var/www/node_modules/@next/env/x.js", LayerPart::Framework),
            ("var/www/node_modules/@next", LayerPart::Framework),
            (
                "var/www/node_modules/.pnpm/next@15.1.0_react@19.0.0/node_modules/next/x.js",
                LayerPart::Framework,
            ),
            (
                "var/www/node_modules/.pnpm/@next+env@15.1.0/node_modules/@next/env/x.js",
                LayerPart::Framework,
            ),
            (
                "var/www/node_modules/a/node_modules/next/x.js",
                LayerPart::Dependencies,
            ),
        ] {
            assert_eq!(part(path, NEXT), of, "{path}");
        }
        assert_eq!(
            part("srv/node_modules/next/x.js", AppKind::Other),
            LayerPart::Dependencies
        );
    }

    #[test]
    fn a_layer_has_the_folders_of_its_files() {
        let entry = |path: &str| TreeEntry {
            path: path.into(),
            owner: FileOwner::default(),
            mode: 0o755,
            content: TreeContent::Folder,
        };
        let paths = [
            "srv",
            "srv/a",
            "srv/node_modules",
            "srv/node_modules/b",
            "srv/node_modules/next",
        ];
        let layers = split(&paths.map(entry), NEXT);
        let of = |index: usize| -> Vec<&str> {
            let entries: &Vec<TreeEntry> = &layers[index].1;
            entries.iter().map(|entry| entry.path.as_str()).collect()
        };
        assert_eq!(of(0), ["srv", "srv/node_modules", "srv/node_modules/next"]);
        assert_eq!(of(1), ["srv", "srv/node_modules", "srv/node_modules/b"]);
        assert_eq!(of(2), ["srv", "srv/a"]);
    }
}
