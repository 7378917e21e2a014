//! As whom a registry is asked.

use std::fmt;

/// As whom a registry was asked. Its text follows a verb: ``as `user` ``.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// No credentials were sent.
    Anonymous,
    /// A user with a password.
    User(String),
    /// An identity token, which names no user.
    IdentityToken,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("without credentials"),
            Self::User(user) => write!(f, "as `{user}`"),
            Self::IdentityToken => f.write_str("with an identity token"),
        }
    }
}
