//! The commands of the README and of pages of the documentation are run as they stand.

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::driver::binary;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "docs::readme_commands_run", on: has_everything, run: readme_commands_run },
    Test { name: "docs::commands_about_targets_run", on: has_everything, run: commands_about_targets_run },
    Test {
        name: "docs::commands_about_clients_run",
        on: Lane::tests_the_controller,
        run: commands_about_clients_run,
    },
    Test {
        name: "docs::commands_about_files_run",
        on: Lane::tests_disks_in_detail,
        run: commands_about_files_run,
    },
    Test {
        name: "docs::the_live_view_is_asked",
        on: Lane::tests_the_controller,
        run: the_live_view_is_asked,
    },
    Test { name: "docs::the_service_is_asked", on: Lane::tests_the_controller, run: the_service_is_asked },
    Test { name: "docs::scenarios_are_played", on: Lane::tests_packets, run: scenarios_are_played },
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

/// The files of a page: `toml` blocks that begin with their name, `# outage.toml`.
fn files(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter_map(|block| Some((block.strip_prefix("# ")?.lines().next()?, block))).collect()
}

fn readme_commands_run(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../README.md"), 3)
}

fn commands_about_targets_run(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/targets.md"), 1)
}

fn commands_about_clients_run(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/clients.md"), 1)
}

fn commands_about_files_run(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/files.md"), 2)
}

fn the_live_view_is_asked(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/top.md"), 2)
}

fn the_service_is_asked(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/service.md"), 2)
}

fn scenarios_are_played(_: Lane) -> anyhow::Result<()> {
    commands_run(include_str!("../../../docs/scenarios.md"), 3)
}

/// Runs the at least `least` scripts of a page where its files are.
fn commands_run(page: &str, least: usize) -> anyhow::Result<()> {
    let scripts = scripts(page);
    ensure!(scripts.len() >= least, "the page lost its examples");
    let here = tempfile::TempDir::new()?;
    for (name, text) in files(page) {
        std::fs::write(here.path().join(name), text)?;
    }
    let directory = binary().parent().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap_or_default());
    for script in scripts {
        let output = std::process::Command::new("sh")
            .args(["-e", "-c", &script])
            .env("PATH", &path)
            .current_dir(here.path())
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
