//! Notices about files of stores that take no part.

use super::StorePlan;
use crate::overlay::Owner;

/// All notices about the files of these stores.
pub fn notices(stores: &[StorePlan]) -> Vec<String> {
    let mut notices = unused(stores);
    notices.extend(dropped(stores));
    notices
}

/// Notices about files of a store that a rule of the same store or of an ancestor drops. Such a rule
/// is seldom intended.
fn dropped(stores: &[StorePlan]) -> Vec<String> {
    let mut notices = Vec::new();
    for composition in stores.iter().flat_map(|store| &store.compositions) {
        for (path, dropped) in &composition.dropped {
            let origin = &dropped.origin;
            let is_of = |owner: &Owner| matches!(owner, Owner::Store(id) if *id == origin.store);
            let Some(rule) = composition.layers.iter().position(is_of) else {
                continue;
            };
            for layer in dropped.layers.iter().filter(|layer| **layer >= rule) {
                notices.push(format!(
                    "`{}` of `{}` for the app `{}` is dropped by the rule `{}` in `ignorePaths` of `{}`; to keep the file, add `!{path}` after that rule",
                    path.escape_debug(), composition.layers[*layer], composition.unit.app, origin.rule, origin.store
                ));
            }
        }
    }
    notices.sort();
    notices.dedup();
    notices
}

/// Notices about files of stores that composing never uses.
fn unused(stores: &[StorePlan]) -> Vec<String> {
    let mut notices: Vec<String> = stores
        .iter()
        .flat_map(|store| &store.compositions)
        .flat_map(|composition| {
            composition.unused.iter().map(|unused| {
                format!(
                    "`{}` of `{}` for the app `{}` is ignored, because this file always comes from the base app",
                    unused.path, unused.owner, composition.unit.app
                )
            })
        })
        .collect();
    notices.sort();
    notices.dedup();
    notices
}
