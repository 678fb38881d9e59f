//! Which modules a modular kernel must load before it can see the host's root, and in which order.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

/// What the guest's init uses. Everything else is loaded by modprobe once the root is there.
pub const BEFORE_ROOT: [&str; 7] =
    ["virtio_pci", "virtio_rng", "virtio_blk", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// Paths below `…/lib/modules/VERSION`, dependencies first. Built-in ones are left out.
pub fn resolve(wanted: &[&str], dep: &str, builtin: &str) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line =
            dep.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| module_name(path) == *name);
        let Some((path, needs)) = line else {
            if builtin.lines().any(|path| module_name(path) == *name) {
                continue;
            }
            return Err(anyhow!("this kernel has no module {name}"));
        };
        // modules.dep lists what must be there first at the end.
        let needs = needs.split_whitespace().rev();
        for path in needs.chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// `kernel/fs/9p/9p.ko.xz` → `9p`; the kernel treats `-` and `_` alike.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// The content of a module file, decompressed if it is compressed.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|ext| ext.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => {
            return std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        }
    };
    let out = Command::new(program)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("starting {program} to unpack {}", path.display()))?;
    if !out.status.success() {
        return Err(anyhow!("{program} cannot unpack {}", path.display()));
    }
    Ok(out.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/netfs/netfs.ko.xz:
kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/drivers/virtio/virtio-pci.ko.xz:
";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = resolve(&["virtio_pci", "9p"], DEP, "").expect("all there");
        assert_eq!(
            order,
            [
                "kernel/drivers/virtio/virtio-pci.ko.xz",
                "kernel/fs/netfs/netfs.ko.xz",
                "kernel/net/9p/9pnet.ko.xz",
                "kernel/fs/9p/9p.ko.xz",
            ]
        );
    }

    #[test]
    fn built_in_needs_no_file_and_unknown_is_an_error() {
        let builtin = "kernel/fs/overlayfs/overlay.ko\n";
        assert!(resolve(&["overlay"], DEP, builtin).expect("built in").is_empty());
        assert!(resolve(&["overlay"], DEP, "").is_err());
    }
}
