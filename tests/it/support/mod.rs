//! A project to test with, a way to run the program in it, and the world by its addresses.

mod mount;
mod project;
mod random;
mod remote;
mod results;
mod services;
mod trees;
mod web;

pub use mount::{Mount, is_excused, is_root};
pub use project::{Project, Run, filtered, git};
pub use random::{Random, RandomProject};
pub use remote::{Fault, FaultyCache, On, RemoteCache};
pub use results::{FRONTEND, MIDDLEWARE, build, entry_of, events, forget, many, results};
pub use services::{Registry, docker, registry};
pub use trees::{bytes_in, copy_of, next_is_whole};
pub use web::{Console, FaultyRegistry};
