//! Runs that are killed at any moment.

use alokai::ledger::RecordFolder;

use super::world;
use crate::docker_target::commands::running;
use crate::docker_target::killed::kill_runs;
use crate::docker_target::us;

#[test]
fn a_killed_run_loses_no_request_and_the_next_one_cleans() {
    let Some(world) = world("killed") else {
        return;
    };
    kill_runs(&world.project, 4500);
    // The live release runs and at most one other is kept, each with its secrets, and no lock is left.
    let observed = world.wait(world.target().observe(&us())).unwrap();
    let live = observed.active.unwrap().as_str().to_ascii_lowercase();
    let objects = world.objects();
    let of = |kind: &str| -> Vec<&String> {
        let all = objects.iter();
        all.filter(|name| name.starts_with(kind)).collect()
    };
    let (services, secrets) = (of("service "), of("secret "));
    let own = services.iter().filter(|name| name.ends_with(&*live));
    assert_eq!(own.count(), 2, "{live}: {objects:?}");
    assert!(services.len() <= 4, "{objects:?}");
    // A service has a secret if its release has settings.
    let records = RecordFolder::of_project(&world.project.path("."));
    let records = records.read().unwrap().0;
    let with_settings = records.releases().filter(|it| it.settings.is_some());
    let with_settings: Vec<String> = with_settings
        .map(|it| it.id.as_str().to_ascii_lowercase())
        .collect();
    assert!(with_settings.contains(&live), "{live}: {objects:?}");
    let has_settings = |name: &str| {
        with_settings
            .iter()
            .any(|release| name.ends_with(release.as_str()))
    };
    let expected = services.iter().filter(|name| has_settings(name)).count();
    assert_eq!(secrets.len(), expected, "{objects:?}");
    for secret in &secrets {
        let release = secret.rsplit('-').nth(1).unwrap();
        let mut known = services.iter();
        assert!(known.any(|name| name.ends_with(release)), "{objects:?}");
    }
    assert!(of("config alokai-lock").is_empty(), "{objects:?}");
    assert_eq!(running(&world).lines().count(), 2);
}
