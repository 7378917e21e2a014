//! The stores of the first config: those in `apps/stores`, or else one for each project of the
//! console, or else one with an assumed name.

use std::collections::BTreeSet;

use super::cloud::{CloudHints, CloudProject};
use super::{Commented, Survey, ports};
use crate::config::is_project_name;
use crate::store::{AppKind, Framework, StoreId};

/// The region of a store where no file names one.
const ASSUMED_REGION: &str = "europe-west1";

/// Words in names of projects that stand for environments of one store.
const ENVIRONMENTS: [&str; 14] = [
    "canary",
    "dev",
    "develop",
    "development",
    "demo",
    "int",
    "preprod",
    "preview",
    "qa",
    "stage",
    "staging",
    "stg",
    "test",
    "uat",
];

/// Words for the production environment.
const PRODUCTION: [&str; 3] = ["live", "prod", "production"];

/// A deployable store of the first config.
#[derive(Debug, Clone)]
pub struct NewStore {
    /// Its id.
    pub id: String,
    /// Where the id comes from.
    pub comment: Option<String>,
    /// The project in the console.
    pub project_name: Commented<String>,
    /// The cloud region.
    pub cloud_region: Commented<String>,
    /// The framework, if the project has several frontends.
    pub framework: Option<Commented<Framework>>,
    /// Ports, by key.
    pub ports: Vec<(&'static str, Commented<u16>)>,
}

/// Decides the stores. Everything that is assumed becomes a note.
pub fn decide(survey: &Survey, hints: &CloudHints, notes: &mut Vec<String>) -> Vec<NewStore> {
    let folders = leaves(survey);
    let projects = production(&hints.projects);
    let mut stores: Vec<NewStore> = if folders.is_empty() {
        without_folders(survey, hints, &projects)
    } else {
        let mut taken = BTreeSet::new();
        let of = |(id, folder): &(StoreId, String)| {
            let project = matching(id.as_str(), &projects, folders.len() == 1)
                .filter(|it| taken.insert(it.0.name.value.clone()));
            let project_name = match &project {
                Some((it, others)) => found_name(it, others),
                None => assumed_name(survey, hints, Some(id.as_str())),
            };
            store(
                survey,
                hints,
                id.as_str(),
                Some(format!("folder {folder}")),
                project_name,
                project.map(|(it, _)| it).as_ref(),
            )
        };
        folders.iter().map(of).collect()
    };
    make_unique(&mut stores);
    give_ports(survey, &mut stores);
    for store in &stores {
        let mut assumed = Vec::new();
        let is_assumed = |comment: &Option<String>| {
            comment
                .as_ref()
                .is_some_and(|text| text.starts_with("assumed"))
        };
        if is_assumed(&store.project_name.comment) {
            assumed.push("`projectName`");
        }
        if is_assumed(&store.cloud_region.comment) {
            assumed.push("`cloudRegion`");
        }
        if store
            .framework
            .as_ref()
            .is_some_and(|it| is_assumed(&it.comment))
        {
            assumed.push("`framework`");
        }
        if !assumed.is_empty() {
            notes.push(format!(
                "check {} of store `{}` before the first deploy: no file of the project has the value",
                assumed.join(" and "),
                store.id
            ));
        }
    }
    stores
}

/// Stores without stores in them, with their folders. The other stores are their ancestors.
fn leaves(survey: &Survey) -> Vec<(StoreId, String)> {
    let stores = &survey.folders.stores;
    let is_parent = |id: &StoreId| stores.iter().any(|it| it.parent.as_ref() == Some(id));
    let leaves = stores.iter().filter(|it| !is_parent(&it.id));
    leaves.map(|it| (it.id.clone(), it.path.clone())).collect()
}

/// A name without the word of its environment, and whether that word means production.
fn without_environment(name: &str) -> (String, bool) {
    let mut is_production = true;
    let words = name.split('-').filter(|word| {
        let is_other = ENVIRONMENTS.contains(word);
        is_production &= !is_other;
        !is_other && !PRODUCTION.contains(word)
    });
    let base: Vec<_> = words.collect();
    if base.is_empty() {
        return (name.to_owned(), is_production);
    }
    (base.join("-"), is_production)
}

/// The production project of each group whose names differ only in the environment, with the names of
/// the other projects.
fn production(projects: &[CloudProject]) -> Vec<(CloudProject, Vec<String>)> {
    let mut groups: Vec<(String, Vec<&CloudProject>)> = Vec::new();
    for project in projects {
        let (base, _) = without_environment(&project.name.value);
        match groups.iter_mut().find(|(other, _)| *other == base) {
            Some((_, group)) => group.push(project),
            None => groups.push((base, vec![project])),
        }
    }
    let choose = |group: Vec<&CloudProject>| {
        let is_production = |it: &&CloudProject| without_environment(&it.name.value).1;
        let chosen = group
            .iter()
            .copied()
            .find(|it| is_production(it))
            .or(group.first().copied())?;
        let others = group.iter().filter(|it| it.name.value != chosen.name.value);
        let others = others.map(|it| format!("{} ({})", it.name.value, it.name.place));
        Some((chosen.clone(), others.collect()))
    };
    groups
        .into_iter()
        .filter_map(|(_, group)| choose(group))
        .collect()
}

/// The project of a store: its name is the id of the store, or begins or ends with it.
fn matching(
    id: &str,
    projects: &[(CloudProject, Vec<String>)],
    is_only_store: bool,
) -> Option<(CloudProject, Vec<String>)> {
    let base = |it: &CloudProject| without_environment(&it.name.value).0;
    let has_word = |it: &CloudProject| {
        let base = base(it);
        base.ends_with(&format!("-{id}")) || base.starts_with(&format!("{id}-"))
    };
    let same = projects
        .iter()
        .find(|(it, _)| it.name.value == id || base(it) == id);
    let found = same.or_else(|| projects.iter().find(|(it, _)| has_word(it)));
    // With one store and one project the match is certain.
    let only = projects
        .first()
        .filter(|_| is_only_store && projects.len() == 1);
    found.or(only).cloned()
}

fn without_folders(
    survey: &Survey,
    hints: &CloudHints,
    projects: &[(CloudProject, Vec<String>)],
) -> Vec<NewStore> {
    let found = projects.iter().filter_map(|(project, others)| {
        let name = without_environment(&project.name.value).0;
        let id = StoreId::new(&name).ok()?;
        let comment = format!("named after the cloud project; put its files into apps/stores/{id}");
        let name = found_name(project, others);
        Some(store(
            survey,
            hints,
            id.as_str(),
            Some(comment),
            name,
            Some(project),
        ))
    });
    let found: Vec<_> = found.collect();
    if !found.is_empty() {
        return found;
    }
    let comment = "no store was found; put the files of this store into apps/stores/default";
    let name = assumed_name(survey, hints, None);
    vec![store(
        survey,
        hints,
        "default",
        Some(comment.into()),
        name,
        None,
    )]
}

fn found_name(project: &CloudProject, others: &[String]) -> Commented<String> {
    let mut comment = format!("found in {}", project.name.place);
    if !others.is_empty() {
        comment = format!("{comment}; other environments: {}", others.join(", "));
    }
    Commented {
        value: project.name.value.clone(),
        comment: Some(comment),
    }
}

/// The name of the root package, or of the project's folder, as a project name.
fn assumed_name(survey: &Survey, hints: &CloudHints, id: Option<&str>) -> Commented<String> {
    let package = survey.folders.root.name.clone();
    let folder = survey
        .root
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let clean = |name: String| {
        let name = name.rsplit('/').next().unwrap_or(&name).to_lowercase();
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let words: Vec<_> = name.split('-').filter(|word| !word.is_empty()).collect();
        let name: String = words.join("-").chars().take(60).collect();
        let name = name.trim_end_matches('-').to_owned();
        is_project_name(&name).then_some(name)
    };
    let base = package.and_then(clean).or_else(|| folder.and_then(clean));
    let base = base.unwrap_or_else(|| "my-project".into());
    let id = id
        .map(str::to_lowercase)
        .filter(|id| is_project_name(&id.replace('_', "-")));
    let value = match id {
        Some(id) => format!("{base}-{}", id.replace(['_', '.'], "-")),
        None => base,
    };
    let hidden = hints.hidden_project.as_ref().map_or(String::new(), |it| {
        format!("; {} takes it from {}", it.place, it.value)
    });
    Commented {
        value,
        comment: Some(format!(
            "assumed: replace it by the name of the project in the console{hidden}"
        )),
    }
}

fn store(
    survey: &Survey,
    hints: &CloudHints,
    id: &str,
    comment: Option<String>,
    project_name: Commented<String>,
    project: Option<&CloudProject>,
) -> NewStore {
    let region = project.and_then(|it| it.region.as_ref());
    let region = region.or_else(|| hints.regions.first().filter(|_| hints.regions.len() == 1));
    let cloud_region = match region {
        Some(found) => Commented {
            value: found.value.clone(),
            comment: Some(format!("found in {}", found.place)),
        },
        None => Commented {
            value: ASSUMED_REGION.into(),
            comment: Some("assumed: replace it by the region of the project".into()),
        },
    };
    NewStore {
        id: id.to_owned(),
        comment,
        project_name,
        cloud_region,
        framework: framework(survey, hints, id),
        ports: Vec::new(),
    }
}

/// The framework of a store, if the project has several frontends.
fn framework(survey: &Survey, hints: &CloudHints, id: &str) -> Option<Commented<Framework>> {
    let frontends = survey.folders.apps.iter();
    let frontends: Vec<_> = frontends
        .filter_map(|app| Some((app.name.as_str(), app.kind.framework()?)))
        .collect();
    if frontends.len() < 2 {
        return None;
    }
    let folder = survey.folders.stores.iter().find(|it| it.id.as_str() == id);
    let own: BTreeSet<_> = folder
        .into_iter()
        .flat_map(|it| &it.folders)
        .filter_map(|name| frontends.iter().find(|(app, _)| app == name))
        .collect();
    let is_there = |wanted: Framework| frontends.iter().any(|(_, it)| *it == wanted);
    let passed = hints.frontend.as_ref().map(|it| {
        let is_nuxt = it.value == "nuxt";
        (
            if is_nuxt {
                Framework::Nuxt
            } else {
                Framework::Nextjs
            },
            it,
        )
    });
    let frameworks: BTreeSet<_> = frontends.iter().map(|(_, it)| *it).collect();
    let (value, comment) = match (own.first(), passed) {
        (Some((app, framework)), _) if own.len() == 1 => {
            (*framework, Some(format!("the store has files for {app}")))
        }
        (_, Some((framework, found))) if is_there(framework) => {
            (framework, Some(format!("found in {}", found.place)))
        }
        _ => {
            let names: Vec<_> = frameworks.iter().map(ToString::to_string).collect();
            let comment = (names.len() > 1).then(|| format!("assumed: {}", names.join(" or ")));
            (*frameworks.first()?, comment)
        }
    };
    Some(Commented { value, comment })
}

/// Gives each store a project name of its own: two stores with one name overwrite each other's
/// images.
fn make_unique(stores: &mut [NewStore]) {
    let mut taken = BTreeSet::new();
    for store in stores {
        let name = store.project_name.value.clone();
        let mut number = 1;
        while !taken.insert(store.project_name.value.clone()) {
            number += 1;
            store.project_name.value = format!("{name}-{number}");
        }
    }
}

/// Gives the stores ports: the first store the ports that the apps use today, the other stores the
/// next free ports.
fn give_ports(survey: &Survey, stores: &mut [NewStore]) {
    let mut taken = BTreeSet::new();
    let kinds = [
        ("middleware", AppKind::Middleware, 4000_u16),
        ("nextjs", AppKind::Frontend(Framework::Nextjs), 3000),
        ("nuxt", AppKind::Frontend(Framework::Nuxt), 3333),
    ];
    for (index, store) in stores.iter_mut().enumerate() {
        for (key, kind, default) in kinds {
            let other = store.framework.as_ref().map(|it| it.value);
            if kind
                .framework()
                .is_some_and(|own| other.is_some_and(|it| it != own))
            {
                continue;
            }
            let mut apps = survey.folders.apps.iter();
            let Some(app) = apps.find(|app| app.kind == kind) else {
                continue;
            };
            let found = ports::of(&survey.root, app);
            let wanted = found.as_ref().map_or(default, |it| it.value);
            let mut free = (wanted..=u16::MAX).chain(1024..wanted);
            let Some(value) = free.find(|port| !taken.contains(port)) else {
                continue;
            };
            taken.insert(value);
            let comment = match found {
                Some(found) if value == found.value => Some(format!("found in {}", found.place)),
                Some(found) if index == 0 => Some(format!(
                    "the next free port after {}, which is in {}",
                    found.value, found.place
                )),
                _ => None,
            };
            store.ports.push((key, Commented { value, comment }));
        }
    }
}
