//! Stores, and which store inherits from which.

use indexmap::IndexMap;
use serde::Serialize;

use super::{AppName, Framework, StoreId, TargetKind};

/// How a deployable store runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The project's name in the console. It is also the first part of image names.
    pub project_name: String,
    /// The cloud region, such as `europe-west1`.
    pub cloud_region: String,
    /// The framework of the store's frontend; `None` where the project has no frontend app.
    pub framework: Option<Framework>,
    /// Where the store runs. `None` for the target of the project.
    pub target: Option<TargetKind>,
    /// The public address, if it differs from the address that the console assigns.
    pub address: Option<String>,
}

/// A store: deployable, or a template, whose files its descendants inherit.
#[derive(Debug, Clone)]
pub struct Store {
    /// The id, unique in the project.
    pub id: StoreId,
    /// The store that this store inherits from, whose folder contains this store's folder. `None` for a
    /// store that inherits from the base apps only.
    pub parent: Option<StoreId>,
    /// The store's folder, relative to the project. A deployable store can do without.
    pub folder: Option<String>,
    /// The apps for which the store has a folder, sorted.
    pub apps: Vec<AppName>,
    /// How it runs; `None` for a template.
    pub deployment: Option<Deployment>,
    /// The store's own `ignorePaths`, as written.
    pub ignore_paths: Vec<String>,
}

impl Store {
    /// The store's folder for an app, relative to the project; `None` if it has none.
    pub fn folder_of(&self, app: &AppName) -> Option<String> {
        let folder = self.folder.as_ref()?;
        self.apps.contains(app).then(|| format!("{folder}/{app}"))
    }
}

/// All stores of a project, parents before children, siblings by id.
#[derive(Debug, Clone, Default)]
pub struct StoreTree {
    stores: IndexMap<StoreId, Store>,
}

/// Why stores are not a valid tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreTreeError {
    /// Two folders have the same store id.
    #[error("the store id `{id}` is used twice: `{first}` and `{second}`")]
    Duplicate {
        /// The id.
        id: StoreId,
        /// The folder found first.
        first: String,
        /// The other folder.
        second: String,
    },
    /// A store whose parent does not exist, or is not listed before it (a cycle).
    #[error(
        "the store `{id}` has the parent `{parent}`, which is not a store or is one of its descendants"
    )]
    Orphan {
        /// The child.
        id: StoreId,
        /// The parent.
        parent: StoreId,
    },
}

impl StoreTree {
    /// Builds the tree. Parents have to come before their children. The error has every problem.
    pub fn new(stores: impl IntoIterator<Item = Store>) -> Result<Self, Vec<StoreTreeError>> {
        let mut tree = IndexMap::<StoreId, Store>::new();
        let mut errors = Vec::new();
        for store in stores {
            let folder =
                |store: &Store| store.folder.clone().unwrap_or_else(|| "(no folder)".into());
            if let Some(parent) = &store.parent
                && !tree.contains_key(parent)
            {
                errors.push(StoreTreeError::Orphan {
                    id: store.id.clone(),
                    parent: parent.clone(),
                });
            } else if let Some(first) = tree.get(&store.id) {
                errors.push(StoreTreeError::Duplicate {
                    id: store.id.clone(),
                    first: folder(first),
                    second: folder(&store),
                });
            } else {
                tree.insert(store.id.clone(), store);
            }
        }
        if errors.is_empty() {
            Ok(Self { stores: tree })
        } else {
            Err(errors)
        }
    }

    /// The store with this id.
    pub fn get(&self, id: &str) -> Option<&Store> {
        self.stores.values().find(|store| store.id.as_str() == id)
    }

    /// All stores, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = &Store> {
        self.stores.values()
    }

    /// The stores that can be composed, built and deployed.
    pub fn deployables(&self) -> impl Iterator<Item = &Store> {
        self.iter().filter(|store| store.deployment.is_some())
    }

    /// The stores that inherit directly from `parent`; with `None`, from the base apps.
    pub fn children(&self, parent: Option<&StoreId>) -> impl Iterator<Item = &Store> {
        self.iter()
            .filter(move |store| store.parent.as_ref() == parent)
    }

    /// The store's ancestors, outermost first, and the store itself: the order of its layers.
    pub fn lineage<'a>(&'a self, store: &'a Store) -> Vec<&'a Store> {
        let mut chain = vec![store];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            // `new` has checked that every parent exists.
            chain.push(&self.stores[parent]);
        }
        chain.reverse();
        chain
    }

    /// The deployable stores that inherit from `store`, directly or not.
    pub fn deployable_descendants(&self, store: &StoreId) -> Vec<StoreId> {
        self.deployables()
            .filter(|other| {
                other.id != *store && self.lineage(other).iter().any(|link| link.id == *store)
            })
            .map(|other| other.id.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Store, StoreTree, StoreTreeError};
    use crate::store::StoreId;

    fn store(id: &str, parent: Option<&str>) -> Store {
        Store {
            id: StoreId::new(id).unwrap(),
            parent: parent.map(|parent| StoreId::new(parent).unwrap()),
            folder: Some(format!("apps/stores/{id}")),
            apps: Vec::new(),
            deployment: None,
            ignore_paths: Vec::new(),
        }
    }

    #[test]
    fn lineage_goes_from_the_outermost_ancestor_in() {
        let tree = StoreTree::new([
            store("fashion", None),
            store("us", Some("fashion")),
            store("us-b2b", Some("us")),
        ])
        .unwrap();
        let chain = tree.lineage(tree.get("us-b2b").unwrap());
        let ids: Vec<_> = chain.iter().map(|store| store.id.as_str()).collect();
        assert_eq!(ids, ["fashion", "us", "us-b2b"]);
    }

    #[test]
    fn orphans_cycles_and_duplicates_cannot_be_built() {
        let errors = StoreTree::new([
            store("a", Some("b")),
            store("b", Some("a")),
            store("c", None),
            store("c", None),
        ])
        .unwrap_err();
        assert_eq!(errors.len(), 3);
        assert!(matches!(errors[0], StoreTreeError::Orphan { .. }));
        assert!(matches!(errors[2], StoreTreeError::Duplicate { .. }));
    }
}
