//! Callbacks: scripts of a composed app that this program runs by their names. `build.sh` runs before the
//! `build` script, and `entrypoint.sh` in the container before the app.

use std::collections::BTreeSet;

use super::image::DockerfileSource;
use super::{Error, ImagePlan, StorePlan, Task, TaskMap};
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::Composition;

/// The folders of an app in which callbacks are found.
const FOLDERS: [&str; 2] = [".alokai", ".artifakt"];

/// The script that runs before the `build` script.
pub const BUILD: &str = "build.sh";

/// The script that runs in the container before the app.
pub const ENTRYPOINT: &str = "entrypoint.sh";

/// The path of the entrypoint script in `.deploy`.
pub const DEPLOYED_ENTRYPOINT: &str = ".alokai/entrypoint.sh";

/// The path of a callback in a composed app. None if the app does not have it.
pub fn find(composition: &Composition, name: &str) -> Option<String> {
    let paths = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    paths
        .into_iter()
        .find(|path| composition.entries.contains_key(path.as_str()))
}

/// Checks that no app has a callback in both folders. All of them are reported.
pub fn check(stores: &[StorePlan]) -> Result<(), Error> {
    let compositions = stores.iter().flat_map(|store| &store.compositions);
    let mut twice = Vec::new();
    for composition in compositions {
        for name in [BUILD, ENTRYPOINT] {
            let paths = FOLDERS.map(|folder| format!("{folder}/{name}"));
            let layers = paths.iter().filter_map(|path| {
                let entry = composition.entries.get(path.as_str())?;
                let layer = &composition.layers[entry.winner()];
                Some(format!("`{path}` of {layer}"))
            });
            let layers: Vec<_> = layers.collect();
            if layers.len() > 1 {
                twice.push(format!(
                    "`{}` has {}",
                    composition.unit,
                    layers.join(" and ")
                ));
            }
        }
    }
    if twice.is_empty() {
        Ok(())
    } else {
        Err(Error::Callbacks { twice })
    }
}

/// Notices about callbacks that are not composed because git ignores them, mostly by a rule for the
/// folder `.alokai` of the project.
pub fn ignored(project: &Project, repository: Option<&Repository>) -> Result<Vec<String>, Error> {
    let mut notices = Vec::new();
    let Some(repository) = repository else {
        return Ok(notices);
    };
    let of_base = project.apps.iter().map(|app| format!("apps/{}", app.name));
    let of_stores = project.stores.iter();
    let of_stores =
        of_stores.flat_map(|store| store.apps.iter().filter_map(|app| store.folder_of(app)));
    for app in of_base.chain(of_stores) {
        for folder in FOLDERS {
            if !project.root.join(&app).join(folder).is_dir() {
                continue;
            }
            for name in [BUILD, ENTRYPOINT] {
                let path = format!("{app}/{folder}/{name}");
                let is_lost = project.root.join(&path).is_file()
                    && !repository.tracks(&path)
                    && repository.ignores(&path)?;
                if is_lost {
                    notices.push(format!(
                        "`{path}` does not run, because git ignores it; in `.gitignore`, write `/{folder}/` for the folder of the project alone"
                    ));
                }
            }
        }
    }
    Ok(notices)
}

/// Notices about callbacks that do not run, or that do not start the app.
pub fn notices(stores: &[StorePlan], images: &[ImagePlan], tasks: &TaskMap<Task>) -> Vec<String> {
    let built = tasks.values().filter_map(|task| task.subject.unit());
    let built: BTreeSet<_> = built.collect();
    let mut notices = Vec::new();
    for composition in stores.iter().flat_map(|store| &store.compositions) {
        let unit = &composition.unit;
        if let Some(path) = find(composition, BUILD)
            && !built.is_empty()
            && !built.contains(&unit)
        {
            notices.push(format!(
                "`{path}` of `{unit}` does not run, because the app is not built"
            ));
        }
        let image = images.iter().find(|image| image.unit == *unit);
        if let (Some(path), Some(image)) = (find(composition, ENTRYPOINT), image) {
            notices.extend(of_entrypoint(composition, image, &path));
        }
    }
    notices
}

fn of_entrypoint(composition: &Composition, image: &ImagePlan, path: &str) -> Option<String> {
    let unit = &image.unit;
    if image.entrypoint.is_none() {
        let dockerfile = match image.dockerfile.source {
            DockerfileSource::Project(_) => "`image.dockerfile` of the config",
            _ => "its own `Dockerfile`",
        };
        return Some(format!(
            "`{path}` of `{unit}` does not run, because the image is made by {dockerfile}; call the script in its `ENTRYPOINT`"
        ));
    }
    let text = composition.entries.get(path)?.read().ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let starts = text.contains("exec") && (text.contains("$@") || text.contains("$*"));
    (!starts).then(|| {
        format!(
            "`{path}` of `{unit}` does not contain `exec \"$@\"`, which starts the app and passes signals to it"
        )
    })
}
