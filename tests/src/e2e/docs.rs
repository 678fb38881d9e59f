//! The commands of the README and of other pages are run as they stand.

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::driver::binary;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "docs::readme_commands_run", on: has_everything, run: readme_commands_run },
    Test { name: "docs::commands_about_targets_run", on: has_everything, run: commands_about_targets_run },
];

fn has_everything(lane: Lane) -> bool {
    lane.has_block() && lane.has_packet_delay()
}

/// The `console` blocks of a page, each as one script of its `$ ` lines.
fn scripts(page: &str) -> Vec<String> {
    page.split("```console\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(|block| {
            block.lines().filter_map(|line| line.strip_prefix("$ ")).map(|line| format!("{line}\n")).collect()
        })
        .collect()
}

fn readme_commands_run(_: Lane) -> anyhow::Result<()> {
    let scripts = scripts(include_str!("../../../README.md"));
    ensure!(scripts.len() >= 3, "the README lost its examples");
    run(scripts)
}

fn commands_about_targets_run(_: Lane) -> anyhow::Result<()> {
    let scripts = scripts(include_str!("../../../docs/targets.md"));
    ensure!(!scripts.is_empty(), "the page lost its examples");
    run(scripts)
}

fn run(scripts: Vec<String>) -> anyhow::Result<()> {
    let directory = binary().parent().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap_or_default());
    for script in scripts {
        let output = std::process::Command::new("sh")
            .args(["-e", "-c", &script])
            .env("PATH", &path)
            .stdin(std::process::Stdio::null())
            .output()
            .with_context(|| script.clone())?;
        ensure!(
            output.status.success(),
            "{script}ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
