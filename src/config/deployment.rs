//! Where a store runs, as the config says it in its newer and older spellings.

use super::problem::Problem;
use super::raw::DeploymentEntry;
use crate::store::{Deployment, Framework};

/// Lower-case components, as the distribution specification's grammar of a reference has them:
/// letters and digits, separated by `.`, `_`, `__` or any number of `-`.
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

/// Problems, each with the keys below `deployment`.
pub type DeploymentProblems = Vec<(&'static [&'static str], Problem)>;

/// Makes the deployment of a store, or says everything that is wrong with it.
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
                format!("`{}` is no valid project name", project_name.escape_debug()),
                "it becomes part of image names: lower-case letters, digits and `-`",
            ),
        ));
    }
    let cloud_region = match (&entry.cloud_region, &entry.region) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["region"],
                Problem::new(
                    format!("`region` says `{old}` and `cloudRegion` says `{new}`"),
                    "they mean the same; keep `cloudRegion`",
                ),
            ));
            None
        }
        (Some(region), _) | (None, Some(region)) => Some(region.clone()),
        (None, None) => {
            found.push((
                &["cloudRegion"],
                Problem::new(
                    format!("the deployment of `{id}` lacks `cloudRegion`"),
                    "add `\"cloudRegion\": \"europe-west1\"`, or the region you deploy to",
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
                format!("`{}` is no valid cloud region", region.escape_debug()),
                "use a region's name, such as `europe-west1`",
            ),
        ));
    }
    let framework = match (entry.framework, entry.frontend) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["frontend"],
                Problem::new(
                    format!("`frontend` says `{old}` and `framework` says `{new}`"),
                    "they mean the same; keep `framework`",
                ),
            ));
            None
        }
        (Some(framework), _) | (None, Some(framework)) => {
            if !frontends.contains(&framework) {
                found.push((
                    &["framework"],
                    Problem::new(
                        format!("`{id}` names the framework `{framework}`, but no app in `apps/` is made with it"),
                        format!("add an app that depends on it, such as `apps/storefront-unified-{framework}`"),
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
                        format!("the deployment of `{id}` lacks `framework`, and the project has {} frontend apps", several.len()),
                        format!("add `\"framework\"` with one of: {}", names.join(", ")),
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
