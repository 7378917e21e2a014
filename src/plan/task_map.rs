//! Values by task: a vector that is indexed by the ids of one plan's tasks.

use std::ops::{Index, IndexMut};

/// The id of a task in its plan. Ids are ordered as tasks run: upstream before downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(usize);

impl TaskId {
    /// The number that people see: the first task is 1.
    pub fn number(self) -> usize {
        self.0 + 1
    }
}

/// One value for each task of a plan.
#[derive(Debug, Clone)]
pub struct TaskMap<T>(Vec<T>);

impl<T> TaskMap<T> {
    /// Adds the value of the next task.
    pub fn push(&mut self, value: T) -> TaskId {
        self.0.push(value);
        TaskId(self.0.len() - 1)
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the plan has no task.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of all tasks, upstream before downstream.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = TaskId> + use<T> {
        (0..self.0.len()).map(TaskId)
    }

    /// All values, upstream before downstream.
    pub fn values(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// All values with their ids, upstream before downstream.
    pub fn entries(&self) -> impl Iterator<Item = (TaskId, &T)> {
        self.ids().zip(&self.0)
    }

    /// A value for each task, made of this one.
    pub fn map<U>(&self, value: impl FnMut(TaskId) -> U) -> TaskMap<U> {
        self.ids().map(value).collect()
    }
}

impl<T> Default for TaskMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Index<TaskId> for TaskMap<T> {
    type Output = T;

    fn index(&self, id: TaskId) -> &T {
        &self.0[id.0]
    }
}

impl<T> IndexMut<TaskId> for TaskMap<T> {
    fn index_mut(&mut self, id: TaskId) -> &mut T {
        &mut self.0[id.0]
    }
}

impl<T> FromIterator<T> for TaskMap<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
