//! Events to people and machines. A report reads events and knows no stage.

mod bars;
mod lines;
mod ndjson;
mod summary;

use std::thread::JoinHandle;

pub use bars::Bars;
pub use lines::{Groups, Lines};
pub use ndjson::Ndjson;
pub use summary::{Deployed, SummaryRow, SummaryTable};

use crate::event::{Event, Events};

/// How much is said of why a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// One line a unit.
    Short,
    /// Everything, with a line for each change.
    Full,
}

/// Shows events as they come.
pub trait Reporter: Send {
    /// Takes the next event.
    fn report(&mut self, event: &Event);

    /// Everything has been reported; leaves the screen in order.
    fn finish(&mut self);
}

/// Starts a thread that hands events to the reporter. Join it after the last [`Events`] is
/// dropped.
pub fn start(mut reporter: Box<dyn Reporter>) -> (Events, JoinHandle<()>) {
    let (events, received) = Events::channel();
    let thread = std::thread::spawn(move || {
        for event in received {
            reporter.report(&event);
        }
        reporter.finish();
    });
    (events, thread)
}

/// A duration for people: `0.4 s`, `41.2 s`, `3 min 05 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive time"
    )]
    let whole = seconds.round() as u64;
    format!("{} min {:02} s", whole / 60, whole % 60)
}
