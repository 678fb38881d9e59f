//! `[targets.NAME]`: whom faults aim at.

use super::{
    GIVEN, NamedTarget, ScenarioError,
    table::{Table, Value},
};
use crate::target::TargetRequest;

/// The targets; one that was given comes first.
pub(super) fn targets(top: &mut Table<'_>, has_given: bool) -> Result<Vec<NamedTarget>, ScenarioError> {
    let given = NamedTarget { name: GIVEN.to_owned(), requests: Vec::new(), only: false, span: top.span };
    let mut targets: Vec<NamedTarget> = has_given.then_some(given).into_iter().collect();
    let Some(named) = top.take("targets") else { return Ok(targets) };
    for (name, value) in named.table("the targets")?.rest() {
        let mut table = value.table("a target")?;
        if name.value == GIVEN {
            let sentence = format!("`{GIVEN}` is the target of the command line");
            return Err(value.wrong(sentence, "expected another name"));
        }
        let mut requests = Vec::new();
        if let Some(value) = table.take("pid") {
            let pid = |value: &Value<'_>| value.number(1, 1 << 22);
            let found: Result<Vec<u64>, _> = match value.elements() {
                Some(elements) => elements.iter().map(pid).collect(),
                None => pid(&value).map(|pid| vec![pid]),
            };
            let pids = found?.into_iter().filter_map(|pid| u32::try_from(pid).ok());
            requests.extend(pids.map(TargetRequest::Pid));
        }
        let mut texts = |key| -> Result<Vec<String>, ScenarioError> {
            let texts = table.take(key).map(|value| value.texts()).transpose()?.unwrap_or_default();
            Ok(texts.into_iter().map(|text| text.value).collect())
        };
        requests.extend(texts("cgroup")?.into_iter().map(|path| TargetRequest::Cgroup(path.into())));
        requests.extend(texts("container")?.into_iter().map(TargetRequest::Container));
        requests.extend(texts("unit")?.into_iter().map(TargetRequest::Unit));
        requests.extend(texts("comm")?.into_iter().map(TargetRequest::Comm));
        let only = table.take("only").map(|value| value.is_true()).transpose()?.unwrap_or(false);
        table.finish()?;
        if requests.is_empty() {
            let sentence = format!("target `{}` is nobody", name.value);
            return Err(value.wrong(sentence, "expected `pid`, `cgroup`, `container`, `unit` or `comm`"));
        }
        targets.push(NamedTarget { name: name.value, requests, only, span: name.span });
    }
    Ok(targets)
}
