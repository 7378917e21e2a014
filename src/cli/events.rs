//! Events and signals of a command: the reporter, the handler of interruptions, and the runtime.

use std::time::{Duration, Instant};

use super::Error;
use super::environment::{self, Screen};
use crate::error::Error as AnyError;
use crate::event::Events;
use crate::pipeline::Interrupt;
use crate::report::{self, Bars, Detail, Groups, Lines, Ndjson, Reporter};

/// How often the end of the reporter thread is checked.
const TICK: Duration = Duration::from_millis(5);

/// A signal that is repeated within this time is ignored. At Ctrl-C the terminal sends SIGINT to the
/// whole process group, and the launchers in it (of npm, yarn and this program) forward it.
const REPEATED: Duration = Duration::from_millis(200);

/// How long an interrupted run waits for a reader of its output that is stalled.
pub const READER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a command has that starts threads and reports events.
pub struct Live {
    pub events: Events,
    pub interrupt: Interrupt,
    pub runtime: tokio::runtime::Handle,
}

impl Live {
    /// Calls `act` at the first interruption.
    pub fn on_interrupt(&self, act: impl FnOnce() + Send + 'static) {
        let interrupt = self.interrupt.clone();
        self.runtime.spawn(async move {
            interrupt.stopping().await;
            act();
        });
    }
}

/// Does work with a reporter of events, a handler of signals and a runtime, and waits until all events are
/// reported.
pub fn live<T>(
    json: bool,
    detail: Detail,
    work: impl FnOnce(Live) -> Result<T, AnyError>,
) -> Result<T, AnyError> {
    live_with(reporter(json, detail), work)
}

/// The reporter for this environment.
pub fn reporter(json: bool, detail: Detail) -> Box<dyn Reporter> {
    match environment::screen() {
        _ if json => Box::new(Ndjson::new(std::io::stdout())),
        Screen::Terminal => Box::new(Bars::new(detail)),
        Screen::Plain => Box::new(Lines::new(std::io::stderr(), detail)),
        Screen::GitHub => Box::new(Groups::new(std::io::stderr(), detail)),
    }
}

/// The same as [`live`] with this reporter.
pub fn live_with<T>(
    reporter: Box<dyn Reporter>,
    work: impl FnOnce(Live) -> Result<T, AnyError>,
) -> Result<T, AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let (events, reporting) = report::start(reporter);
    let interrupt = Interrupt::default();
    listen(&interrupt)?;
    let ended = work(Live {
        events,
        interrupt: interrupt.clone(),
        runtime: runtime.handle().clone(),
    });
    // The reporter ends when the last sender is dropped. An interrupted run does not wait long
    // for a stalled reader.
    let mut remaining = READER_TIMEOUT;
    while !reporting.is_finished() && !remaining.is_zero() {
        std::thread::sleep(TICK);
        if interrupt.stopped() {
            remaining = remaining.saturating_sub(TICK);
        }
    }
    runtime.shutdown_timeout(READER_TIMEOUT);
    ended
}

/// Handles Ctrl-C and the signals by which CI systems end a job. The first signal ends the run
/// in order, the second kills the scripts, and the third ends this program at once. The handler
/// has its own thread, so that a busy runtime cannot delay it.
fn listen(interrupt: &Interrupt) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // Under `nohup`, SIGHUP stays ignored.
    if !environment::ignores_hangup() {
        kinds.push(SignalKind::hangup());
    }
    let interrupt = interrupt.clone();
    let (sender, listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let started = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match started {
            Ok(runtime) => runtime,
            Err(error) => return drop(sender.send(Err(error))),
        };
        runtime.block_on(async {
            let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(error) => return drop(sender.send(Err(error))),
            };
            let _ = sender.send(Ok(()));
            let (mut count, mut last) = (0, None);
            loop {
                let next = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                let (_, kind, _) = futures_util::future::select_all(next).await;
                let now = Instant::now();
                let is_same = |(before, at)| before == kind && now - at < REPEATED;
                if last.is_some_and(is_same) {
                    continue;
                }
                last = Some((kind, now));
                count += 1;
                if count > 2 {
                    environment::end_now();
                }
                interrupt.raise();
            }
        });
    });
    let ready = listening
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("the signal handler did not start")));
    ready.map_err(|source| Error::Start { source })
}
