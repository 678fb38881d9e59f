//! The screen, character by character where it matters.

use ratatui::{Terminal, backend::TestBackend};

use super::{
    draw::draw,
    model::{Action, Input, Model},
    text,
};
use crate::beacon::{
    client::{Everyone, Found},
    message::{Controller, Delays, Request, Rule, Session, State},
};

fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn rule(id: u32, spec: &str) -> Rule {
    Rule { id, layer: "net".to_owned(), spec: spec.to_owned(), in_force: true, ..Rule::default() }
}

fn session(id: u64, target: &str, rules: Vec<Rule>) -> Session {
    let started = "2026-11-20T08:54:31.000Z".to_owned();
    Session {
        id,
        target: target.to_owned(),
        seed: 42,
        started,
        lasted_ns: 1_000_000_000,
        rules,
        ..Session::default()
    }
}

fn everyone(all: Vec<(u32, Vec<Session>)>) -> Everyone {
    let found = all.into_iter().map(|(pid, sessions)| Found {
        address: Default::default(),
        controller: Controller {
            version: 1,
            fault: "0.1.0".to_owned(),
            pid,
            verb: "inject".to_owned(),
            sessions,
        },
    });
    Everyone { found: found.collect(), silent: Vec::new() }
}

/// Two sessions, two seconds long.
fn two() -> Model {
    let mut model = Model::default();
    for second in 0..3_u64 {
        let mut drop = rule(0, "drop 10% out tcp");
        (drop.matched, drop.injected, drop.bytes) = (1000 * second, 100 * second, 150_000 * second);
        let mut delay = rule(1, "delay 30ms in");
        (delay.matched, delay.injected) = (50 * second, 50 * second);
        delay.delay_ns = 50 * second * 30_000_000;
        delay.mean_delay_ns = (second > 0).then_some(30_000_000);
        delay.delays = Some(vec![
            Delays { up_to_ns: Some(20_000_000), count: 0 },
            Delays { up_to_ns: Some(50_000_000), count: 50 * second },
        ]);
        let mut first = session(1, "pid 99 and its descendants", vec![drop, delay]);
        let mut second_session = session(1, "`curl http://example`", vec![rule(0, "refuse")]);
        for session in [&mut first, &mut second_session] {
            session.lasted_ns = (second + 1) * 1_000_000_000;
        }
        second_session.left_ns = Some(90_000_000_000);
        second_session.events =
            Some(vec![serde_json::json!({"time": "2026-11-20T08:54:31.123456789Z", "rule": 0, "rules": [0],
            "layer": "net", "action": "fail", "pid": 7, "comm": "curl", "direction": "out", "protocol": "tcp",
            "remote": "10.0.0.1:80"})]);
        model.update(everyone(vec![(4711, vec![first]), (4800, vec![second_session])]));
    }
    model
}

#[test]
fn two_sessions_on_a_small_screen() {
    let model = two();
    let screen = screen(&model, 80, 24);
    assert_eq!(screen[0], " fault top   2 sessions, 3 faults   1050/s matched, 150/s hit");
    assert_eq!(screen[1], "  #   fault                          matched/s  hit/s   rate    delay hits");
    assert_eq!(screen[2], "▶4711 inject  active 3.0 s  pid 99 and its descendants");
    assert_eq!(screen[3], "   0  net drop 10% out tcp                1000    100  10.0%        -         ██");
    assert_eq!(screen[4], "   1  net delay 30ms in                   50.0   50.0   100%  30.0 ms         ██");
    assert_eq!(screen[5], " 4800 inject  active 3.0 s, 1m30s left  `curl http://example`");
    assert_eq!(screen[6], "   0  net refuse                             0      0      -        -         ··");
    assert!(screen[10].starts_with(" the session ─"), "{screen:#?}");
    assert_eq!(screen[23], " ↑↓ select   p pause, resume   h heal   q quit");
}

#[test]
fn the_selected_fault_is_told_in_full() {
    let mut model = two();
    model.input(Input::Move(2));
    let text = screen(&model, 80, 24).join("\n");
    for words in [
        "net delay 30ms in",
        "100 matched, 100 hit (100%), 0 B, 30.0 ms late on average",
        "██ up to 50.0",
        "██ on average, up to 30.0 ms",
        "≤ 50.0 ms ██ of 100 events",
        "this controller does not tell them",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    model.input(Input::Move(1));
    let text = screen(&model, 80, 24).join("\n");
    assert!(text.contains(" 08:54:31.1 #0 fail  curl 7  tcp out to 10.0.0.1:80"), "{text}");
}

#[test]
fn nobody_and_how_to_begin() {
    let mut model = Model::default();
    model.update(Everyone::default());
    let text = screen(&model, 80, 24).join(" ");
    assert!(text.contains("nothing is being injected on this machine"), "{text}");
    assert!(text.contains("0 sessions, 0 faults"), "{text}");
    assert!(matches!(model.input(Input::Heal), Action::Draw) && model.question.is_none());
    assert!(matches!(model.input(Input::Pause), Action::Draw));
    assert_eq!(text::table(&Everyone::default()).lines().count(), 1);
}

#[test]
fn long_specs_and_many_rules_stay_on_the_screen() {
    let long = format!("drop 10% out {}", "to 10.0.0.0/8:5432 ".repeat(20));
    let rules: Vec<Rule> = (0..64).map(|id| rule(id, &long)).collect();
    let all =
        |target: &str| everyone((0..40).map(|pid| (pid, vec![session(1, target, rules.clone())])).collect());
    let mut model = Model::default();
    model.update(all(&"x".repeat(500)));
    model.update(all(&"世".repeat(500)));
    let lines = screen(&model, 80, 24);
    assert!(lines[1].contains("1–8 of 2600 lines"), "{lines:#?}");
    assert!(lines[2].ends_with('…') && lines[3].contains("…"), "{lines:#?}");
    model.input(Input::Move(isize::MAX));
    let lines = screen(&model, 80, 24);
    assert!(lines[9].starts_with("▶ 63"), "{lines:#?}");
    // Too small for anything: no panic.
    for (width, height) in [(1, 1), (10, 3), (20, 10), (79, 5), (300, 100)] {
        screen(&model, width, height);
    }
}

#[test]
fn what_others_call_things_moves_no_cursor() {
    let mut model = Model::default();
    model.update(everyone(vec![(1, vec![session(1, "\x1b[2J\nevil", vec![rule(0, "drop\x07")])])]));
    let all = screen(&model, 80, 24).concat()
        + &text::table(&everyone(vec![(1, vec![session(1, "\x1b", vec![])])]));
    assert!(!all.contains('\x1b') && !all.contains('\x07') && all.contains("evil"), "{all}");
}

#[test]
fn keys_aim_at_the_selected_session() {
    let mut model = two();
    model.input(Input::Move(4));
    let Action::Tell(found, request) = model.input(Input::Pause) else { panic!("no pause") };
    assert_eq!((found.controller.pid, request), (4800, Request::Pause { session: 1 }));
    // Healing is asked about, and only `y` heals.
    assert!(matches!(model.input(Input::Heal), Action::Draw));
    assert!(screen(&model, 80, 24)[23].contains("y heals the session of 4800 inject"));
    assert!(matches!(model.input(Input::Quit), Action::Draw));
    assert!(matches!(model.input(Input::Yes), Action::Draw));
    model.input(Input::Heal);
    let Action::Tell(found, request) = model.input(Input::Yes) else { panic!("no heal") };
    assert_eq!((found.controller.pid, request), (4800, Request::Heal { session: 1 }));
    // A session that ended meanwhile is not healed, nor another one in its place.
    model.input(Input::Heal);
    model.update(everyone(vec![(4711, vec![session(1, "pid 99", vec![rule(0, "drop")])])]));
    assert!(model.question.is_none());
    assert!(matches!(model.input(Input::Yes), Action::Draw));
    assert!(matches!(model.input(Input::Quit), Action::Quit));
}

#[test]
fn a_paused_session_is_resumed() {
    let mut paused = session(7, "pid 1", vec![rule(0, "drop")]);
    paused.state = State::Paused;
    let mut model = Model::default();
    model.update(everyone(vec![(1, vec![paused])]));
    let Action::Tell(_, request) = model.input(Input::Pause) else { panic!("no resume") };
    assert_eq!(request, Request::Resume { session: 7 });
    assert!(screen(&model, 80, 24)[2].contains("paused"));
}

#[test]
fn the_selection_stays_when_others_come_and_go() {
    let mut model = two();
    model.input(Input::Move(3));
    let only = session(1, "`curl http://example`", vec![rule(0, "refuse")]);
    model.update(everyone(vec![(4800, vec![only])]));
    assert_eq!(model.place(), 0, "it was the session of 4800 and still is");
}
