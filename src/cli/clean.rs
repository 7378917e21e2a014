//! `store clean`.

use super::arguments::Global;
use super::{answer, project};
use crate::error::Error as AnyError;
use crate::pipeline;

pub fn clean(global: &Global) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let removed = pipeline::clean(&project.root).map_err(pipeline::Error::from)?;
    let inside = |path: &std::path::PathBuf| {
        let inside = path.strip_prefix(&project.root).unwrap_or(path);
        format!("removed {}\n", inside.display())
    };
    let lines: Vec<_> = removed.iter().map(inside).collect();
    answer(&if lines.is_empty() {
        "nothing to remove\n".to_owned()
    } else {
        lines.concat()
    })
}
