//! What one command leaves for the next one: settings, pins, releases that run, and interruptions.

use std::time::Duration;

use alokai::ledger::{RecordId, RecordKind};
use alokai::release::{ReleaseAction, spec_of};
use alokai::store::AppName;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::memory::{Mood, SwitchHangs, World, project};

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

#[test]
fn a_build_with_an_app_that_the_project_does_not_have_is_refused() {
    let mut world = World::alone(project(&[]));
    let (first, _) = world.deploy(0);
    let (second, _) = world.deploy(1);
    let removed = "search-service";
    let app = json!({ "reference": "oci:.alokai/registry:us:1", "digest": "sha256:0" });
    let mut build = world.builds[0].clone();
    build.apps.insert(
        AppName::new(removed).unwrap(),
        serde_json::from_value(app).unwrap(),
    );
    let order = world.rollback();
    assert!(spec_of(&world.project, None, &build, &order.release).is_err());
    let (release, id) = (order.release.clone(), order.release.id.clone());
    let order = world.order(release, &build, false, ReleaseAction::Rollback);
    let result = world.runtime.block_on(world.flow().run(vec![order]));
    let failure = result.failed.first().expect("it is refused");
    let message = failure.error.to_string();
    assert!(message.contains("`search-service`"), "{message}");
    // Nothing was changed or recorded.
    assert_eq!(world.snapshot().2, Some(second.clone()));
    let state = world.target.0.lock().unwrap();
    assert!(state.running.keys().eq([&second]), "{:?}", state.running);
    drop(state);
    assert!(world.snapshot().0.release(&id).is_none());
    assert!(world.snapshot().0.release(&first).is_some());
}

#[test]
fn the_live_release_runs_until_the_switch_at_a_target_that_has_forgotten_it() {
    let mut world = World::alone(project(&[]));
    let (first, _) = world.deploy(0);
    // Such as a proxy that is used for the first time.
    world.target.0.lock().unwrap().is_unrouted = true;
    world.target.0.lock().unwrap().done.clear();
    let (second, result) = world.deploy(1);
    assert!(result.failed.is_empty());
    let done = world.target.0.lock().unwrap().done.clone();
    assert_eq!(
        done,
        [
            ("stage", second.clone()),
            ("switch", second),
            ("retire", first)
        ]
    );
}

#[test]
fn the_pin_of_a_rollback_that_was_killed_before_its_switch_is_removed() {
    let kill = |world: &World, hangs| {
        world.target.0.lock().unwrap().switch_hangs = Some(hangs);
        let order = world.rollback();
        let flow = world.flow();
        let killed = world.runtime.block_on(async {
            let limit = Duration::from_millis(200);
            tokio::time::timeout(limit, flow.run(vec![order])).await
        });
        assert!(killed.is_err(), "the switch hangs");
        world.target.0.lock().unwrap().switch_hangs = None;
        assert!(world.snapshot().1.pin.is_some());
    };
    let three = || {
        let mut world = World::alone(project(&[]));
        for commit in 0..3 {
            world.deploy(commit);
        }
        world
    };

    let mut world = three();
    kill(&world, SwitchHangs::Before);
    let (fourth, _) = world.deploy(3);
    assert_eq!(world.snapshot().2, Some(fourth));
    assert_eq!(world.snapshot().1.pin, None);

    // After the switch, the rollback is live, and its pin stays.
    let mut world = three();
    kill(&world, SwitchHangs::After);
    let back = world.snapshot().2;
    world.deploy(3);
    assert_eq!(world.snapshot().2, back);
    assert!(world.snapshot().1.pin.is_some());

    // The pin of an earlier rollback stays, too.
    let mut world = three();
    let order = world.rollback();
    let (release, build) = (order.release, order.build);
    world.carry_out(release, &build, false, ReleaseAction::Rollback, Mood::Well);
    let back = world.snapshot().2;
    kill(&world, SwitchHangs::Before);
    world.deploy(3);
    assert_eq!(world.snapshot().2, back);
    assert!(world.snapshot().1.pin.is_some());
}

#[test]
fn an_interruption_just_before_the_switch_prevents_it() {
    let hook = json!([{ "when": "before", "stage": "release", "command": ["true"] }]);
    // The last request before the switch is the probe of the staged release, or the probe after the hook.
    for (questions, time, settings) in [(1, 0, vec![]), (2, 3600, vec![("hooks", hook)])] {
        let mut world = World::alone(project(&settings));
        let (first, _) = world.deploy(0);
        let interrupt = world.services.interrupt.clone();
        let time = Duration::from_secs(time);
        world.target.0.lock().unwrap().interrupt = Some((questions, interrupt, time));
        let (second, result) = world.deploy(1);
        assert!(world.services.interrupt.stopped());
        assert_eq!(world.snapshot().2, Some(first.clone()), "{questions}");
        assert!(result.failed[0].error.is_interruption(), "{questions}");
        let state = world.target.0.lock().unwrap();
        assert!(state.running.keys().eq([&first]), "{:?}", state.running);
        drop(state);
        let happened = world.happenings(Some(&second));
        assert_eq!(happened.last().unwrap(), "retired", "{happened:?}");
    }
}

#[test]
fn a_staged_release_that_is_not_in_the_records_runs_until_its_age_limit() {
    let mut world = World::alone(project(&[]));
    world.deploy(0);
    let made = |days: i64| {
        let at = Timestamp::now() - SignedDuration::from_hours(24 * days);
        RecordId::from_parts(RecordKind::Release, at, 1)
    };
    let (recent, old) = (made(6), made(8));
    for id in [&recent, &old] {
        let mut state = world.target.0.lock().unwrap();
        state.running.insert(id.clone(), None);
    }
    let (second, _) = world.deploy(1);
    let state = world.target.0.lock().unwrap();
    assert!(
        state.running.keys().eq([&recent, &second]),
        "{:?}",
        state.running
    );
}
