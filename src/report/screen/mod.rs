//! The screen of `dev` and `start` on a terminal: a line for each server, the log, and keys.
//!
//! The thread that receives events only changes the [`ScreenState`]. A second thread reads keys and
//! draws, so that a burst of a thousand lines is drawn once.

mod draw;
mod state;
mod wrap;

use std::io::{Stderr, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event as TerminalEvent, KeyCode, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use rustix::process::{Signal, getpid, kill_process};
pub use state::{ScreenCommand, ScreenState, ServerAddresses};
use tokio::sync::mpsc::UnboundedSender;

use super::Reporter;
use crate::event::Event;

/// The longest time from an event to its appearance on the screen.
const INTERVAL: Duration = Duration::from_millis(80);

/// A reporter that draws the state of servers on the whole terminal.
pub struct ServerScreen {
    shared: Arc<Shared>,
    drawing: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<ScreenState>,
    is_changed: AtomicBool,
    has_ended: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ScreenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerScreen {
    /// Takes over the terminal until [`Reporter::finish`]. Keys are sent as commands. Ctrl-C is a key
    /// here and not a signal.
    pub fn start(
        title: &str,
        addresses: ServerAddresses,
        commands: UnboundedSender<ScreenCommand>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(ScreenState::new(title, addresses)),
            is_changed: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
        });
        let terminal = OwnedTerminal::take()?;
        let drawn = Arc::clone(&shared);
        let drawing = std::thread::spawn(move || draw_until_end(terminal, &drawn, &commands));
        Ok(Self {
            shared,
            drawing: Some(drawing),
        })
    }

    fn end(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        if let Some(drawing) = self.drawing.take() {
            let _ = drawing.join();
            // What the screen showed is gone with it.
            let _ = stderr().write_all(self.shared.state().unresolved().as_bytes());
        }
    }
}

impl Reporter for ServerScreen {
    fn report(&mut self, event: &Event) {
        self.shared.state().apply(event);
        self.shared.is_changed.store(true, Ordering::Relaxed);
    }

    fn finish(&mut self) {
        self.end();
    }
}

impl Drop for ServerScreen {
    /// Restores the terminal when the reporting thread panics.
    fn drop(&mut self) {
        self.end();
    }
}

/// Draws and reads keys. When the terminal is gone, or a panic has restored it, the servers are stopped.
fn draw_until_end(
    mut terminal: OwnedTerminal,
    shared: &Shared,
    commands: &UnboundedSender<ScreenCommand>,
) {
    while !shared.has_ended.load(Ordering::Relaxed) {
        let drawn = step(&mut terminal, shared, commands);
        if drawn.is_err() || !IS_ENTERED.load(Ordering::Relaxed) {
            // Without a receiver, the run is ending already.
            let _ = commands.send(ScreenCommand::Interrupt);
            return;
        }
    }
}

fn step(
    terminal: &mut OwnedTerminal,
    shared: &Shared,
    commands: &UnboundedSender<ScreenCommand>,
) -> std::io::Result<()> {
    if shared.is_changed.swap(false, Ordering::Relaxed) {
        terminal.0.draw(|frame| shared.state().draw(frame))?;
    }
    if !event::poll(INTERVAL)? {
        return Ok(());
    }
    shared.is_changed.store(true, Ordering::Relaxed);
    let TerminalEvent::Key(key) = event::read()? else {
        return Ok(());
    };
    if key.code == KeyCode::Char('z') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return terminal.suspend();
    }
    if let Some(command) = shared.state().key(key) {
        let _ = commands.send(command);
    }
    Ok(())
}

/// The terminal in raw mode with its second screen. Dropping it restores both, also in a panic.
struct OwnedTerminal(Terminal<CrosstermBackend<Stderr>>);

impl OwnedTerminal {
    fn take() -> std::io::Result<Self> {
        restore_before_panic_messages();
        enter()?;
        match Terminal::new(CrosstermBackend::new(stderr())) {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                leave();
                Err(error)
            }
        }
    }

    /// Stops this process as Ctrl-Z does elsewhere, and draws anew when it continues.
    fn suspend(&mut self) -> std::io::Result<()> {
        leave();
        kill_process(getpid(), Signal::TSTP)?;
        // Another thread may receive the signal, so the stop comes a moment later.
        std::thread::sleep(INTERVAL);
        enter()?;
        self.0.clear()
    }
}

impl Drop for OwnedTerminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Whether the second screen is on. A panic of any thread restores the terminal.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

fn enter() -> std::io::Result<()> {
    enable_raw_mode()?;
    IS_ENTERED.store(true, Ordering::Relaxed);
    let entered = execute!(stderr(), EnterAlternateScreen);
    if entered.is_err() {
        leave();
    }
    entered
}

/// There is nothing to do about an error: the terminal is gone.
fn leave() {
    if IS_ENTERED.swap(false, Ordering::Relaxed) {
        let _ = execute!(
            stderr(),
            LeaveAlternateScreen,
            ratatui::crossterm::cursor::Show
        );
        let _ = disable_raw_mode();
    }
}

/// A message of a panic is printed on the first screen, where it stays.
fn restore_before_panic_messages() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        leave();
        next(panic);
    }));
}
