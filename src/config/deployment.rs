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

/// Whether the text is valid as `projectName`, which is a part of the names of images.
pub fn is_project_name(name: &str) -> bool {
    is_repository_component(name) && !name.contains('/')
}

/// Problems, each with its keys below `deployment`.
pub type DeploymentProblems = Vec<(&'static [&'static str], Problem)>;

/// Makes the deployment of a store, or returns all problems.
pub fn deployment(
    id: &str,
    entry: &DeploymentEntry,
    frontends: &[Framework],
) -> Result<Deployment, DeploymentProblems> {
    let mut found = DeploymentProblems::new();
    let project_name = project_name(entry, &mut found);
    let cloud_region = cloud_region(id, entry, &mut found);
    let framework = framework(id, entry, frontends, &mut found);
    address(entry, &mut found);
    match cloud_region {
        Some(cloud_region) if found.is_empty() => Ok(Deployment {
            project_name,
            cloud_region,
            framework,
            target: entry.target,
            address: entry.address.clone(),
        }),
        _ => Err(found),
    }
}

fn address(entry: &DeploymentEntry, found: &mut DeploymentProblems) {
    let Some(address) = &entry.address else {
        return;
    };
    let host = address.strip_prefix("https://");
    let host = host.or_else(|| address.strip_prefix("http://"));
    let is_valid = host.is_some_and(|host| !host.is_empty() && !host.contains(['@', ' ', '"']));
    if !is_valid {
        // The part before an `@` may contain a password.
        let shown = address
            .rsplit_once('@')
            .map_or(&**address, |(_, host)| host);
        found.push((
            &["address"],
            Problem::new(
                format!("`{}` is not a valid address", shown.escape_debug()),
                "write `https://` and a host, without credentials: `https://shop.example.com`",
            ),
        ));
    }
}

fn project_name(entry: &DeploymentEntry, found: &mut DeploymentProblems) -> String {
    let name = entry.project_name.clone().unwrap_or_default();
    if !is_project_name(&name) {
        found.push((
            &["projectName"],
            Problem::new(
                format!("`{}` is not a valid project name", name.escape_debug()),
                "use lower-case letters, digits and `-`, since the name is part of image names",
            ),
        ));
    }
    name
}

/// The region, from either spelling. `None` with a problem if it is missing or not valid.
fn cloud_region(
    id: &str,
    entry: &DeploymentEntry,
    found: &mut DeploymentProblems,
) -> Option<String> {
    let region = match (&entry.cloud_region, &entry.region) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["region"],
                Problem::new(
                    format!("`region` is `{old}`, but `cloudRegion` is `{new}`"),
                    "remove `region`, which is the older name of `cloudRegion`",
                ),
            ));
            return None;
        }
        (Some(region), _) | (None, Some(region)) => region,
        (None, None) => {
            found.push((
                &["cloudRegion"],
                Problem::new(
                    format!("the deployment of `{id}` has no `cloudRegion`"),
                    "add the region that you deploy to, such as `\"cloudRegion\": \"europe-west1\"`",
                ),
            ));
            return None;
        }
    };
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if region.is_empty() || !region.chars().all(is_valid) {
        found.push((
            &["cloudRegion"],
            Problem::new(
                format!("`{}` is not a valid cloud region", region.escape_debug()),
                "use the name of a region, such as `europe-west1`",
            ),
        ));
        return None;
    }
    Some(region.clone())
}

/// The framework, from either spelling, or that of the only frontend app.
fn framework(
    id: &str,
    entry: &DeploymentEntry,
    frontends: &[Framework],
    found: &mut DeploymentProblems,
) -> Option<Framework> {
    match (entry.framework, entry.frontend) {
        (Some(new), Some(old)) if new != old => {
            found.push((
                &["frontend"],
                Problem::new(
                    format!("`frontend` is `{old}`, but `framework` is `{new}`"),
                    "remove `frontend`, which is the older name of `framework`",
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
    }
}
