//! `fault run`: COMMAND under the faults, in a cgroup of its own.

use std::{process::ExitCode, sync::Arc};

use fault_common::rule::block::op;
use nix::sys::signal::Signal;

use super::{
    args::{RunArgs, SessionArgs},
    error::CliError,
    finish, session,
};
use crate::{
    session::{End, active::Signals, keeper::Keeper, plan::Plan},
    spec::Fault,
    target::{
        Target,
        command::{Held, Running},
        run::Transient,
    },
};

pub(super) fn main(arguments: &RunArgs) -> Result<ExitCode, CliError> {
    let plan = session::plan(&arguments.faults, &arguments.options)?;
    if arguments.options.dry_run {
        return session::dry_run(
            &plan,
            &Target::nobody([]),
            &finish::Subject::command(&arguments.command).target,
        );
    }
    session::require_root()?;
    session::check_outputs(&arguments.options)?;
    let keeper = Arc::new(Keeper::fork()?);
    session::runtime()?.block_on(run(arguments, plan, &keeper))
}

async fn run(arguments: &RunArgs, plan: Plan, keeper: &Arc<Keeper>) -> Result<ExitCode, CliError> {
    let mut signals = Signals::catch().map_err(CliError::Runtime)?;
    let mut transient = Transient::create(keeper)?;
    if hits_writes(&plan) {
        follow_writeback(&mut transient, &arguments.options)?;
    }
    let held = Held::spawn(&arguments.command, &transient.cgroup().path)?;
    let mut target = Target::nobody([keeper.pid()]);
    target.cgroups.push(transient.cgroup().clone());
    let options = &arguments.options;
    session::tell_unmatched(&plan, &target, options)?;
    let mut active = session::arm(session::request(plan, target, options, keeper)?)?.activate()?;
    if options.report.is_some() {
        active.record();
    }
    let mut subject = finish::Subject::command(&arguments.command);
    active.introduce(&subject.target, |_, _| ());
    session::announce(&active, &subject.target, options);
    let command = held.release()?;
    let finished = active.live(&mut signals, command.ended(), |number| forward(&command, number)).await;
    let (end, ending, trouble) = match finished {
        Ok(finished) => (finished.end, finished.command, None),
        Err(error) => (End::Trouble, None, Some(error)),
    };
    let mut healed = active.heal(end).await;
    healed.troubles.extend(trouble);
    // The faults may be over before COMMAND is (`--for`): it goes on unharmed, and its status is ours.
    let ending = match ending {
        Some(ending) => ending?,
        None => outlive(&command, &mut signals).await?,
    };
    subject.ending = Some(ending);
    finish::report(&healed, subject, options)?;
    transient.heal()?;
    Ok(ExitCode::from(ending.status()))
}

/// Has the kernel attribute writeback to COMMAND, or says that it cannot.
pub(super) fn follow_writeback(transient: &mut Transient, options: &SessionArgs) -> Result<(), CliError> {
    if !transient.attribute_writeback()? && !options.quiet {
        eprintln!(
            "fault: buffered writes are hit when COMMAND syncs them, not when the kernel writes them back by itself: the \
             `io` and `memory` controllers of cgroup v2 are not available for COMMAND's cgroup"
        );
    }
    Ok(())
}

/// Whether there is a fault that the writeback of a buffered write may meet.
pub(super) fn hits_writes(plan: &Plan) -> bool {
    let is_write = |ops: u32| ops == 0 || ops & op::WRITE != 0;
    plan.rules
        .iter()
        .any(|planned| matches!(planned.fault, Fault::Disk(_)) && is_write(planned.rule.block.ops))
}

/// Waits for COMMAND without faults.
pub(super) async fn outlive(
    command: &Running,
    signals: &mut Signals,
) -> Result<crate::target::command::Ending, CliError> {
    loop {
        tokio::select! {
            ending = command.ended() => return Ok(ending?),
            number = signals.next() => { forward(command, number); }
        }
    }
}

/// A signal to the controller is meant for COMMAND. The session ends when COMMAND does.
pub(super) fn forward(command: &Running, number: i32) -> Option<End> {
    let Ok(signal) = Signal::try_from(number) else { return None };
    // Ctrl-C and a hang-up reach COMMAND by themselves when there is a terminal: it is in our process group.
    let from_terminal =
        matches!(signal, Signal::SIGINT | Signal::SIGHUP) && std::fs::File::open("/dev/tty").is_ok();
    if !from_terminal {
        // It may have ended meanwhile; `live` sees that next.
        drop(command.signal(signal));
    }
    None
}
