//! `.out` that follows changing sources: `store compose --watch`, and `store dev` with servers.

mod browser;
mod dev;
mod follower;
mod lines;
mod random;
mod reader;
