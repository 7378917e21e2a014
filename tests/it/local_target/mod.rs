//! The target `local`: stores on this machine, in a background process.

mod apps;
mod process;
mod support;
mod traffic;

pub use support::{files, page, response};
