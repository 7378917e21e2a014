//! Names that are safe as a path component, in an image name and in a label.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that is not safe as a path component, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid {what}: {why}", name.escape_debug())]
pub struct InvalidName {
    name: String,
    what: &'static str,
    why: &'static str,
}

fn validate(name: &str, what: &'static str) -> Result<Arc<str>, InvalidName> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > 100 {
        "it is longer than 100 bytes"
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it must start with a letter or a digit"
    } else if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    {
        "only letters, digits, `-`, `_` and `.` are allowed"
    } else {
        return Ok(name.into());
    };
    Err(InvalidName {
        name: name.to_owned(),
        what,
        why,
    })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks that the name is safe as a path component.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                validate(name, $what).map(Self)
            }

            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(&name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// The id of a store: its folder's name, unique in the project.
    StoreId,
    "store id"
);
name!(
    /// The name of an app: its folder's name under `apps/`.
    AppName,
    "app name"
);

/// One app of one store: the unit that is built, packed into an image and pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UnitId {
    /// The store.
    pub store: StoreId,
    /// The app.
    pub app: AppName,
}

impl UnitId {
    /// The name in the composed `package.json`, which `--filter` matches: `<app>-<store>`.
    pub fn package_name(&self) -> String {
        format!("{}-{}", self.app, self.store)
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.app)
    }
}

#[cfg(test)]
mod tests {
    use super::StoreId;

    #[test]
    fn ids_that_would_leave_their_folder_are_refused() {
        for bad in [
            "", ".", "..", "a/b", "../us", ".hidden", "-x", "a\nb", "ü", "a b",
        ] {
            assert!(StoreId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["us", "fashion-brand", "b2b_eu", "v1.2", "0"] {
            assert!(StoreId::new(good).is_ok(), "{good:?}");
        }
    }
}
