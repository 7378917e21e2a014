//! Merging layers: the nearest layer wins, and a path cannot be both a file and a folder.
//!
//! Merging is pure and associative: since a clash is an error and not a silent choice, any grouping
//! of the layers gives the same result. Property tests in `tests/it/rules.rs` check this.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::layer::{Layer, LayerFile};

/// A path of a composition: which layer gives its file, and which layers' files that file hides.
#[derive(Debug, Clone)]
pub struct MergedPath<'a> {
    /// Index of the layer that gives the file.
    pub winner: usize,
    /// Indices of the layers whose file is hidden, outermost first.
    pub hidden: Vec<usize>,
    /// That layer's file.
    pub file: &'a Arc<LayerFile>,
}

/// A path that is a file in one layer and a folder in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerClash {
    /// The path.
    pub path: Arc<str>,
    /// Index of the layer in which it is a file.
    pub file: usize,
    /// Index of the layer in which it is a folder.
    pub folder: usize,
    /// The first file in that folder.
    pub below: Arc<str>,
}

/// Merges the layers (outermost first) at one path. `keep` says which paths of a layer, given by its
/// index, take part.
pub fn winner<'a>(
    layers: &[&'a Layer],
    keep: impl Fn(usize, &str) -> bool,
    path: &str,
) -> Option<MergedPath<'a>> {
    let mut merged: Option<MergedPath> = None;
    for (index, layer) in layers.iter().enumerate() {
        let Some(file) = layer.files.get(path).filter(|_| keep(index, path)) else {
            continue;
        };
        let mut hidden = Vec::new();
        if let Some(further_out) = merged {
            hidden = further_out.hidden;
            hidden.push(further_out.winner);
        }
        merged = Some(MergedPath {
            winner: index,
            hidden,
            file,
        });
    }
    merged
}

/// Merges the layers (outermost first) at every path. `keep` says which paths of a layer, given by
/// its index, take part.
pub fn merge<'a>(
    layers: &[&'a Layer],
    keep: impl Fn(usize, &str) -> bool,
) -> (BTreeMap<Arc<str>, MergedPath<'a>>, Vec<LayerClash>) {
    let mut merged = BTreeMap::<Arc<str>, MergedPath>::new();
    for (index, layer) in layers.iter().enumerate() {
        for (path, file) in &layer.files {
            if !keep(index, path) {
                continue;
            }
            if let Some(entry) = merged.get_mut(path) {
                entry.hidden.push(entry.winner);
                entry.winner = index;
                entry.file = file;
            } else {
                let entry = MergedPath {
                    winner: index,
                    hidden: Vec::new(),
                    file,
                };
                merged.insert(Arc::clone(path), entry);
            }
        }
    }
    let mut clashes = BTreeMap::<Arc<str>, LayerClash>::new();
    for (path, entry) in &merged {
        for (end, _) in path.match_indices('/') {
            if let Some((above, file)) = merged.get_key_value(&path[..end]) {
                clashes
                    .entry(Arc::clone(above))
                    .or_insert_with(|| LayerClash {
                        path: Arc::clone(above),
                        file: file.winner,
                        folder: entry.winner,
                        below: Arc::clone(path),
                    });
            }
        }
    }
    (merged, clashes.into_values().collect())
}
