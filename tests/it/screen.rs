//! The screen of `dev` and `start`, as the text of an 80×24 terminal.

use alokai::event::{Event, ServerId, ServerState, SyncEvent};
use alokai::report::{ScreenCommand, ScreenState};
use alokai::store::{AppName, StoreId, UnitId};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

fn server(store: &str, app: &str) -> ServerId {
    ServerId::app(&UnitId {
        store: StoreId::new(store).unwrap(),
        app: AppName::new(app).unwrap(),
    })
}

fn change(screen: &mut ScreenState, server: &ServerId, state: ServerState) {
    let server = server.clone();
    screen.apply(&Event::Server { server, state });
}

fn output(screen: &mut ScreenState, server: &ServerId, line: &str) {
    screen.apply(&Event::ServerOutput {
        server: server.clone(),
        line: line.into(),
    });
}

fn ready(port: u16) -> ServerState {
    ServerState::Ready {
        url: Some(format!("http://localhost:{port}")),
        seconds: 1.25,
    }
}

const MIDDLEWARE: &str = "storefront-middleware";
const FRONTEND: &str = "storefront-unified-nextjs";

/// Two stores: one is ready, the frontend of the other one has ended.
fn screen() -> ScreenState {
    let mut screen = ScreenState::new("alokai store dev", Box::new(|_| None));
    for (store, port) in [("eu", 4000), ("outlet", 4001)] {
        let (middleware, frontend) = (server(store, MIDDLEWARE), server(store, FRONTEND));
        for id in [&middleware, &frontend] {
            let stores = vec![StoreId::new(store).unwrap()];
            change(&mut screen, id, ServerState::Waiting { stores });
        }
        change(&mut screen, &middleware, ServerState::Starting);
        output(&mut screen, &middleware, "listening");
        change(&mut screen, &middleware, ready(port));
        change(&mut screen, &frontend, ServerState::Starting);
    }
    let (eu, outlet) = (server("eu", FRONTEND), server("outlet", FRONTEND));
    change(&mut screen, &eu, ready(3000));
    output(
        &mut screen,
        &eu,
        "\u{1b}[32m GET\u{1b}[0m /cart\t200 in 14ms",
    );
    output(&mut screen, &eu, "");
    let how = "exit code 1".into();
    change(&mut screen, &outlet, ServerState::Ended { how });
    change(
        &mut screen,
        &outlet,
        ServerState::Restarting { in_seconds: 2 },
    );
    screen.apply(&Event::Notice {
        message: "eu is at http://eu.localhost:8080".into(),
    });
    screen
}

fn key(screen: &mut ScreenState, code: KeyCode) -> Option<ScreenCommand> {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn drawn(screen: &ScreenState, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let text = terminal.backend().to_string();
    let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_screen_has_a_line_for_each_server_and_the_log() {
    insta::assert_snapshot!(drawn(&screen(), 80, 24));
}

#[test]
fn the_log_shows_one_server_when_it_is_filtered() {
    let mut screen = screen();
    key(&mut screen, KeyCode::Down);
    key(&mut screen, KeyCode::Char('f'));
    let text = drawn(&screen, 80, 24);
    assert!(
        text.contains("Log: eu/storefront-unified-nextjs ─"),
        "{text}"
    );
    assert!(text.contains("\n GET /cart  200 in 14ms\n"), "{text}");
    assert!(!text.contains("\nlistening"), "{text}");
    // A message of the program itself is shown under every filter.
    assert!(text.contains("\nnote: eu is at http"), "{text}");
    // The filter follows the selection.
    key(&mut screen, KeyCode::Up);
    assert!(drawn(&screen, 80, 24).contains("\nlistening\n"));
    key(&mut screen, KeyCode::Esc);
    assert!(drawn(&screen, 80, 24).contains("Log: all servers"));
}

#[test]
fn keys_send_commands_for_the_selected_server() {
    let mut screen = screen();
    let outlet = server("outlet", FRONTEND);
    for _ in 0..9 {
        assert_eq!(key(&mut screen, KeyCode::Down), None);
    }
    assert_eq!(
        key(&mut screen, KeyCode::Char('r')),
        Some(ScreenCommand::Restart(outlet.clone()))
    );
    assert_eq!(
        key(&mut screen, KeyCode::Char('o')),
        Some(ScreenCommand::Open(outlet))
    );
    key(&mut screen, KeyCode::Home);
    let eu = server("eu", MIDDLEWARE);
    assert_eq!(
        key(&mut screen, KeyCode::Enter),
        Some(ScreenCommand::Open(eu))
    );
    let mut nothing = ScreenState::new("alokai store dev", Box::new(|_| None));
    for code in [
        KeyCode::Char('r'),
        KeyCode::Char('o'),
        KeyCode::Down,
        KeyCode::Char('f'),
    ] {
        assert_eq!(key(&mut nothing, code), None);
    }
}

#[test]
fn quitting_is_not_an_interruption() {
    let mut screen = screen();
    assert_eq!(
        key(&mut screen, KeyCode::Char('q')),
        Some(ScreenCommand::Quit)
    );
}

#[test]
fn long_lines_are_wrapped_and_every_row_can_be_reached() {
    let mut screen = screen();
    let eu = server("eu", FRONTEND);
    let words: Vec<_> = (0..400).map(|number| format!("word{number}")).collect();
    let long = words.join(" ");
    output(&mut screen, &eu, &long);
    screen.apply(&Event::Notice {
        message: format!("{} the end of the note", "n".repeat(200)),
    });
    let text = drawn(&screen, 80, 24);
    let note: String = text.lines().map(str::trim).collect();
    assert!(note.contains(&"n".repeat(200)), "{text}");
    assert!(text.contains("the end of the note"), "{text}");
    // The line has more rows than the log, so its beginning is reached by scrolling.
    let mut seen = String::new();
    for _ in 0..12 {
        seen.push_str(&drawn(&screen, 80, 24));
        key(&mut screen, KeyCode::PageUp);
    }
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !seen.split_whitespace().any(|it| it == word.as_str()))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_title_says_that_out_is_not_in_step_until_it_is() {
    let mut screen = screen();
    let sync = |screen: &mut ScreenState, sync| screen.apply(&Event::Sync { sync });
    let message = "`alokai.config.json` has 1 problem".into();
    sync(&mut screen, SyncEvent::Failed { message });
    let title = |screen: &ScreenState| drawn(screen, 80, 24).lines().next().unwrap().to_owned();
    assert!(
        title(&screen).contains("`.out` is not in step"),
        "{}",
        title(&screen)
    );
    assert!(screen.unresolved().contains("has 1 problem"));
    key(&mut screen, KeyCode::Char('f'));
    assert!(drawn(&screen, 80, 24).contains("\n`.out` is not in step: `alokai.config.json`"));
    sync(&mut screen, SyncEvent::Mended);
    assert!(!title(&screen).contains("step"), "{}", title(&screen));
    assert!(drawn(&screen, 80, 24).contains("\n`.out` is in step again"));
}

#[test]
fn a_server_that_cannot_start_has_the_reason_and_the_remedy_in_the_log() {
    let mut screen = screen();
    let eu = server("eu", FRONTEND);
    let state = ServerState::CannotStart {
        how: "port 3000 of `eu/web` is in use by `python3` (pid 7)".into(),
        help: Some("end that process, or set another port in `localPorts` of the store".into()),
    };
    change(&mut screen, &eu, state);
    key(&mut screen, KeyCode::Char('f'));
    key(&mut screen, KeyCode::Down);
    let text = drawn(&screen, 80, 24);
    assert!(text.contains(" failed "), "{text}");
    assert!(text.contains("2 of 4 ready"), "{text}");
    let words: Vec<_> = text.split_whitespace().collect();
    let words = words.join(" ");
    assert!(
        words.contains("cannot start: port 3000 of `eu/web` is in use by `python3` (pid 7); end that process, or set another port in `localPorts` of the store"),
        "{text}"
    );
}

#[test]
fn the_last_error_of_a_server_that_does_not_run_stays_after_the_screen() {
    let mut screen = screen();
    let left = screen.unresolved();
    let expected = format!("outlet/{FRONTEND}: ended: exit code 1\n");
    assert_eq!(left, expected);
    let outlet = server("outlet", FRONTEND);
    output(&mut screen, &outlet, "Cannot find module 'cart'");
    let how = "exit code 2".into();
    change(&mut screen, &outlet, ServerState::Ended { how });
    change(&mut screen, &outlet, ServerState::Stopped);
    // The lines are those of the server, and not the earlier messages about it.
    assert_eq!(
        screen.unresolved(),
        format!("outlet/{FRONTEND}: ended: exit code 2\n  Cannot find module 'cart'\n")
    );
    change(&mut screen, &outlet, ready(3001));
    assert_eq!(screen.unresolved(), "");
    // Without a further start, the failure is the error of the command.
    let how = "exit code 1".into();
    change(
        &mut screen,
        &server("eu", FRONTEND),
        ServerState::Ended { how },
    );
    assert_eq!(screen.unresolved(), "");
}

#[test]
fn the_address_is_the_one_that_is_opened() {
    let domain = |server: &ServerId| {
        let store = server.store.as_ref()?;
        Some(format!("http://{store}.localhost:8080"))
    };
    let mut screen = ScreenState::new("alokai store start", Box::new(domain));
    change(&mut screen, &server("us", FRONTEND), ready(3000));
    let text = drawn(&screen, 80, 24);
    let row = text.lines().nth(2).unwrap();
    assert!(row.contains(" http://us.localhost:8080"), "{text}");
}

#[test]
fn the_column_of_messages_has_a_heading_where_it_has_room() {
    let screen = screen();
    let narrow = drawn(&screen, 80, 24);
    assert!(!narrow.contains("LAST MESSAGE"), "{narrow}");
    let row = narrow.lines().nth(2).unwrap();
    assert!(row.ends_with("http://localhost:4000"), "{narrow}");
    let wide = drawn(&screen, 120, 24);
    let heading = wide.lines().nth(1).unwrap();
    let column = heading.find("LAST MESSAGE").unwrap();
    let row = wide.lines().nth(2).unwrap();
    assert_eq!(&row[column..], "listening", "{wide}");
}

#[test]
fn a_key_that_repeats_itself_does_not_kill_the_servers() {
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    let mut screen = screen();
    assert_eq!(screen.key(control_c), Some(ScreenCommand::Interrupt));
    assert_eq!(screen.key(control_c), None);
    let released = KeyEvent::new_with_kind(
        KeyCode::Char('r'),
        KeyModifiers::NONE,
        KeyEventKind::Release,
    );
    assert_eq!(screen.key(released), None);
    assert!(drawn(&screen, 80, 24).contains("press Ctrl-C again to kill them"));
}

#[test]
fn help_lists_the_keys() {
    let mut screen = screen();
    key(&mut screen, KeyCode::Char('?'));
    insta::assert_snapshot!(drawn(&screen, 80, 24));
    key(&mut screen, KeyCode::Char('?'));
    assert!(drawn(&screen, 80, 24).contains("Log: all servers"));
}

#[test]
fn earlier_lines_stay_in_place_while_the_log_grows() {
    let mut screen = screen();
    let eu = server("eu", FRONTEND);
    for number in 0..100 {
        output(&mut screen, &eu, &format!("line {number}"));
    }
    key(&mut screen, KeyCode::PageUp);
    let log = |screen: &ScreenState| {
        let text = drawn(screen, 80, 24);
        text.lines()
            .filter(|line| line.contains("│ line"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = log(&screen);
    assert!(before.last().unwrap().ends_with("line 89"), "{before:?}");
    output(&mut screen, &eu, "line 100");
    assert_eq!(log(&screen), before);
    key(&mut screen, KeyCode::End);
    assert!(log(&screen).last().unwrap().ends_with("line 100"));
}

#[test]
fn a_line_of_a_server_cannot_move_the_cursor() {
    let mut screen = screen();
    let eu = server("eu", FRONTEND);
    output(
        &mut screen,
        &eu,
        "\u{1b}[2J\u{1b}]0;title\u{7}10 %\r50 %\r100 %\r",
    );
    output(&mut screen, &eu, "bell\u{7} and \u{8}\u{8}back");
    let text = drawn(&screen, 80, 24);
    assert!(text.contains("│ 100 %\n"), "{text}");
    assert!(text.contains("│ bell and back\n"), "{text}");
}

#[test]
fn every_size_is_drawn_and_many_servers_scroll() {
    let mut screen = screen();
    for number in 0..60 {
        change(
            &mut screen,
            &server(&format!("s{number}"), FRONTEND),
            ServerState::Starting,
        );
    }
    for (width, height) in [(1, 1), (10, 3), (40, 6), (80, 24), (300, 100)] {
        drawn(&screen, width, height);
    }
    for _ in 0..70 {
        key(&mut screen, KeyCode::Down);
    }
    let text = drawn(&screen, 80, 24);
    assert!(text.contains("> s9 "), "{text}");
    assert!(text.contains("Log: all servers"), "{text}");
}
