//! Whether there is anything yet that a pattern matches: a misspelt one is more often than not the reason why there is not.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use super::places::is_name;
use crate::spec::{Component, FileGlob};

/// Directory entries that are looked at before the answer is not worth more time.
const PATIENCE: usize = 20_000;

/// Whether a file matches `pattern` now, below `root`; nothing when that would take too long to find out.
#[must_use]
pub fn any(root: &Path, pattern: &FileGlob) -> Option<bool> {
    let mut patience = PATIENCE;
    below(root, pattern.components(), &mut patience)
}

fn below(directory: &Path, components: &[Component], patience: &mut usize) -> Option<bool> {
    let [first, rest @ ..] = components else { return Some(false) };
    if let Some(name) = first.as_literal() {
        let path = directory.join(std::ffi::OsStr::from_bytes(&name));
        return if rest.is_empty() {
            Some(path.symlink_metadata().is_ok())
        } else {
            below(&path, rest, patience)
        };
    }
    // Of no directory, or of any.
    if *first == Component::Directories && !rest.is_empty() && below(directory, rest, patience)? {
        return Some(true);
    }
    let Ok(entries) = fs::read_dir(directory) else { return Some(false) };
    for entry in entries.flatten() {
        *patience = patience.checked_sub(1)?;
        let is_directory = || entry.file_type().is_ok_and(|kind| kind.is_dir());
        let found = match first {
            Component::Directories => {
                rest.is_empty() || is_directory() && below(&entry.path(), components, patience)?
            }
            Component::Name(_) if !is_name(first, entry.file_name().as_bytes()) => false,
            Component::Name(_) => rest.is_empty() || is_directory() && below(&entry.path(), rest, patience)?,
        };
        if found {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_not() {
        let directory = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(directory.path().join("data/wal/old")).unwrap();
        fs::write(directory.path().join("data/wal/old/1.log"), "").unwrap();
        let found = |pattern| any(directory.path(), &FileGlob::read(pattern).unwrap());
        for pattern in ["/data/wal/**", "/data/**/1.log", "/**", "/d*/w?l/*/*.log", "/data/wal/old/1.log"] {
            assert_eq!(found(pattern), Some(true), "{pattern}");
        }
        for pattern in ["/data/wal/old/1.log/**", "/data/**/2.log", "/data/w?l/*.log", "/other/**"] {
            assert_eq!(found(pattern), Some(false), "{pattern}");
        }
    }
}
