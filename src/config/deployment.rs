//! The deployment of a store, read from the newer and older spellings in the config.

use super::problem::Problem;
use super::raw::DeploymentEntry;
use crate::store::{Deployment, Framework};

/// Whether the text is valid in a repository name, by the grammar of the OCI distribution
/// specification: lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
pub fn is_repository_component(name: &str) -> bool {
    name.len() <= 128
        && name.split('/').all(|part| {
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let separators = part
                .split(is_word)
                .filter(|separator| !separator.is_empty());
            let all_valid = separators
                .into_iter()
                .all(|it| matches!(it, "." | "_" | "__") || it.chars().all(|c| c == '-'));
            part.starts_with(is_word) && part.ends_with(is_word) && all_valid
        })
}

/// Problems, each with its keys below `deployment`.
pub type DeploymentProblems = Vec<(&'static [&'static str], Problem)>;

/// Makes the deployment of a store, or returns all problems.
pub fn deployment(
    id: &str,
    entry: &DeploymentEntry,
    frontends: &[Framework],
) -> Result<Deployment, DeploymentProblems> {
    let mut found: DeploymentProblems = Vec::new();
    let project_name = entry.project_name.clone().unwrap_or_default();
    if !is_repository_component(&project_name) || project_name.contains('/') {
        found.push((
            &["projectName"],
            Problem::new(
                format!(
                    "`{}` is not a valid project name",
                    project_name.escape_debug()
                ),
                "use lower-case letters, digits and `-`, since the name is part of image names",
            ),
        ));
    }
    let cloud_region = match (&entry.cloud_region, &entry.region) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["region"],
                Problem::new(
                    format!("`region` is `{old}`, but `cloudRegion` is `{new}`"),
                    "both keys have the same meaning; keep `cloudRegion`",
                ),
            ));
            None
        }
        (Some(region), _) | (None, Some(region)) => Some(region.clone()),
        (None, None) => {
            found.push((
                &["cloudRegion"],
                Problem::new(
                    format!("the deployment of `{id}` has no `cloudRegion`"),
                    "add the region that you deploy to, such as `\"cloudRegion\": \"europe-west1\"`",
                ),
            ));
            None
        }
    };
    if let Some(region) = cloud_region.as_deref()
        && (region.is_empty()
            || !region
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-'))
    {
        found.push((
            &["cloudRegion"],
            Problem::new(
                format!("`{}` is not a valid cloud region", region.escape_debug()),
                "use the name of a region, such as `europe-west1`",
            ),
        ));
    }
    let framework = match (entry.framework, entry.frontend) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["frontend"],
                Problem::new(
                    format!("`frontend` is `{old}`, but `framework` is `{new}`"),
                    "both keys have the same meaning; keep `framework`",
                ),
            ));
            None
        }
        (Some(framework), _) | (None, Some(framework)) => {
            if !frontends.contains(&framework) {
                found.push((
                    &["framework"],
                    Problem::new(
                        format!("the framework of `{id}` is `{framework}`, but no app in `apps/` uses it"),
                        format!("add an app that uses it, such as `apps/storefront-unified-{framework}`"),
                    ),
                ));
            }
            Some(framework)
        }
        (None, None) => match frontends {
            [] => None,
            [one] => Some(*one),
            several => {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                found.push((
                    &["framework"],
                    Problem::new(
                        format!("the deployment of `{id}` has no `framework`, but the project has {} frontend apps", several.len()),
                        format!("add `\"framework\"` with one of these values: {}", names.join(", ")),
                    ),
                ));
                None
            }
        },
    };
    if found.is_empty() {
        Ok(Deployment {
            project_name,
            cloud_region: cloud_region.unwrap_or_default(),
            framework,
        })
    } else {
        Err(found)
    }
}
