//! `store compose`.

use std::fmt::Write as _;

use super::arguments::{ComposeOptions, Global};
use super::environment::tell;
use super::run::{PreparedRun, RunSetup, document, request, run};
use super::{Error, answer, project};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::changes;
use crate::plan::Plan;

pub fn compose(global: &Global, options: &ComposeOptions) -> Result<(), AnyError> {
    let prepare = || -> Result<PreparedRun, AnyError> {
        let (project, _) = project(global)?;
        let request = request(&project, &options.select, Stage::Compose)?;
        let surroundings = RunSetup::default();
        Ok(PreparedRun {
            project,
            request,
            surroundings,
        })
    };
    if !options.check {
        return run(&prepare, None, &options.output);
    }
    let PreparedRun {
        project, request, ..
    } = prepare()?;
    let plan = Plan::make(&project, &request)?;
    for notice in &plan.notices {
        tell(&format!("note: {notice}"));
    }
    let changes = changes(&plan).map_err(crate::pipeline::Error::from)?;
    let shown = if options.output.json {
        document(&serde_json::json!({
            "schemaVersion": 1,
            "write": changes.write,
            "remove": changes.remove,
        }))
    } else {
        let mut out = String::new();
        for (verb, paths) in [("write", &changes.write), ("remove", &changes.remove)] {
            for path in paths {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{verb} {}", path.escape_debug());
            }
        }
        answer(&out)
    };
    if changes.write.is_empty() && changes.remove.is_empty() {
        return shown;
    }
    Err(Error::Differs {
        write: changes.write.len(),
        remove: changes.remove.len(),
    }
    .into())
}
