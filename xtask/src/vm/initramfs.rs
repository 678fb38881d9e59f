//! The initramfs: busybox, the guest's init, and the modules it needs before there is a root.

use std::path::Path;

use anyhow::{Context as _, Result};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive in the `newc` cpio format, which the kernel unpacks as its first root.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds directory `path` (no leading slash). Parents must have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[]);
    }

    /// Adds file `path` (no leading slash) with `content`.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, FILE | mode, content);
    }

    /// Adds a copy of the host's file `from`.
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, mode, &content);
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // Module files are a few MB, so the lengths fit the format's 32 bits.
        let header = [
            self.entries, // inode
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // mtime
            content.len() as u32,
            0, // device, major and minor
            0,
            0, // device the file stands for, major and minor
            0,
            path.len() as u32 + 1,
            0, // checksum, unused in this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn busybox_unpacks_what_was_packed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut archive = Archive::default();
        archive.directory("d");
        archive.file("d/odd", 0o644, b"12345");
        archive.file("d/empty", 0o755, b"");
        let path = dir.path().join("a.cpio");
        std::fs::write(&path, archive.finish()).expect("write");
        let out = Command::new("busybox")
            .args(["cpio", "-i", "-F"])
            .arg(&path)
            .current_dir(dir.path())
            .output()
            .expect("busybox is one of the packages set-up installs");
        assert!(out.status.success(), "{out:?}");
        assert_eq!(std::fs::read(dir.path().join("d/odd")).expect("d/odd"), b"12345");
        assert_eq!(std::fs::read(dir.path().join("d/empty")).expect("d/empty"), b"");
    }
}
