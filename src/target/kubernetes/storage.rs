//! The data of a store: one `PersistentVolumeClaim`, which the pods of all releases mount. Nothing removes it.

use serde_json::{Value, json};

use super::KubernetesTarget;
use super::api::Api;
use super::error::Error;
use super::kinds::CLAIM;
use super::names::{self, STORAGE, StoreOwner};
use super::steps::apply;
use crate::config::{AccessMode, DataSection, KubernetesSection, StorageSection};

/// The name of the volume in a pod.
const VOLUME: &str = "data";

/// The storage for the data of a store.
pub struct StoreStorage<'a> {
    /// The section `deploy.data`.
    pub data: &'a DataSection,
    section: &'a StorageSection,
    owner: &'a StoreOwner,
}

impl<'a> StoreStorage<'a> {
    /// The storage, if the config has it.
    pub fn of(
        section: &'a KubernetesSection,
        data: Option<&'a DataSection>,
        owner: &'a StoreOwner,
    ) -> Option<Self> {
        Some(Self {
            data: data?,
            section: section.storage.as_ref()?,
            owner,
        })
    }

    /// The name of the claim.
    pub fn claim(&self) -> String {
        match &self.section.claim {
            Some(claim) => claim.replace("{store}", self.owner.store.as_str()),
            None => self.owner.claim(),
        }
    }

    /// The folder of the store in a claim of several stores.
    fn folder(&self) -> Option<&str> {
        let claim = self.section.claim.as_deref()?;
        (!claim.contains("{store}")).then_some(self.owner.store.as_str())
    }

    /// The claim, if this program makes it.
    pub fn object(&self, namespace: &str) -> Option<Value> {
        if self.section.claim.is_some() {
            return None;
        }
        let mut object = json!({
            "apiVersion": CLAIM.version,
            "kind": CLAIM.name,
            "metadata": {
                "name": self.owner.claim(),
                "namespace": namespace,
                "labels": self.owner.labels(),
            },
            "spec": {
                "accessModes": [self.section.access_mode.name()],
                "resources": { "requests": { "storage": self.section.size } },
            },
        });
        if let Some(class) = &self.section.class {
            object["spec"]["storageClassName"] = class.as_str().into();
        }
        Some(object)
    }

    /// The label of pods that mount the claim.
    pub fn label(&self) -> String {
        names::label(&self.claim())
    }

    /// Where a container has the folder.
    pub fn mount(&self) -> Value {
        let mut mount = json!({ "name": VOLUME, "mountPath": self.data.path });
        if let Some(folder) = self.folder() {
            mount["subPath"] = folder.into();
        }
        mount
    }

    /// Adds the volume to a pod. A volume of one node makes all pods that mount it run on the same node;
    /// pods on another node never get the volume.
    pub fn add_to(&self, pod: &mut Value) {
        let claim = json!({ "claimName": self.claim() });
        pod["volumes"] = json!([{ "name": VOLUME, "persistentVolumeClaim": claim }]);
        if let Some(group) = self.section.fs_group {
            pod["securityContext"] = json!({
                "fsGroup": group,
                // Changing the group of all files at each start takes long.
                "fsGroupChangePolicy": "OnRootMismatch",
            });
        }
        if self.section.access_mode == AccessMode::ReadWriteOnce {
            let term = json!({
                "labelSelector": { "matchLabels": { STORAGE: self.label() } },
                "topologyKey": "kubernetes.io/hostname",
            });
            let same_node = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
            pod["affinity"] = json!({ "podAffinity": same_node });
        }
    }
}

impl KubernetesTarget {
    /// Makes the claim of a store, or checks that the named claim can be used.
    pub(super) async fn prepare_storage(&self, api: &Api, owner: &StoreOwner) -> Result<(), Error> {
        let Some(storage) = StoreStorage::of(self.section(), self.data(), owner) else {
            return Ok(());
        };
        let claim = storage.claim();
        let Some(object) = storage.object(&api.namespace) else {
            let found = api.get(CLAIM, &claim).await?;
            return storage.check(&found.ok_or(Error::NoClaim { claim })?);
        };
        let found = api.owned(CLAIM, &claim, owner).await?;
        match apply(api, CLAIM, &object).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match changed(&error).filter(|_| found.is_some()) {
                Some(message) => Error::FixedClaim { claim, message },
                None => error,
            }),
        }
    }
}

impl StoreStorage<'_> {
    /// Fails if an existing claim does not have the access mode of the config.
    fn check(&self, found: &Value) -> Result<(), Error> {
        let modes = found["spec"]["accessModes"].as_array();
        let modes = modes.into_iter().flatten().filter_map(Value::as_str);
        let modes: Vec<&str> = modes.collect();
        let wanted = self.section.access_mode.name();
        if modes.contains(&wanted) {
            return Ok(());
        }
        Err(Error::ClaimMode {
            claim: self.claim(),
            modes: modes.join(", "),
            wanted,
        })
    }
}

/// The message of the server if it refuses to change a claim to match the config. Only the size can be
/// changed, if the storage class allows it.
fn changed(error: &Error) -> Option<String> {
    match error {
        Error::Refused {
            status: 422,
            message,
            ..
        } => Some(message.clone()),
        // The server answers a missing permission with the same status.
        Error::Forbidden { message, .. } if !message.contains("cannot patch resource") => {
            Some(message.clone())
        }
        _ => None,
    }
}
