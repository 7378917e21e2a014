//! Registries: the OCI distribution protocol, and what their refusals mean.
//!
//! A [`Client`] speaks to one registry. Its requests are made in `ask`, as whom `auth` says, and
//! what comes is judged in `answer`; whether it is tried again is `retry`'s. On these stand
//! `manifests`, `download` and `blobs`, which are what a caller sees; a blob that has to be sent is
//! `upload`'s.

mod address;
mod auth;
mod blobs;
mod capabilities;
mod client;
mod credentials;
mod download;
mod error;
mod locations;
mod logins;
mod manifests;
mod request;
mod response;
mod retry;
mod session;
mod source;
mod trust;
mod upload;

pub use self::address::{client, host, is_exposed, reason, redirected};
pub use self::blobs::PutBlob;
pub use self::client::Client;
pub use self::credentials::Credentials;
pub use self::error::Error;
pub use self::logins::{Login, Logins};
pub use self::manifests::{FetchedManifest, PutManifest};
pub use self::retry::TransferLimits;
pub use self::source::BlobSource;
pub use self::trust::Trust;
