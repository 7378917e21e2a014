//! The public host names of stores, at targets with a proxy of this program.
//!
//! The config decides: a store gets the host names that the config gives it, even if another store of the
//! project had them before. A host name that belongs to another project is an error.

use std::collections::BTreeMap;

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use super::labels::StoreLabels;
use crate::config::Project;
use crate::proxy::StoreRoutes;
use crate::store::{Store, StoreId};

/// A host name that another store has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("the host name `{host}` belongs to `{other}`, so `{store}` cannot use it")]
#[diagnostic(code(alokai::target::host_taken), help("{help}"))]
pub struct HostTaken {
    /// The host name.
    pub host: String,
    /// The store that has it.
    pub other: String,
    /// The store that needs it.
    pub store: String,
    /// What to do.
    pub help: String,
}

/// The host names of a store in lower case: its default name, and its `localDomain`.
pub fn hosts(project: &Project, store: &StoreId) -> Vec<String> {
    let default = StoreRoutes::localhost(store);
    let mut local = project.local.iter();
    let local = local.find(|(id, _)| *id == store.as_str());
    let domain = local.and_then(|(_, local)| local.domain.as_ref());
    let domain = domain.map(|domain| domain.to_ascii_lowercase());
    let domain = domain.filter(|domain| *domain != default);
    std::iter::once(default).chain(domain).collect()
}

/// The host names that a store cannot do without: its `localDomain`, or else its default name.
fn needed(project: &Project, store: &StoreId) -> Vec<String> {
    let mut names = hosts(project, store);
    names.split_off(names.len().saturating_sub(1))
}

/// Fails if the config gives a host name, without which a store has none, to another one of these stores too.
/// Ids that differ only in special characters, such as `us-en` and `us_en`, have the same default name.
pub fn check_config<'a>(
    project: &Project,
    id: &StoreId,
    others: impl Iterator<Item = &'a Store>,
) -> Result<(), HostTaken> {
    let own = needed(project, id);
    let has_domain = hosts(project, id).len() > 1;
    let mut others = others.filter(|other| other.id != *id);
    let taken = others.find_map(|other| {
        let taken = if has_domain {
            hosts(project, &other.id)
        } else {
            needed(project, &other.id)
        };
        let host = taken.into_iter().find(|host| own.contains(host))?;
        Some(HostTaken {
            host,
            other: other.id.to_string(),
            store: id.to_string(),
            help: "give each store a `localDomain` of its own".into(),
        })
    });
    taken.map_or(Ok(()), Err)
}

/// Whether a store, by its key in a routing table, has to give a host name up for the store `to`: the key is
/// an earlier id of that store, or the config does not give the name to the store of the key any more.
pub fn leaves(project: &Project, key: &str, host: &str, to: &StoreLabels) -> bool {
    let former = key.split_once('/').is_some_and(|it| it.0 == to.project);
    let mut stores = project.stores.deployables();
    let known = stores.find(|store| {
        let labels = StoreLabels::of(project, &store.id);
        labels.is_some_and(|labels| labels.key() == key)
    });
    match known {
        Some(store) => !hosts(project, &store.id).iter().any(|it| it == host),
        None => former,
    }
}

/// The names that stores had before a switch that changed them. A switch back to the earlier release returns
/// them, because the config may give them to another store by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierNames<Key: Ord, Release> {
    /// The release that had the traffic. It has been running since then.
    pub release: Release,
    /// The names of the store that was switched, and of each store from which it took some.
    pub names: BTreeMap<Key, Vec<String>>,
}

/// Gives names to a store, and takes them from all other stores. Returns the names that these stores had
/// before.
pub fn give<Key: Ord + Clone, Store>(
    stores: &mut BTreeMap<Key, Store>,
    (to, names): (&Key, &[String]),
    names_of: impl Fn(&mut Store) -> &mut Vec<String>,
) -> BTreeMap<Key, Vec<String>> {
    let mut earlier = BTreeMap::new();
    for (key, store) in stores.iter_mut() {
        let own = names_of(store);
        let before = own.clone();
        if key == to {
            *own = names.to_vec();
        } else {
            own.retain(|name| !names.contains(name));
        }
        if key == to || *own != before {
            earlier.insert(key.clone(), before);
        }
    }
    earlier
}

/// Gives stores the names back that they had. A name that a further store has taken since then stays there,
/// and a store keeps a name that it got since then.
pub fn give_back<Key: Ord, Store>(
    stores: &mut BTreeMap<Key, Store>,
    from: &Key,
    earlier: BTreeMap<Key, Vec<String>>,
    names_of: impl Fn(&mut Store) -> &mut Vec<String>,
) {
    if let Some(store) = stores.get_mut(from) {
        names_of(store).clear();
    }
    for (key, names) in earlier {
        let mut own = names;
        own.retain(|name| {
            let mut others = stores.iter_mut().filter(|(other, _)| **other != key);
            !others.any(|(_, store)| names_of(store).contains(name))
        });
        if let Some(store) = stores.get_mut(&key) {
            let now = std::mem::take(names_of(store));
            let gained = now.into_iter().filter(|name| !own.contains(name));
            let gained: Vec<String> = gained.collect();
            own.extend(gained);
            *names_of(store) = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{give, give_back};

    type Names = BTreeMap<&'static str, Vec<String>>;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn stores(all: &[(&'static str, &str)]) -> Names {
        all.iter().map(|(key, own)| (*key, names(own))).collect()
    }

    #[test]
    fn names_of_both_stores_come_back() {
        let before = stores(&[
            ("eu", "eu.a"),
            ("other", "o.a shop.test"),
            ("us", "us.a other.test"),
        ]);
        let mut all = before.clone();
        let earlier = give(
            &mut all,
            (&"us", names("us.a shop.test").as_slice()),
            |it| it,
        );
        let after = [("eu", "eu.a"), ("other", "o.a"), ("us", "us.a shop.test")];
        assert_eq!(all, stores(&after));
        assert_eq!(earlier.keys().copied().collect::<Vec<_>>(), ["other", "us"]);
        let mut back = all.clone();
        give_back(&mut back, &"us", earlier.clone(), |it| it);
        assert_eq!(back, before);

        // Meanwhile `eu` has got a name of `us`, and `other` has got a new one.
        all.insert("eu", names("eu.a other.test"));
        all.insert("other", names("o.a new.test"));
        give_back(&mut all, &"us", earlier, |it| it);
        let after = [
            ("eu", "eu.a other.test"),
            ("other", "o.a shop.test new.test"),
            ("us", "us.a"),
        ];
        assert_eq!(all, stores(&after));
    }
}
