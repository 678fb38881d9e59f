//! `fault preset`: the catalogue of partial failures.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{args::PresetArgs, error::CliError, play};
use crate::{
    scenario::{
        Origin, outline,
        presets::{PRESETS, Preset, preset},
    },
    spec::nearest_word,
};

pub(super) fn main(arguments: &PresetArgs) -> Result<ExitCode, CliError> {
    let Some(name) = &arguments.name else { return print(&list()?) };
    let Some(preset) = preset(name) else {
        let nearest = nearest_word(name, PRESETS.iter().map(|preset| preset.name));
        return Err(CliError::NoPreset { name: name.clone(), nearest });
    };
    if arguments.show {
        return print(preset.text);
    }
    play::play(origin(preset), &arguments.parameters, &arguments.stage)
}

/// A line each.
fn list() -> Result<String, CliError> {
    let mut list = String::new();
    for preset in PRESETS {
        let (about, _) = outline(&origin(preset))?;
        list += &format!("{:<23} {}\n", preset.name, about.unwrap_or_default());
    }
    Ok(list)
}

fn origin(preset: &Preset) -> Origin {
    Origin { name: format!("preset {}", preset.name), text: preset.text.to_owned() }
}

fn print(text: &str) -> Result<ExitCode, CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
