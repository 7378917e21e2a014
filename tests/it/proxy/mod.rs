//! The reverse proxy of local domains, over real sockets.

mod caddy;
mod forwarding;
mod hostile;
mod https;
mod pages;
mod ports;
mod streams;
mod support;
mod switching;
