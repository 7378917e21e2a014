//! Editing the tree of stores: `store add`, `move`, `remove`, `rename`, `override`, `flatten`, and what they are
//! made of.

mod commands;
mod flatten;
mod foundation;
mod killed;
mod lossless;
mod overriding;
mod random;
mod refused;
