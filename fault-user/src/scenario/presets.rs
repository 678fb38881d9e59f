//! The catalogue: scenarios that are part of the binary.

/// A scenario of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// The scenario: a TOML file.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal)*) => {
        &[$(Preset { name: $name, text: include_str!(concat!("../../../presets/", $name, ".toml")) }),*]
    };
}

/// All of them, in the order of docs/presets.
pub const PRESETS: &[Preset] = presets![
    "snapshot-stall"
    "dependency-out"
    "request-lost"
    "reply-lost"
    "reply-late"
    "slow-dependency"
    "replica-lag"
    "accepts-then-nothing"
    "zone-split"
    "failing-disk"
    "limping-nic"
    "limping-disk"
    "firmware-pause"
    "partition-after-commit"
    "five-states"
];

/// The preset `name`.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
