//! Questions to the targets of many stores: several at the same time, each with a time limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::store_targets::StoreTargets;
use crate::store::{Store, StoreId, TargetKind};
use crate::target::{self, Observed, Target, TargetContext, target_of};

/// Targets that are asked at the same time.
const AT_ONCE: usize = 16;

/// How long a target may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of a target.
pub enum Answer<T> {
    /// It has answered.
    Given(T),
    /// It has not, for this reason.
    Missing(String),
}

/// A target to ask, or why there is none.
pub type KnownTarget = Result<Arc<dyn Target>, String>;

/// Targets by kind. Making a target may ask a program, so each is made once.
pub struct TargetsByKind<'a> {
    context: &'a TargetContext,
    known: BTreeMap<&'static str, KnownTarget>,
}

impl<'a> TargetsByKind<'a> {
    /// No target is made yet.
    pub fn new(context: &'a TargetContext) -> Self {
        Self {
            context,
            known: BTreeMap::new(),
        }
    }

    /// The target of a kind, or why there is none.
    pub fn of(&mut self, kind: TargetKind) -> KnownTarget {
        let make = || target_of(kind, self.context).map_err(|error| error.to_string());
        self.known.entry(kind.name()).or_insert_with(make).clone()
    }
}

/// Asks the target of each store. A target that does not answer does not stop the others.
pub async fn ask_each<T, Q>(
    targets: Vec<(StoreId, KnownTarget)>,
    question: impl Fn(Arc<dyn Target>, StoreId) -> Q,
) -> Vec<(StoreId, Answer<T>)>
where
    T: Send + 'static,
    Q: Future<Output = Result<T, target::Error>> + Send + 'static,
{
    let asked = stream::iter(targets).map(|(store, target)| {
        let asking = target.map(|target| question(target, store.clone()));
        async move {
            let asking = match asking {
                Ok(asking) => asking,
                Err(reason) => return (store, Answer::Missing(reason)),
            };
            let limited = tokio::time::timeout(TIMEOUT, tokio::spawn(asking)).await;
            let answer = match limited {
                Ok(Ok(Ok(given))) => Answer::Given(given),
                Ok(Ok(Err(error))) => Answer::Missing(error.to_string()),
                Ok(Err(error)) => Answer::Missing(error.to_string()),
                Err(_) => Answer::Missing(format!("no answer within {} s", TIMEOUT.as_secs())),
            };
            (store, answer)
        }
    });
    asked.buffered(AT_ONCE).collect().await
}

/// Asks the targets of these stores.
pub fn ask<'a, T, Q>(
    targets: &StoreTargets,
    stores: &[&'a Store],
    question: impl Fn(Arc<dyn Target>, StoreId) -> Q,
) -> Vec<(&'a Store, Answer<T>)>
where
    T: Send + 'static,
    Q: Future<Output = Result<T, target::Error>> + Send + 'static,
{
    let known = stores
        .iter()
        .map(|store| (store.id.clone(), targets.known(store)));
    let answers = targets.registry.wait(ask_each(known.collect(), question));
    let answers = answers.into_iter().map(|(_, answer)| answer);
    stores.iter().copied().zip(answers).collect()
}

/// The question what a target runs. `None` if the target does not say.
pub async fn observe(
    target: Arc<dyn Target>,
    store: StoreId,
) -> Result<Option<Observed>, target::Error> {
    if !target.capabilities().observes {
        return Ok(None);
    }
    target.observe(&store).await.map(Some)
}
