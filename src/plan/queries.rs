//! Questions about a plan: its tasks and their keys, its compositions, images and folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ACTION_KEY, ImagePlan, OptionalFile, Plan, StoreServers, Task, TaskId, document};
use crate::cache::{InputRecord, Key, OutputDigest, ToolCacheName};
use crate::overlay::Composition;
use crate::store::{StoreId, UnitId};
use oci::Digest;

impl Plan {
    /// The task with this id.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id]
    }

    /// The composition of the task's app; none for a package.
    pub fn composition_of(&self, id: TaskId) -> Option<&Arc<Composition>> {
        self.inputs.of(id).composition.as_ref()
    }

    /// The other composed apps of the same store, each with whether the task may read it.
    pub fn siblings(&self, id: TaskId) -> impl Iterator<Item = (&Arc<Composition>, bool)> {
        self.inputs.siblings(id)
    }

    /// The files of a package task, relative to its folder.
    pub fn package_files(&self, id: TaskId) -> impl Iterator<Item = &str> {
        self.inputs.package_files(id, &self.task(id).folder)
    }

    /// The primary key: the part of a task's key that is known before its script runs. `upstream` are
    /// the results of the tasks that it needs, by name.
    pub fn primary_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        let task = self.task(id);
        self.inputs
            .primary_key(id, task, &task.key_name(), upstream)
    }

    /// The primary key that the task has if its app is declared shared.
    pub fn neutral_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        let task = self.task(id);
        let name = task.shared_key_name().unwrap_or_else(|| task.name());
        self.inputs.primary_key(id, task, &name, upstream)
    }

    /// The key of a task's result: the primary key, completed by the files that its script opens.
    pub fn key(&self, id: TaskId, primary: Key, reads: &BTreeSet<String>) -> Key {
        self.inputs.key(id, primary, reads)
    }

    /// The files that are inputs if the task's script, which runs in `folder`, opens them.
    pub fn optional_files(&self, id: TaskId, folder: &Path) -> Vec<OptionalFile> {
        self.inputs
            .optional(id, folder, |unit| self.is_idle(unit, id))
    }

    /// Whether no script of the unit can run at the same time as this task.
    pub fn is_idle(&self, unit: &UnitId, id: TaskId) -> bool {
        let is_ordered = |other: TaskId| {
            self.task(other).upstream.contains(&id) || self.task(id).upstream.contains(&other)
        };
        let of_unit = |other: &TaskId| self.task(*other).subject.unit() == Some(unit);
        self.tasks.ids().filter(of_unit).all(is_ordered)
    }

    /// The names of the optional files.
    pub fn optional_names(&self, id: TaskId) -> BTreeSet<String> {
        let files = self.optional_files(id, Path::new("store/app"));
        files.into_iter().map(|file| file.name).collect()
    }

    /// The identity of an optional file as it is now.
    pub fn identity(&self, id: TaskId, name: &str) -> String {
        self.inputs.identity(id, name)
    }

    /// An input of the task that has changed since its key was computed, relative to the project.
    pub fn changed_input(&self, id: TaskId) -> Option<String> {
        self.inputs.changed(id)
    }

    /// The folders in which no file may be added or removed while the task's script runs, absolute.
    pub fn watched_folders(&self, id: TaskId) -> Vec<PathBuf> {
        self.inputs.folders(id)
    }

    /// The name of the cache that the tools of the task keep.
    pub fn tool_cache_name(&self, id: TaskId) -> ToolCacheName {
        let (project, folder) = (&self.project, self.task(id).run_folder());
        let name = self.task(id).key_name();
        let toolchain = self.inputs.toolchain(id);
        self.tool_caches
            .name(&name, &project.join(folder), &toolchain)
    }

    /// Whether the task is a build of Next.js 15 or newer that makes a new key for server actions. On
    /// machines of CI systems it does so in every build, and webpack's cache of another key is not used.
    pub fn makes_action_key(&self, id: TaskId) -> bool {
        let task = self.task(id);
        let is_newer = |identity: &str| {
            let version = identity.strip_prefix("next@")?;
            version
                .split('.')
                .next()?
                .parse()
                .ok()
                .map(|major: u32| major >= 15)
        };
        let toolchain = self.inputs.toolchain(id);
        let is_next = toolchain.keys().any(|it| is_newer(it) == Some(true));
        is_next && !task.variables.iter().any(|name| name == ACTION_KEY)
    }

    /// The files outside composed apps that the task may read, absolute.
    pub fn readable_files(&self, id: TaskId) -> impl Iterator<Item = PathBuf> {
        self.inputs.readable(id)
    }

    /// All inputs of the task, from which a later run explains a cache miss.
    pub fn explained_inputs(
        &self,
        id: TaskId,
        upstream: &BTreeMap<String, OutputDigest>,
        reads: &BTreeSet<String>,
    ) -> InputRecord {
        self.inputs.explained(id, self.task(id), upstream, reads)
    }

    /// The compositions of all stores.
    pub fn compositions(&self) -> impl Iterator<Item = &Arc<Composition>> {
        self.stores.iter().flat_map(|store| &store.compositions)
    }

    /// How the apps of a store are started on this machine.
    pub fn servers_of(&self, store: &StoreId) -> Option<&StoreServers> {
        self.servers.iter().find(|servers| servers.store == *store)
    }

    /// The composition of a unit.
    pub fn composition(&self, unit: &UnitId) -> Option<&Arc<Composition>> {
        self.compositions().find(|one| one.unit == *unit)
    }

    /// The image of a unit.
    pub fn image(&self, unit: &UnitId) -> Option<&ImagePlan> {
        self.images.iter().find(|image| image.unit == *unit)
    }

    /// Whether the working tree has no uncommitted changes.
    pub fn is_clean(&self) -> bool {
        let revision = self.revision.as_ref();
        revision.is_some_and(|revision| revision.dirty.is_empty())
    }

    /// Whether a request is sent to the console.
    pub fn uses_console(&self) -> bool {
        self.releases
            .iter()
            .any(|release| release.console.is_some())
    }

    /// The digest of the decisions about one image, independent of the project's folder and of other
    /// images.
    pub fn digest_of(&self, unit: &UnitId) -> Digest {
        Digest::of(document::decided(self, unit).to_string().as_bytes())
    }

    /// The folder into which a unit is composed.
    pub fn workdir(&self, unit: &UnitId) -> PathBuf {
        self.project
            .join(".out")
            .join(unit.store.as_str())
            .join(unit.app.as_str())
    }
}
