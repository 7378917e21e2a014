//! Sizes as people write them: `500 MB`, `2 GiB`.

use bytesize::ByteSize;

/// What to write where a text is no size.
pub const HELP: &str = "write a number and its unit: `500 MB`, `3 GB`, `2 GiB`";

/// Bytes; none where the text is no size.
pub fn parse(text: &str) -> Option<u64> {
    Some(text.parse::<ByteSize>().ok()?.as_u64())
}
