//! Test support: projects, runs of the program, and the services that it talks to.

mod containers;
mod engine;
mod entries;
mod faults;
mod live;
mod mount;
mod npm;
mod outward;
mod personalities;
mod project;
mod random;
mod remote;
mod results;
mod resuming;
mod run;
mod services;
mod tls;
mod trees;
mod web;

pub use containers::{Containers, Node, Thing, Tree, page, tree_of};
pub use engine::{EngineRelay, engine_socket};
pub use entries::{TIME, entry, file, folder, hard, is_there, link, run, same, text};
pub use faults::{Before, Seen, Turn, cutting, cutting_times};
pub use live::{await_event, build_of, configure, happened, own_port};
pub use mount::{Mount, is_excused, is_root};
pub use npm::{installed, starter_dependencies};
pub use outward::{Recorder, Socks};
pub use personalities::{Habits, PERSONALITIES, Personality};
pub use project::{Project, git};
pub use random::{Random, RandomProject};
pub use remote::{Fault, FaultyCache, On, RemoteCache};
pub use results::{
    FRONTEND, MIDDLEWARE, begun, build, build_middleware, built_value, entry_of, events, forget,
    many, middleware_of, result_of, results, rows,
};
pub use resuming::Resuming;
pub use run::{Arguments, Run, filtered, output_of};
pub use services::{
    Registry, base_layout, base_reference, docker, registries_and_base, registry, second_registry,
};
pub use tls::{TlsRegistry, openssl};
pub use trees::{bytes_in, copy_of, copy_tracked, next_is_whole};
pub use web::{Console, FaultyRegistry, http_client};
