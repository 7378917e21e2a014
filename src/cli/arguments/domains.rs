//! The options of local domains.
#![expect(clippy::doc_markdown, reason = "clap prints these comments as help")]

use clap::Args;

#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct DomainOptions {
    /// Gives each store an address of its own, such as http://us.localhost:8080, and writes
    /// `.alokai/Caddyfile`
    #[arg(long)]
    pub with_local_domains: bool,
    /// With --with-local-domains: makes a certificate authority for HTTPS, if there is none
    #[arg(long, requires = "with_local_domains")]
    pub https: bool,
}
