//! `store add`.

use super::arguments::{AddOptions, FrameworkOption, Global};
use super::edit::{edit_tree, reserved_ids};
use super::{Error, environment, project, questions};
use crate::config::Project;
use crate::edit::{self, EditProposal, ROOT, StoreRequest};
use crate::error::Error as AnyError;

pub fn add(global: &Global, options: &AddOptions) -> Result<(), AnyError> {
    let mut request = StoreRequest {
        id: options.id.clone().unwrap_or_default(),
        parent: options.parent.clone(),
        is_template: options.template,
        framework: options.framework.map(FrameworkOption::framework),
        project_name: options.console_project_name.clone(),
        cloud_region: options.cloud_region.clone(),
    };
    if environment::can_ask() && !options.edit.yes {
        let (project, _) = project(global)?;
        complete(&project, &mut request)?;
    }
    if request.id.is_empty() {
        return Err(Error::MissingArgument {
            what: "the id of the new store",
            usage: "alokai store add <id> --parent <store>",
        }
        .into());
    }
    edit_tree(global, &options.edit, &|project| {
        Ok(edit::add(project, &request)?)
    })
}

/// Asks for what the command line does not say, and checks what it says. An empty answer takes what is in
/// brackets. At the end of the input the rest is not asked.
fn complete(project: &Project, request: &mut StoreRequest) -> Result<(), AnyError> {
    let check_id = |id: &str| -> Result<String, AnyError> {
        edit::new_id(project, id)?;
        Ok(id.to_owned())
    };
    if request.id.is_empty() {
        let Some(id) = questions::ask("Id of the new store: ", check_id) else {
            return Ok(());
        };
        request.id = id;
    } else {
        check_id(&request.id)?;
    }
    match &request.parent {
        Some(parent) => drop(edit::parent(project, parent)?),
        None => request.parent = questions::parent(project, "Parent", Some(ROOT)),
    }
    let is_open = !request.is_template
        && request.framework.is_none()
        && request.project_name.is_none()
        && request.cloud_region.is_none();
    if is_open {
        let kind = questions::ask("Deployable or template? (d/t) [d]: ", is_template);
        request.is_template = kind.unwrap_or_default();
    }
    if request.is_template {
        return Ok(());
    }
    ask_framework(project, request);
    // An error here has another cause than the answers below.
    proposal(project, request)?;
    if request.project_name.is_none() {
        let assumed = edit::assumed_project_name(project, &request.id);
        let question = format!("Project name in the console [{assumed}]: ");
        let name = questions::ask(&question, |answer| {
            let project_name = (!answer.is_empty()).then(|| answer.to_owned());
            proposal(
                project,
                &StoreRequest {
                    project_name: project_name.clone(),
                    ..request.clone()
                },
            )?;
            Ok(project_name)
        });
        request.project_name = name.flatten();
    }
    if request.cloud_region.is_none() {
        let assumed = edit::assumed_region(project);
        let question = format!("Cloud region [{assumed}]: ");
        let region = questions::ask(&question, |answer| {
            let cloud_region = (!answer.is_empty()).then(|| answer.to_owned());
            proposal(
                project,
                &StoreRequest {
                    cloud_region: cloud_region.clone(),
                    ..request.clone()
                },
            )?;
            Ok(cloud_region)
        });
        request.cloud_region = region.flatten();
    }
    Ok(())
}

/// Asks for the framework if the project has several.
fn ask_framework(project: &Project, request: &mut StoreRequest) {
    let known = edit::frameworks(project);
    if request.framework.is_some() || known.len() < 2 {
        return;
    }
    let names: Vec<_> = known.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    request.framework = questions::ask(&format!("Framework ({names}): "), |answer| {
        let mut known = known.iter().copied();
        let framework = known.find(|framework| framework.to_string() == answer);
        framework.ok_or_else(|| wrong_answer(answer, format!("with one of: {names}")))
    });
}

/// Whether the answer is a template.
fn is_template(answer: &str) -> Result<bool, AnyError> {
    match answer.to_lowercase().as_str() {
        "" | "d" | "deployable" => Ok(false),
        "t" | "template" => Ok(true),
        _ => Err(wrong_answer(
            answer,
            "`d` for a deployable store or `t` for a template".into(),
        )),
    }
}

fn wrong_answer(answer: &str, expected: String) -> AnyError {
    let answer = answer.to_owned();
    Error::Answer { answer, expected }.into()
}

fn proposal(project: &Project, request: &StoreRequest) -> Result<EditProposal, AnyError> {
    let proposal = edit::add(project, request)?;
    reserved_ids(project, &proposal)?;
    Ok(proposal)
}
