//! Editing the tree of stores: `store add`, `move`, `remove`, `rename`, and what they are made of.

mod flatten;
mod foundation;
mod overriding;
