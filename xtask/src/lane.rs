//! The kernels everything is tested on.

use clap::ValueEnum;

/// One kernel to boot. See DESIGN.md §6 for what each stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lane {
    /// Built here, both block backends: everything must work.
    Fault,
    /// Same tree without kprobe override: only the fmod_ret backend.
    FmodOnly,
    /// Debian's stock 6.12: packets work, block faults are refused honestly.
    #[value(name = "debian-6.12")]
    Debian612,
    /// Debian's stock 6.1: no tcx, clsact instead.
    #[value(name = "debian-6.1")]
    Debian61,
}

impl Lane {
    /// Every lane, in the order they are tested.
    pub const ALL: [Self; 4] = [Self::Fault, Self::FmodOnly, Self::Debian612, Self::Debian61];

    /// The name on the command line, in directory names and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::FmodOnly => "fmod-only",
            Self::Debian612 => "debian-6.12",
            Self::Debian61 => "debian-6.1",
        }
    }

    /// Where its kernel comes from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Fault => Origin::Built { overrides: &[] },
            Self::FmodOnly => Origin::Built { overrides: &[("CONFIG_BPF_KPROBE_OVERRIDE", "n")] },
            Self::Debian612 => Origin::Debian { series: "6.12." },
            Self::Debian61 => Origin::Debian { series: "6.1.0-" },
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How to come by a lane's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Compiled from the distribution's source with our fragment, then these options on top.
    Built {
        /// Option and value, applied after the fragment.
        overrides: &'static [(&'static str, &'static str)],
    },
    /// A package of the configured apt sources, unpacked and never installed.
    Debian {
        /// What follows `linux-image-` in the package's name.
        series: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_str(lane.name(), false), Ok(lane));
        }
    }
}
