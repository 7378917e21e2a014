//! The channel of events: from any thread of a run to the one thread with the reporter. It also measures
//! in which time this program only waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Event, EventSubject, Outcome, ServerId, ServerState, seconds};

/// The most lines of output that wait for a slow reader. Scripts wait when the queue is full.
const BACKLOG: usize = 1024;

/// The sending end of the channel. It is cheap to clone and can be used from any thread.
#[derive(Debug, Clone)]
pub struct Events {
    sender: UnboundedSender<SentEvent>,
    room: Arc<Semaphore>,
    waiting: Arc<Mutex<WaitingTime>>,
}

/// What goes through the channel.
#[derive(Debug)]
enum SentEvent {
    /// An event, with its room in the queue.
    Event(Box<Event>, Option<OwnedSemaphorePermit>),
    /// The reader answers when it has taken all events before.
    Flush(std::sync::mpsc::Sender<()>),
}

/// The receiving end of the channel.
#[derive(Debug)]
pub struct Received(UnboundedReceiver<SentEvent>);

impl Iterator for Received {
    type Item = Event;

    /// Waits for the next event. `None` when every sender has been dropped.
    fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.blocking_recv()? {
                SentEvent::Event(event, _room) => return Some(*event),
                // The caller may have stopped to wait.
                SentEvent::Flush(answer) => drop(answer.send(())),
            }
        }
    }
}

impl Events {
    /// Makes a channel. Only lines of output wait when the reader is slow. The number of other events
    /// is bounded by the plan, so they are sent at once.
    pub fn channel() -> (Self, Received) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let events = Self {
            sender,
            room: Arc::new(Semaphore::new(BACKLOG)),
            waiting: Arc::default(),
        };
        (events, Received(receiver))
    }

    /// Sends one event. If the reader has ended, the event is dropped and the run continues.
    pub fn send(&self, event: Event) {
        let _ = self.sender.send(SentEvent::Event(Box::new(event), None));
    }

    /// Sends a line of output when the queue has room for it, so that output cannot fill the memory.
    /// Only this task waits. The user can still interrupt the run while the reader is stalled.
    pub async fn output(&self, unit: &EventSubject, line: String) {
        let unit = unit.clone();
        self.send_line(Event::Output { unit, line }).await;
    }

    /// Sends a line of a server's output when the queue has room for it.
    pub async fn server_output(&self, server: &ServerId, line: String) {
        let server = server.clone();
        self.send_line(Event::ServerOutput { server, line }).await;
    }

    async fn send_line(&self, line: Event) {
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let _ = self.sender.send(SentEvent::Event(Box::new(line), room));
    }

    /// Sends the new state of a server.
    pub fn server(&self, server: &ServerId, state: ServerState) {
        let server = server.clone();
        self.send(Event::Server { server, state });
    }

    /// Waits until the reader has taken all events that were sent, or until the time is over because
    /// the reader is stalled.
    pub fn flush(&self, limit: Duration) {
        let (answer, answered) = std::sync::mpsc::channel();
        if self.sender.send(SentEvent::Flush(answer)).is_ok() {
            let _ = answered.recv_timeout(limit);
        }
    }

    /// Sends a message to the user.
    pub fn notice(&self, message: impl Into<String>) {
        self.send(Event::Notice {
            message: message.into(),
        });
    }

    /// Marks time as waiting for something outside this program (a script, the engine, the
    /// network, another run) until the guard is dropped. Overlapping spans count once.
    pub fn waiting(&self) -> WaitingGuard {
        WaitingGuard(ActivityGuard::begin(&self.waiting, Activity::Waiting))
    }

    /// Marks work of this program that may run while something else is waited for: packing,
    /// unpacking, hashing. Until the guard is dropped no time counts as waiting.
    pub fn working(&self) -> WorkingGuard {
        WorkingGuard(ActivityGuard::begin(&self.waiting, Activity::Working))
    }

    /// The wall time so far in which this program only waited.
    pub fn waiting_time(&self) -> Duration {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.change(Instant::now(), |_| ());
        waiting.total
    }

    /// Runs one unit, and sends its start and its end.
    pub fn observe<T, E: std::fmt::Display>(
        &self,
        unit: &EventSubject,
        note: impl FnOnce(&T) -> Option<String>,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let span = self.begin(unit);
        let result = work();
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        result
    }

    /// Sends the start of a unit. [`Span::end`] sends its end.
    pub fn begin(&self, unit: &EventSubject) -> Span {
        self.send(Event::Started { unit: unit.clone() });
        self.span(unit)
    }

    /// A unit whose end is sent, but not its start, since it ends at once.
    pub fn span(&self, unit: &EventSubject) -> Span {
        Span {
            events: self.clone(),
            unit: unit.clone(),
            started: Instant::now(),
        }
    }
}

/// A unit that has started.
#[derive(Debug)]
pub struct Span {
    events: Events,
    unit: EventSubject,
    started: Instant,
}

impl Span {
    /// Sends the end of the unit and returns the time it took.
    pub fn end(self, result: Result<Option<String>, String>) -> Duration {
        self.finish(match result {
            Ok(note) => Outcome::Done { note },
            // The error itself has the other lines, such as the last output of a script.
            Err(message) => Outcome::Failed {
                message: message.lines().next().unwrap_or_default().to_owned(),
            },
        })
    }

    /// Sends that the unit was skipped because of another unit.
    pub fn skip(self, because: &str) {
        self.finish(Outcome::Skipped {
            because: because.to_owned(),
        });
    }

    fn finish(self, outcome: Outcome) -> Duration {
        let elapsed = self.started.elapsed();
        self.events.send(Event::Finished {
            unit: self.unit,
            outcome,
            seconds: seconds(elapsed),
        });
        elapsed
    }
}

/// The wall time in which the program only waits: for a script, the engine, the network or a lock.
#[derive(Debug, Default)]
struct WaitingTime {
    waiting: usize,
    working: usize,
    /// The start of the current wait. `None` while the program works.
    since: Option<Instant>,
    total: Duration,
}

impl WaitingTime {
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        if let Some(since) = self.since.take() {
            self.total += now.saturating_duration_since(since);
        }
        change(self);
        self.since = (self.waiting > 0 && self.working == 0).then_some(now);
    }

    fn count(&mut self, kind: Activity) -> &mut usize {
        match kind {
            Activity::Waiting => &mut self.waiting,
            Activity::Working => &mut self.working,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Waiting,
    Working,
}

#[derive(Debug)]
struct ActivityGuard {
    waiting: Arc<Mutex<WaitingTime>>,
    kind: Activity,
}

impl ActivityGuard {
    fn begin(waiting: &Arc<Mutex<WaitingTime>>, kind: Activity) -> Self {
        let doing = Self {
            waiting: Arc::clone(waiting),
            kind,
        };
        doing.change(|count| count + 1);
        doing
    }

    fn change(&self, count: impl FnOnce(usize) -> usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = self.kind;
        waiting.change(Instant::now(), |waiting| {
            let counted = waiting.count(kind);
            *counted = count(*counted);
        });
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.change(|count| count - 1);
    }
}

/// While this value exists, the program waits for something outside.
#[derive(Debug)]
pub struct WaitingGuard(#[expect(dead_code, reason = "only its drop matters")] ActivityGuard);

/// While this value exists, the program works.
#[derive(Debug)]
pub struct WorkingGuard(#[expect(dead_code, reason = "only its drop matters")] ActivityGuard);

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Activity, WaitingTime};

    #[test]
    fn time_counts_as_waiting_only_while_nothing_is_done() {
        let start = Instant::now();
        let mut waiting = WaitingTime::default();
        let mut at = |second: u64, kind: Activity, more: bool| {
            waiting.change(start + Duration::from_secs(second), |waiting| {
                let count = waiting.count(kind);
                *count = if more { *count + 1 } else { *count - 1 };
            });
            waiting.total.as_secs()
        };
        assert_eq!(at(1, Activity::Waiting, true), 0);
        assert_eq!(at(3, Activity::Waiting, true), 2, "a span goes on");
        assert_eq!(at(4, Activity::Working, true), 3);
        assert_eq!(at(10, Activity::Working, true), 3, "work is not waiting");
        assert_eq!(at(20, Activity::Working, false), 3);
        assert_eq!(at(30, Activity::Waiting, false), 3);
        assert_eq!(at(31, Activity::Working, false), 3);
        assert_eq!(at(33, Activity::Waiting, false), 5, "the last span ends");
        assert_eq!(at(40, Activity::Working, true), 5);
        assert_eq!(at(41, Activity::Waiting, true), 5, "it works already");
        assert_eq!(at(45, Activity::Working, false), 5);
        assert_eq!(at(46, Activity::Waiting, false), 6);
    }
}
