//! The target `local`: stores on this machine, in a background process.

mod apps;
mod faults;
mod live;
mod process;
mod support;
mod traffic;

pub use support::{files, page, response};
