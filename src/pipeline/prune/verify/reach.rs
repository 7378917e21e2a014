//! The files that an entry reaches, and the requests that cannot be resolved in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::requests::{ModuleRequest, ModuleRequests, RequestKind, RequestTime};
use super::resolve::{ModuleResolver, ResolvedModule};
use crate::workspace::installed;

/// Where a program starts.
#[derive(Debug, Clone, Default)]
pub struct EntryFiles {
    /// The file that Node starts.
    pub main: PathBuf,
    /// Files that the program loads later, such as the pages of a Next.js app.
    pub later: Vec<PathBuf>,
}

/// A request that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingModule {
    /// The file with the request.
    pub file: PathBuf,
    /// The request.
    pub request: ModuleRequest,
    /// Whether starting the program is certain to fail because of it.
    pub is_certain: bool,
}

/// The parsed files, each with its requests.
#[derive(Default)]
pub struct ParsedModules(BTreeMap<PathBuf, ModuleRequests>);

impl ParsedModules {
    /// Parses the files that are not parsed yet.
    fn parse(&mut self, files: &[PathBuf]) {
        let new: Vec<_> = files
            .par_iter()
            .filter(|file| !self.0.contains_key(*file))
            .map(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let is_code = !name.ends_with(".json") && !name.ends_with(".node");
                let bytes = is_code.then(|| std::fs::read(file).ok()).flatten();
                let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let requests = text.map(|text| ModuleRequests::parse(&name, &text));
                (file.clone(), requests.unwrap_or_default())
            })
            .collect();
        self.0.extend(new);
    }
}

/// Finds the requests that cannot be resolved in `root`, whose links are resolved.
///
/// A file is certain to be loaded if a chain of unconditional requests leads to it from the main
/// file. The files of the app itself are checked whether or not they are certain to be loaded. In
/// an installed package, a file that is not certain to be loaded is not checked: many packages
/// have files for tools that are not installed, such as `next` for `typescript`.
pub fn find_missing(
    root: &Path,
    entries: &EntryFiles,
    is_own: &(dyn Fn(&Path) -> bool + Sync),
    parsed: &mut ParsedModules,
) -> Vec<MissingModule> {
    let resolver = ModuleResolver::new(root);
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut own = Vec::new();
    let mut changes_resolution = false;
    let mut front = vec![entries.main.clone()];
    while !front.is_empty() {
        front.retain(|file| seen.insert(file.clone()));
        parsed.parse(&front);
        let at_load = |request: &ModuleRequest| request.time == RequestTime::Load;
        let found = resolve_all(&front, parsed, &resolver, at_load);
        for file in front.drain(..) {
            changes_resolution |= parsed.0[&file].changes_resolution && !is_in_next(&file);
            if is_own(&file) {
                own.push(file);
            }
        }
        front = follow(found, true, &mut missing);
    }
    let certain = seen.clone();
    own.extend(entries.later.iter().cloned());
    let mut front = own;
    let mut seen = BTreeSet::new();
    while !front.is_empty() {
        front.retain(|file| is_own(file) && seen.insert(file.clone()));
        parsed.parse(&front);
        // All files that are certain to be loaded are known now.
        let found = resolve_all(&front, parsed, &resolver, |_| true);
        let new = found.into_iter().filter(|(file, request, _)| {
            !(request.time == RequestTime::Load && certain.contains(*file))
        });
        front = follow(new.collect(), false, &mut missing);
    }
    let missing = missing.into_iter().map(|mut missing| {
        // If the program changes Node's resolution, Node may find modules that are not found here.
        missing.is_certain &= !changes_resolution;
        missing
    });
    missing.collect()
}

/// Next.js changes resolution only to replace some of its own packages by compiled copies.
fn is_in_next(file: &Path) -> bool {
    let packages = installed::packages(file);
    packages
        .last()
        .is_some_and(|package| package.name == "next")
}

type ResolvedRequest<'a> = (&'a PathBuf, &'a ModuleRequest, ResolvedModule);

fn resolve_all<'a>(
    files: &[PathBuf],
    parsed: &'a ParsedModules,
    resolver: &ModuleResolver,
    takes: impl Fn(&ModuleRequest) -> bool + Sync,
) -> Vec<ResolvedRequest<'a>> {
    let entries = files
        .par_iter()
        .filter_map(|file| parsed.0.get_key_value(file));
    entries
        .flat_map_iter(|(file, module)| {
            let requests = module.requests.iter().filter(|request| takes(request));
            requests.map(move |request| (file, request, resolver.resolve(file, request)))
        })
        .collect()
}

/// Adds missing modules, and returns the files that are loaded.
fn follow(
    resolved: Vec<ResolvedRequest>,
    is_certain: bool,
    missing: &mut BTreeSet<MissingModule>,
) -> Vec<PathBuf> {
    let mut next = Vec::new();
    for (file, request, module) in resolved {
        match module {
            ResolvedModule::File(target) if request.kind != RequestKind::Resolve => {
                next.push(target);
            }
            ResolvedModule::File(_) | ResolvedModule::Other => {}
            ResolvedModule::Missing => {
                missing.insert(MissingModule {
                    file: file.clone(),
                    request: request.clone(),
                    is_certain,
                });
            }
        }
    }
    next
}
