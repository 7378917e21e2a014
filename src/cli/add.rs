//! `store add`.

use super::arguments::{AddOptions, Global};
use super::edit::edit_tree;
use super::{Error, environment, project};
use crate::config::Project;
use crate::edit::{self, ROOT, StoreRequest};
use crate::error::Error as AnyError;

pub fn add(global: &Global, options: &AddOptions) -> Result<(), AnyError> {
    let mut request = StoreRequest {
        id: options.id.clone().unwrap_or_default(),
        parent: options.parent.clone(),
        is_template: options.template,
        framework: options.framework.map(|it| it.framework()),
        project_name: options.console_project_name.clone(),
        cloud_region: options.cloud_region.clone(),
    };
    if environment::can_ask() && !options.edit.yes {
        let (project, _) = project(global)?;
        complete(&project, &mut request);
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

/// Asks for what the command line does not say. An empty line takes what is in brackets.
fn complete(project: &Project, request: &mut StoreRequest) {
    if request.id.is_empty() {
        request.id = environment::ask("Id of the new store: ");
    }
    if request.parent.is_none() {
        let ids: Vec<_> = project.stores.iter().map(|it| it.id.as_str()).collect();
        let parent = environment::ask(&format!(
            "Parent ({ROOT}{}{}) [{ROOT}]: ",
            if ids.is_empty() { "" } else { ", " },
            ids.join(", ")
        ));
        request.parent = (!parent.is_empty()).then_some(parent);
    }
    if request.is_template {
        return;
    }
    let is_open = request.framework.is_none()
        && request.project_name.is_none()
        && request.cloud_region.is_none();
    if is_open {
        let kind = environment::ask("Deployable or template? (d/t) [d]: ");
        if ["t", "template"].contains(&kind.to_lowercase().as_str()) {
            request.is_template = true;
            return;
        }
    }
    let known = edit::frameworks(project);
    if request.framework.is_none() && known.len() > 1 {
        let names: Vec<_> = known.iter().map(ToString::to_string).collect();
        let name = environment::ask(&format!("Framework ({}): ", names.join(", ")));
        request.framework = known.into_iter().find(|it| it.to_string() == name);
    }
    if request.project_name.is_none() {
        let assumed = edit::assumed_project_name(project, &request.id);
        let name = environment::ask(&format!("Project name in the console [{assumed}]: "));
        request.project_name = (!name.is_empty()).then_some(name);
    }
    if request.cloud_region.is_none() {
        let assumed = edit::assumed_region(project);
        let region = environment::ask(&format!("Cloud region [{assumed}]: "));
        request.cloud_region = (!region.is_empty()).then_some(region);
    }
}
