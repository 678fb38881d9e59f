//! From the text of a file to a [`Scenario`].

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use super::{
    Expectation, GIVEN, NamedTarget, Origin, Phase, Probe, SCENARIO_MAX_BYTES, SHORTEST_STEP_NS, Scenario,
    ScenarioError, Schedule, Text, TimedFault, nanoseconds,
    parameters::{parameters, parse},
    ramp,
    table::{Reader, Table, Value},
    targets::targets,
};
use crate::session::compile::{CompileError, compile};
use crate::spec::{self, Fault, Layer, Span, nearest_word};

/// How long a probe may take unless it says.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Reads a scenario. `values` are those of parameters, as given on the command line; `has_given` says whether that names a
/// target, or a command.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn read(origin: Origin, values: &[(String, String)], has_given: bool) -> Result<Scenario, ScenarioError> {
    let document = parse(&origin)?;
    let whole = Span::new(0, origin.text.find('\n').unwrap_or(origin.text.len()));
    let (none, room) = (BTreeMap::new(), Cell::new(SCENARIO_MAX_BYTES));
    let reader = Reader { origin: &origin, parameters: &none, room: &room };
    let mut top = reader.table("a scenario", whole, document.get_ref());
    let parameters = parameters(&mut top, &origin, values)?;
    let known = parameters.iter().map(|one| (one.name.clone(), one.value.clone())).collect();

    let reader = Reader { origin: &origin, parameters: &known, room: &room };
    let mut top = reader.table("a scenario", whole, document.get_ref());
    top.take("parameters");
    let mut reading =
        Reading { origin: &origin, targets: targets(&mut top, has_given)?, ..Reading::new(&origin) };
    let about = top.take("about").map(|value| value.text()).transpose()?.map(|text| text.value);
    let seed = top.take("seed").map(|value| value.number(0, u64::MAX)).transpose()?;
    let mut exceptions = Vec::new();
    for text in top.take("except").map(|value| value.texts()).transpose()?.unwrap_or_default() {
        let exception = spec::parse_exception(&text.value).map_err(|error| origin.spec(&text, &error))?;
        exceptions.push(exception);
    }
    let Some(phases) = top.take("phase") else {
        return Err(origin.wrong(whole, "a scenario without phases", "expected `[[phase]]`"));
    };
    for table in phases.tables("a phase")? {
        reading.phase(table)?;
    }
    let mut probes = Vec::new();
    for table in
        top.take("expect").map(|value| value.tables("an expectation")).transpose()?.unwrap_or_default()
    {
        probes.push(probe(table)?);
    }
    top.finish()?;
    let Reading { targets, phases, faults, .. } = reading;
    let scenario = Scenario {
        about,
        seed,
        parameters,
        targets,
        exceptions,
        phases,
        faults,
        probes,
        origin: origin.clone(),
    };
    Ok(scenario)
}

/// What has been read so far.
struct Reading<'a> {
    origin: &'a Origin,
    targets: Vec<NamedTarget>,
    phases: Vec<Phase>,
    faults: Vec<TimedFault>,
}

impl<'a> Reading<'a> {
    const fn new(origin: &'a Origin) -> Self {
        Self { origin, targets: Vec::new(), phases: Vec::new(), faults: Vec::new() }
    }

    fn phase(&mut self, mut table: Table<'a>) -> Result<(), ScenarioError> {
        let number = self.phases.len();
        let name = table.take("name").map(|value| value.text()).transpose()?;
        let name = name.map_or_else(|| format!("phase {}", number + 1), |text| text.value);
        let at = table.take("at").map(|value| value.duration(true)).transpose()?.map(nanoseconds);
        let at = match (at, self.phases.last()) {
            (Some(at), _) => at,
            (None, None) => 0,
            (None, Some(last)) => last.schedule.end().ok_or_else(|| {
                let label = format!("`at` is missing: phase `{}` before it has no end", last.name);
                table.wrong(format!("nobody knows when phase `{name}` begins"), label)
            })?,
        };
        let length = table.take("for").map(|value| value.duration(false)).transpose()?.map(nanoseconds);
        let every = table.take("every");
        let repeat = table.take("repeat");
        let mut schedule = Schedule { at, length, every: None, times: None, ramp: None };
        if let Some(value) = &every {
            let every = nanoseconds(value.duration(false)?);
            let Some(length) = length else {
                return Err(value.wrong("`every` without `for`", "expected how long each time lasts, too"));
            };
            if every < length {
                return Err(
                    value.wrong("`every` is shorter than `for`", "the next time begins before this one ends")
                );
            }
            if every < SHORTEST_STEP_NS {
                return Err(value.wrong("`every` is too short", "at least 10 ms: \"10ms\""));
            }
            schedule.every = Some(every);
        }
        if let Some(value) = &repeat {
            schedule.times = Some(value.number(1, 1_000_000_000)?);
            if every.is_none() {
                return Err(value
                    .wrong("`repeat` without `every`", "expected the time from one beginning to the next"));
            }
        }
        let target = table.take("target").map(|value| value.text()).transpose()?;
        let faults =
            table.take("faults").map(|value| value.tables("a fault")).transpose()?.unwrap_or_default();
        table.finish()?;
        self.phases.push(Phase { name, schedule });
        for fault in faults {
            self.fault(fault, number, schedule, target.as_ref())?;
        }
        Ok(())
    }

    fn fault(
        &mut self,
        mut table: Table<'a>,
        phase: usize,
        mut schedule: Schedule,
        target: Option<&Text>,
    ) -> Result<(), ScenarioError> {
        let origin = self.origin;
        let mut specs = Vec::new();
        for &layer in Layer::ALL {
            if let Some(value) = table.take(layer.name()) {
                specs.push((layer, value));
            }
        }
        let ramp_to = table.take("ramp-to");
        let over = table.take("over");
        let own = table.take("target").map(|value| value.text()).transpose()?;
        let expect = table.take("expect").map(|value| value.texts()).transpose()?.unwrap_or_default();
        let span = table.span;
        table.finish()?;
        let [(layer, value)] = specs.as_slice() else {
            return Err(origin.wrong(
                span,
                "a fault is one spec",
                "expected `net`, `disk`, `file` or `proc`, one of them",
            ));
        };
        let text = value.text()?;
        let read = |text: &Text| spec::parse(*layer, &text.value).map_err(|error| origin.spec(text, &error));
        let fault = read(&text)?;
        let refused = |text: &Text, error: &CompileError| {
            // Its number is that of the fault among those compiled, which is one.
            let reason = error.to_string();
            let reason = reason.strip_prefix("fault 0: ").unwrap_or(&reason);
            origin.wrong(text.span, "this fault cannot be compiled", reason)
        };
        compile(0, &fault, None).map_err(|error| refused(&text, &error))?;
        self.window(&fault, &text, &mut schedule)?;
        let mut becomes = None;
        if let Some(value) = &ramp_to {
            let to_text = value.text()?;
            let to = read(&to_text)?;
            let turns = ramp::turns(&fault, &to).map_err(|error| refused(&to_text, &error))?;
            if turns.is_none() {
                let label = "expected the same fault with another delay, jitter, rate or probability";
                return Err(origin.wrong(to_text.span, "no ramp leads from the one to the other", label));
            }
            let over = over.as_ref().map(|value| value.duration(false)).transpose()?.map(nanoseconds);
            schedule.ramp = Some(over.or(schedule.length).ok_or_else(|| {
                origin.wrong(value.span, "a ramp without an end", "expected `over`, or `for` in its phase")
            })?);
            if let (Some(length), Some(ramp)) = (schedule.length, schedule.ramp)
                && ramp > length
            {
                let span = over_span(&ramp_to, value.span);
                return Err(origin.wrong(
                    span,
                    "this ramp does not arrive",
                    "the fault is over before `over` is",
                ));
            }
            becomes = Some(to);
        } else if let Some(value) = &over {
            return Err(value.wrong("`over` without `ramp-to`", "expected what the fault becomes, too"));
        }
        let target = self.target(own.as_ref().or(target), span)?;
        let expect: Result<Vec<_>, _> = expect.iter().map(|text| Expectation::read(origin, text)).collect();
        self.faults.push(TimedFault { fault, becomes, target, phase, schedule, expect: expect?, text });
        Ok(())
    }

    /// The `after` and `for` of a spec are about its phase, every time.
    fn window(&self, fault: &Fault, text: &Text, schedule: &mut Schedule) -> Result<(), ScenarioError> {
        let trigger = fault.trigger();
        let after = trigger.after.map_or(0, nanoseconds);
        if schedule.length.is_some_and(|length| after >= length) {
            let label = "its phase is over before `after` is";
            return Err(self.origin.wrong(text.span, "this fault never comes into force", label));
        }
        if trigger.cycle.is_some() && schedule.every.is_some() {
            let label = "`cycle` in a phase that begins again: give it a phase of its own";
            return Err(self.origin.wrong(text.span, "a cycle within a cycle", label));
        }
        schedule.at = schedule.at.saturating_add(after);
        let left = schedule.length.map(|length| length - after);
        let window = trigger.window.map(nanoseconds);
        schedule.length = match (left, window) {
            (Some(left), Some(window)) => Some(left.min(window)),
            (left, window) => left.or(window),
        };
        Ok(())
    }

    fn target(&self, name: Option<&Text>, span: Span) -> Result<usize, ScenarioError> {
        let names = || self.targets.iter().map(|target| target.name.as_str());
        let Some(name) = name else {
            // The one that was given comes first.
            return match names().collect::<Vec<_>>().as_slice() {
                [GIVEN, ..] | [_] => Ok(0),
                [] => Err(self.nobody(span)),
                several => {
                    let several: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
                    let label = format!("expected `target`: one of {}", several.join(", "));
                    Err(self.origin.wrong(span, "nobody knows whom this fault aims at", label))
                }
            };
        };
        names().position(|one| one == name.value).ok_or_else(|| {
            if name.value == GIVEN {
                return self.nobody(name.span);
            }
            let error = self.origin.wrong(
                name.span,
                format!("unknown target `{}`", name.value),
                "not in `[targets]`",
            );
            error.did_you_mean(nearest_word(&name.value, names()))
        })
    }

    fn nobody(&self, span: Span) -> ScenarioError {
        let error =
            self.origin.wrong(span, "there is no target", "it aims at the target of the command line");
        error.with_help(
            "add `--pid PID`, `--cgroup PATH` or `-- COMMAND`, or name one in the file: `[targets.NAME]`",
        )
    }
}

fn over_span(ramp_to: &Option<Value<'_>>, otherwise: Span) -> Span {
    ramp_to.as_ref().map_or(otherwise, |value| value.span)
}

fn probe(mut table: Table<'_>) -> Result<Probe, ScenarioError> {
    let Some(run) = table.take("run") else {
        return Err(table.wrong("an expectation without a command", "expected `run`"));
    };
    // A line is the shell's, a list is as it stands.
    let run = match run.elements() {
        Some(_) => run.texts()?.into_iter().map(|text| text.value).collect(),
        None => ["sh".to_owned(), "-c".to_owned(), run.text()?.value].to_vec(),
    };
    if run.is_empty() {
        return Err(table.wrong("an expectation without a command", "`run` is empty"));
    }
    let text = |value: Option<Value<'_>>| {
        value.map(|value| value.text()).transpose().map(|text| text.map(|text| text.value))
    };
    let probe = Probe {
        run,
        at: table.take("at").map(|value| value.duration(true)).transpose()?,
        status: match table.take("status") {
            Some(value) => u8::try_from(value.number(0, 255)?).unwrap_or(u8::MAX),
            None => 0,
        },
        stdout: text(table.take("stdout"))?,
        stdout_has: text(table.take("stdout-has"))?,
        within: table
            .take("within")
            .map(|value| value.duration(false))
            .transpose()?
            .unwrap_or(PROBE_PATIENCE),
    };
    table.finish()?;
    Ok(probe)
}
