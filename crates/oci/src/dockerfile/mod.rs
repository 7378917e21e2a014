//! Dockerfiles without a container: everything that a Dockerfile says except commands to run.
//!
//! [`read`] parses the text to a [`ParsedDockerfile`], or returns the line that needs Docker.
//! [`ParsedDockerfile::apply`] applies it to a base image's config and tree, with the files of a
//! [`BuildContext`]. The result is the new image's config and the entries of one layer.
//!
//! Docker has two builders: `BuildKit` and the classic builder. Where both give the same image,
//! this module gives that image too. Where they differ, where one of them fails, and where only
//! one of them knows an option (`--link`, `--chmod`, here-documents, `TARGETARCH`, patterns in
//! `${…}`), it returns a [`Refusal`] with the line and the reason.
//!
//! Files of the base image are not known, only its folders and links. A copied folder that
//! replaces a file of the base image is therefore not refused.

mod apply;
mod config;
mod context;
mod copy;
mod error;
mod health;
mod ignore;
mod instruction;
mod pattern;
mod read;
mod tree;
mod words;

#[cfg(test)]
mod tests;

pub use apply::{HistoryEntry, ImageChanges, ParsedDockerfile};
pub use context::BuildContext;
pub use error::{Error, Refusal};
pub use ignore::Dockerignore;
pub use read::{bases, read};
