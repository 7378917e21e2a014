//! Questions on a terminal. A wrong answer is explained, and the question is asked again.

use super::environment;
use crate::config::Project;
use crate::edit::{self, ROOT};
use crate::error::Error as AnyError;

/// Asks until an answer is valid. `None` at the end of the input.
pub fn ask<T>(question: &str, check: impl Fn(&str) -> Result<T, AnyError>) -> Option<T> {
    loop {
        let answer = environment::ask(question)?;
        match check(&answer) {
            Ok(value) => return Some(value),
            Err(error) => environment::print_error(error),
        }
    }
}

/// Asks for a parent, with the list of stores. An empty answer is `assumed`, if there is one.
pub fn parent(project: &Project, question: &str, assumed: Option<&str>) -> Option<String> {
    let stores = project.stores.iter().map(|store| store.id.as_str());
    let known: Vec<_> = [ROOT].into_iter().chain(stores).collect();
    let assumption = assumed.map(|id| format!(" [{id}]")).unwrap_or_default();
    let question = format!("{question} ({}){assumption}: ", known.join(", "));
    ask(&question, |answer| {
        let id = match assumed {
            Some(assumed) if answer.is_empty() => assumed,
            _ => answer,
        };
        edit::parent(project, id)?;
        Ok(id.to_owned())
    })
}
