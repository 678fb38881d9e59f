//! Why a session ended, as the report says it.

use nix::sys::signal::Signal;

use super::Exit;
use crate::{session::End, target::command::Ending};

impl Exit {
    /// `end`, where COMMAND ended so; `troubles` are those of the session, as sentences.
    #[must_use]
    pub fn of(end: End, command: Option<Ending>, troubles: &[String]) -> Self {
        match end {
            End::Deadline => Self::Elapsed,
            End::Signal(number) => Self::Interrupted { signal: signal(number) },
            End::Asked => Self::Healed,
            End::Deleted => Self::Deleted,
            End::LeaseExpired => Self::LeaseExpired,
            End::TargetGone => Self::TargetGone,
            End::Released => Self::Released,
            End::Stalled(silence) => {
                Self::Stalled { silence_ns: u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX) }
            }
            End::Trouble => Self::Failed { error: troubles.last().cloned().unwrap_or_default() },
            End::CommandEnded => match command {
                Some(Ending::Exited(status)) => Self::CommandExited { status: status.into() },
                Some(Ending::Killed(number)) => Self::CommandKilled { signal: signal(number) },
                None => Self::TargetGone,
            },
        }
    }
}

fn signal(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}
