//! Faults that are active, as a guard.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command},
    thread::{self, JoinHandle},
};

use super::{
    error::{InjectError, Refusal},
    report::Report,
};
use crate::cli::ACTIVE;

/// Faults that are active until this is dropped, or the process ends, however it does.
///
/// Dropping it waits until everything is healed: some tens of milliseconds, and up to ten seconds where packets still wait
/// behind a long delay.
#[derive(Debug)]
#[must_use = "the faults end when this is dropped"]
pub struct Injected {
    child: Child,
    /// What the controller says on stderr, to its end.
    said: Option<JoinHandle<String>>,
}

fn controller(operation: &'static str) -> impl FnOnce(std::io::Error) -> InjectError {
    move |source| InjectError::Controller { operation, source }
}

impl Injected {
    pub(super) fn start(mut command: Command) -> Result<Self, InjectError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|source| InjectError::Start { program, source })?;
        let stderr = child.stderr.take();
        let mut injected = Self { child, said: None };
        let mut said = String::new();
        let Some(stderr) = stderr else { return Err(injected.refused(said)) };
        let mut lines = BufReader::new(stderr);
        loop {
            let before = said.len();
            if lines.read_line(&mut said).map_err(controller("listen to"))? == 0 {
                return Err(injected.refused(said));
            }
            if said[before..].starts_with(ACTIVE) {
                break;
            }
        }
        // The pipe must not fill up, and what is said later may explain a report that never came.
        injected.said = Some(thread::spawn(move || {
            // What was read until an error is all there is.
            let _ = lines.read_to_string(&mut said);
            said
        }));
        Ok(injected)
    }

    fn refused(&mut self, said: String) -> InjectError {
        let sentence = said.trim().to_owned();
        match self.child.wait() {
            Ok(status) => InjectError::Refused { why: Refusal::of(status), sentence },
            Err(source) => controller("wait for")(source),
        }
    }

    /// PID of the controller.
    #[must_use]
    pub fn controller(&self) -> u32 {
        self.child.id()
    }

    /// Heals, and says what was done.
    ///
    /// # Errors
    /// When the controller was killed, or left no report.
    pub fn heal(mut self) -> Result<Report, InjectError> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut text).map_err(controller("read the report of"))?;
        }
        let status = self.child.wait().map_err(controller("wait for"))?;
        Report::read(&text).map_err(|_| {
            let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
            InjectError::NoReport { status, sentence: said.trim().to_owned() }
        })
    }

    /// [`Injected::heal`], for callers that must not block.
    ///
    /// # Errors
    /// As [`Injected::heal`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn heal_async(self) -> Result<Report, InjectError> {
        elsewhere(|| self.heal()).await
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Its report must not block it; nobody asked for it.
        drop(self.child.stdout.take());
        // It may have been waited for already.
        let _ = self.child.wait();
    }
}

/// On a thread that may block.
pub(super) async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InjectError> + Send + 'static,
) -> Result<T, InjectError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(controller("wait for")(std::io::Error::other(error))),
    }
}
