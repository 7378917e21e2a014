//! The public host names of stores, at targets with a proxy of this program.
//!
//! The config decides: a store gets the host names that the config gives it, even if another store of the
//! project had them before. A host name that belongs to another project is an error.

use miette::Diagnostic;

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
