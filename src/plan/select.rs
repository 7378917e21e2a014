//! The stores of a run, and the units of those stores.

use std::collections::BTreeSet;

use super::Error;
use crate::config::Project;
use crate::store::{AppKind, Store, StoreId, UnitId};
// globset, because `--filter` takes turbo's patterns: `*` and `{a,b}`.
use globset::{Glob, GlobMatcher};

/// The stores that the command line selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These stores, in this order.
    Stores(Vec<String>),
    /// All deployable stores.
    All,
    /// These deployable stores, or no store: the stores that have changed.
    Exactly(Vec<String>),
}

/// A store that cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectionProblem {
    /// The store does not exist.
    #[error("there is no store `{}`", id.escape_debug())]
    Unknown {
        /// As given.
        id: String,
        /// A question that names the most similar id.
        hint: Option<String>,
    },
    /// The store is a template.
    #[error("`{id}` is a template and cannot be selected; only its descendants are composed")]
    Template {
        /// As given.
        id: String,
        /// Which stores can be selected instead.
        hint: String,
    },
}

impl SelectionProblem {
    /// What to select instead.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unknown { hint, .. } => hint.as_deref(),
            Self::Template { hint, .. } => Some(hint),
        }
    }
}

impl Selection {
    /// The selected stores. The error lists every store that cannot be selected.
    pub fn stores<'a>(&self, project: &'a Project) -> Result<Vec<&'a Store>, Error> {
        let deployable = || {
            project
                .stores
                .deployables()
                .map(|store| store.id.to_string())
                .collect()
        };
        let wanted = match self {
            Self::All => {
                let all: Vec<_> = project.stores.deployables().collect();
                if all.is_empty() {
                    let config = project.root.join(crate::config::FILE);
                    return Err(Error::NoDeployable { config });
                }
                return Ok(all);
            }
            Self::Stores(ids) if ids.is_empty() => {
                return Err(Error::NoSelection {
                    deployable: deployable(),
                });
            }
            Self::Stores(ids) | Self::Exactly(ids) => ids,
        };
        let mut stores: Vec<&Store> = Vec::new();
        let mut problems = Vec::new();
        for id in wanted {
            match project.stores.get(id) {
                Some(store) if store.deployment.is_some() => {
                    if !stores.iter().any(|other| other.id == store.id) {
                        stores.push(store);
                    }
                }
                Some(store) => {
                    let below = project.stores.deployable_descendants(&store.id);
                    let below: Vec<_> = below.iter().map(ToString::to_string).collect();
                    problems.push(SelectionProblem::Template {
                        id: id.clone(),
                        hint: if below.is_empty() {
                            format!("to make it deployable, add a `deployment` to `stores.{id}` in `alokai.config.json`")
                        } else {
                            format!("select one of its descendants: {}", below.join(", "))
                        },
                    });
                }
                None => {
                    let known = project.stores.iter().map(|store| store.id.as_str());
                    problems.push(SelectionProblem::Unknown {
                        id: id.clone(),
                        hint: crate::config::nearest(id, known)
                            .map(|near| format!("did you mean `{near}`?")),
                    });
                }
            }
        }
        if problems.is_empty() {
            Ok(stores)
        } else {
            Err(Error::Selection {
                problems,
                deployable: deployable(),
            })
        }
    }
}

/// Patterns on unit names, as turbo has them: `storefront-middleware-*`, `!playwright-*`.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    patterns: Vec<String>,
}

/// The units that match a filter.
#[derive(Debug, Clone)]
pub struct ChosenUnits {
    units: BTreeSet<UnitId>,
    /// Stores with a chosen frontend.
    with_frontend: BTreeSet<StoreId>,
    /// Stores with a chosen app that is neither a frontend, a middleware nor Playwright tests.
    with_other: BTreeSet<StoreId>,
}

impl ChosenUnits {
    /// Whether the unit is chosen.
    pub fn contains(&self, unit: &UnitId) -> bool {
        self.units.contains(unit)
    }

    /// Whether the unit is chosen, or a chosen unit may read its files.
    pub fn is_seen(&self, unit: &UnitId, kind: AppKind) -> bool {
        self.contains(unit) || self.feeds(unit, kind) || self.with_other.contains(&unit.store)
    }

    /// Whether a chosen unit reads the build result of this one.
    pub fn feeds(&self, unit: &UnitId, kind: AppKind) -> bool {
        match kind {
            AppKind::Middleware => {
                self.with_frontend.contains(&unit.store) || self.with_other.contains(&unit.store)
            }
            AppKind::Frontend(_) => self.with_other.contains(&unit.store),
            AppKind::Playwright | AppKind::Other => false,
        }
    }
}

impl Filter {
    /// Takes the patterns as given. Without patterns every unit matches.
    pub fn new(patterns: Vec<String>) -> Self {
        Self { patterns }
    }

    /// The units of `stores` that match: at least one positive pattern (if there is any), and no
    /// negative one.
    pub fn units(&self, project: &Project, stores: &[&Store]) -> Result<ChosenUnits, Error> {
        let all: Vec<(UnitId, AppKind)> = stores
            .iter()
            .flat_map(|store| {
                project.apps_of(store).map(|app| {
                    let unit = UnitId {
                        store: store.id.clone(),
                        app: app.name.clone(),
                    };
                    (unit, app.kind)
                })
            })
            .collect();
        let names = || all.iter().map(|(unit, _)| unit.package_name()).collect();
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        for pattern in &self.patterns {
            let (list, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (&mut negative, rest),
                None => (&mut positive, pattern.as_str()),
            };
            let glob = Glob::new(pattern).map_err(|error| Error::Filter {
                message: format!(
                    "`--filter {}` is not a valid pattern: {}",
                    pattern.escape_debug(),
                    error.kind()
                ),
                units: names(),
            })?;
            list.push(glob.compile_matcher());
        }
        let any = |globs: &[GlobMatcher], name: &str| globs.iter().any(|glob| glob.is_match(name));
        let passes = |unit: &UnitId| {
            let name = unit.package_name();
            (positive.is_empty() || any(&positive, &name)) && !any(&negative, &name)
        };
        let chosen: Vec<_> = all.iter().filter(|(unit, _)| passes(unit)).collect();
        if chosen.is_empty() && !all.is_empty() {
            return Err(Error::Filter {
                message: format!(
                    "`--filter {}` matches no unit",
                    self.patterns.join(" ").escape_debug()
                ),
                units: names(),
            });
        }
        let stores = |is_one: fn(AppKind) -> bool| {
            let units = chosen.iter().filter(|(_, kind)| is_one(*kind));
            units.map(|(unit, _)| unit.store.clone()).collect()
        };
        Ok(ChosenUnits {
            with_frontend: stores(|kind| kind.framework().is_some()),
            with_other: stores(|kind| kind == AppKind::Other),
            units: chosen.into_iter().map(|(unit, _)| unit.clone()).collect(),
        })
    }
}
