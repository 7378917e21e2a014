//! Makes a [`Project`] of the config file and the folder tree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use miette::NamedSource;

use crate::store::{AppName, Deployment, Framework, Store, StoreId, StoreTree};
use oci::Platform;

use super::WorkspacePackage;
use super::check::{locate, nearest};
use super::deployment::{deployment, is_repository_component};
use super::discover::{ProjectFolders, StoreFolder};
use super::hooks::{Hook, HookScope, hooks};
use super::problem::{Error, Notice, NoticePlace, Problem};
use super::prune::PruneRules;
use super::raw::{CacheSection, ConfigFile, StoreEntry};
use super::start::StartRules;
use super::{BaseApp, Project, ProjectSettings, StoreLocal, size};

/// Makes the project, or returns all problems.
pub fn resolve(
    root: &Path,
    path: &Path,
    text: &str,
    config: ConfigFile,
    folders: ProjectFolders,
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
    resolver.env_names(&folders.packages);
    resolver.shared_apps();
    let max_memory = resolver.max_memory();
    let (cache_size, tool_cache_size) = resolver.cache_sizes(&config.cache);
    let prune = resolver.prune();
    let start = resolver.start();
    let hooks = resolver.hooks(&stores, &folders.apps);
    resolver.kubernetes();
    resolver.addresses();
    let platform = resolver.platform_and_base();
    let Resolver {
        problems, notices, ..
    } = resolver;
    if !problems.is_empty() {
        return Err(invalid(path, text, problems));
    }
    let stores = store_tree(root, stores)?;
    let local = config.stores.into_iter();
    let local = local.map(|(id, entry)| (id, local_settings(entry)));
    Ok(Project {
        root: root.to_owned(),
        apps: folders.apps,
        packages: folders.packages,
        package: folders.root,
        stores,
        local: local.collect(),
        settings: ProjectSettings {
            image: config.image,
            platform,
            registry: config.registry,
            console: config.console,
            concurrency: config.build.concurrency.map(usize::from).filter(|n| *n > 0),
            max_memory,
            env: config.build.env.into_iter().collect(),
            shared: config.build.shared,
            global_dependencies: config.build.global_dependencies,
            sandbox: config.build.sandbox,
            cache_size,
            cache_days: config.cache.max_age_days,
            tool_cache_size,
            tool_cache_days: config.cache.max_tool_cache_age_days,
            prune,
            start,
            deploy: config.deploy,
            hooks,
        },
        notices,
    })
}

/// The error with all problems, in the order of the file.
fn invalid(path: &Path, text: &str, mut problems: Vec<Problem>) -> Error {
    problems.sort_by_key(|problem| problem.span.map(|span| span.offset()));
    Error::Invalid {
        path: path.to_owned(),
        text: NamedSource::new(path.to_string_lossy(), text.to_owned()).with_language("json"),
        problems,
    }
}

fn store_tree(root: &Path, stores: Vec<Store>) -> Result<StoreTree, Error> {
    let problem = |error: &dyn std::error::Error| {
        Problem::new(error.to_string(), "rename one of the folders")
    };
    StoreTree::new(stores).map_err(|errors| Error::Folders {
        path: root.join("apps"),
        problems: errors.iter().map(|error| problem(error)).collect(),
    })
}

/// The settings of a store for local development.
fn local_settings(entry: StoreEntry) -> StoreLocal {
    let ports = entry.local_ports.unwrap_or_default();
    let ports = [
        ("middleware", ports.middleware),
        ("nextjs", ports.nextjs),
        ("nuxt", ports.nuxt),
    ];
    let given = ports
        .into_iter()
        .filter_map(|(app, port)| Some((app, port?)));
    StoreLocal {
        ports: given.collect(),
        domain: entry.local_domain,
    }
}

/// The state while a project is made, with the problems found so far.
struct Resolver<'a> {
    text: &'a str,
    config: &'a ConfigFile,
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
        let place = NoticePlace::Config(vec!["stores".into(), store.to_owned()]);
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
                        "`{}/{name}` is ignored, because no base app has this name{hint}",
                        folder.path
                    ),
                    place: NoticePlace::Folder(format!("{}/{name}", folder.path)),
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

    /// Adds deployable stores that have no folder. Such a store consists of the base apps only.
    fn stores_without_folders(&mut self, stores: &mut Vec<Store>) {
        let with_folder: BTreeSet<String> =
            stores.iter().map(|store| store.id.to_string()).collect();
        for (id, entry) in &self.config.stores {
            if with_folder.contains(id) {
                continue;
            }
            if entry.deployment.is_none() {
                let hint = did_you_mean(id, stores.iter().map(|store| store.id.as_str()));
                let message = format!(
                    "`stores.{}` is ignored, because it has neither a folder nor a `deployment`{hint}",
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
                    "`stores.{}` has no folder, so the store consists of the base apps only; did you mean `{near}`?",
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
                        "choose another id for the store",
                    );
                }
            }
        }
    }

    /// The platform of images. Their base image is checked.
    fn platform_and_base(&mut self) -> Platform {
        self.base_image();
        self.platform()
    }

    fn base_image(&mut self) {
        let base = &self.config.image.base;
        let is_odd = |c: char| c.is_whitespace() || c.is_control();
        if base.is_empty() || base.contains(is_odd) {
            let message = format!("`{}` is not a valid image reference", base.escape_debug());
            let help =
                "write a reference as in `FROM`, such as `node:22-alpine`, or `oci:<dir>:<name>`";
            self.problem(&["image", "base"], message, help);
        }
    }

    fn platform(&mut self) -> Platform {
        self.config
            .image
            .platform
            .parse()
            .unwrap_or_else(|message| {
                let help = "write a platform of Docker, such as `linux/amd64` or `linux/arm64`";
                self.problem(&["image", "platform"], message, help);
                Platform::default()
            })
    }

    fn kubernetes(&mut self) {
        for problem in self.config.deploy.kubernetes.problems() {
            let pointer = [&["deploy", "kubernetes"], &problem.pointer[..]].concat();
            self.problem(&pointer, problem.message, problem.help);
        }
    }

    /// Checks the host names of stores, and the address of containers.
    fn addresses(&mut self) {
        let config = self.config;
        for (id, entry) in &config.stores {
            let domain = entry.local_domain.as_deref();
            if let Some(domain) = domain.filter(|domain| !is_host_name(domain)) {
                let message = format!("`{}` is not a valid host name", domain.escape_debug());
                let help = "write a name without a scheme, a port and a path: letters, digits and `-`, separated by dots, such as `shop.example`";
                self.problem(&["stores", id, "localDomain"], message, help);
            }
        }
        let address = &config.deploy.docker.address;
        if address.parse::<IpAddr>().is_err() {
            let message = format!("`{}` is not a valid IP address", address.escape_debug());
            let help = "write an address of the engine's machine without a port, such as `127.0.0.1` or `::1`";
            self.problem(&["deploy", "docker", "address"], message, help);
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

    /// Image names start with the project name. Two stores with the same project name would
    /// overwrite each other's images.
    fn shared_names(&mut self, stores: &[Store]) {
        let mut known: BTreeMap<&str, Vec<&Store>> = BTreeMap::new();
        for store in stores {
            let Some(deployment) = &store.deployment else {
                continue;
            };
            let same = known.entry(deployment.project_name.as_str()).or_default();
            // A duplicate id is reported elsewhere.
            if let Some(other) = same.iter().find(|other| other.id != store.id) {
                let message = format!(
                    "`{}` and `{}` have the same `projectName`",
                    other.id, store.id
                );
                let help = "use a different `projectName` for each store; otherwise the stores overwrite each other's images";
                let pointer = ["stores", store.id.as_str(), "deployment", "projectName"];
                self.problem(&pointer, message, help);
            }
            same.push(store);
        }
    }

    /// Checks the app names in the sections `image`, `console` and `prune`.
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
                None => "use the name of a folder in `apps/`".into(),
            };
            self.problem(
                &pointer,
                format!("`{}` is not a base app", app.escape_debug()),
                help,
            );
        }
        for (app, name) in &config.image.names {
            if !is_repository_component(name) {
                let message = format!("`{}` is not a valid image name", name.escape_debug());
                let help = "use lower-case letters and digits, separated by `-`, `_`, `.` or `/`";
                self.problem(&["image", "names", app], message, help);
            }
        }
    }

    fn prune(&mut self) -> PruneRules {
        PruneRules::new(&self.config.prune).unwrap_or_else(|wrong| {
            for wrong in wrong {
                let keys = wrong.pointer.iter().map(String::as_str);
                let pointer: Vec<_> = ["prune"].into_iter().chain(keys).collect();
                self.problem(&pointer, wrong.message, wrong.help);
            }
            PruneRules::default()
        })
    }

    fn start(&mut self) -> StartRules {
        StartRules::new(&self.config.start, &self.apps).unwrap_or_else(|wrong| {
            for wrong in wrong {
                let keys = wrong.pointer.iter().map(String::as_str);
                let pointer: Vec<_> = ["start"].into_iter().chain(keys).collect();
                self.problem(&pointer, wrong.message, wrong.help);
            }
            StartRules::default()
        })
    }
}

impl Resolver<'_> {
    fn hooks(&mut self, stores: &[Store], apps: &[BaseApp]) -> Vec<Hook> {
        let (hooks, wrong) = hooks(&self.config.hooks, HookScope { stores, apps });
        for wrong in wrong {
            let keys = wrong.pointer.iter().map(String::as_str);
            let pointer: Vec<_> = ["hooks"].into_iter().chain(keys).collect();
            self.problem(&pointer, wrong.message, wrong.help);
        }
        hooks
    }

    /// Checks the names of apps and packages in `build.env`.
    fn env_names(&mut self, packages: &[WorkspacePackage]) {
        let packages = packages.iter().map(|package| package.name.as_str());
        let packages: Vec<_> = packages.collect();
        let config = self.config;
        for name in config.build.env.keys() {
            let is_app = self.apps.iter().any(|app| app.as_str() == name);
            if name == "*" || is_app || packages.contains(&name.as_str()) {
                continue;
            }
            let known = self
                .apps
                .iter()
                .map(AppName::as_str)
                .chain(packages.iter().copied());
            let help = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "use the name of an app or a workspace package, or `*` for all".into(),
            };
            let message = format!("there is no app or package `{}`", name.escape_debug());
            self.problem(&["build", "env", name], message, help);
        }
    }

    /// Checks the app names in `build.shared`.
    fn shared_apps(&mut self) {
        let config = self.config;
        for (position, app) in config.build.shared.iter().enumerate() {
            if self.apps.iter().any(|known| known.as_str() == app) {
                continue;
            }
            let help = match nearest(app, self.apps.iter().map(AppName::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "use the name of a folder in `apps/`".into(),
            };
            let message = format!("`{}` is not a base app", app.escape_debug());
            self.problem(&["build", "shared", &position.to_string()], message, help);
        }
    }

    fn max_memory(&mut self) -> Option<u64> {
        let size = self.config.build.max_memory.as_deref()?;
        Some(self.size(&["build", "maxMemory"], size))
    }

    /// The size limits of the cache of results, and of a tool cache.
    fn cache_sizes(&mut self, cache: &CacheSection) -> (u64, u64) {
        (
            self.size(&["cache", "maxSize"], &cache.max_size),
            self.size(&["cache", "maxToolCacheSize"], &cache.max_tool_cache_size),
        )
    }

    /// Parses a size such as `3 GB` to bytes.
    fn size(&mut self, pointer: &[&str], text: &str) -> u64 {
        size::parse(text).unwrap_or_else(|| {
            let message = format!("`{}` is not a valid size", text.escape_debug());
            self.problem(pointer, message, size::HELP);
            0
        })
    }
}

/// Whether the text is a host name: labels of at most 63 letters, digits and `-`, separated by dots.
fn is_host_name(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let is_label = |label: &str| {
        let is_allowed = label.chars().all(|c| is_word(c) || c == '-');
        is_allowed && label.len() <= 63 && label.starts_with(is_word) && label.ends_with(is_word)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn did_you_mean<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}
