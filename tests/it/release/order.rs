//! What one command leaves for the next one: settings, pins, releases that run, and interruptions.

use alokai::ledger::RecordId;
use alokai::release::ReleaseAction;

use super::memory::{Mood, World, project};

/// Two releases, the second one with a setting.
fn with_a_setting() -> (World, RecordId) {
    let mut world = World::alone(project(&[]));
    world.deploy(0);
    world.set("NEW");
    let (second, _) = world.deploy(1);
    assert_eq!(world.live_settings(), ["NEW".to_owned()].into());
    (world, second)
}

#[test]
fn a_rollback_that_failed_does_not_bring_its_settings_into_the_next_deploy() {
    for mood in [Mood::Refused, Mood::Dies] {
        let (mut world, second) = with_a_setting();
        let order = world.rollback();
        let (release, build) = (order.release, order.build);
        // It is watched only if its settings differ from those of the release to which it goes.
        let release = match mood {
            Mood::Dies => alokai::ledger::ReleaseRecord {
                copy_of: None,
                ..release
            },
            _ => release,
        };
        assert!(!world.carry_out(release, &build, false, ReleaseAction::Rollback, mood));
        assert_eq!(world.snapshot().2, Some(second));
        world.set("LATER");
        let (third, _) = world.deploy(2);
        assert_eq!(world.snapshot().2, Some(third));
        let names = ["LATER", "NEW"].map(str::to_owned);
        assert_eq!(world.live_settings(), names.into(), "{mood:?}");
    }
}

#[test]
fn a_rollback_that_was_undone_does_not_bring_its_settings_into_the_next_deploy() {
    let (mut world, second) = with_a_setting();
    let order = world.rollback();
    let (release, build) = (order.release, order.build);
    let done = world.carry_out(release, &build, false, ReleaseAction::Rollback, Mood::Well);
    assert!(done && world.live_settings().is_empty());
    world.release(&second);
    world.deploy(2);
    assert_eq!(world.live_settings(), ["NEW".to_owned()].into());
}
