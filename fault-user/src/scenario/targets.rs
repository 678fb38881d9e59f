//! `[targets.NAME]`: whom faults aim at.

use super::{
    GIVEN, NamedTarget, ScenarioError,
    table::{Table, Value},
};

/// The targets; one that was given comes first.
pub(super) fn targets(top: &mut Table<'_>, has_given: bool) -> Result<Vec<NamedTarget>, ScenarioError> {
    let given = NamedTarget {
        name: GIVEN.to_owned(),
        pids: Vec::new(),
        cgroups: Vec::new(),
        only: false,
        span: top.span,
    };
    let mut targets: Vec<NamedTarget> = has_given.then_some(given).into_iter().collect();
    let Some(named) = top.take("targets") else { return Ok(targets) };
    for (name, value) in named.table("the targets")?.rest() {
        let mut table = value.table("a target")?;
        if name.value == GIVEN {
            let sentence = format!("`{GIVEN}` is the target of the command line");
            return Err(value.wrong(sentence, "expected another name"));
        }
        let mut pids = Vec::new();
        if let Some(value) = table.take("pid") {
            let pid = |value: &Value<'_>| value.number(1, 1 << 22);
            let found: Result<Vec<u64>, _> = match value.elements() {
                Some(elements) => elements.iter().map(pid).collect(),
                None => pid(&value).map(|pid| vec![pid]),
            };
            pids = found?.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect();
        }
        let cgroups = table.take("cgroup").map(|value| value.texts()).transpose()?.unwrap_or_default();
        let cgroups = cgroups.into_iter().map(|text| text.value.into()).collect::<Vec<_>>();
        let only = table.take("only").map(|value| value.is_true()).transpose()?.unwrap_or(false);
        table.finish()?;
        if pids.is_empty() && cgroups.is_empty() {
            let sentence = format!("target `{}` is nobody", name.value);
            return Err(value.wrong(sentence, "expected `pid` or `cgroup`"));
        }
        targets.push(NamedTarget { name: name.value, pids, cgroups, only, span: name.span });
    }
    Ok(targets)
}
