//! The results of a run: one row for each unit, which the stages fill in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::build::{Built, BuiltPackage, ResultOrigin};
use super::hooks::HookRun;
use super::push::Pushed;
use super::skip::PresentImage;
use crate::store::UnitId;

/// The results of a run, whether it succeeded or not.
#[derive(Debug, Default)]
pub struct RunSummary {
    /// One row for each unit that was at least built.
    pub units: Vec<UnitSummary>,
    /// The workspace packages that were built for them.
    pub packages: Vec<BuiltPackage>,
    /// The images at the destination, of each store that has all of them.
    pub pushed: Vec<Pushed>,
    /// The hooks that ran.
    pub hooks: Vec<HookRun>,
    /// Hints for the user about settings that make the next run faster.
    pub hints: Vec<String>,
    /// Wall time of the whole run.
    pub elapsed: Duration,
    /// Wall time of this program itself, without scripts, the engine and the network.
    pub own: Duration,
}

/// The results of one unit, up to the last stage that it reached.
#[derive(Debug, Clone)]
pub struct UnitSummary {
    /// Store and app.
    pub unit: UnitId,
    /// Time of its script.
    pub build: Option<Duration>,
    /// Where the script's result comes from.
    pub origin: Option<ResultOrigin>,
    /// Bytes in `.deploy`.
    pub deploy_size: Option<u64>,
    /// Whether its image was at the destination before the run, so nothing was done for it.
    pub was_there: bool,
    /// Bytes of the image, base included: unpacked for an image of the engine, else compressed.
    pub image_size: Option<u64>,
    /// Digest of the pushed manifest.
    pub digest: Option<String>,
    /// Reference of the image.
    pub reference: Option<String>,
}

impl UnitSummary {
    /// A unit without any result yet.
    pub(super) fn new(unit: &UnitId) -> Self {
        Self {
            unit: unit.clone(),
            build: None,
            origin: None,
            deploy_size: None,
            was_there: false,
            image_size: None,
            digest: None,
            reference: None,
        }
    }

    /// A unit whose image is at the destination already.
    pub(super) fn present(image: &PresentImage) -> Self {
        Self {
            was_there: true,
            image_size: Some(image.size),
            digest: Some(image.pushed.digest.to_string()),
            reference: Some(image.pushed.reference.to_string()),
            ..Self::new(&image.pushed.unit)
        }
    }
}

impl RunSummary {
    /// Adds a row for each built unit. A unit with a present image has a row already: it was built
    /// because others need it.
    pub(super) fn built(&mut self, all: &[Built]) {
        let rows = self.units.iter().enumerate();
        let mut known: BTreeMap<UnitId, usize> =
            rows.map(|(at, row)| (row.unit.clone(), at)).collect();
        for built in all {
            let at = *known.entry(built.unit().clone()).or_insert_with(|| {
                self.units.push(UnitSummary::new(built.unit()));
                self.units.len() - 1
            });
            let row = &mut self.units[at];
            row.build = Some(built.elapsed);
            row.origin = Some(built.origin.clone());
        }
    }

    /// Adds a product to the row of each unit.
    pub(super) fn each<T>(
        &mut self,
        products: &[T],
        unit: impl Fn(&T) -> &UnitId,
        set: impl Fn(&mut UnitSummary, &T),
    ) {
        let by_unit: BTreeMap<&UnitId, &T> = products.iter().map(|one| (unit(one), one)).collect();
        for row in &mut self.units {
            if let Some(product) = by_unit.get(&row.unit) {
                set(row, product);
            }
        }
    }
}
