//! What a run found to be so. The first thing that is not so ends the scenario.

use std::fmt::Display;

use anyhow::bail;

use crate::stats;

/// The sentences that held, for the page.
#[derive(Clone, Debug, Default)]
pub struct Checks(Vec<String>);

impl Checks {
    /// `what` must hold.
    ///
    /// # Errors
    /// When it does not.
    pub fn that(&mut self, what: impl Into<String>, holds: bool) -> anyhow::Result<()> {
        let what = what.into();
        if !holds {
            bail!("not so: {what}");
        }
        self.0.push(what);
        Ok(())
    }

    /// The number must be this one.
    ///
    /// # Errors
    /// When it is another.
    pub fn equal<T: PartialEq + Display>(&mut self, what: &str, found: T, expected: T) -> anyhow::Result<()> {
        if found != expected {
            bail!("{what}: {found}, and not {expected}");
        }
        self.0.push(format!("{what}: {found}"));
        Ok(())
    }

    /// `hits` of `trials` must be what chance `p` gives.
    ///
    /// # Errors
    /// When the exact binomial test rejects it.
    pub fn binomial(&mut self, what: &str, hits: usize, trials: usize, p: f64) -> anyhow::Result<()> {
        stats::binomial(what, hits as u64, trials as u64, p).map_err(anyhow::Error::msg)?;
        self.0.push(format!(
            "{what}: {hits} of {trials}, which a chance of {:.0} % gives (exact binomial test)",
            p * 100.0
        ));
        Ok(())
    }

    /// All that held.
    #[must_use]
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_so_is_an_error_and_no_sentence() {
        let mut checks = Checks::default();
        assert!(checks.that("so", true).is_ok());
        assert!(checks.that("not so", false).is_err());
        assert!(checks.equal("rows", 3, 3).is_ok());
        assert!(checks.equal("rows", 3, 4).is_err());
        assert!(checks.binomial("hit", 1, 1000, 0.5).is_err());
        assert_eq!(checks.sentences(), ["so", "rows: 3"]);
    }
}
