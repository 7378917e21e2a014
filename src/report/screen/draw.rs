//! The screen as lines and colors: a line for each server, the log, and the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Row, Table, TableState};

use super::state::{LogLine, LogSize, ScreenState, ServerLine};
use crate::event::{ServerId, ServerState};

/// The widest column of stores and of apps.
const WIDEST: usize = 26;

/// The widest column of addresses.
const WIDEST_ADDRESS: usize = 44;

/// The width of the column of states.
const STATE_WIDTH: u16 = 10;

/// The least width of the column of messages. On a narrower terminal, only the log has them.
const LEAST_MESSAGE: u16 = 20;

const HEADINGS: [&str; 5] = ["STORE", "APP", "STATE", "ADDRESS", "LAST MESSAGE"];

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
        let mut parts = vec![
            Span::styled(self.title.as_str(), Style::new().bold()),
            Span::raw(format!("  {ready} of {} ready", self.servers.len())),
        ];
        if self.out_of_step.is_some() {
            let style = Style::new().fg(Color::Red).bold();
            parts.push(Span::styled("  `.out` is not in step, see the log", style));
        }
        Line::from(parts)
    }

    fn draw_servers(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows: Vec<_> = self.servers.iter().map(|row| self.cells(row)).collect();
        let width = |column: usize, title: &str, most: usize| {
            let texts = rows.iter().map(|row| row[column].width());
            let longest = texts.max().unwrap_or(0).max(title.len());
            u16::try_from(longest.min(most)).unwrap_or(u16::MAX)
        };
        let [store, app, _, address, _] = HEADINGS;
        let mut widths = vec![
            width(0, store, WIDEST),
            width(1, app, WIDEST),
            STATE_WIDTH,
            width(3, address, WIDEST_ADDRESS),
        ];
        // The mark of the selected server, and a space after each column.
        let used: u16 = 2 + widths.iter().map(|width| width + 1).sum::<u16>();
        let rest = area.width.saturating_sub(used);
        if rest >= LEAST_MESSAGE {
            widths.push(rest);
        }
        let columns = widths.len();
        let rows = rows
            .into_iter()
            .map(|row| Row::new(row.into_iter().take(columns)));
        let header = Row::new(HEADINGS.into_iter().take(columns)).style(DIM);
        let table = Table::new(rows, widths.into_iter().map(Constraint::Length))
            .header(header)
            .highlight_symbol("> ")
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
        let selected = (!self.servers.is_empty()).then_some(self.selected);
        let mut place = TableState::new().with_selected(selected);
        frame.render_stateful_widget(table, area, &mut place);
    }

    /// The line of a server, in the columns of [`HEADINGS`].
    fn cells(&self, (id, server): (&ServerId, &ServerLine)) -> [Span<'static>; 5] {
        let (state, style) = state(server);
        let store = id.store.as_ref();
        let store = store.map_or_else(|| "-".to_owned(), ToString::to_string);
        let address = self.address(id).unwrap_or_else(|| "-".into());
        [
            Span::raw(store),
            Span::raw(id.name.clone()),
            Span::styled(state, style),
            Span::raw(address),
            Span::styled(message(server), DIM),
        ]
    }

    fn log_heading(&self, width: u16) -> Line<'_> {
        let filter = match self.selected().filter(|_| self.is_filtered) {
            Some(server) => server.to_string(),
            None => "all servers".into(),
        };
        let place = match self.scrolled {
            0 => String::new(),
            lines => format!(", {lines} newer rows below"),
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
        self.log_size.set(LogSize {
            width: area.width.into(),
            height: area.height.into(),
        });
        let wanted = self.scrolled + usize::from(area.height);
        // The latest row first.
        let mut rows = Vec::new();
        for line in self.visible() {
            rows.extend(self.log_rows(line).into_iter().rev());
            if rows.len() >= wanted {
                break;
            }
        }
        let rows = rows.into_iter().skip(self.scrolled);
        let mut rows: Vec<_> = rows.take(area.height.into()).collect();
        rows.reverse();
        frame.render_widget(Paragraph::new(rows), area);
    }

    /// The rows of a log line, with the name of the server in its color.
    fn log_rows(&self, line: &LogLine) -> Vec<Line<'static>> {
        let rows = self.rows(line);
        let Some(server) = &line.server else {
            let style = Style::new().fg(Color::Cyan);
            let rows = rows.into_iter();
            return rows.map(|row| Line::styled(row, style)).collect();
        };
        let prefix = self.prefix(line);
        let colored = |row: String| match row.strip_prefix(&prefix) {
            Some(rest) => Line::from(vec![
                Span::styled(prefix.clone(), Style::new().fg(color(server))),
                Span::raw(rest.to_owned()),
            ]),
            None => Line::raw(row),
        };
        rows.into_iter().map(colored).collect()
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

const HELP: [&str; 9] = [
    "↑ ↓      select a server",
    "r        restart the selected server",
    "o Enter  open the address of the selected server in the browser",
    "f        show the log of the selected server and messages of alokai; again: all",
    "PgUp     earlier log lines; PgDn, End: later ones",
    "Esc      close this help; show the log of all servers",
    "Ctrl-Z   suspend this program; the servers go on",
    "q        stop all servers and end with exit code 0; the second time, kill them",
    "Ctrl-C   the same with exit code 130",
];

/// The state in one word, and its color.
fn state(server: &ServerLine) -> (&'static str, Style) {
    let (text, color) = match &server.state {
        None | Some(ServerState::Waiting { .. }) => ("waiting", Color::Reset),
        Some(ServerState::Starting) => ("starting", Color::Yellow),
        Some(ServerState::Ready { .. }) => ("ready", Color::Green),
        Some(ServerState::Ended { .. }) => ("ended", Color::Red),
        Some(ServerState::CannotStart { .. }) => ("failed", Color::Red),
        Some(ServerState::Restarting { .. }) => ("restarting", Color::Yellow),
        Some(ServerState::Stopped) => ("stopped", Color::Reset),
    };
    (text, Style::new().fg(color))
}

/// What the state does not say: why a server does not run, when it starts again, or its last line.
fn message(server: &ServerLine) -> String {
    match &server.state {
        Some(ServerState::Ended { how } | ServerState::CannotStart { how, .. }) => how.clone(),
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
