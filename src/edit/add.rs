//! A new store: its folder and its entry in the config.

use std::collections::{BTreeMap, BTreeSet};

use jsonc_parser::cst::CstInputValue;

use super::Error;
use super::change::{Change, TreeEdit, command_line};
use super::config_text::host_label;
use super::places::{self, ROOT};
use super::proposal::{ConfigEdit, EditProposal, same_id};
use crate::compare::is_dns_label;
use crate::config::Project;
use crate::store::{AppKind, Framework, StoreId};

/// The region where no store has one.
const ASSUMED_REGION: &str = "europe-west1";

/// What the user wants to add.
#[derive(Debug, Clone, Default)]
pub struct StoreRequest {
    /// The id.
    pub id: String,
    /// The parent's id, or `root`.
    pub parent: Option<String>,
    /// Whether it is a template: a store without a deployment.
    pub is_template: bool,
    /// The framework of its frontend.
    pub framework: Option<Framework>,
    /// The project's name in the console.
    pub project_name: Option<String>,
    /// The cloud region.
    pub cloud_region: Option<String>,
}

/// The frameworks of the frontends of a project.
pub fn frameworks(project: &Project) -> BTreeSet<Framework> {
    let kinds = project.apps.iter().map(|app| app.kind);
    kinds.filter_map(AppKind::framework).collect()
}

/// The name in the console that is assumed for a new store: its id, after the prefix that most stores
/// have before theirs.
pub fn assumed_project_name(project: &Project, id: &str) -> String {
    let clean = id.to_lowercase().replace(['_', '.'], "-");
    let mut names = BTreeSet::new();
    let mut prefixes = BTreeMap::<&str, usize>::new();
    for store in project.stores.deployables() {
        let name = store.deployment.as_ref().map(|it| &it.project_name);
        let prefix = name.and_then(|name| name.strip_suffix(store.id.as_str()));
        names.extend(name);
        if let Some(prefix) = prefix {
            *prefixes.entry(prefix).or_default() += 1;
        }
    }
    let most = prefixes.into_iter().max_by_key(|(_, count)| *count);
    let prefix = most.map_or("", |(prefix, _)| prefix);
    let name = format!("{prefix}{clean}");
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let mut candidates = std::iter::once(name.clone()).chain(numbered);
    candidates
        .find(|name| !names.contains(name))
        .unwrap_or(name.clone())
}

/// The region that most stores have.
pub fn assumed_region(project: &Project) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for store in project.stores.deployables() {
        if let Some(deployment) = &store.deployment {
            *counts.entry(&deployment.cloud_region).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(ASSUMED_REGION, |(region, _)| region).to_owned()
}

/// Proposes a new store.
pub fn add(project: &Project, new: &StoreRequest) -> Result<EditProposal, Error> {
    let id = places::new_id(project, &new.id)?;
    let parent = places::parent(project, new.parent.as_deref().unwrap_or(ROOT))?;
    let framework = framework(project, new)?;
    let folder = format!("{}/{id}", places::children_folder(parent));
    let mut edit = TreeEdit::new(command(new));
    let mut notes = Vec::new();
    edit.changes.push(places::kept(&folder));
    for app in &project.apps {
        let own = app.kind.framework();
        if own.is_none() || framework.is_none() || own == framework {
            edit.changes.push(Change::MakeFolder {
                path: format!("{folder}/{}", app.name),
            });
        }
    }
    if !new.is_template {
        let config = ConfigEdit::read(&project.root)?;
        config
            .text()
            .add_store(id.as_str(), entry(project, &id, new, framework, &mut notes));
        edit.changes.extend(config.change());
    }
    if !is_dns_label(id.as_str()) {
        notes.push(format!(
            "`{id}` is not a DNS label, so it cannot be part of a host name: use lower-case letters, digits and `-`"
        ));
    }
    let mut proposal = EditProposal::new(project, edit, std::slice::from_ref(&id), &same_id)?;
    proposal.notes = notes;
    proposal.next = vec![
        format!(
            "copy a file that differs into `{folder}/<app>/`, at the path that it has in the app"
        ),
        "commit the new folder and the config: git keeps the folder because of its `.gitkeep`"
            .into(),
    ];
    if !new.is_template {
        proposal
            .next
            .insert(1, format!("run `alokai store compose --store {id}`"));
    }
    Ok(proposal)
}

fn command(new: &StoreRequest) -> String {
    let parent = new.parent.as_deref().unwrap_or(ROOT);
    let mut words = vec!["add", &new.id, "--parent", parent];
    if new.is_template {
        words.push("--template");
    }
    let framework = new.framework.map(|framework| framework.to_string());
    let options = [
        ("--framework", framework.as_deref()),
        ("--console-project-name", new.project_name.as_deref()),
        ("--cloud-region", new.cloud_region.as_deref()),
    ];
    for (option, value) in options {
        words.extend(value.into_iter().flat_map(|value| [option, value]));
    }
    command_line(&words)
}

/// The framework of the new store; an error if the project has several and none is named.
fn framework(project: &Project, new: &StoreRequest) -> Result<Option<Framework>, Error> {
    let known = frameworks(project);
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    if new.is_template {
        let given = [
            ("--framework", new.framework.is_some()),
            ("--console-project-name", new.project_name.is_some()),
            ("--cloud-region", new.cloud_region.is_some()),
        ];
        return match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Error::Option {
                message: format!("a template has no deployment, so `{option}` has no effect"),
                help: format!("leave out `{option}`, or leave out `--template`"),
            }),
            None => Ok(None),
        };
    }
    match new.framework {
        Some(framework) if !known.contains(&framework) => Err(Error::Option {
            message: format!("the project has no app with the framework `{framework}`"),
            help: format!("choose one of: {}", names.join(", ")),
        }),
        Some(framework) => Ok(Some(framework)),
        None if known.len() > 1 => Err(Error::Option {
            message: format!(
                "the project has {} frameworks, and `--framework` names none of them",
                known.len()
            ),
            help: format!("pass `--framework` with one of: {}", names.join(", ")),
        }),
        None => Ok(known.into_iter().next()),
    }
}

/// The entry of the config.
fn entry(
    project: &Project,
    id: &StoreId,
    new: &StoreRequest,
    framework: Option<Framework>,
    notes: &mut Vec<String>,
) -> CstInputValue {
    let mut assume = |given: &Option<String>, key: &str, assumed: String| {
        given.clone().unwrap_or_else(|| {
            notes.push(format!(
                "check `{key}` before the first deploy: `{assumed}` is assumed"
            ));
            assumed
        })
    };
    let text = |key: &str, value: String| (key.to_owned(), CstInputValue::from(value));
    let name = assumed_project_name(project, id.as_str());
    let mut deployment = vec![
        text(
            "projectName",
            assume(&new.project_name, "projectName", name),
        ),
        text(
            "cloudRegion",
            assume(&new.cloud_region, "cloudRegion", assumed_region(project)),
        ),
    ];
    deployment.extend(framework.map(|framework| text("framework", framework.to_string())));
    let ports = free_ports(project, framework)
        .into_iter()
        .map(|(key, port)| (key.to_owned(), CstInputValue::Number(port.to_string())))
        .collect::<Vec<_>>();
    let mut entry = vec![("deployment".to_owned(), CstInputValue::Object(deployment))];
    if !ports.is_empty() {
        entry.push(("localPorts".to_owned(), CstInputValue::Object(ports)));
    }
    entry.push(text(
        "localDomain",
        format!("{}.local", host_label(id.as_str())),
    ));
    CstInputValue::Object(entry)
}

/// For each app with a port: the first free port from the lowest one that a store has for this app.
fn free_ports(project: &Project, framework: Option<Framework>) -> Vec<(&'static str, u16)> {
    let ports = || project.local.iter().flat_map(|(_, local)| &local.ports);
    let mut taken: BTreeSet<u16> = ports().map(|(_, port)| *port).collect();
    let kinds = [
        ("middleware", AppKind::Middleware, 4000),
        ("nextjs", AppKind::Frontend(Framework::Nextjs), 3000),
        ("nuxt", AppKind::Frontend(Framework::Nuxt), 3333),
    ];
    let mut given = Vec::new();
    for (key, kind, default) in kinds {
        let is_other = kind.framework().is_some() && kind.framework() != framework;
        if is_other || !project.apps.iter().any(|app| app.kind == kind) {
            continue;
        }
        let of_app = ports().filter(|(known, _)| *known == key);
        let lowest = of_app.map(|(_, port)| *port).min().unwrap_or(default);
        let mut free = (lowest..=u16::MAX).chain(1024..lowest);
        if let Some(port) = free.find(|port| !taken.contains(port)) {
            taken.insert(port);
            given.push((key, port));
        }
    }
    given
}
