//! Tests of the program from outside.
//!
//! Tests that need Docker find the registry in `ALOKAI_TEST_REGISTRY` (`scripts/test` sets it).
//! Without the variable they print `skipped`, or fail if `ALOKAI_REQUIRE_DOCKER=1`.

#![expect(
    clippy::too_many_lines,
    reason = "the steps of a case are read from top to bottom"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "environment variables name the services of the tests"
)]

mod support;

mod attestations;
mod beside;
mod book;
mod broken;
mod build;
mod cache;
mod changed;
mod check;
mod ci;
mod command_line;
mod completions;
mod compose;
mod config;
mod deploy;
mod diff;
mod distribution;
mod docker_target;
mod dockerfile;
mod doctor;
mod dotenv;
mod drift;
mod edit;
mod exact;
mod example;
mod failures;
mod follow;
mod histories;
mod hooks;
mod hostile;
mod house;
mod images;
mod init;
mod installed;
mod interchange;
mod keys;
mod kubernetes_target;
mod layers;
mod layouts;
mod ledger;
mod live;
mod local;
mod local_target;
mod memory;
mod npm;
mod outward;
mod overlays;
mod package_managers;
mod plan;
mod poison;
mod proxy;
mod prune;
mod release;
mod remote;
mod rules;
mod same;
mod sandbox;
mod screen;
mod secrets;
mod serve;
mod shards;
mod shared;
mod start;
mod starter;
mod swarm_target;
mod there;
mod trust;
mod unwritten;
mod verify;
mod warm;
mod watch;
mod why;
