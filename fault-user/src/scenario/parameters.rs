//! `[parameters]`: what `${NAME}` stands for.

use std::{cell::Cell, collections::BTreeMap};

use toml::{Spanned, de::DeTable};

use super::{
    Origin, Parameter, SCENARIO_MAX_BYTES, ScenarioError, Text,
    table::{Reader, Table},
};
use crate::spec::{Span, nearest_word};

/// What a scenario says about itself: in one line, and its parameters, which need not have values.
///
/// # Errors
/// When it is no scenario, as far as that.
pub fn outline(origin: &Origin) -> Result<(Option<String>, Vec<Outlined>), ScenarioError> {
    let document = parse(origin)?;
    let (none, room) = (BTreeMap::new(), Cell::new(0));
    let reader = Reader { origin, parameters: &none, room: &room };
    let mut top = reader.table("a scenario", Span::default(), document.get_ref());
    // Its parameters may have no values yet.
    let about = top.take("about").map(|value| value.verbatim()).transpose()?.map(|text| text.value);
    let declared = declared(&mut top)?;
    Ok((about, declared.into_iter().map(|(_, outlined)| outlined).collect()))
}

/// A parameter, as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlined {
    /// Its name.
    pub name: String,
    /// Its value unless another one is given.
    pub default: Option<String>,
    /// In one line.
    pub about: Option<String>,
}

pub(super) fn parse(origin: &Origin) -> Result<Spanned<DeTable<'_>>, ScenarioError> {
    if origin.text.len() > SCENARIO_MAX_BYTES {
        return Err(origin.too_long());
    }
    DeTable::parse(&origin.text).map_err(|error| {
        let span = error.span().map_or(Span::default(), Span::from);
        // The first line is the sentence; what follows is about the document as toml would show it.
        let sentence = error.message().lines().next().unwrap_or_default().to_owned();
        origin.wrong(span, sentence, "not TOML from here on")
    })
}

/// `[parameters]`, each with its name in the file.
fn declared(top: &mut Table<'_>) -> Result<Vec<(Text, Outlined)>, ScenarioError> {
    let Some(table) = top.take("parameters") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (name, value) in table.table("the parameters")?.rest() {
        let mut about = None;
        let default = if let Ok(text) = value.text() {
            Some(text.value)
        } else {
            let mut table = value.table("a parameter")?;
            about = table.take("about").map(|value| value.text()).transpose()?.map(|text| text.value);
            let default = table.take("default").map(|value| value.text()).transpose()?;
            table.finish()?;
            default.map(|text| text.value)
        };
        let outlined = Outlined { name: name.value.clone(), default, about };
        found.push((name, outlined));
    }
    Ok(found)
}

pub(super) fn parameters(
    top: &mut Table<'_>,
    origin: &Origin,
    values: &[(String, String)],
) -> Result<Vec<Parameter>, ScenarioError> {
    let mut parameters = Vec::new();
    let mut span = Span::default();
    for (place, Outlined { name, default, about }) in declared(top)? {
        span = span.to(place.span);
        let given = values.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let Some(value) = given.or_else(|| default.clone()) else {
            let about = about.map_or_else(String::new, |about| format!(" ({about})"));
            let error = origin.wrong(place.span, format!("parameter `{name}` has no value"), "no `default`");
            return Err(error.with_help(format!("give it one: {name}=VALUE{about}")));
        };
        parameters.push(Parameter { name, value, default, about });
    }
    if let Some((name, _)) = values.iter().find(|(name, _)| parameters.iter().all(|one| one.name != *name)) {
        let names = || parameters.iter().map(|one: &Parameter| one.name.as_str());
        let label = match names().map(|name| format!("`{name}`")).collect::<Vec<_>>() {
            none if none.is_empty() => "the scenario has no parameters".to_owned(),
            names => format!("the parameters are {}", names.join(", ")),
        };
        let error = origin.wrong(span, format!("unknown parameter `{name}`"), label);
        return Err(error.did_you_mean(nearest_word(name, names())));
    }
    Ok(parameters)
}
