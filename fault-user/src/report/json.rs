//! `--json`: one object when the session has ended.

use super::{
    SessionReport,
    output::{Destination, OutputError},
};

/// The object, one line for each field that holds something of its own, and a newline.
#[must_use]
pub fn render(report: &SessionReport) -> String {
    // Strings, numbers and maps with string keys: nothing serde_json could refuse.
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}

/// Writes the object to `destination`: to a file all at once, so that a reader never sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn write(report: &SessionReport, destination: &Destination) -> Result<(), OutputError> {
    destination.write("the report", render(report).as_bytes())
}
