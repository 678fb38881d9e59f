//! Which files a pattern matches now.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::places::is_name;
use crate::spec::{Component, FileGlob};

/// Directory entries that are looked at before the answer is not worth more time.
const PATIENCE: usize = 20_000;

/// Whether a file matches `pattern` now, below `root`; nothing when that would take too long to find out. A misspelt pattern is
/// more often than not the reason why there is none.
#[must_use]
pub fn any(root: &Path, pattern: &FileGlob) -> Option<bool> {
    let mut found = false;
    each(root, pattern.components(), |_| {
        found = true;
        ControlFlow::Break(())
    })
    .then_some(found)
}

/// Hands every file that matches now, below `root`, to `visit`, until that breaks off; some twice. Whether all were seen for
/// which it did not break off: it also ends when that takes too long.
pub fn each(root: &Path, pattern: &[Component], visit: impl FnMut(&Path) -> ControlFlow<()>) -> bool {
    let mut walk = Walk { visit, patience: PATIENCE, tired: false };
    _ = walk.below(root, pattern);
    !walk.tired
}

struct Walk<V> {
    visit: V,
    patience: usize,
    tired: bool,
}

impl<V: FnMut(&Path) -> ControlFlow<()>> Walk<V> {
    fn below(&mut self, directory: &Path, components: &[Component]) -> ControlFlow<()> {
        let [first, rest @ ..] = components else { return ControlFlow::Continue(()) };
        if let Some(name) = first.as_literal() {
            let path = directory.join(std::ffi::OsStr::from_bytes(&name));
            return self.at(path, rest);
        }
        // Of no directory, or of any.
        if *first == Component::Directories && !rest.is_empty() {
            self.below(directory, rest)?;
        }
        let Ok(entries) = fs::read_dir(directory) else { return ControlFlow::Continue(()) };
        for entry in entries.flatten() {
            self.patience = self.patience.saturating_sub(1);
            if self.patience == 0 {
                self.tired = true;
                return ControlFlow::Break(());
            }
            let is_directory = || entry.file_type().is_ok_and(|kind| kind.is_dir());
            match first {
                Component::Directories => {
                    if rest.is_empty() {
                        (self.visit)(&entry.path())?;
                    }
                    if is_directory() {
                        self.below(&entry.path(), components)?;
                    }
                }
                Component::Name(_) if !is_name(first, entry.file_name().as_bytes()) => {}
                Component::Name(_) if rest.is_empty() => (self.visit)(&entry.path())?,
                Component::Name(_) if is_directory() => self.below(&entry.path(), rest)?,
                Component::Name(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn at(&mut self, path: PathBuf, rest: &[Component]) -> ControlFlow<()> {
        if !rest.is_empty() {
            return self.below(&path, rest);
        }
        if path.symlink_metadata().is_ok() { (self.visit)(&path) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(directory.path().join("data/wal/old")).unwrap();
        fs::write(directory.path().join("data/wal/old/1.log"), "").unwrap();
        fs::write(directory.path().join("data/wal/2.log"), "").unwrap();
        directory
    }

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_not() {
        let directory = tree();
        let found = |pattern| any(directory.path(), &FileGlob::read(pattern).unwrap());
        for pattern in ["/data/wal/**", "/data/**/1.log", "/**", "/d*/w?l/*/*.log", "/data/wal/old/1.log"] {
            assert_eq!(found(pattern), Some(true), "{pattern}");
        }
        for pattern in ["/data/wal/old/1.log/**", "/data/**/3.log", "/data/w?l/*.txt", "/other/**"] {
            assert_eq!(found(pattern), Some(false), "{pattern}");
        }
    }

    #[test]
    fn each_file_is_visited() {
        let directory = tree();
        let found = |pattern: &str| {
            let mut found = std::collections::BTreeSet::new();
            let all = each(directory.path(), FileGlob::read(pattern).unwrap().components(), |path| {
                found.insert(path.strip_prefix(directory.path()).unwrap().to_string_lossy().into_owned());
                ControlFlow::Continue(())
            });
            assert!(all, "{pattern}");
            Vec::from_iter(found)
        };
        assert_eq!(found("/data/**/*.log"), ["data/wal/2.log", "data/wal/old/1.log"]);
        assert_eq!(found("/data/wal/**"), ["data/wal/2.log", "data/wal/old", "data/wal/old/1.log"]);
        assert_eq!(found("/data/wal/?.log"), ["data/wal/2.log"]);
        assert_eq!(found("/data/wal/2.log"), ["data/wal/2.log"]);
        assert!(found("/data/3.log").is_empty());
    }
}
