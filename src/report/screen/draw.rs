//! The screen as lines and colors: a line for each server, the log, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table, TableState};

use super::state::{LogLine, ScreenState, ServerLine};
use crate::event::{ServerId, ServerState};

/// The widest column of stores and of apps.
const WIDEST: usize = 26;

/// Below this height, only the servers are shown.
const LOWEST_LOG: u16 = 3;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);

impl ScreenState {
    /// Draws the screen. Every size is possible; what does not fit is cut off.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let wanted = u16::try_from(self.servers.len())
            .unwrap_or(u16::MAX)
            .saturating_add(1);
        let most = (area.height / 2).max(area.height.saturating_sub(12)).max(2);
        let parts = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(wanted.min(most)),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
        ]);
        let [title, servers, heading, log, keys] = parts.areas(area);
        frame.render_widget(self.title_line(), title);
        self.draw_servers(frame, servers);
        frame.render_widget(self.log_heading(heading.width), heading);
        if self.has_help {
            frame.render_widget(Clear, log);
            frame.render_widget(Paragraph::new(HELP.map(Line::from).to_vec()), log);
        } else if log.height > 0 {
            self.draw_log(frame, log);
        }
        if area.height > LOWEST_LOG {
            frame.render_widget(self.keys_line(), keys);
        }
    }

    fn title_line(&self) -> Line<'_> {
        let is_ready =
            |server: &&ServerLine| matches!(server.state, Some(ServerState::Ready { .. }));
        let ready = self.servers.values().filter(is_ready).count();
        Line::from(vec![
            Span::styled(self.title.as_str(), Style::new().bold()),
            Span::raw(format!("  {ready} of {} ready", self.servers.len())),
        ])
    }

    fn draw_servers(&self, frame: &mut Frame<'_>, area: Rect) {
        let store = |id: &ServerId| {
            id.store
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        let width = |title: &str, texts: &mut dyn Iterator<Item = usize>| {
            let most = texts.max().unwrap_or(0).max(title.len()).min(WIDEST);
            Constraint::Length(u16::try_from(most).unwrap_or(u16::MAX))
        };
        let widths = [
            width(
                "STORE",
                &mut self.servers.keys().map(|id| store(id).chars().count()),
            ),
            width(
                "APP",
                &mut self.servers.keys().map(|id| id.name.chars().count()),
            ),
            Constraint::Length(10),
            width(
                "ADDRESS",
                &mut self.servers.values().map(|it| address(it).len()),
            ),
            Constraint::Fill(1),
        ];
        let rows = self.servers.iter().map(|(id, server)| {
            let (state, style) = state(server);
            Row::new([
                Cell::new(store(id)),
                Cell::new(id.name.clone()),
                Cell::new(Span::styled(state, style)),
                Cell::new(address(server)),
                Cell::new(Span::styled(detail(server), DIM)),
            ])
        });
        let header = Row::new(["STORE", "APP", "STATE", "ADDRESS", ""]).style(DIM);
        let table = Table::new(rows, widths)
            .header(header)
            .highlight_symbol("> ")
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
        let selected = (!self.servers.is_empty()).then_some(self.selected);
        let mut place = TableState::new().with_selected(selected);
        frame.render_stateful_widget(table, area, &mut place);
    }

    fn log_heading(&self, width: u16) -> Line<'_> {
        let filter = match self.selected().filter(|_| self.is_filtered) {
            Some(server) => server.to_string(),
            None => "all servers".into(),
        };
        let place = match self.scrolled {
            0 => String::new(),
            lines => format!(", {lines} newer lines below"),
        };
        let what = if self.has_help {
            "Keys".to_owned()
        } else {
            format!("Log: {filter}{place}")
        };
        let rule = "─".repeat(usize::from(width).saturating_sub(what.chars().count() + 4));
        Line::styled(format!("── {what} {rule}"), DIM)
    }

    fn draw_log(&self, frame: &mut Frame<'_>, area: Rect) {
        let visible = self.visible().skip(self.scrolled);
        let mut lines: Vec<Line<'_>> = visible
            .take(area.height.into())
            .map(|line| self.log_line(line))
            .collect();
        lines.reverse();
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn log_line<'a>(&self, line: &'a LogLine) -> Line<'a> {
        match &line.server {
            Some(_) if self.is_filtered => Line::raw(line.text.as_str()),
            Some(server) => Line::from(vec![
                Span::styled(format!("{server} │ "), Style::new().fg(color(server))),
                Span::raw(line.text.as_str()),
            ]),
            None => Line::styled(line.text.as_str(), Style::new().fg(Color::Cyan)),
        }
    }

    fn keys_line(&self) -> Line<'_> {
        if self.is_ending() {
            let text = "stopping all servers; press Ctrl-C again to kill them";
            return Line::styled(text, Style::new().fg(Color::Yellow));
        }
        let filter = if self.is_filtered {
            "all logs"
        } else {
            "this log"
        };
        let text = format!("↑↓ select  r restart  o open  f {filter}  PgUp scroll  ? help  q quit");
        Line::styled(text, DIM)
    }
}

const HELP: [&str; 8] = [
    "↑ ↓      select a server",
    "r        restart the selected server",
    "o Enter  open the address of the selected server in the browser",
    "f        show the log of the selected server only; again: of all servers",
    "PgUp     earlier log lines; PgDn, End: later ones",
    "Esc      close this help; show the log of all servers",
    "Ctrl-Z   suspend this program; the servers go on",
    "q        stop all servers; Ctrl-C does the same, and kills them the second time",
];

fn address(server: &ServerLine) -> &str {
    server.url.as_deref().unwrap_or("-")
}

/// The state in one word, and its color.
fn state(server: &ServerLine) -> (&'static str, Style) {
    let (text, color) = match &server.state {
        None | Some(ServerState::Waiting { .. }) => ("waiting", Color::Reset),
        Some(ServerState::Starting) => ("starting", Color::Yellow),
        Some(ServerState::Ready { .. }) => ("ready", Color::Green),
        Some(ServerState::Ended { .. }) => ("ended", Color::Red),
        Some(ServerState::Restarting { .. }) => ("restarting", Color::Yellow),
        Some(ServerState::Stopped) => ("stopped", Color::Reset),
    };
    (text, Style::new().fg(color))
}

/// What the state does not say: why a server ended, when it starts again, or its last line.
fn detail(server: &ServerLine) -> String {
    match &server.state {
        Some(ServerState::Ended { how }) => how.clone(),
        Some(ServerState::Restarting { in_seconds }) => format!("in {in_seconds} s"),
        _ => server.last_line.clone(),
    }
}

/// The color of a server in the log. It depends on the name, so it never changes.
fn color(server: &ServerId) -> Color {
    const COLORS: [Color; 5] = [
        Color::Blue,
        Color::Magenta,
        Color::Green,
        Color::LightBlue,
        Color::LightMagenta,
    ];
    let sum: usize = server.to_string().bytes().map(usize::from).sum();
    COLORS[sum % COLORS.len()]
}
