//! The documentation: its transcripts are what the program prints, its instructions are commands
//! that exist, its links lead somewhere, and its generated parts are fresh.
//!
//! `ALOKAI_UPDATE_BOOK=1` rewrites transcripts and generated parts instead of comparing them.

mod commands;
mod compare;
mod links;
mod messages;
mod pages;
mod picture;
mod reference;
mod transcripts;

/// Whether the pages are renewed.
fn renews() -> bool {
    std::env::var_os("ALOKAI_UPDATE_BOOK").is_some()
}

/// How a stale page is renewed.
const RENEW: &str = "renew it and read what has changed: scripts/docs renew";
