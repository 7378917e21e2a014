//! Registries: the OCI distribution protocol, and what their refusals mean.
//!
//! A [`Client`] speaks to one registry. Its requests are made in `ask`, as whom `auth` says, and
//! what comes is judged in `answer`; whether it is tried again is `retry`'s. On these stand
//! `manifests`, `download` and `upload`, which are what a caller sees.

mod address;
mod answer;
mod ask;
mod auth;
mod client;
mod credentials;
mod download;
mod error;
mod known;
mod logins;
mod manifests;
mod retry;
mod source;
mod upload;

pub use self::address::{client, reason};
pub use self::client::Client;
pub use self::credentials::Credentials;
pub use self::error::Error;
pub use self::logins::{Login, Logins};
pub use self::manifests::{Fetched, PutManifest};
pub use self::retry::Limits;
pub use self::source::Source;
pub use self::upload::Sent;
