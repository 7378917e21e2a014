//! What the screen shows, as a value: events and keys change it, and nothing else does.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use indexmap::IndexMap;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::Detail;
use super::super::lines::line;
use super::wrap::wrapped;
use crate::event::{Event, ServerId, ServerState, SyncEvent};

/// The most log lines that are kept.
const KEPT_LINES: usize = 5_000;

/// How many rows `PageUp` and `PageDown` move at most.
const SCROLL: usize = 10;

/// The last lines of a server that are left on the terminal with its error.
const LAST_LINES: usize = 10;

/// A key that is held down repeats itself. A second Ctrl-C within this time is the same one.
const REPEATED: Duration = Duration::from_millis(200);

/// What the user asks for with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenCommand {
    /// Restart a server.
    Restart(ServerId),
    /// Open the address of a server in the browser.
    Open(ServerId),
    /// Stop all servers, as an ordinary end. The second time they are killed.
    Quit,
    /// Stop all servers, as an interruption. The second time they are killed.
    Interrupt,
}

/// One server on the screen.
#[derive(Debug, Default)]
pub(super) struct ServerLine {
    pub state: Option<ServerState>,
    /// Its address, once it was ready.
    pub url: Option<String>,
    pub last_line: String,
    /// Why it does not run, with its last lines. `None` once it is ready.
    failure: Option<String>,
    /// Whether it is started again after a failure. Else the failure is the error of the command.
    is_retried: bool,
}

/// One line of the log. Without a server, it is a line of this program.
#[derive(Debug)]
pub(super) struct LogLine {
    pub server: Option<ServerId>,
    /// Whether the server printed it.
    is_output: bool,
    pub text: String,
}

/// The address that a browser opens for a server, if it is known.
pub type ServerAddresses = Box<dyn Fn(&ServerId) -> Option<String> + Send>;

/// The columns and rows of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSize {
    pub width: usize,
    pub height: usize,
}

/// The content of the screen of `dev` and `start`.
pub struct ScreenState {
    pub(super) title: String,
    pub(super) servers: IndexMap<ServerId, ServerLine>,
    pub(super) log: VecDeque<LogLine>,
    pub(super) selected: usize,
    /// Whether the log has only the lines of the selected server.
    pub(super) is_filtered: bool,
    pub(super) has_help: bool,
    /// How many of the latest rows of the log are below the visible part.
    pub(super) scrolled: usize,
    /// The size of the log when it was drawn last.
    pub(super) log_size: Cell<LogSize>,
    /// Why `.out` is not in step with the sources.
    pub(super) out_of_step: Option<String>,
    addresses: ServerAddresses,
    last_quit: Option<Instant>,
}

impl ScreenState {
    /// An empty screen. The title is the command, such as `alokai store dev`.
    pub fn new(title: impl Into<String>, addresses: ServerAddresses) -> Self {
        Self {
            title: title.into(),
            servers: IndexMap::new(),
            log: VecDeque::new(),
            selected: 0,
            is_filtered: false,
            has_help: false,
            scrolled: 0,
            log_size: Cell::new(LogSize {
                width: 80,
                height: 24,
            }),
            out_of_step: None,
            addresses,
            last_quit: None,
        }
    }

    /// Takes the next event.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Server { server, state } => self.change(server, state, event),
            Event::ServerOutput { server, line } => {
                let text = plain(line);
                if let Some(known) = self.servers.get_mut(server)
                    && !text.trim().is_empty()
                {
                    known.last_line.clone_from(&text);
                }
                self.push(LogLine {
                    server: Some(server.clone()),
                    is_output: true,
                    text,
                });
            }
            other => {
                if let Event::Sync { sync } = other {
                    self.follow(sync);
                }
                let text = line(other, Detail::Short).unwrap_or_default();
                for line in text.lines() {
                    self.push(LogLine {
                        server: None,
                        is_output: false,
                        text: plain(line),
                    });
                }
            }
        }
    }

    /// Remembers whether `.out` is in step.
    fn follow(&mut self, sync: &SyncEvent) {
        match sync {
            SyncEvent::Failed { .. } => self.out_of_step = sync.text(false),
            SyncEvent::Mended => self.out_of_step = None,
            _ => {}
        }
    }

    fn change(&mut self, server: &ServerId, state: &ServerState, event: &Event) {
        if !self.servers.contains_key(server) {
            let (index, _) = self
                .servers
                .insert_sorted(server.clone(), ServerLine::default());
            // A selection of the user stays on its server.
            if self.selected > 0 && index <= self.selected {
                self.selected += 1;
            }
        }
        let Some(known) = self.servers.get_mut(server) else {
            return;
        };
        if let ServerState::Ready { url: Some(url), .. } = state {
            known.url = Some(url.clone());
        }
        known.state = Some(state.clone());
        match state {
            ServerState::Ready { .. } => known.failure = None,
            ServerState::Restarting { .. } => known.is_retried = true,
            _ => {}
        }
        // The log says only what the list cannot show.
        let is_failure = matches!(
            state,
            ServerState::Ended { .. } | ServerState::CannotStart { .. }
        );
        if is_failure || matches!(state, ServerState::Ready { .. }) {
            let text = line(event, Detail::Short).unwrap_or_default();
            if is_failure {
                self.remember(server, &text);
            }
            let text = text.strip_prefix(&format!("{server}: ")).unwrap_or(&text);
            self.push(LogLine {
                server: Some(server.clone()),
                is_output: false,
                text: plain(text),
            });
        }
    }

    /// Keeps a failure with the last lines of the server, for the end of the screen.
    fn remember(&mut self, server: &ServerId, failure: &str) {
        let of_server = self.log.iter().rev();
        let of_server =
            of_server.filter(|line| line.is_output && line.server.as_ref() == Some(server));
        let last: Vec<_> = of_server.take(LAST_LINES).collect();
        let mut text = plain(failure);
        for line in last.iter().rev().filter(|line| !line.text.is_empty()) {
            text.push_str("\n  ");
            text.push_str(&line.text);
        }
        if let Some(known) = self.servers.get_mut(server) {
            known.failure = Some(text);
        }
    }

    /// What stays on the terminal after the screen: why `.out` is not in step, and the last errors of
    /// servers that did not run at the end. Empty if there is nothing to say.
    pub fn unresolved(&self) -> String {
        let servers = self.servers.values().filter(|server| server.is_retried);
        let failures = servers.filter_map(|server| server.failure.as_deref());
        let texts = failures.chain(self.out_of_step.as_deref());
        texts.flat_map(|text| [text, "\n"]).collect()
    }

    /// The address of a server, if it has one.
    pub(super) fn address(&self, server: &ServerId) -> Option<String> {
        let known = || self.servers.get(server)?.url.clone();
        (self.addresses)(server).or_else(known)
    }

    fn push(&mut self, line: LogLine) {
        if self.log.len() >= KEPT_LINES {
            self.log.pop_front();
        }
        // The visible lines stay where they are while the user reads earlier ones.
        if self.scrolled > 0 && self.is_visible(&line) {
            self.scrolled += self.rows(&line).len();
        }
        self.log.push_back(line);
    }

    /// The server that keys act on.
    pub(super) fn selected(&self) -> Option<&ServerId> {
        self.servers
            .get_index(self.selected)
            .map(|(server, _)| server)
    }

    /// A message of this program is visible under every filter.
    fn is_visible(&self, line: &LogLine) -> bool {
        !self.is_filtered || line.server.is_none() || line.server.as_ref() == self.selected()
    }

    /// What is shown before a line: its server, if the log has the lines of several ones.
    pub(super) fn prefix(&self, line: &LogLine) -> String {
        match &line.server {
            Some(server) if !self.is_filtered => format!("{server} │ "),
            _ => String::new(),
        }
    }

    /// The rows of a line on the screen.
    pub(super) fn rows(&self, line: &LogLine) -> Vec<String> {
        let text = format!("{}{}", self.prefix(line), line.text);
        wrapped(&text, self.log_size.get().width)
    }

    /// How far `PageUp` and `PageDown` move: no row is skipped on a low terminal.
    fn page(&self) -> usize {
        let height = self.log_size.get().height;
        height.saturating_sub(1).clamp(1, SCROLL)
    }

    /// The lines of the log that the filter lets through, the latest one first.
    pub(super) fn visible(&self) -> impl Iterator<Item = &LogLine> {
        self.log.iter().rev().filter(|line| self.is_visible(line))
    }

    /// Takes a key. Returns what the user asks for, if it is not about the screen itself.
    pub fn key(&mut self, key: KeyEvent) -> Option<ScreenCommand> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return self.end_with(ScreenCommand::Interrupt),
            KeyCode::Char('q') => return self.end_with(ScreenCommand::Quit),
            KeyCode::Char(_) if is_control => {}
            KeyCode::Char('r') => return self.selected().cloned().map(ScreenCommand::Restart),
            KeyCode::Char('o') | KeyCode::Enter => {
                return self.selected().cloned().map(ScreenCommand::Open);
            }
            KeyCode::Char('?' | 'h') => self.has_help = !self.has_help,
            KeyCode::Char('f') => self.filter(!self.is_filtered),
            KeyCode::Esc => {
                self.has_help = false;
                self.filter(false);
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected.saturating_add(1)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.scrolled = 0,
            KeyCode::PageUp => {
                let rows: usize = self.visible().map(|line| self.rows(line).len()).sum();
                self.scrolled = (self.scrolled + self.page()).min(rows.saturating_sub(1));
            }
            KeyCode::PageDown => self.scrolled = self.scrolled.saturating_sub(self.page()),
            _ => {}
        }
        None
    }

    fn end_with(&mut self, command: ScreenCommand) -> Option<ScreenCommand> {
        let now = Instant::now();
        let last = self.last_quit.replace(now);
        let is_repeated = last.is_some_and(|last| now.duration_since(last) < REPEATED);
        (!is_repeated).then_some(command)
    }

    /// Whether the user has asked to stop all servers.
    pub(super) fn is_ending(&self) -> bool {
        self.last_quit.is_some()
    }

    fn select(&mut self, index: usize) {
        self.selected = index.min(self.servers.len().saturating_sub(1));
        if self.is_filtered {
            self.scrolled = 0;
        }
    }

    fn filter(&mut self, is_filtered: bool) {
        self.is_filtered = is_filtered;
        self.scrolled = 0;
    }
}

/// A line without colors and other control characters, which would move the cursor.
fn plain(line: &str) -> String {
    let text = strip_str(line).to_string();
    // A progress bar draws over itself: only its last state is a line.
    let text = text.trim_end_matches('\r');
    let last = text.rsplit('\r').next().unwrap_or_default();
    let shown = last.replace('\t', "  ");
    shown.chars().filter(|c| !c.is_control()).collect()
}
