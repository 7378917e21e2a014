//! A copy of a release has the values of `.env` files of its original, whatever the working tree has now.

use std::sync::mpsc::channel;
use std::time::Instant;

use alokai::ledger::RecordId;
use alokai::store::TargetKind;
use alokai::target::{ReleaseSpec, Settings, SpecVariable};

use super::{LIMIT, World, curl, us};

#[test]
fn a_copy_has_the_values_of_env_files_of_its_original() {
    if let Some(world) = World::new("copies") {
        copy(&world);
    }
}

pub fn copy(world: &World) {
    let (sender, notices) = channel();
    let target = world.target_with(move |notice| drop(sender.send(notice)));
    // A release of the middleware alone. The working tree may have no `.env` file.
    let release = |mode: &str, value: Option<&str>, original: Option<&RecordId>| -> ReleaseSpec {
        let mut spec = world.release_in("copies", mode);
        spec.apps.truncate(1);
        let secret = value.map(|value| SpecVariable::Secret(value.to_owned().into()));
        let variables = &mut spec.apps[0].variables;
        variables.extend(secret.map(|secret| ("SECRET".to_owned(), secret)));
        spec.copy_of = original.cloned();
        spec
    };
    let value_of = |spec: &ReleaseSpec| {
        let staged = world.stage(&*target, spec);
        curl(&staged.replicas[0].address, "/secret", &[]).unwrap()
    };
    let retire = |spec: &ReleaseSpec, kept| {
        let retired = world.wait(target.retire(&us(), &spec.id, kept));
        retired.unwrap();
    };
    let first_value = "the 'first' database is gone";
    let first = release("", Some(first_value), None);
    assert_eq!(value_of(&first), first_value);

    // A clean clone, and a working tree with another value.
    let copy = release("", None, Some(&first.id));
    assert_eq!(value_of(&copy), first_value);
    retire(&first, false);
    let settings: Settings = [("SECRET".to_owned(), "set".to_owned().into())].into();
    world
        .wait(target.store_settings(&us(), "R1", &settings))
        .unwrap();
    let mut set = release("", Some("bad"), Some(&copy.id));
    set.settings = Some("R1".into());
    assert_eq!(value_of(&set), "set");
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
    if world.kind == TargetKind::Docker {
        // What an app of a copy prints at its end has no value that only the engine knows.
        let dying = release("dies", None, Some(&copy.id));
        world.wait(target.stage(&dying)).unwrap();
        let start = Instant::now();
        let state = loop {
            let mut states = world.wait(target.health(&us(), &dying.id)).unwrap();
            let state = states.remove(0);
            if !state.running {
                break state;
            }
            assert!(start.elapsed() < LIMIT, "{state:?}");
        };
        assert!(state.tail.contains(&"the database is gone".to_owned()));
        retire(&dying, false);
    }
    retire(&copy, false);
    retire(&set, false);

    // The original is gone, and the user learns it.
    let lost = release("", Some("today"), Some(&first.id));
    assert_eq!(value_of(&lost), "today");
    let notice = notices.recv_timeout(LIMIT).unwrap();
    assert!(notice.contains(first.id.as_str()), "{notice}");
    assert!(notice.contains("working tree"), "{notice}");
    retire(&lost, false);
    let kept = world.objects().into_iter();
    let kept = kept.filter(|name| !name.starts_with("config alokai-settings-"));
    assert_eq!(kept.collect::<Vec<_>>(), Vec::<String>::new());
}
