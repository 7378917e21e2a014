//! What package managers make of a project.

pub mod installed;
