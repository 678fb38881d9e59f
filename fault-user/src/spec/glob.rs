//! Patterns of paths: `/data/wal/**`.

use std::fmt::{self, Display, Formatter};

use fault_common::glob::{Automaton, TooLong};

use super::units::Flaw;

/// A pattern of absolute paths, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileGlob {
    text: String,
    components: Vec<Component>,
}

/// A part between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// `**`: any number of directories.
    Directories,
    /// A name.
    Name(Vec<Piece>),
}

/// A part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Itself.
    Byte(u8),
    /// `?`: one character.
    Character,
    /// `*`: any number of them.
    Star,
}

impl Component {
    /// This name and no other.
    #[must_use]
    pub fn literal(name: &[u8]) -> Self {
        Self::Name(name.iter().copied().map(Piece::Byte).collect())
    }

    /// The one name it stands for, if it does.
    #[must_use]
    pub fn as_literal(&self) -> Option<Vec<u8>> {
        let Self::Name(pieces) = self else { return None };
        let byte = |piece: &Piece| match piece {
            Piece::Byte(byte) => Some(*byte),
            Piece::Character | Piece::Star => None,
        };
        pieces.iter().map(byte).collect()
    }

    fn read(text: &str) -> Result<Self, Flaw> {
        match text {
            "**" => return Ok(Self::Directories),
            "" | "." | ".." => return Err(Flaw::Shape),
            _ => {}
        }
        let mut pieces = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let piece = match byte {
                b'\\' => Piece::Byte(bytes.next().ok_or(Flaw::Shape)?),
                // Kept for what other languages of patterns mean by them.
                b'[' | b']' | b'{' | b'}' | 0 => return Err(Flaw::Shape),
                b'*' if pieces.last() == Some(&Piece::Star) => return Err(Flaw::Shape),
                b'*' => Piece::Star,
                b'?' => Piece::Character,
                byte => Piece::Byte(byte),
            };
            pieces.push(piece);
        }
        Ok(Self::Name(pieces))
    }
}

/// The automaton for paths that consist of `components`.
///
/// # Errors
/// When it is too long.
pub fn automaton(components: &[Component]) -> Result<Automaton, TooLong> {
    let mut automaton = Automaton::new();
    let mut components: Vec<_> = components.iter().collect();
    // Several in a row mean what one means.
    components.dedup_by(|a, b| a == b && **a == Component::Directories);
    for (index, component) in components.into_iter().rev().enumerate() {
        match component {
            Component::Directories => automaton.directories(index != 0)?,
            Component::Name(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Byte(byte) => automaton.byte(*byte)?,
                        Piece::Character => automaton.character()?,
                        Piece::Star => automaton.star(),
                    }
                }
                automaton.byte(b'/')?;
            }
        }
    }
    Ok(automaton)
}

impl FileGlob {
    /// Reads `text`.
    ///
    /// # Errors
    /// When it is no pattern of absolute paths ([`Flaw::Shape`]), or a longer one than can be matched ([`Flaw::Range`]).
    pub fn read(text: &str) -> Result<Self, Flaw> {
        let path = text.strip_prefix('/').ok_or(Flaw::Shape)?;
        let components = path.split('/').map(Component::read).collect::<Result<Vec<_>, _>>()?;
        automaton(&components).map_err(|TooLong| Flaw::Range)?;
        Ok(Self { text: text.to_owned(), components })
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its parts, at least one.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.components
    }
}

impl Display for FileGlob {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/a/b` as the kernel's way reads it: `b/a/`.
    fn matches(pattern: &str, path: &str) -> bool {
        let glob = FileGlob::read(pattern).unwrap();
        let names: Vec<_> = path.split('/').skip(1).collect();
        let bytes = names.iter().rev().flat_map(|name| name.bytes().chain([b'/']));
        automaton(glob.components()).unwrap().matches(bytes)
    }

    #[test]
    fn stars_stand_for_names_and_directories() {
        assert!(matches("/data/wal/**", "/data/wal/0001"));
        assert!(matches("/data/wal/**", "/data/wal/a/0001"));
        assert!(!matches("/data/wal/**", "/data/wal"));
        assert!(matches("/data/**/*.log", "/data/x.log"));
        assert!(matches("/data/**/**", "/data/x"));
        assert!(!matches("/data/*", "/data/a/b"));
    }

    #[test]
    fn a_backslash_takes_the_special_meaning_away() {
        assert!(matches(r"/a\*", "/a*"));
        assert!(!matches(r"/a\*", "/ab"));
        assert!(matches(r"/\[x\]", "/[x]"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in
            ["", "a", "/", "/a//b", "/a/", "/a/../b", "/./a", "/a**", "/a[0]", "/{a,b}", r"/a\", "/a\0"]
        {
            assert_eq!(FileGlob::read(text), Err(Flaw::Shape), "{text:?}");
        }
        assert_eq!(FileGlob::read(&format!("/{}", "a".repeat(300))), Err(Flaw::Range));
    }
}
