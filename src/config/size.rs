//! Sizes as text: `500 MB`, `2 GiB`.

use bytesize::ByteSize;

/// The help for a text that is not a valid size.
pub const HELP: &str = "write a number and a unit: `500 MB`, `3 GB`, `2 GiB`";

/// Parses the text to bytes. `None` if it is not a valid size.
pub fn parse(text: &str) -> Option<u64> {
    Some(text.parse::<ByteSize>().ok()?.as_u64())
}
