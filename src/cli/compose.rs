//! `store compose`.

use std::fmt::Write as _;

use super::arguments::flow::ReleaseOptions;
use super::arguments::{ComposeOptions, Global};
use super::environment::tell;
use super::events::live;
use super::run::{PreparedCommand, RunSetup, document, request, run};
use super::{Error, answer, project};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::{self, SessionLock, changes};
use crate::plan::Plan;
use crate::report::Detail;
use crate::watch::{OutSync, SyncOptions};

pub fn compose(global: &Global, options: &ComposeOptions) -> Result<(), AnyError> {
    let prepare = || -> Result<PreparedCommand, AnyError> {
        let (project, _) = project(global)?;
        let request = request(&project, &options.select, Stage::Compose)?;
        let surroundings = RunSetup::default();
        Ok(PreparedCommand {
            release: ReleaseOptions::default(),
            project,
            request,
            surroundings,
            resume: false,
        })
    };
    if options.watch {
        return watch(prepare()?, options.json);
    }
    if !options.check {
        return run(&prepare, None, options.json);
    }
    let PreparedCommand {
        project, request, ..
    } = prepare()?;
    let plan = Plan::make(&project, &request)?;
    for notice in &plan.notices {
        tell(&format!("note: {notice}"));
    }
    let changes = changes(&plan).map_err(crate::pipeline::Error::from)?;
    let shown = if options.json {
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

/// `--watch`: keeps `.out` in step until the user interrupts it.
fn watch(prepared: PreparedCommand, json: bool) -> Result<(), AnyError> {
    let root = prepared.project.root;
    let _session = SessionLock::take(&root, "store compose --watch", &[])?;
    let options = SyncOptions {
        root,
        request: prepared.request,
        skips_first: false,
    };
    live(json, Detail::Short, |live| {
        let sync = OutSync::start(options, &live.events, &live.interrupt)?;
        live.on_interrupt({
            let stop = sync.stop();
            move || stop.stop()
        });
        sync.run(|_, _| ());
        Err(pipeline::Error::Interrupted {
            stage: Stage::Compose,
            failures: Vec::new(),
        }
        .into())
    })
}
