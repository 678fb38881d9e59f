//! Tables of the file, key by key; what nobody asked for is an unknown key.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    SCENARIO_MAX_BYTES,
    error::{Origin, ScenarioError},
    text::{ExpandError, Text},
};
use crate::spec::{Flaw, Span, nearest_word, read_duration};

/// What all tables of a file share.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) origin: &'a Origin,
    /// What `${NAME}` stands for.
    pub(super) parameters: &'a BTreeMap<String, String>,
    /// How many bytes parameters may still put in.
    pub(super) room: &'a Cell<usize>,
}

/// A table of the file.
pub(super) struct Table<'a> {
    reader: Reader<'a>,
    /// `a phase`.
    what: &'static str,
    /// Where it begins.
    pub(super) span: Span,
    entries: Vec<(Text, &'a Spanned<DeValue<'a>>)>,
    asked: Vec<&'static str>,
}

/// The value of a key, or of an element of a list.
pub(super) struct Value<'a> {
    reader: Reader<'a>,
    /// Of the key.
    pub(super) name: String,
    /// Of the value.
    pub(super) span: Span,
    value: &'a DeValue<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn table(self, what: &'static str, span: Span, table: &'a DeTable<'a>) -> Table<'a> {
        let text = &self.origin.text;
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| (Text::new(text, key.span().into(), key.get_ref()), value))
            .collect();
        // In the order of the file: the first mistake is the one that is told.
        entries.sort_by_key(|(key, _)| key.span.start);
        Table { reader: self, what, span, entries, asked: Vec::new() }
    }
}

impl<'a> Table<'a> {
    /// The value of `key`, which is a key of such tables.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        let place = self.entries.iter().position(|(name, _)| name.value == key)?;
        let (name, value) = self.entries.remove(place);
        Some(Value::new(self.reader, name.value, value))
    }

    /// Every key that is left, with its value: for tables whose keys are names.
    pub(super) fn rest(self) -> Vec<(Text, Value<'a>)> {
        let reader = self.reader;
        self.entries
            .into_iter()
            .map(|(name, value)| {
                let value = Value::new(reader, name.value.clone(), value);
                (name, value)
            })
            .collect()
    }

    /// `sentence`, pointing at the table.
    pub(super) fn wrong(&self, sentence: impl Into<String>, label: impl Into<String>) -> ScenarioError {
        self.reader.origin.wrong(self.span, sentence, label)
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), ScenarioError> {
        let Some((key, _)) = self.entries.first() else { return Ok(()) };
        let sentence = format!("unknown key `{}`", key.value);
        let asked: Vec<String> = self.asked.iter().map(|key| format!("`{key}`")).collect();
        let label = format!("{} has {}", self.what, asked.join(", "));
        let nearest = nearest_word(&key.value, self.asked.iter().copied());
        Err(self.reader.origin.wrong(key.span, sentence, label).did_you_mean(nearest))
    }
}

impl<'a> Value<'a> {
    fn new(reader: Reader<'a>, name: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { reader, name, span: value.span().into(), value: value.get_ref() }
    }

    pub(super) fn wrong(&self, sentence: impl Into<String>, label: impl Into<String>) -> ScenarioError {
        self.reader.origin.wrong(self.span, sentence, label)
    }

    fn not(&self, expected: &str) -> ScenarioError {
        self.wrong(format!("`{}` is {}", self.name, self.kind()), format!("expected {expected}"))
    }

    const fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// A string, as it stands.
    pub(super) fn verbatim(&self) -> Result<Text, ScenarioError> {
        let DeValue::String(value) = self.value else { return Err(self.not("a string in quotes")) };
        Ok(Text::new(&self.reader.origin.text, self.span, value))
    }

    /// A string, with its parameters put in.
    pub(super) fn text(&self) -> Result<Text, ScenarioError> {
        let text = self.verbatim()?;
        let parameters = self.reader.parameters;
        let value_of = |name: &str| parameters.get(name).map(String::as_str);
        text.expand(value_of, self.reader.room).map_err(|error| match error {
            ExpandError::Unknown { name, span } => {
                let names = parameters.keys().map(String::as_str);
                let label = "not in `[parameters]`";
                let error = self.reader.origin.wrong(span, format!("unknown parameter `{name}`"), label);
                error.did_you_mean(nearest_word(&name, names))
            }
            ExpandError::TooMuch { span } => self.reader.origin.wrong(
                span,
                format!("what parameters stand for is longer than {} MiB in all", SCENARIO_MAX_BYTES >> 20),
                "no room for this one: use shorter values, or fewer of them",
            ),
        })
    }

    /// A string, or a list of strings.
    pub(super) fn texts(&self) -> Result<Vec<Text>, ScenarioError> {
        match self.elements() {
            Some(elements) => elements.iter().map(Self::text).collect(),
            None => Ok(vec![self.text()?]),
        }
    }

    /// The elements of a list.
    pub(super) fn elements(&self) -> Option<Vec<Self>> {
        let DeValue::Array(elements) = self.value else { return None };
        Some(elements.iter().map(|element| Self::new(self.reader, self.name.clone(), element)).collect())
    }

    /// A duration of the spec language; zero only where that is allowed.
    pub(super) fn duration(&self, zero: bool) -> Result<Duration, ScenarioError> {
        if matches!(self.value, DeValue::Integer(_)) {
            return Err(self.wrong(format!("`{}` has no unit", self.name), "expected a duration: \"10s\""));
        }
        let text = self.text()?;
        let expected = "expected a duration: \"10s\", \"1m30s\", \"500ms\"";
        match read_duration(&text.value) {
            Ok(Duration::ZERO) if !zero => {
                Err(self.wrong(format!("`{}` is nothing", self.name), "must be longer than zero"))
            }
            Ok(duration) if duration > super::LONGEST => {
                Err(self.wrong(format!("`{}` is too long", self.name), "at most a year: \"365d\""))
            }
            Ok(duration) => Ok(duration),
            Err(Flaw::NoUnit) => Err(self.wrong(format!("`{}` has no unit", text.value), expected)),
            Err(_) => Err(self.wrong(format!("`{}` is no duration", text.value), expected)),
        }
    }

    /// A whole number, also as a string (a parameter may stand for it).
    pub(super) fn number(&self, least: u64, most: u64) -> Result<u64, ScenarioError> {
        let range = format!("a whole number from {least} to {most}");
        let number = match self.value {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(_) => self.text()?.value.parse().ok(),
            DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return Err(self.not(&range)),
        };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            self.wrong(format!("`{}` is out of range", self.name), format!("expected {range}"))
        })
    }

    /// `true` or `false`.
    pub(super) fn is_true(&self) -> Result<bool, ScenarioError> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => Err(self.not("true or false")),
        }
    }

    /// A table.
    pub(super) fn table(&self, what: &'static str) -> Result<Table<'a>, ScenarioError> {
        let DeValue::Table(table) = self.value else { return Err(self.not(&format!("{what}: a table"))) };
        Ok(self.reader.table(what, self.span, table))
    }

    /// A list of tables, `[[name]]` or `name = [{ … }, …]`.
    pub(super) fn tables(&self, what: &'static str) -> Result<Vec<Table<'a>>, ScenarioError> {
        let Some(elements) = self.elements() else {
            return Err(self.not(&format!("a list of tables: `[[{}]]`", self.name)));
        };
        elements.iter().map(|element| element.table(what)).collect()
    }
}
