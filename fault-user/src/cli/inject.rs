//! `fault inject`: hit what already runs.

use std::{process::ExitCode, sync::Arc};

use super::{
    args::{AimArgs, InjectArgs},
    error::CliError,
    finish, session,
};
use crate::{
    exit::Class,
    session::{End, active::Signals, keeper::Keeper},
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
    let mut active = session::arm(session::request(plan, target, options, keeper)?)?.activate()?;
    session::announce(active.plan(), &words, options);
    let never = std::future::pending::<()>();
    let finished = active.live(&mut signals, never, |number| Some(End::Signal(number))).await;
    let (end, trouble) = match finished {
        Ok(finished) => (finished.end, None),
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
