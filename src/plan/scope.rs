//! The part of a plan that is carried out, as sets of ids: a unit whose image is at the destination
//! already is left out.

use std::collections::BTreeSet;

use super::{Plan, StorePlan, TaskId};
use crate::overlay::Composition;
use crate::store::{StoreId, UnitId};

/// The stores, tasks and images of a plan that are carried out.
#[derive(Debug, Clone)]
pub struct RunScope {
    stores: BTreeSet<StoreId>,
    tasks: BTreeSet<TaskId>,
    images: BTreeSet<UnitId>,
}

impl RunScope {
    /// All of the plan.
    pub fn all(plan: &Plan) -> Self {
        Self {
            stores: plan.stores.iter().map(|store| store.id.clone()).collect(),
            tasks: plan
                .tasks
                .ids()
                .filter(|id| plan.tasks[*id].is_wanted)
                .collect(),
            images: plan.images.iter().map(|image| image.unit.clone()).collect(),
        }
    }

    /// All of the plan but the work for these units, whose images are at the destination.
    pub fn without(plan: &Plan, present: &BTreeSet<&UnitId>) -> Self {
        let mut scope = Self::all(plan);
        if present.is_empty() {
            return scope;
        }
        scope.images.retain(|unit| !present.contains(unit));
        scope.tasks.retain(|id| {
            let unit = plan.tasks[*id].subject.unit();
            unit.is_none_or(|unit| !present.contains(unit))
        });
        // Apps without an image, such as tests, are composed only beside apps that get one.
        scope.stores = scope.images.iter().map(|unit| unit.store.clone()).collect();
        scope
    }

    /// The tasks that the user asked for.
    pub fn wanted(&self) -> &BTreeSet<TaskId> {
        &self.tasks
    }

    /// How many images are built.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Whether the image of this unit is built.
    pub fn has_image(&self, unit: &UnitId) -> bool {
        self.images.contains(unit)
    }

    /// The stores, with those of their compositions that are needed. A store without any is left
    /// out.
    pub fn stores(&self, plan: &Plan, is_needed: impl Fn(&Composition) -> bool) -> Vec<StorePlan> {
        let stores = plan.stores.iter();
        let stores = stores.filter(|store| self.stores.contains(&store.id));
        let narrowed = stores.map(|store| {
            let compositions = store.compositions.iter();
            StorePlan {
                compositions: compositions.filter(|it| is_needed(it)).cloned().collect(),
                ..store.clone()
            }
        });
        narrowed
            .filter(|store| !store.compositions.is_empty())
            .collect()
    }
}
