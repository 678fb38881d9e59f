//! `fault inject`: hit what already runs.

use std::{process::ExitCode, sync::Arc};

use super::{
    args::{AimArgs, InjectArgs},
    error::CliError,
    finish,
    leash::Leash,
    session,
};
use crate::{
    exit::Class,
    session::{
        End,
        active::{Finished, Signals},
        keeper::Keeper,
    },
    target::Target,
};

pub(super) fn main(arguments: &InjectArgs) -> Result<ExitCode, CliError> {
    let plan = session::plan(&arguments.faults, &arguments.options)?;
    if arguments.options.dry_run {
        let target = target(&arguments.aim, [])?;
        let plan = plan.spare(target.lifelines())?;
        return session::dry_run(&plan, &target, &target.to_string());
    }
    session::require_root()?;
    session::check_outputs(&arguments.options)?;
    let keeper = Arc::new(Keeper::fork()?);
    session::runtime()?.block_on(inject(arguments, plan, &keeper))
}

async fn inject(
    arguments: &InjectArgs,
    plan: crate::session::plan::Plan,
    keeper: &Arc<Keeper>,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::catch().map_err(CliError::Runtime)?;
    let target = target(&arguments.aim, [keeper.pid()])?;
    target.confirm(arguments.aim.yes)?;
    let plan = plan.spare(target.lifelines())?;
    let words = target.to_string();
    let options = &arguments.options;
    session::tell_unborn(&target, options)?;
    session::tell_unmatched(&plan, &target, options)?;
    let leash = arguments.until_eof.then(Leash::take).transpose()?;
    let mut active = session::arm(session::request(plan, target, options, keeper)?)?.activate()?;
    if options.report.is_some() {
        active.record();
    }
    session::announce(&active, &words, options);
    let released = async {
        match leash {
            Some(leash) => leash.ended().await,
            None => std::future::pending().await,
        }
    };
    let finished = active.live(&mut signals, released, |number| Some(End::Signal(number))).await;
    let (end, trouble) = match finished {
        Ok(Finished { command: Some(()), .. }) => (End::Released, None),
        Ok(Finished { end, command: None }) => (end, None),
        Err(error) => (End::Trouble, Some(error)),
    };
    let mut healed = active.heal(end).await;
    healed.troubles.extend(trouble);
    finish::report(&healed, finish::Subject { target: words, command: None, ending: None }, options)?;
    let clean = healed.troubles.is_empty() && !matches!(end, End::Stalled(_));
    Ok(if clean { ExitCode::SUCCESS } else { Class::Other.into() })
}

/// Who suffers; `helpers` never do.
pub(super) fn target(aim: &AimArgs, helpers: impl IntoIterator<Item = u32>) -> Result<Target, CliError> {
    let mut target = Target::nobody(helpers);
    target.descendants = !aim.only;
    for request in aim.target.requests() {
        target.add(&request)?;
    }
    Ok(target)
}
