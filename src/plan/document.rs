//! A plan as text and as one JSON document.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::hooks::{write_at as write_hooks, write_stage};
use super::{
    DockerfileSource, HookPlan, ImageMaker, ImagePlan, Plan, StorePlan, Subject, Task, TaskMap,
};
use crate::config::{HookStage, HookTime};
use crate::event::Miss;
use crate::overlay::Composition;
use crate::store::UnitId;

/// The version of the document. It changes when a field is removed or changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// The text in place of a secret.
const SECRET: &str = "***";

/// What a run would do for a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Forecast {
    /// Use the cached result.
    Hit,
    /// Run the script.
    Runs(Miss),
    /// Use the result of the same app of this store, which the run builds.
    Follows(String),
    /// Nothing: no task that runs needs its result.
    Unneeded,
}

/// The plan as JSON.
pub fn document(plan: &Plan, forecasts: &TaskMap<Forecast>, steps: &[ReleaseSteps]) -> Value {
    let stores = plan.stores.iter().map(|one| store(one, |_| true));
    let tasks = plan.tasks.entries().map(|(id, task)| {
        let forecast = &forecasts[id];
        let needs = task
            .needs
            .iter()
            .map(|need| plan.task(*need).subject.to_string());
        let mut value = json!({
            "id": task.subject.to_string(),
            "command": task.command,
            "folder": task.folder,
            "variables": task.variables,
            "cache": match forecast {
                Forecast::Hit => "hit",
                Forecast::Runs(Miss::Depends { .. }) => "unknown",
                Forecast::Runs(_) => "miss",
                Forecast::Follows(_) => "reused",
                Forecast::Unneeded => "unneeded",
            },
            "needs": needs.collect::<Vec<_>>(),
        });
        if let Some(before) = &task.before {
            value["before"] = json!(before);
        }
        match forecast {
            Forecast::Runs(miss) => value["why"] = json!(miss),
            Forecast::Follows(maker) => value["from"] = json!(maker),
            Forecast::Hit | Forecast::Unneeded => {}
        }
        match &task.subject {
            Subject::Package(name) => value["package"] = json!(name),
            Subject::Unit(unit) => {
                value["storeId"] = json!(unit.store);
                value["app"] = json!(unit.app);
            }
        }
        value
    });
    let releases = plan.releases.iter().map(|release| match &release.console {
        Some(request) => json!({
            "storeId": release.store,
            "target": release.target,
            "method": "PATCH",
            "url": request.url,
            "address": request.address,
            "body": request.body(SECRET, SECRET),
        }),
        None => json!({ "storeId": release.store, "target": release.target }),
    });
    json!({
        "schemaVersion": SCHEMA_VERSION,
        "project": plan.project,
        "until": plan.until,
        "revision": plan.revision.as_ref().map(|revision| &revision.sha),
        "dirty": plan.revision.as_ref().map(|revision| &revision.dirty),
        "tag": plan.tag,
        "stores": stores.collect::<Value>(),
        "tasks": tasks.collect::<Value>(),
        "images": plan.images.iter().map(image).collect::<Value>(),
        "releases": releases.collect::<Value>(),
        "hooks": plan.hooks.iter().map(HookPlan::document).collect::<Value>(),
        "releaseSteps": steps,
        "notices": plan.notices,
    })
}

/// The steps with which one target makes releases live.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ReleaseSteps {
    /// The target.
    pub target: &'static str,
    /// The steps, in order.
    pub steps: Vec<String>,
    /// What the target cannot do, one sentence each.
    pub limits: Vec<String>,
    /// What the records say about the stores: pins, waves, and a refusal; one sentence each.
    pub notes: Vec<String>,
}

/// The decisions about one image, independent of the project's folder and of other images.
pub fn decided(plan: &Plan, unit: &UnitId) -> Value {
    let own = plan.stores.iter().filter(|one| one.id == unit.store);
    let stores = own.map(|one| store(one, |composition| composition.unit == *unit));
    let mut image = plan.image(unit).map_or(Value::Null, image);
    // The path depends on the project's folder; the text contains all of the Dockerfile.
    if let Some(dockerfile) = image["dockerfile"].as_object_mut() {
        dockerfile.remove("source");
    }
    json!({
        "schemaVersion": SCHEMA_VERSION,
        "revision": plan.revision.as_ref().map(|revision| &revision.sha),
        "dirty": plan.revision.as_ref().map(|revision| &revision.dirty),
        "stores": stores.collect::<Value>(),
        "image": image,
    })
}

/// A store with those of its compositions that are wanted.
fn store(store: &StorePlan, is_wanted: impl Fn(&Composition) -> bool) -> Value {
    let layers = |composition: &Composition| -> Value {
        let counts = composition.files_by_layer().into_iter();
        counts
            .map(|(owner, files)| json!({ "layer": owner.to_string(), "files": files }))
            .collect()
    };
    let wanted = store.compositions.iter().filter(|one| is_wanted(one));
    let compositions = wanted.map(|composition| {
        json!({
            "app": composition.unit.app,
            "unit": composition.unit.package_name(),
            "files": composition.entries.len(),
            "layers": layers(composition),
            "dropped": composition.dropped.len(),
            "contentId": composition.id(),
            "folder": format!(".out/{}/{}", store.id, composition.unit.app),
        })
    });
    json!({
        "storeId": store.id,
        "deployment": store.deployment,
        "compositions": compositions.collect::<Value>(),
    })
}

fn image(image: &ImagePlan) -> Value {
    let labels = image.labels.iter();
    let labels: Map<String, Value> = labels
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    json!({
        "storeId": image.unit.store,
        "app": image.unit.app,
        "reference": image.reference.as_ref().map(ToString::to_string),
        "tag": image.reference.as_ref().map(|reference| &reference.tag),
        "dockerfile": {
            "source": match &image.dockerfile.source {
                DockerfileSource::Default => json!("default"),
                DockerfileSource::Project(path) => json!(path),
                DockerfileSource::App(_) => json!("app"),
            },
            "text": image.dockerfile.text,
        },
        "builder": match &image.maker {
            ImageMaker::Oci(_) => json!({ "name": "oci" }),
            ImageMaker::Docker(None) => json!({ "name": "docker" }),
            ImageMaker::Docker(Some(refusal)) => json!({
                "name": "docker",
                "because": { "line": refusal.line, "instruction": refusal.instruction, "why": refusal.why },
            }),
        },
        "bases": image.bases,
        "platform": image.platform.to_string(),
        "inputs": image.inputs,
        "entry": image.entry,
        "entrypoint": image.entrypoint,
        "port": image.port,
        "labels": labels,
    })
}

/// The plan as text.
pub fn text(plan: &Plan, forecasts: &TaskMap<Forecast>, releases: &[ReleaseSteps]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(plan, forecasts, releases, &mut out);
    out
}

fn write_text(
    plan: &Plan,
    forecasts: &TaskMap<Forecast>,
    releases: &[ReleaseSteps],
    out: &mut String,
) -> std::fmt::Result {
    let stores = plan.stores.len();
    write!(
        out,
        "Plan for {stores} {}",
        if stores == 1 { "store" } else { "stores" }
    )?;
    if let Some(tag) = &plan.tag {
        write!(out, ", tag {tag}")?;
    }
    writeln!(out, "\n\nCompose")?;
    write_hooks(plan, (HookTime::Before, HookStage::Compose), out)?;
    for composition in plan.compositions() {
        write_composition(composition, out)?;
    }
    write_hooks(plan, (HookTime::After, HookStage::Compose), out)?;
    if !plan.tasks.is_empty() {
        write_tasks(plan, forecasts, out)?;
    }
    write_stage(plan, HookStage::Prune, "Prune", out)?;
    write_images(plan, out)?;
    write_stage(plan, HookStage::Push, "Push", out)?;
    write_releases(plan, out)?;
    for release in releases {
        write_steps(release, out)?;
    }
    if !plan.notices.is_empty() {
        writeln!(out, "\nNotes")?;
        for notice in &plan.notices {
            writeln!(out, "  {notice}")?;
        }
    }
    writeln!(out, "\nDry run: nothing was changed.")
}

fn write_composition(composition: &Composition, out: &mut String) -> std::fmt::Result {
    let files = composition.entries.len();
    let noun = if files == 1 { "file" } else { "files" };
    write!(out, "  {}  {files} {noun}:", composition.unit)?;
    let layers = composition.files_by_layer().into_iter();
    for (position, (owner, files)) in layers.filter(|(_, files)| *files > 0).enumerate() {
        let separator = if position == 0 { "" } else { " +" };
        write!(out, "{separator} {files} {owner}")?;
    }
    if !composition.dropped.is_empty() {
        write!(out, "; {} dropped", composition.dropped.len())?;
    }
    writeln!(out)
}

fn write_tasks(plan: &Plan, forecasts: &TaskMap<Forecast>, out: &mut String) -> std::fmt::Result {
    let title = if plan.work.is_build() { "Build" } else { "Run" };
    writeln!(out, "\n{title}, in this order")?;
    write_hooks(plan, (HookTime::Before, HookStage::Build), out)?;
    let (mut runs, mut may_run) = (0, 0);
    for (id, task) in plan.tasks.entries() {
        let commands: Vec<_> = task.commands().map(|it| it.join(" ")).collect();
        let command = commands.join(" && ");
        let after = after(task);
        writeln!(out, "  {}. {}  {command}{after}", id.number(), task.subject)?;
        match &forecasts[id] {
            Forecast::Runs(miss) => {
                match miss {
                    Miss::Depends { .. } => may_run += 1,
                    _ => runs += 1,
                }
                writeln!(out, "     {}", miss.text(false))?;
            }
            Forecast::Follows(maker) => writeln!(out, "     reuses the result of {maker}")?,
            Forecast::Hit => writeln!(out, "     cache hit")?,
            Forecast::Unneeded => {
                writeln!(out, "     not needed: no task that runs depends on it")?;
            }
        }
    }
    let all = plan.tasks.len();
    write!(out, "  {runs} of {all} scripts would run")?;
    if may_run > 0 {
        write!(out, ", and up to {may_run} more")?;
    }
    writeln!(out)?;
    write_hooks(plan, (HookTime::After, HookStage::Build), out)
}

fn write_images(plan: &Plan, out: &mut String) -> std::fmt::Result {
    if !plan.images.is_empty() {
        let references = plan
            .images
            .iter()
            .filter_map(|image| image.reference.as_ref());
        if references.clone().next().is_some() {
            writeln!(out, "\nImages")?;
            write_hooks(plan, (HookTime::Before, HookStage::Image), out)?;
            for (image, reference) in plan.images.iter().zip(references) {
                writeln!(out, "  {}\n    {reference}", image.unit)?;
                if let Some(path) = &image.entrypoint {
                    let entry = &image.entry;
                    writeln!(out, "    starts {path}, which starts `node {entry}`")?;
                }
                match &image.maker {
                    ImageMaker::Oci(_) => {}
                    ImageMaker::Docker(None) => writeln!(out, "    built by Docker")?,
                    ImageMaker::Docker(Some(refusal)) => writeln!(
                        out,
                        "    built by Docker, because of line {} of its Dockerfile, `{}`: {}",
                        refusal.line, refusal.instruction, refusal.why
                    )?,
                }
            }
            write_hooks(plan, (HookTime::After, HookStage::Image), out)?;
        }
    }
    Ok(())
}

fn write_releases(plan: &Plan, out: &mut String) -> std::fmt::Result {
    if !plan.releases.is_empty() {
        writeln!(out, "\nDeploy")?;
        write_hooks(plan, (HookTime::Before, HookStage::Stage), out)?;
        write_hooks(plan, (HookTime::After, HookStage::Stage), out)?;
        write_hooks(plan, (HookTime::Before, HookStage::Release), out)?;
        for release in &plan.releases {
            let Some(request) = &release.console else {
                writeln!(out, "  {}  {}", release.store, release.target.name())?;
                continue;
            };
            writeln!(out, "  {}  {}", release.store, request.address)?;
            writeln!(out, "    PATCH {}", request.url)?;
            let body = serde_json::to_string_pretty(&request.body(SECRET, SECRET));
            for line in body.unwrap_or_default().lines() {
                writeln!(out, "    {line}")?;
            }
        }
        write_hooks(plan, (HookTime::After, HookStage::Release), out)?;
    }
    Ok(())
}

fn write_steps(release: &ReleaseSteps, out: &mut String) -> std::fmt::Result {
    writeln!(out, "  Steps at the target `{}`", release.target)?;
    for (position, step) in (1..).zip(&release.steps) {
        writeln!(out, "    {position}. {step}")?;
    }
    for limit in release.limits.iter().chain(&release.notes) {
        writeln!(out, "    {limit}")?;
    }
    Ok(())
}

fn after(task: &Task) -> String {
    if task.needs.is_empty() {
        return String::new();
    }
    let numbers: Vec<_> = task
        .needs
        .iter()
        .map(|need| need.number().to_string())
        .collect();
    format!("  (after {})", numbers.join(", "))
}
