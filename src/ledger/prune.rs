//! Which builds may lose their images.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::id::RecordId;
use super::record::{BuildRecord, BuildStatus, StoreEvent};
use super::set::RecordSet;
use super::transfer::StoredImage;
use crate::store::StoreId;

/// The rules by which builds are removed. A build is removed if every rule allows it.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetentionRules {
    /// The newest builds of each store that stay.
    pub keep: usize,
    /// Builds that are not older than this, in seconds, stay.
    pub older_than: u64,
    /// Only as many of the oldest builds are removed as needed until the images of each store have at
    /// most this many bytes. None removes all that the other rules allow.
    pub max_bytes: Option<u64>,
    /// The releases of the rollback window: `deploy.keep`.
    pub window: usize,
}

/// Why a build stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptBecause {
    /// A release of it gets the traffic.
    Live,
    /// A release of it runs and gets no traffic.
    Staged,
    /// A rollback may go to a release of it.
    RollbackWindow,
    /// It is the newest build of its store.
    Newest,
    /// A rule keeps it.
    Rule,
    /// What its store needs is not known.
    Unknown,
}

impl KeptBecause {
    /// The reason as text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Staged => "staged",
            Self::RollbackWindow => "a rollback may need it",
            Self::Newest => "the newest build",
            Self::Rule => "kept by the options",
            Self::Unknown => "it is not known what is live",
        }
    }
}

/// The builds with images: those that are removed, and those that stay.
#[derive(Debug, Default)]
pub struct PruneChoice<'a> {
    /// The oldest first.
    pub removed: Vec<&'a BuildRecord>,
    /// With the reason.
    pub kept: Vec<(&'a BuildRecord, KeptBecause)>,
    /// The builds that a live, a staged or an earlier release needs, also those whose images were removed.
    pub needed: BTreeSet<RecordId>,
}

impl PruneChoice<'_> {
    /// Keeps all builds of these stores, of which it is not known which builds are live.
    pub fn keep_stores(&mut self, stores: &BTreeSet<StoreId>) {
        let unknown = self
            .removed
            .extract_if(.., |build| stores.contains(&build.store));
        self.kept
            .extend(unknown.map(|build| (build, KeptBecause::Unknown)));
    }
}

/// Chooses the builds that are removed. `in_use` are releases that a target has, whatever the records
/// say about them.
pub fn choose<'a>(
    records: &'a RecordSet,
    rules: &RetentionRules,
    in_use: &BTreeSet<RecordId>,
    now: Timestamp,
) -> PruneChoice<'a> {
    let removed = removed_builds(records);
    let needed = needed_builds(records, rules.window, in_use);
    let mut stores: BTreeMap<&StoreId, Vec<&BuildRecord>> = BTreeMap::new();
    for build in records.builds() {
        let has_images = build.status == BuildStatus::Complete && !removed.contains(&build.id);
        if has_images {
            stores.entry(&build.store).or_default().push(build);
        }
    }
    let mut choice = PruneChoice {
        needed: needed.keys().cloned().collect(),
        ..PruneChoice::default()
    };
    for builds in stores.into_values() {
        let mut bytes: u64 = builds.iter().map(|build| size_of(build)).sum();
        let newest = builds.len() - 1;
        for (position, build) in builds.iter().enumerate() {
            let age = now.duration_since(build.started).as_secs();
            let is_kept = newest - position < rules.keep
                || u64::try_from(age).unwrap_or_default() < rules.older_than
                || rules.max_bytes.is_some_and(|most| bytes <= most);
            let because = match needed.get(&build.id) {
                Some(because) => Some(*because),
                None if position == newest => Some(KeptBecause::Newest),
                None => is_kept.then_some(KeptBecause::Rule),
            };
            if let Some(because) = because {
                choice.kept.push((build, because));
            } else {
                bytes = bytes.saturating_sub(size_of(build));
                choice.removed.push(build);
            }
        }
    }
    choice
}

/// The builds whose images were removed.
pub fn removed_builds(records: &RecordSet) -> BTreeSet<RecordId> {
    let removed = records.events().filter_map(|event| match &event.what {
        StoreEvent::ImagesRemoved { build } => Some(build.clone()),
        _ => None,
    });
    removed.collect()
}

/// The images of a build: their names and digests.
pub fn images_of(build: &BuildRecord) -> impl Iterator<Item = (StoredImage, &str)> {
    let apps = build.apps.values();
    apps.filter_map(|app| {
        let name = StoredImage::parse(app.reference.as_ref()?)?;
        Some((name, app.digest.as_deref()?))
    })
}

/// The images of the builds that stay when `removed` are removed. An image is removed by its digest, with
/// all of its tags, so that a build of another tag needs it too.
#[derive(Debug, Default)]
pub struct NeededImages<'a>(BTreeSet<(String, String, &'a str)>);

impl<'a> NeededImages<'a> {
    /// The images of all builds but those that are removed now, and those that were removed before and that
    /// no release needs.
    pub fn new(records: &'a RecordSet, choice: &PruneChoice) -> Self {
        let before = removed_builds(records);
        let removed: BTreeSet<&RecordId> = choice.removed.iter().map(|build| &build.id).collect();
        // A registry can still have the images of a build that was removed before, and a release of it can run.
        let stays = |id: &RecordId| {
            choice.needed.contains(id) || !removed.contains(id) && !before.contains(id)
        };
        let stay = records.builds().filter(|build| stays(&build.id));
        let images = stay.flat_map(images_of);
        Self(
            images
                .map(|(name, digest)| Self::key(name, digest))
                .collect(),
        )
    }

    /// Whether a build that stays has this image, under any tag.
    pub fn has(&self, name: &StoredImage, digest: &'a str) -> bool {
        self.0.contains(&Self::key(name.clone(), digest))
    }

    fn key(name: StoredImage, digest: &str) -> (String, String, &str) {
        (name.place, name.repository, digest)
    }
}

/// The bytes of a build's images.
pub fn size_of(build: &BuildRecord) -> u64 {
    let sizes = build.apps.values().filter_map(|app| app.image_bytes);
    sizes.sum()
}

/// The builds of releases that are live, staged or in the rollback window, at any target.
fn needed_builds(
    records: &RecordSet,
    window: usize,
    in_use: &BTreeSet<RecordId>,
) -> BTreeMap<RecordId, KeptBecause> {
    let targets = records.targets();
    let mut releases: BTreeMap<&RecordId, KeptBecause> = BTreeMap::new();
    let mut need = |release, because| {
        let known = releases.entry(release).or_insert(because);
        *known = because.min(*known);
    };
    for release in in_use {
        need(release, KeptBecause::Live);
    }
    for target in targets.all() {
        let state = &target.state;
        state
            .active
            .iter()
            .for_each(|it| need(it, KeptBecause::Live));
        state
            .staged
            .iter()
            .for_each(|it| need(it, KeptBecause::Staged));
        for release in state.candidates().take(window) {
            need(release, KeptBecause::RollbackWindow);
        }
        // It may have been made by a run that has not made it live yet.
        if let Some(latest) = target.latest {
            need(&latest.id, KeptBecause::Staged);
        }
    }
    let mut builds = BTreeMap::new();
    for release in records.releases() {
        if let Some(because) = releases.get(&release.id) {
            let known = builds.entry(release.build.clone()).or_insert(*because);
            *known = (*because).min(*known);
        }
    }
    builds
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;

    use super::{KeptBecause, NeededImages, PruneChoice, RetentionRules, choose, images_of};
    use crate::event::Stage;
    use crate::ledger::{
        Actor, BuildRecord, BuildStatus, BuiltApp, EventRecord, Record, RecordId, RecordKind,
        RecordSet, ReleaseReason, ReleaseRecord, SCHEMA_VERSION, StoreEvent, StoredRecord,
    };
    use crate::store::{AppName, StoreId};

    const DAY: i64 = 86_400_000;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_millisecond(day * DAY).unwrap()
    }

    fn id(kind: RecordKind, day: i64) -> RecordId {
        RecordId::from_parts(kind, at(day), 0)
    }

    fn insert(records: &mut RecordSet, record: Record) {
        records.insert(StoredRecord::new(record).unwrap());
    }

    /// A build on each of these days, each with 100 bytes.
    fn builds(days: std::ops::Range<i64>) -> RecordSet {
        let mut records = RecordSet::default();
        for day in days {
            let app = BuiltApp {
                image_bytes: Some(100),
                ..BuiltApp::default()
            };
            insert(
                &mut records,
                Record::Build(BuildRecord {
                    schema_version: SCHEMA_VERSION,
                    id: id(RecordKind::Build, day),
                    store: StoreId::new("us").unwrap(),
                    status: BuildStatus::Complete,
                    started: at(day),
                    seconds: 1.0,
                    commit: None,
                    tag: None,
                    apps: BTreeMap::from([(AppName::new("web").unwrap(), app)]),
                    composition: String::new(),
                    plan: None,
                    start: None,
                    imported_from: None,
                    tool: String::new(),
                    actor: Actor::default(),
                    reached: Stage::Push,
                    failures: Vec::new(),
                    log: None,
                }),
            );
        }
        records
    }

    fn release(records: &mut RecordSet, day: i64) {
        insert(
            records,
            Record::Release(ReleaseRecord {
                schema_version: SCHEMA_VERSION,
                id: id(RecordKind::Release, day),
                store: StoreId::new("us").unwrap(),
                target: "docker".into(),
                build: id(RecordKind::Build, day),
                settings: None,
                setting_names: Vec::new(),
                reason: ReleaseReason::Deploy,
                copy_of: None,
                staged_only: false,
                previous: None,
                actor: Actor::default(),
            }),
        );
    }

    fn event(records: &mut RecordSet, day: i64, release: Option<i64>, what: StoreEvent) {
        let at = at(day).as_millisecond() + i64::try_from(records.len()).unwrap();
        insert(
            records,
            Record::Event(EventRecord {
                schema_version: SCHEMA_VERSION,
                id: RecordId::from_parts(
                    RecordKind::Event,
                    Timestamp::from_millisecond(at).unwrap(),
                    0,
                ),
                store: StoreId::new("us").unwrap(),
                target: Some("docker".into()),
                release: release.map(|day| id(RecordKind::Release, day)),
                run: None,
                what,
                seconds: None,
                detail: None,
                actor: Actor::default(),
                log: None,
            }),
        );
    }

    fn removed(records: &RecordSet, rules: RetentionRules, in_use: &[i64]) -> Vec<i64> {
        let in_use: BTreeSet<_> = in_use
            .iter()
            .map(|day| id(RecordKind::Release, *day))
            .collect();
        let choice = choose(records, &rules, &in_use, at(10));
        let removed = choice.removed.iter();
        removed
            .map(|build| build.started.as_millisecond() / DAY)
            .collect()
    }

    #[test]
    fn every_rule_must_allow_the_removal() {
        let records = builds(0..10);
        let rules = RetentionRules::default();
        let all: Vec<i64> = (0..9).collect();
        // The newest build stays without any rule.
        assert_eq!(removed(&records, rules, &[]), all);
        assert_eq!(
            removed(&records, RetentionRules { keep: 4, ..rules }, &[]),
            all[..6]
        );
        let older_than = 5 * 86_400;
        assert_eq!(
            removed(
                &records,
                RetentionRules {
                    older_than,
                    ..rules
                },
                &[]
            ),
            all[..6]
        );
        assert_eq!(
            removed(
                &records,
                RetentionRules {
                    keep: 8,
                    older_than,
                    ..rules
                },
                &[]
            ),
            all[..2]
        );
        let max_bytes = Some(450);
        assert_eq!(
            removed(&records, RetentionRules { max_bytes, ..rules }, &[]),
            all[..6]
        );
        let max_bytes = Some(1000);
        assert_eq!(
            removed(&records, RetentionRules { max_bytes, ..rules }, &[]),
            all[..0]
        );
    }

    #[test]
    fn an_image_with_another_tag_of_a_build_that_stays_is_needed() {
        let (all, mut records) = (builds(0..3), RecordSet::default());
        // The second build has an image of the first one under another tag, and one of its own.
        let images = |commit: &str, digest: &str| BuiltApp {
            reference: Some(format!("r.example.com/shop/web:{commit}")),
            digest: Some(digest.to_owned()),
            ..BuiltApp::default()
        };
        for (day, apps) in [
            (
                0,
                vec![
                    ("web", images("a", "sha256:1")),
                    ("api", images("a", "sha256:2")),
                ],
            ),
            (1, vec![("web", images("a-dirty", "sha256:1"))]),
            (2, vec![("api", images("c", "sha256:2"))]),
        ] {
            let mut build = all.build(&id(RecordKind::Build, day)).unwrap().clone();
            build.status = BuildStatus::Failed;
            let apps = apps.into_iter();
            build.apps = apps
                .map(|(app, built)| (AppName::new(app).unwrap(), built))
                .collect();
            insert(&mut records, Record::Build(build));
        }
        event(
            &mut records,
            3,
            None,
            StoreEvent::ImagesRemoved {
                build: id(RecordKind::Build, 2),
            },
        );
        let removed = id(RecordKind::Build, 0);
        let build = records.build(&removed).unwrap();
        let mut choice = PruneChoice {
            removed: vec![build],
            ..PruneChoice::default()
        };
        let needed = |choice: &PruneChoice| -> Vec<_> {
            let needed = NeededImages::new(&records, choice);
            let images = images_of(build);
            images
                .map(|(name, digest)| (digest, needed.has(&name, digest)))
                .collect()
        };
        let expected = [("sha256:2", false), ("sha256:1", true)];
        assert_eq!(needed(&choice), expected);
        // A release of the build whose images were removed before is live.
        choice.needed.insert(id(RecordKind::Build, 2));
        let expected = [("sha256:2", true), ("sha256:1", true)];
        assert_eq!(needed(&choice), expected);
    }

    #[test]
    fn what_a_target_needs_stays() {
        let mut records = builds(0..10);
        for day in [1, 2, 3, 5, 7] {
            release(&mut records, day);
        }
        let released = StoreEvent::Released { observed: false };
        for day in [1, 2, 3, 5] {
            event(&mut records, day, Some(day), released.clone());
        }
        let window = 1;
        let rules = RetentionRules {
            window,
            ..RetentionRules::default()
        };
        // 5 is live, 3 is the rollback window, 7 was made and is not live yet, 9 is the newest.
        assert_eq!(removed(&records, rules, &[]), [0, 1, 2, 4, 6, 8]);
        // The target says that 1 is live.
        assert_eq!(removed(&records, rules, &[1]), [0, 2, 4, 6, 8]);
        event(&mut records, 6, Some(2), StoreEvent::Staged);
        event(
            &mut records,
            6,
            None,
            StoreEvent::ImagesRemoved {
                build: id(RecordKind::Build, 0),
            },
        );
        assert_eq!(removed(&records, rules, &[]), [1, 4, 6, 8]);
        let choice = choose(&records, &rules, &BTreeSet::new(), at(10));
        let kept: Vec<_> = choice.kept.iter().map(|(_, because)| *because).collect();
        let expected = [
            KeptBecause::Staged,
            KeptBecause::RollbackWindow,
            KeptBecause::Live,
            KeptBecause::Staged,
            KeptBecause::Newest,
        ];
        assert_eq!(kept, expected);
    }
}
