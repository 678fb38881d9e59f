//! `cargo xtask gallery`: plays the gallery in the VM and puts what it wrote into docs/gallery.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::program::{self, Place};
use crate::{host, parse_duration};

#[derive(Debug, clap::Args)]
pub struct GalleryArgs {
    /// Kill the VM after this long.
    #[arg(long, default_value = "45m", value_parser = parse_duration)]
    timeout: Duration,
    /// How many VMs share the work.
    #[arg(long, default_value_t = 2)]
    machines: usize,
    #[command(flatten)]
    machine: crate::MachineArgs,
    /// Only these scenarios.
    names: Vec<String>,
}

/// Plays them. Pages and plots of those that went as they must replace the old ones, whatever became of the others.
pub fn run(args: &GalleryArgs) -> Result<bool> {
    let results = program::results("fault-gallery", "fault")?.join("gallery");
    // Of an earlier run.
    if results.exists() {
        std::fs::remove_dir_all(&results).with_context(|| format!("removing {}", results.display()))?;
    }
    let passed = program::run(&program::Run {
        program: "fault-gallery",
        places: &[Place::Vm],
        timeout: args.timeout,
        machine: (&args.machine).into(),
        machines: args.machines,
        args: &args.names,
    })?;
    let pages = host::workspace().join("docs/gallery");
    host::make_dir(&pages)?;
    let copied = copy(&results, &pages)?;
    eprintln!("{copied} files written to {}; samples are in {}", pages.display(), results.display());
    Ok(passed)
}

/// Pages, plots and the histories that pages refer to; not samples. How many.
fn copy(from: &Path, to: &Path) -> Result<usize> {
    let mut copied = 0;
    let entries = std::fs::read_dir(from).with_context(|| format!("nothing in {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        let text = name.to_string_lossy();
        if [".md", ".svg", ".history.json"].iter().any(|ending| text.ends_with(ending)) {
            std::fs::copy(&path, to.join(name)).with_context(|| format!("copying {}", path.display()))?;
            copied += 1;
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stay_where_they_are() {
        let root = std::env::temp_dir().join(format!("xtask-gallery-{}", std::process::id()));
        let (from, to) = (root.join("from"), root.join("to"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        for name in ["a.md", "a.svg", "a.json", "a.history.json"] {
            std::fs::write(from.join(name), name).unwrap();
        }
        assert_eq!(copy(&from, &to).unwrap(), 3);
        assert!(to.join("a.svg").exists() && !to.join("a.json").exists());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
