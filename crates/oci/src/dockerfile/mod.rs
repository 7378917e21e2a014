//! What a Dockerfile means, as far as no command has to be run for it.
//!
//! [`read`] makes a [`ParsedDockerfile`] of its text, or says which line only Docker can carry out.
//! [`ParsedDockerfile::apply`] carries it out: on a base image's config and tree, with the files of a
//! [`BuildContext`], it gives the new image's config and the entries of its one layer.
//!
//! The measure is the classic builder of Docker's engine, quirks included, since that is the
//! other builder here: one Dockerfile has to give one image. So whatever is unclear is refused
//! and left to Docker, and so is what only BuildKit knows (`--link`, `--chmod`, here-documents,
//! `TARGETARCH` and its family, patterns in `${…}`).
//!
//! ```text
//! read       text → steps, or a refusal
//! words      quotes, escapes and variables
//! recipe     steps, one after the other → Applied
//! config     what steps change in an image's config
//! health     HEALTHCHECK: its options and Go's durations
//! copy       COPY and ADD
//! tree       base and added entries as one tree
//! context    the files that can be copied
//! ignore     .dockerignore
//! pattern    file name patterns, Go's and .dockerignore's
//! ```

mod config;
mod context;
mod copy;
mod error;
mod health;
mod ignore;
mod pattern;
mod read;
mod recipe;
mod step;
mod tree;
mod words;

#[cfg(test)]
mod tests;

pub use context::BuildContext;
pub use error::{Error, Refusal};
pub use ignore::Dockerignore;
pub use read::{bases, read};
pub use recipe::{HistoryEntry, ImageChanges, ParsedDockerfile};
