//! The kinds of objects that a store has.

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectKind {
    /// The kind, such as `Deployment`.
    pub name: &'static str,
    /// The group and version, such as `apps/v1`.
    pub version: &'static str,
    /// The name in addresses.
    pub plural: &'static str,
}

macro_rules! kinds {
    ($($constant:ident $name:literal $version:literal $plural:literal;)*) => {
        $(
            #[doc = concat!("The kind `", $name, "`.")]
            pub const $constant: ObjectKind = ObjectKind { name: $name, version: $version, plural: $plural };
        )*
    };
}

kinds! {
    DEPLOYMENT "Deployment" "apps/v1" "deployments";
    SERVICE "Service" "v1" "services";
    SECRET "Secret" "v1" "secrets";
    CLAIM "PersistentVolumeClaim" "v1" "persistentvolumeclaims";
    CONFIG_MAP "ConfigMap" "v1" "configmaps";
    POD "Pod" "v1" "pods";
    LEASE "Lease" "coordination.k8s.io/v1" "leases";
    INGRESS "Ingress" "networking.k8s.io/v1" "ingresses";
    HTTP_ROUTE "HTTPRoute" "gateway.networking.k8s.io/v1" "httproutes";
}

impl ObjectKind {
    /// The path of the group.
    pub(super) fn group(self) -> String {
        if self.version.contains('/') {
            format!("apis/{}", self.version)
        } else {
            format!("api/{}", self.version)
        }
    }

    /// An object for people: ``the Service `us` ``.
    pub fn object(self, name: &str) -> String {
        format!("the {} `{name}`", self.name)
    }
}
