//! Laws that hold for every input.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alokai::overlay::{ContentId, File, Kind, Layer, Owner, Rules, Source, Stamp, merge, winner};
use alokai::store::{Store, StoreId};
use proptest::prelude::*;

fn layer(paths: BTreeMap<String, u8>) -> Layer {
    let files = paths.into_iter().map(|(path, content)| {
        let file = File {
            kind: Kind::File { executable: false },
            id: ContentId::of(&[content]),
            source: Source::Disk(Path::new("x").into(), Stamp::default()),
        };
        (Arc::from(path), Arc::new(file))
    });
    Layer {
        owner: Owner::Base,
        is_closed: true,
        files: files.collect(),
    }
}

/// Layers over few names, so that they meet often.
fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let path = prop::collection::vec("[ab]", 1..4).prop_map(|parts| parts.join("/"));
    let one = prop::collection::btree_map(path, any::<u8>(), 0..8).prop_map(layer);
    prop::collection::vec(one, 0..6)
}

/// What a merge gives, as a layer again.
fn merged(layers: &[&Layer]) -> BTreeMap<Arc<str>, ContentId> {
    let (merged, _) = merge(layers, |_, _| true);
    merged
        .into_iter()
        .map(|(path, entry)| (path, entry.file.id))
        .collect()
}

fn as_layer(layers: &[&Layer]) -> Layer {
    let (merged, _) = merge(layers, |_, _| true);
    Layer {
        owner: Owner::Base,
        is_closed: true,
        files: merged
            .into_iter()
            .map(|(path, entry)| (path, Arc::clone(entry.file)))
            .collect(),
    }
}

proptest! {
    #[test]
    fn merging_is_associative_has_an_identity_and_the_nearest_wins(layers in layers(), split in 0_usize..6) {
        let all: Vec<&Layer> = layers.iter().collect();
        let split = split.min(all.len());
        let (left, right) = (as_layer(&all[..split]), as_layer(&all[split..]));
        prop_assert_eq!(merged(&all), merged(&[&left, &right]));

        let empty = layer(BTreeMap::new());
        let padded: Vec<&Layer> = [&empty].into_iter().chain(all.iter().copied()).chain([&empty]).collect();
        prop_assert_eq!(merged(&all), merged(&padded));

        for (path, id) in merged(&all) {
            let nearest = all.iter().rev().find_map(|layer| layer.files.get(&path)).unwrap();
            prop_assert_eq!(id, nearest.id);
            prop_assert_eq!(id, winner(&all, |_, _| true, &path).unwrap().file.id);
        }
    }

    #[test]
    fn a_clash_is_found_exactly_where_a_file_lies_above_another(layers in layers()) {
        let all: Vec<&Layer> = layers.iter().collect();
        let (merged, clashes) = merge(&all, |_, _| true);
        for path in merged.keys() {
            let above = merged.keys().any(|other| other.starts_with(&format!("{path}/")));
            prop_assert_eq!(above, clashes.iter().any(|clash| clash.path == *path));
        }
    }

    #[test]
    fn a_bracket_in_a_rule_means_itself(name in "[a-z]{1,6}") {
        let store = Store {
            id: StoreId::new("us").unwrap(),
            parent: None,
            folder: None,
            apps: Vec::new(),
            deployment: None,
            ignore_paths: vec![format!("app/[{name}]/page.tsx")],
        };
        let rules = Rules::new(&[&store]).unwrap();
        let dropped = |path: String| rules.drops(&path).is_some();
        let (meant, other) = (format!("app/[{name}]/page.tsx"), format!("app/{}/page.tsx", &name[..1]));
        prop_assert!(dropped(meant) && !dropped(other));
    }
}
