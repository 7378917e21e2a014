//! The written config and the folders, brought together into a [`Project`].

use std::path::Path;

use miette::NamedSource;

use crate::store::{Deployment, Framework, Store, StoreId, StoreTree};

use super::check::{locate, nearest};
use super::discover::Folders;
use super::problem::{Error, Problem};
use super::raw::{Config, DeploymentEntry};
use super::{Project, Settings};

/// Makes the project, or says everything that contradicts itself.
pub fn resolve(
    root: &Path,
    path: &Path,
    text: &str,
    config: Config,
    folders: Folders,
) -> Result<Project, Error> {
    let mut problems = Vec::new();
    let mut notices = Vec::new();
    let mut stores = Vec::new();
    let frontends: Vec<Framework> = folders
        .apps
        .iter()
        .filter_map(|app| app.kind.framework())
        .collect();

    let mut deployment = |id: &str| {
        let entry = config.stores.get(id)?.deployment.as_ref()?;
        match self::deployment(id, entry, &frontends) {
            Ok(deployment) => Some(deployment),
            Err(found) => {
                problems.extend(found.into_iter().map(|(pointer, problem)| {
                    let pointer = [&["stores", id, "deployment"], pointer].concat();
                    problem.at(locate(text, &pointer))
                }));
                None
            }
        }
    };
    let ignore_paths = |id: &str| {
        config
            .stores
            .get(id)
            .map(|entry| entry.ignore_paths.clone())
            .unwrap_or_default()
    };

    for folder in folders.stores {
        let mut apps = Vec::new();
        for name in folder.folders {
            match folders.apps.iter().find(|app| app.name.as_str() == name) {
                Some(app) => apps.push(app.name.clone()),
                None => {
                    let known = folders.apps.iter().map(|app| app.name.as_str());
                    let hint = nearest(&name, known)
                        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    notices.push(format!(
                        "`{}/{name}` belongs to no base app and is in no composition{hint}",
                        folder.path
                    ));
                }
            }
        }
        stores.push(Store {
            deployment: deployment(folder.id.as_str()),
            ignore_paths: ignore_paths(folder.id.as_str()),
            id: folder.id,
            parent: folder.parent,
            folder: Some(folder.path),
            apps,
        });
    }
    let mut invalid_ids = Vec::new();
    for (id, entry) in &config.stores {
        let has_folder = stores.iter().any(|store| store.id.as_str() == id);
        if entry.deployment.is_none() && !has_folder {
            let known = stores.iter().map(|store| store.id.as_str());
            let hint = nearest(id, known)
                .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            notices.push(format!(
                "`stores.{}` has neither a folder nor a `deployment`, so it is no store{hint}",
                id.escape_debug()
            ));
        }
        if entry.deployment.is_none() || stores.iter().any(|store| store.id.as_str() == id) {
            continue;
        }
        match StoreId::new(id) {
            Ok(valid) => stores.push(Store {
                deployment: deployment(id),
                ignore_paths: ignore_paths(id),
                id: valid,
                parent: None,
                folder: None,
                apps: Vec::new(),
            }),
            Err(error) => invalid_ids.push(
                Problem::new(error.to_string(), "give the store another id")
                    .at(locate(text, &["stores", id])),
            ),
        }
    }
    problems.append(&mut invalid_ids);
    problems.extend(shared_names(text, &stores));
    for app in config.image.names.keys().chain(config.console.apps.keys()) {
        if !folders.apps.iter().any(|known| known.name.as_str() == app) {
            let known = folders.apps.iter().map(|app| app.name.as_str());
            let section = if config.image.names.contains_key(app) {
                ["image", "names", app]
            } else {
                ["console", "apps", app]
            };
            problems.push(
                Problem::new(
                    format!("there is no base app `{}`", app.escape_debug()),
                    match nearest(app, known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "name a folder of `apps/`".into(),
                    },
                )
                .at(locate(text, &section)),
            );
        }
    }
    for (app, name) in &config.image.names {
        if !is_repository_component(name) {
            problems.push(
                Problem::new(
                    format!("`{}` is no valid image name", name.escape_debug()),
                    "use lower-case letters and digits, separated by `-`, `_`, `.` or `/`",
                )
                .at(locate(text, &["image", "names", app])),
            );
        }
    }

    if !problems.is_empty() {
        // From the top of the file down.
        problems.sort_by_key(|problem| problem.span.map(|span| span.offset()));
        return Err(Error::Invalid {
            path: path.to_owned(),
            text: NamedSource::new(path.to_string_lossy(), text.to_owned()).with_language("json"),
            problems,
        });
    }
    let stores = StoreTree::new(stores).map_err(|errors| Error::Folders {
        path: root.join("apps"),
        problems: errors
            .into_iter()
            .map(|error| Problem::new(error.to_string(), "give one of the two another id"))
            .collect(),
    })?;
    Ok(Project {
        root: root.to_owned(),
        apps: folders.apps,
        packages: folders.packages,
        package: folders.root,
        stores,
        settings: Settings {
            image: config.image,
            registry: config.registry.url.filter(|url| !url.is_empty()),
            console: config.console,
            concurrency: config.build.concurrency.map(usize::from).filter(|n| *n > 0),
            prune: config.prune,
        },
        notices,
    })
}

/// Lower-case components, as the distribution specification's grammar of a reference has them:
/// letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_repository_component(name: &str) -> bool {
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

/// Image names begin with the project's, so two stores of one project would overwrite each
/// other's images.
fn shared_names(text: &str, stores: &[Store]) -> Vec<Problem> {
    let name = |store: &Store| store.deployment.as_ref().map(|it| it.project_name.clone());
    let mut problems = Vec::new();
    for (position, store) in stores.iter().enumerate() {
        let same = |other: &&Store| name(store).is_some() && name(other) == name(store);
        if let Some(other) = stores[..position].iter().find(same) {
            let message = format!(
                "`{}` and `{}` have the same `projectName`",
                other.id, store.id
            );
            let help = "give each store its own: they would overwrite each other's images";
            let place = locate(
                text,
                &["stores", store.id.as_str(), "deployment", "projectName"],
            );
            problems.push(Problem::new(message, help).at(place));
        }
    }
    problems
}

type Found = Vec<(&'static [&'static str], Problem)>;

fn deployment(
    id: &str,
    entry: &DeploymentEntry,
    frontends: &[Framework],
) -> Result<Deployment, Found> {
    let mut found: Found = Vec::new();
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
