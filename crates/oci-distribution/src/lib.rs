#![doc = include_str!("../README.md")]

mod account;
mod address;
mod auth;
mod blobs;
mod capabilities;
mod client;
mod credentials;
mod docker_config;
mod download;
mod error;
mod limits;
mod locations;
mod logins;
mod manifests;
mod request;
mod response;
mod session;
mod source;
mod tags;
mod trust;
mod upload;

pub use self::account::Account;
pub use self::address::host;
pub use self::blobs::PutBlob;
pub use self::client::{Client, ClientOptions};
pub use self::credentials::Credentials;
pub use self::error::Error;
pub use self::limits::TransferLimits;
pub use self::logins::{Login, Logins};
pub use self::manifests::{FetchedManifest, PutManifest};
pub use self::source::BlobSource;
pub use self::trust::Trust;
pub use http_client::RetryPolicy;
