//! What the screen shows, as a value: events and keys change it, and nothing else does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use indexmap::IndexMap;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::super::Detail;
use super::super::lines::line;
use crate::event::{Event, ServerId, ServerState};

/// The most log lines that are kept.
const KEPT_LINES: usize = 5_000;

/// How many lines `PageUp` and `PageDown` move.
const SCROLL: usize = 10;

/// A key that is held down repeats itself. A second Ctrl-C within this time is the same one.
const REPEATED: Duration = Duration::from_millis(200);

/// What the user asks for with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenCommand {
    /// Restart a server.
    Restart(ServerId),
    /// Open the address of a server in the browser.
    Open(ServerId),
    /// Stop all servers. The second time they are killed.
    Quit,
}

/// One server on the screen.
#[derive(Debug, Default)]
pub(super) struct ServerLine {
    pub state: Option<ServerState>,
    /// Its address, once it was ready.
    pub url: Option<String>,
    pub last_line: String,
}

/// One line of the log. Without a server, it is a line of this program.
#[derive(Debug)]
pub(super) struct LogLine {
    pub server: Option<ServerId>,
    pub text: String,
}

/// The content of the screen of `dev` and `start`.
#[derive(Debug)]
pub struct ScreenState {
    pub(super) title: String,
    pub(super) servers: IndexMap<ServerId, ServerLine>,
    pub(super) log: VecDeque<LogLine>,
    pub(super) selected: usize,
    /// Whether the log has only the lines of the selected server.
    pub(super) is_filtered: bool,
    pub(super) has_help: bool,
    /// How many of the latest log lines are below the visible part.
    pub(super) scrolled: usize,
    last_quit: Option<Instant>,
}

impl ScreenState {
    /// An empty screen. The title is the command, such as `alokai store dev`.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            servers: IndexMap::new(),
            log: VecDeque::new(),
            selected: 0,
            is_filtered: false,
            has_help: false,
            scrolled: 0,
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
                self.push(Some(server.clone()), text);
            }
            other => {
                let text = line(other, Detail::Short).unwrap_or_default();
                for line in text.lines() {
                    self.push(None, plain(line));
                }
            }
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
        // The log says only what the list cannot show.
        if matches!(state, ServerState::Ended { .. } | ServerState::Ready { .. }) {
            let text = line(event, Detail::Short).unwrap_or_default();
            let text = text.strip_prefix(&format!("{server}: ")).unwrap_or(&text);
            self.push(Some(server.clone()), plain(text));
        }
    }

    fn push(&mut self, server: Option<ServerId>, text: String) {
        if self.log.len() >= KEPT_LINES {
            self.log.pop_front();
        }
        let line = LogLine { server, text };
        // The visible lines stay where they are while the user reads earlier ones.
        if self.scrolled > 0 && self.is_visible(&line) {
            self.scrolled += 1;
        }
        self.log.push_back(line);
    }

    /// The server that keys act on.
    pub(super) fn selected(&self) -> Option<&ServerId> {
        self.servers
            .get_index(self.selected)
            .map(|(server, _)| server)
    }

    fn is_visible(&self, line: &LogLine) -> bool {
        !self.is_filtered || line.server.as_ref() == self.selected()
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
            KeyCode::Char('c') if is_control => return self.quit(),
            KeyCode::Char('q') => return self.quit(),
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
                let lines = self.visible().count();
                self.scrolled = (self.scrolled + SCROLL).min(lines.saturating_sub(1));
            }
            KeyCode::PageDown => self.scrolled = self.scrolled.saturating_sub(SCROLL),
            _ => {}
        }
        None
    }

    fn quit(&mut self) -> Option<ScreenCommand> {
        let now = Instant::now();
        let last = self.last_quit.replace(now);
        let is_repeated = last.is_some_and(|last| now.duration_since(last) < REPEATED);
        (!is_repeated).then_some(ScreenCommand::Quit)
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
