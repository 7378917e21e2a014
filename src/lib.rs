//! alokai composes, builds, images and deploys the many storefronts of one JavaScript monorepo.
//!
//! Data walks one way through the rooms of this house:
//!
//! ```text
//! store   the words: ids, apps, stores and their tree
//! disk    replacing files whole, removing them, telling whether they have changed
//! dotenv  reading `.env` files
//! files   a tree of files: the working tree, or a commit's
//! config  alokai.config.json and the folders → Project
//! git     revision, dirty paths, the index, trees of commits, history of paths
//! overlay layers → Composition: which layer gives which file
//! compare questions asked of compositions: why, diff, changed, drift, check
//! edit    the tree of stores changed safely: add, move, remove, rename, undone after a kill
//! init    the first config of a project: facts about the project, and the files to write
//! workspace the package manager, its lock file, workspace folders, installed packages
//! cache   results of tasks by key, on this machine and in a remote cache
//! plan    all decisions of a run, and no action → Plan
//! pipeline compose → build → prune → image → push → deploy, each taking the product before it
//! proxy   local domains: a reverse proxy on the loopback
//! serve   servers of many stores on this machine: order, waiting, restarts, ending
//! event   the events of a run
//! watch   `.out` kept in step with changing sources
//! doctor  everything that a deploy needs, checked at once
//! report  events to people and machines
//! cli     the edge: flags, environment, one file per command
//! ```
//!
//! Four crates below them know nothing of stores: `oci` (images as values), `oci-distribution` (the
//! registry protocol), `http-client` and `virtual-path` (paths as text).
//!
//! `tests/it/house.rs` has the table of allowed imports, and checks it.

pub mod cache;
pub mod cli;
pub mod compare;
pub mod config;
pub mod disk;
pub mod doctor;
pub mod dotenv;
pub mod edit;
pub mod error;
pub mod event;
pub mod files;
pub mod git;
pub mod init;
pub mod ledger;
pub mod overlay;
pub mod pipeline;
pub mod plan;
pub mod proxy;
pub mod redaction;
pub mod registry;
pub mod release;
pub mod report;
pub mod serve;
pub mod store;
pub mod target;
pub mod watch;
pub mod workspace;
