//! Stores and who inherits from whom.

use indexmap::IndexMap;
use serde::Serialize;

use super::{AppName, Framework, StoreId};

/// Where a deployable store runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The console's project, also the first part of image names.
    pub project_name: String,
    /// The cloud region, such as `europe-west1`.
    pub cloud_region: String,
    /// The frontend that the store runs; `None` where the project has no frontend app.
    pub framework: Option<Framework>,
}

/// One store: deployable, or a template that only gives code to its descendants.
#[derive(Debug, Clone)]
pub struct Store {
    /// Unique in the project.
    pub id: StoreId,
    /// The store whose folder this one's lies in; `None` means root, the base apps.
    pub parent: Option<StoreId>,
    /// Its folder, relative to the project; a deployable store may have none.
    pub folder: Option<String>,
    /// The apps it has a folder for, sorted.
    pub apps: Vec<AppName>,
    /// `None` for a template.
    pub deployment: Option<Deployment>,
    /// `ignorePaths` of this store alone, as written.
    pub ignore_paths: Vec<String>,
}

impl Store {
    /// Its folder for an app, relative to the project; none where it has none.
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

/// Why stores make no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreTreeError {
    /// Two folders claim one id.
    #[error("the store id `{id}` is used twice: `{first}` and `{second}`")]
    Duplicate {
        /// The id.
        id: StoreId,
        /// The folder found first.
        first: String,
        /// The other folder.
        second: String,
    },
    /// A parent that does not come before its child: an orphan, or a cycle.
    #[error("the store `{id}` names the parent `{parent}`, which is no store before it")]
    Orphan {
        /// The child.
        id: StoreId,
        /// The parent that is missing.
        parent: StoreId,
    },
}

impl StoreTree {
    /// Builds the tree from stores given parents first. Reports every problem, not the first.
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

    /// The store of that id.
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

    /// Stores directly below `parent`; `None` asks for the top level.
    pub fn children(&self, parent: Option<&StoreId>) -> impl Iterator<Item = &Store> {
        self.iter()
            .filter(move |store| store.parent.as_ref() == parent)
    }

    /// From the outermost ancestor in to the store itself: the order of its layers.
    pub fn lineage<'a>(&'a self, store: &'a Store) -> Vec<&'a Store> {
        let mut chain = vec![store];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            // Construction has seen every parent.
            chain.push(&self.stores[parent]);
        }
        chain.reverse();
        chain
    }

    /// Deployable stores below `store`, at any depth.
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
