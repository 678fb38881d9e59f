//! The end-to-end tests. Each ends with a residue check and a look at the kernel log.

mod loss;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::{kernel_log::KernelLog, residue::Picture};

/// Which kernel the tests run on; decides what must work and what must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lane {
    /// The machine's own kernel: packet loss must work, the rest is whatever `doctor` says.
    Native,
    /// Class A: everything.
    Fault,
    /// Class B: no kprobe override.
    FmodOnly,
    /// Class C, tcx.
    #[value(name = "debian-6.12")]
    Debian612,
    /// Class C, clsact.
    #[value(name = "debian-6.1")]
    Debian61,
}

impl Lane {
    /// Whether block faults work here.
    #[must_use]
    pub const fn has_block(self) -> bool {
        matches!(self, Self::Fault | Self::FmodOnly)
    }

    /// Whether packets can be delayed here.
    #[must_use]
    pub const fn has_packet_delay(self) -> bool {
        !matches!(self, Self::Native)
    }
}

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// `room::what_must_hold`.
    pub name: &'static str,
    /// Where it applies.
    pub on: fn(Lane) -> bool,
    /// What it does.
    pub run: fn(Lane) -> anyhow::Result<()>,
}

/// Runs all tests that apply to `lane`, one after the other, and returns the exit status.
#[must_use]
pub fn main(lane: Lane, mut arguments: Arguments) -> std::process::ExitCode {
    // Tests share one machine: pictures of it before and after would see each other.
    arguments.test_threads = Some(1);
    let trials = tests()
        .into_iter()
        .filter(|test| (test.on)(lane))
        .map(|test| Trial::test(test.name, move || guarded(&test, lane)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn tests() -> Vec<Test> {
    [loss::TESTS].concat()
}

fn guarded(test: &Test, lane: Lane) -> Result<(), Failed> {
    let run = || -> anyhow::Result<()> {
        let before = Picture::take()?;
        let mut log = KernelLog::from_now()?;
        let result = (test.run)(lane);
        let residue = before.must_return();
        let splats = log.must_be_clean();
        result.and(residue).and(splats)
    };
    run().map_err(|error| Failed::from(format!("{error:?}")))
}
