//! Progress of long steps: a bar on a terminal, a plain line now and then everywhere else.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, one line at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(30);

/// Whether other programs print meanwhile.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// From now on other programs print while a step is under way: a bar would be drawn over what they say, so there are lines.
pub fn share_terminal() {
    IS_SHARED.store(true, Ordering::Relaxed);
}

/// One long step. Say `done` at its end; dropping it without that means it failed.
pub struct Step {
    title: String,
    started: Instant,
    expected: u64,
    count: u64,
    output: Output,
}

enum Output {
    Bar(ProgressBar),
    Plain { last: Instant },
}

impl Step {
    /// A step whose length nobody knows.
    pub fn spinner(title: impl Into<String>) -> Self {
        Self::start(title.into(), 0)
    }

    /// A step of about `expected` units; more or fewer is not an error.
    pub fn bar(title: impl Into<String>, expected: u64) -> Self {
        Self::start(title.into(), expected)
    }

    fn start(title: String, expected: u64) -> Self {
        let output = if std::io::stderr().is_terminal() && !IS_SHARED.load(Ordering::Relaxed) {
            let (bar, template) = if expected == 0 {
                (ProgressBar::new_spinner(), "{spinner} {prefix} [{elapsed}] {wide_msg}")
            } else {
                (ProgressBar::new(expected), "{spinner} {prefix} [{elapsed}] {bar:30} {pos}/{len} {wide_msg}")
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            Output::Bar(bar)
        } else {
            eprintln!("{title} ...");
            Output::Plain { last: Instant::now() }
        };
        Self { title, started: Instant::now(), expected, count: 0, output }
    }

    /// One unit further; `message` says what it was.
    pub fn tick(&mut self, message: &str) {
        self.count += 1;
        match &mut self.output {
            Output::Bar(bar) => {
                bar.set_position(self.count);
                bar.set_message(message.to_owned());
            }
            Output::Plain { last } => {
                if last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    match self.expected {
                        0 => eprintln!("{}: {message}", self.title),
                        expected => eprintln!("{}: {} of about {expected}", self.title, self.count),
                    }
                }
            }
        }
    }

    /// The step succeeded.
    pub fn done(self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
        eprintln!("{}: done in {}", self.title, seconds(self.started.elapsed()));
    }
}

/// A duration as people say it: `4.2 s`, `7 min 12 s`.
pub fn seconds(duration: Duration) -> String {
    let secs = duration.as_secs();
    if secs < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {} s", secs / 60, secs % 60)
    }
}
