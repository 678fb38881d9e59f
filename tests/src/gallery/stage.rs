//! What a scenario is given: a clock with phases, `fault` itself, and a place for what is found.

use anyhow::{Context as _, bail, ensure};

use super::{
    checks::Checks,
    record::{Phase, Record},
};
use crate::{
    driver::{self, Injection},
    process::Ended,
    victim::report::{Sample, now_ns},
};

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As much as the assertions need: among the end-to-end tests.
    Short,
    /// As much as makes a picture.
    Full,
}

impl Pace {
    /// One of two numbers.
    pub const fn of<T: Copy>(self, short: T, full: T) -> T {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}

/// A table of the page beside that of latencies.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of its columns.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// Where a scenario is played.
#[derive(Debug)]
pub struct Stage {
    /// How much of everything.
    pub pace: Pace,
    /// What users felt.
    pub record: Record,
    /// What held.
    pub checks: Checks,
    /// More than latencies.
    pub tables: Vec<Table>,
    /// Packages and their versions.
    pub versions: Vec<(String, String)>,
    /// The command lines, as somebody would type them.
    pub commands: Vec<String>,
    /// Files for the page's directory: endings of their names, and texts.
    pub beside: Vec<(String, String)>,
}

impl Stage {
    /// An empty one.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            record: Record::default(),
            checks: Checks::default(),
            tables: Vec::new(),
            versions: Vec::new(),
            commands: Vec::new(),
            beside: Vec::new(),
        }
    }

    /// A phase in which all is well.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn phase<T>(
        &mut self,
        name: &str,
        act: impl FnOnce() -> anyhow::Result<(T, Vec<Sample>)>,
    ) -> anyhow::Result<T> {
        self.any_phase(name, false, act)
    }

    /// A phase in which something is broken.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn hurt<T>(
        &mut self,
        name: &str,
        act: impl FnOnce() -> anyhow::Result<(T, Vec<Sample>)>,
    ) -> anyhow::Result<T> {
        self.any_phase(name, true, act)
    }

    fn any_phase<T>(
        &mut self,
        name: &str,
        hurt: bool,
        act: impl FnOnce() -> anyhow::Result<(T, Vec<Sample>)>,
    ) -> anyhow::Result<T> {
        let begin_ns = now_ns();
        let (result, samples) = act().with_context(|| format!("phase `{name}`"))?;
        let end_ns = now_ns();
        self.record.phases.push(Phase { name: name.to_owned(), begin_ns, end_ns, hurt });
        self.record.samples.extend(samples);
        Ok(result)
    }

    /// Starts `fault WORDS` and waits until it is active. What only this run knows (`NGINX`, a PID) is put in for its name
    /// as `known` says; the page shows the name.
    ///
    /// # Errors
    /// When it is not active in time.
    pub fn fault(&mut self, words: &[&str], known: &[(&str, &str)]) -> anyhow::Result<Injection> {
        self.fault_with(words, known, &[])
    }

    /// The same with options that are no part of the story.
    ///
    /// # Errors
    /// When it is not active in time.
    pub fn fault_with(
        &mut self,
        words: &[&str],
        known: &[(&str, &str)],
        options: &[&str],
    ) -> anyhow::Result<Injection> {
        let shown = shown(words);
        if !self.commands.contains(&shown) {
            self.commands.push(shown);
        }
        let mut words: Vec<String> = words.iter().map(|word| replaced(word, known)).collect();
        let mut file = None;
        if let [verb, path, ..] = words.as_mut_slice()
            && verb == "play"
        {
            // Where this runs, the repository need not be.
            let copy = tempfile::Builder::new().suffix(".toml").tempfile()?;
            std::fs::write(copy.path(), scenario(path)?)?;
            *path = copy.path().to_string_lossy().into_owned();
            file = Some(copy);
        }
        words.extend(options.iter().map(|&option| option.to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let started = Injection::start_verb(std::process::Command::new(driver::binary()), &words);
        // It has been read by now.
        drop(file);
        started
    }

    /// Remembers which version of a Debian package runs here.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn runs(&mut self, package: &str) -> anyhow::Result<()> {
        let ended =
            Ended::of(std::process::Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))?;
        ensure!(ended.status.success(), "is {package} installed? {}", ended.stderr);
        self.versions.push((package.to_owned(), ended.stdout.trim().to_owned()));
        Ok(())
    }
}

/// As one would type it.
fn shown(words: &[&str]) -> String {
    let typed =
        words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() });
    std::iter::once("fault".to_owned()).chain(typed).collect::<Vec<_>>().join(" ")
}

fn replaced(word: &str, known: &[(&str, &str)]) -> String {
    known.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value))
}

/// A file of `scenarios/` at the top of the repository.
fn scenario(path: &str) -> anyhow::Result<&'static str> {
    Ok(match path {
        "scenarios/payment.toml" => include_str!("../../../scenarios/payment.toml"),
        "scenarios/bad-sectors.toml" => include_str!("../../../scenarios/bad-sectors.toml"),
        "scenarios/failing-fsync.toml" => include_str!("../../../scenarios/failing-fsync.toml"),
        "scenarios/five-states.toml" => include_str!("../../../scenarios/five-states.toml"),
        "scenarios/slow-then-dead.toml" => include_str!("../../../scenarios/slow-then-dead.toml"),
        _ => bail!("no scenario {path}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_phase_leaves_nothing() {
        let mut stage = Stage::new(Pace::Short);
        let failed: anyhow::Result<()> = stage.phase("before", || bail!("no service"));
        assert!(failed.is_err() && stage.record.phases.is_empty());
        assert_eq!(stage.phase("before", || Ok((3, Vec::new()))).unwrap(), 3);
        assert_eq!(stage.record.phases.len(), 1);
    }

    #[test]
    fn what_only_the_run_knows_is_put_in() {
        assert_eq!(shown(&["play", "what=hang in"]), "fault play 'what=hang in'");
        assert_eq!(replaced("peer=127.0.0.1:PORT", &[("PORT", "80")]), "peer=127.0.0.1:80");
    }
}
