//! A project to test with, a way to run the program in it, and the world by its addresses.

mod project;
mod random;
mod remote;
mod services;
mod web;

pub use project::{Project, Run, filtered, git};
pub use random::{Random, RandomProject};
pub use remote::{Fault, FaultyCache, On, RemoteCache};
pub use services::{Registry, docker, registry};
pub use web::{Console, FaultyRegistry};
