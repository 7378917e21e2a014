//! The written config and the folders, brought together into a [`Project`].

use std::path::Path;

use miette::NamedSource;

use crate::store::{AppName, Deployment, Framework, Store, StoreId, StoreTree};

use super::check::{locate, nearest};
use super::discover::{Folders, StoreFolder};
use super::problem::{Error, Notice, Place, Problem};
use super::prune::Prune;
use super::raw::{Config, DeploymentEntry};
use super::{Local, Project, Settings};

/// Makes the project, or says everything that contradicts itself.
pub fn resolve(
    root: &Path,
    path: &Path,
    text: &str,
    config: Config,
    folders: Folders,
) -> Result<Project, Error> {
    let mut resolver = Resolver {
        text,
        config: &config,
        frontends: folders
            .apps
            .iter()
            .filter_map(|app| app.kind.framework())
            .collect(),
        apps: folders.apps.iter().map(|app| app.name.clone()).collect(),
        problems: Vec::new(),
        notices: folders.notices,
    };
    let mut stores = resolver.stores_with_folders(folders.stores);
    resolver.stores_without_folders(&mut stores);
    resolver.shared_names(&stores);
    resolver.app_names();
    let prune = resolver.prune();
    let Resolver {
        mut problems,
        notices,
        ..
    } = resolver;
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
        local: config
            .stores
            .into_iter()
            .map(|(id, entry)| {
                let ports = entry.local_ports.unwrap_or_default();
                let ports = [
                    ("middleware", ports.middleware),
                    ("nextjs", ports.nextjs),
                    ("nuxt", ports.nuxt),
                ];
                let given = ports
                    .into_iter()
                    .filter_map(|(app, port)| Some((app, port?)));
                let local = Local {
                    ports: given.collect(),
                    domain: entry.local_domain,
                };
                (id, local)
            })
            .collect(),
        settings: Settings {
            image: config.image,
            registry: config.registry.url.filter(|url| !url.is_empty()),
            console: config.console,
            concurrency: config.build.concurrency.map(usize::from).filter(|n| *n > 0),
            prune,
        },
        notices,
    })
}

/// What is known while stores are put together, and what was found to be wrong.
struct Resolver<'a> {
    text: &'a str,
    config: &'a Config,
    apps: Vec<AppName>,
    frontends: Vec<Framework>,
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl Resolver<'_> {
    fn problem(&mut self, pointer: &[&str], message: String, help: impl Into<String>) {
        let place = locate(self.text, pointer);
        self.problems.push(Problem::new(message, help).at(place));
    }

    fn notice(&mut self, store: &str, message: String) {
        let place = Place::Config(vec!["stores".into(), store.to_owned()]);
        self.notices.push(Notice { place, message });
    }

    fn stores_with_folders(&mut self, folders: Vec<StoreFolder>) -> Vec<Store> {
        let mut stores = Vec::new();
        for folder in folders {
            let mut apps = Vec::new();
            for name in &folder.folders {
                if let Some(app) = self.apps.iter().find(|app| app.as_str() == name) {
                    apps.push(app.clone());
                    continue;
                }
                let hint = did_you_mean(name, self.apps.iter().map(AppName::as_str));
                self.notices.push(Notice {
                    message: format!(
                        "`{}/{name}` belongs to no base app and is in no composition{hint}",
                        folder.path
                    ),
                    place: Place::Folder(format!("{}/{name}", folder.path)),
                });
            }
            stores.push(Store {
                deployment: self.deployment(folder.id.as_str()),
                ignore_paths: self.ignore_paths(folder.id.as_str()),
                id: folder.id,
                parent: folder.parent,
                folder: Some(folder.path),
                apps,
            });
        }
        stores
    }

    /// Git keeps no empty folders, so a deployable store may have none: a store of root.
    fn stores_without_folders(&mut self, stores: &mut Vec<Store>) {
        for (id, entry) in &self.config.stores {
            if stores.iter().any(|store| store.id.as_str() == id) {
                continue;
            }
            if entry.deployment.is_none() {
                let hint = did_you_mean(id, stores.iter().map(|store| store.id.as_str()));
                let message = format!(
                    "`stores.{}` has neither a folder nor a `deployment`, so it is no store{hint}",
                    id.escape_debug()
                );
                self.notice(id, message);
                continue;
            }
            let templates = stores
                .iter()
                .filter(|store| !self.config.stores.contains_key(store.id.as_str()));
            if let Some(near) = nearest(id, templates.map(|store| store.id.as_str())) {
                let message = format!(
                    "`stores.{}` has no folder, so it is the base apps alone; did you mean `{near}`?",
                    id.escape_debug()
                );
                self.notice(id, message);
            }
            match StoreId::new(id) {
                Ok(valid) => stores.push(Store {
                    deployment: self.deployment(id),
                    ignore_paths: self.ignore_paths(id),
                    id: valid,
                    parent: None,
                    folder: None,
                    apps: Vec::new(),
                }),
                Err(error) => {
                    self.problem(
                        &["stores", id],
                        error.to_string(),
                        "give the store another id",
                    );
                }
            }
        }
    }

    fn ignore_paths(&self, id: &str) -> Vec<String> {
        let entry = self.config.stores.get(id);
        entry
            .map(|entry| entry.ignore_paths.clone())
            .unwrap_or_default()
    }

    fn deployment(&mut self, id: &str) -> Option<Deployment> {
        let entry = self.config.stores.get(id)?.deployment.as_ref()?;
        match deployment(id, entry, &self.frontends) {
            Ok(deployment) => Some(deployment),
            Err(found) => {
                self.problems
                    .extend(found.into_iter().map(|(pointer, problem)| {
                        let pointer = [&["stores", id, "deployment"], pointer].concat();
                        problem.at(locate(self.text, &pointer))
                    }));
                None
            }
        }
    }

    /// Image names begin with the project's, so two stores of one project would overwrite each
    /// other's images.
    fn shared_names(&mut self, stores: &[Store]) {
        let name = |store: &Store| store.deployment.as_ref().map(|it| it.project_name.clone());
        for (position, store) in stores.iter().enumerate() {
            // One id twice is another problem, and told as that.
            let same = |other: &&Store| {
                other.id != store.id && name(store).is_some() && name(other) == name(store)
            };
            if let Some(other) = stores[..position].iter().find(same) {
                let message = format!(
                    "`{}` and `{}` have the same `projectName`",
                    other.id, store.id
                );
                let help = "give each store its own: they would overwrite each other's images";
                let pointer = ["stores", store.id.as_str(), "deployment", "projectName"];
                self.problem(&pointer, message, help);
            }
        }
    }

    /// Apps that the sections `image`, `console` and `prune` speak of.
    fn app_names(&mut self) {
        let config = self.config;
        let of_image = config.image.names.keys().map(|app| ["image", "names", app]);
        let of_console = config
            .console
            .apps
            .keys()
            .map(|app| ["console", "apps", app]);
        let budgets = config.prune.max_size.keys().filter(|app| *app != "*");
        let of_prune = budgets.map(|app| ["prune", "maxSize", app]);
        for pointer in of_image.chain(of_console).chain(of_prune) {
            let app = pointer[2];
            if self.apps.iter().any(|known| known.as_str() == app) {
                continue;
            }
            let help = match nearest(app, self.apps.iter().map(AppName::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a folder of `apps/`".into(),
            };
            self.problem(
                &pointer,
                format!("there is no base app `{}`", app.escape_debug()),
                help,
            );
        }
        for (app, name) in &config.image.names {
            if !is_repository_component(name) {
                let message = format!("`{}` is no valid image name", name.escape_debug());
                let help = "use lower-case letters and digits, separated by `-`, `_`, `.` or `/`";
                self.problem(&["image", "names", app], message, help);
            }
        }
    }

    fn prune(&mut self) -> Prune {
        Prune::new(&self.config.prune).unwrap_or_else(|wrong| {
            for wrong in wrong {
                let keys = wrong.pointer.iter().map(String::as_str);
                let pointer: Vec<_> = ["prune"].into_iter().chain(keys).collect();
                self.problem(&pointer, wrong.message, wrong.help);
            }
            Prune::default()
        })
    }
}

fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
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
