//! alokai composes, builds, images and deploys the many storefronts of one JavaScript monorepo.
//!
//! Data walks one way through the rooms of this house:
//!
//! ```text
//! store   the words: ids, apps, stores and their tree
//! disk    replacing files whole, removing them, telling whether they have changed
//! files   a tree of files: the working tree, or a commit's
//! config  alokai.config.json and the folders → Project
//! git     revision, dirty paths, the index, trees of commits, history of paths
//! overlay layers → Composition: which layer gives which file
//! compare questions asked of compositions: why, diff, changed, drift, check
//! workspace the package manager, its lock file, workspace folders, installed packages
//! cache   results of tasks, found by everything that the tasks can see; here and remote
//! plan    everything decided, nothing done → Plan
//! pipeline compose → build → prune → image → push → deploy, each taking the product before it
//! event   what can be observed of it
//! report  events to people and machines
//! cli     the edge: flags, environment, one file per command
//! ```
//!
//! Below them stand three crates that know nothing of stores: `oci` (images as values),
//! `oci-distribution` (the protocol of registries) and `virtual-path` (paths as text).
//!
//! A room imports only from rooms above it in this list and from these crates; `tests/it/house.rs` holds that.

pub mod cache;
pub mod cli;
pub mod compare;
pub mod config;
pub mod disk;
pub mod error;
pub mod event;
pub mod files;
pub mod git;
pub mod overlay;
pub mod pipeline;
pub mod plan;
pub mod registry;
pub mod report;
pub mod store;
pub mod workspace;
