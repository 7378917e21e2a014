#![doc = include_str!("../README.md")]

mod address;
mod client;
mod clock;
mod redact;
mod retry;
mod transfer;

pub use address::{
    display_address, is_exposed, is_loopback, is_loopback_host, is_plain_http, redirect_target,
};
pub use client::{HttpOptions, build};
pub use clock::clock_difference;
pub use redact::Redactor;
pub use retry::{AttemptError, Backoff, RetryPolicy, retry, retry_after};
pub use transfer::{
    IdleLimits, LimitedBody, TransferError, TransferProgress, next_chunk, read_at_most,
    while_active,
};
