//! Reports of events, for people and machines. A report does not know the stages.

mod bars;
mod lines;
mod ndjson;
mod screen;
mod summary;
mod transcript;

use std::thread::JoinHandle;

pub use bars::Bars;
pub use lines::{Groups, Lines};
pub use ndjson::Ndjson;
pub use screen::{ScreenCommand, ScreenState, ServerAddresses, ServerScreen};
pub use summary::{Deployed, PackageRow, SummaryRow, SummaryTable};
pub use transcript::{Recording, Transcripts};

use crate::event::{Event, Events};

/// How much a report says about why a script runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// One line for each unit.
    Short,
    /// One line for each change.
    Full,
}

/// Shows events as they arrive.
pub trait Reporter: Send {
    /// Takes the next event.
    fn report(&mut self, event: &Event);

    /// Called after the last event. Restores the screen.
    fn finish(&mut self);
}

/// Starts a thread that passes events to the reporter. The thread ends when the last [`Events`]
/// is dropped.
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

/// A duration as text: `0.4 s`, `41.2 s`, `3 min 05 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a duration is positive"
    )]
    let whole = seconds.round() as u64;
    format!("{} min {:02} s", whole / 60, whole % 60)
}
