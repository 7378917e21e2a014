//! Questions asked of compositions; nothing here writes.

mod why;

pub use why::{Error, Layer, Why, why};
