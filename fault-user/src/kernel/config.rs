//! How the running kernel was configured. Only ever used to *explain* what a probe found: distributions
//! backport and patch, so an option says nothing certain about what works.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use procfs::{ConfigSetting, FromBufRead as _};

/// A kernel option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `y`, or a value.
    On,
    /// `m`: there when the module is installed and loaded.
    Module,
    /// Not set, or unknown to this kernel.
    Off,
}

/// The configuration of a kernel.
#[derive(Debug, Clone)]
pub struct Config {
    source: PathBuf,
    options: HashMap<String, ConfigSetting>,
}

impl Config {
    /// Of the running kernel, from `/proc/config.gz` (`CONFIG_IKCONFIG_PROC`) or where distributions put it.
    pub fn of_running_kernel(release: &str) -> Option<Self> {
        const IN_KERNEL: &str = "/proc/config.gz";
        if Path::new(IN_KERNEL).exists()
            && let Ok(config) = procfs::kernel_config()
        {
            return Some(Self { source: IN_KERNEL.into(), options: config });
        }
        [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/config"),
            format!("/usr/lib/kernel/config-{release}"),
            format!("/lib/modules/{release}/build/.config"),
        ]
        .into_iter()
        .find_map(|path| Self::from_file(path.into()))
    }

    fn from_file(path: PathBuf) -> Option<Self> {
        let config = procfs::KernelConfig::from_buf_read(BufReader::new(File::open(&path).ok()?)).ok()?;
        Some(Self { source: path, options: config.0 })
    }

    /// From text in the format of `.config`.
    #[cfg(test)]
    pub fn from_text(text: &str) -> Self {
        let config = procfs::KernelConfig::from_buf_read(text.as_bytes()).unwrap();
        Self { source: "test".into(), options: config.0 }
    }

    /// Where it was found.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// An option, with its `CONFIG_`.
    pub fn setting(&self, option: &str) -> Setting {
        match self.options.get(option) {
            None => Setting::Off,
            Some(ConfigSetting::Module) => Setting::Module,
            Some(ConfigSetting::Yes | ConfigSetting::Value(_)) => Setting::On,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_module_and_off_are_told_apart() {
        let config = Config::from_text("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_HZ=250\n");
        assert_eq!(config.setting("CONFIG_A"), Setting::On);
        assert_eq!(config.setting("CONFIG_B"), Setting::Module);
        assert_eq!(config.setting("CONFIG_C"), Setting::Off);
        assert_eq!(config.setting("CONFIG_D"), Setting::Off);
        assert_eq!(config.setting("CONFIG_HZ"), Setting::On);
    }
}
