//! Keys in, screens out, and the terminal as it was, however it ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    draw::draw,
    model::{Action, Input, Model},
};
use crate::{beacon::client, sentence::sentence};

/// Between two snapshots.
const EVERY: Duration = Duration::from_secs(1);
/// How soon a signal is noticed.
const GLANCE: Duration = Duration::from_millis(200);
/// How long it may take to end in good order.
const PARTING: Duration = Duration::from_secs(1);

/// Shows the live view until `q`, Ctrl-C or a signal.
///
/// # Errors
/// When the terminal cannot be read or written.
pub fn live() -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signals(Arc::clone(&ended))?;
    // Also gives the terminal back when something panics.
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &ended);
    let restored = ratatui::try_restore();
    // A terminal that was closed is no failure of ours.
    if ended.load(Ordering::Relaxed) { Ok(()) } else { result.and(restored) }
}

/// Sets `ended` at the first signal. Who reads keys may never come back from a terminal that was closed (crossterm 0.29 reads
/// its end again and again), so a thread sees to it that the process ends all the same.
fn end_on_signals(ended: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT])?;
    let wait = move || {
        if signals.forever().next().is_some() {
            ended.store(true, Ordering::Relaxed);
            thread::sleep(PARTING);
            // There may be no terminal any more.
            _ = ratatui::try_restore();
            std::process::exit(0);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}

fn watch(terminal: &mut ratatui::DefaultTerminal, ended: &AtomicBool) -> io::Result<()> {
    let mut model = Model::default();
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        if Instant::now() >= due {
            model.update(client::look());
            due = Instant::now() + EVERY;
        }
        terminal.draw(|frame| draw(frame, &model))?;
        // Sleeps until a key, the next snapshot, or a look at the signals.
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if event::poll(left.min(GLANCE))? {
                break;
            }
            if left.is_zero() || ended.load(Ordering::Relaxed) {
                break;
            }
        }
        while event::poll(Duration::ZERO)? {
            let Some(input) = input(&event::read()?) else { continue };
            match model.input(input) {
                Action::Draw => {}
                Action::Quit => return Ok(()),
                Action::Tell(found, request) => {
                    model.message = client::tell(&found, request).err().map(|error| sentence(&error));
                    due = Instant::now();
                }
            }
        }
    }
    Ok(())
}

/// What a key means; other events (the terminal has another size now) only have to be drawn.
fn input(event: &Event) -> Option<Input> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) =
        event
    else {
        return None;
    };
    Some(match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Input::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Input::Quit,
        KeyCode::Char('p' | ' ') => Input::Pause,
        KeyCode::Char('h') => Input::Heal,
        KeyCode::Char('y') => Input::Yes,
        KeyCode::Up | KeyCode::Char('k') => Input::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Input::Move(1),
        KeyCode::PageUp => Input::Move(-10),
        KeyCode::PageDown => Input::Move(10),
        KeyCode::Home => Input::Move(isize::MIN + 1),
        KeyCode::End => Input::Move(isize::MAX),
        _ => Input::Other,
    })
}
