//! Operations on files.

use std::collections::{BTreeMap, BTreeSet};

use super::super::errno::FileErrno;
use super::super::error::SpecError;
use super::super::file::{FileFault, FileFilter, FileOp, FileVerb};
use super::super::glob::FileGlob;
use super::super::quantity::Quantity;
use super::super::source::Located;
use super::super::units::Flaw;
use super::super::words::{FILE, FileClause, FileVerbWord};
use super::once::Once;
use super::{Clause, Keyword, Parser, trigger};

/// A file fault.
pub(in super::super) fn fault(text: &str) -> Result<FileFault, SpecError> {
    let mut parser = Parser::new(FILE.layer, text)?;
    let (FileVerbWord::Error, verb) = parser.verb(&FILE)?;
    let errno = parser.quantity(verb, Quantity::FileErrno, errno)?.0;
    let mut filter = Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&FILE, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(_) => return Err(parser.wrong_verb(keyword, verb, &["delay"])),
            Clause::Own(word) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    Ok(FileFault {
        verb: FileVerb::Error(errno),
        filter: filter.finish(),
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}

fn errno(word: &str) -> Result<FileErrno, Flaw> {
    FileErrno::named(word).ok_or(Flaw::Shape)
}

/// A filter under construction.
#[derive(Debug, Default)]
struct Draft {
    ops: BTreeMap<FileOp, Once<()>>,
    glob: Once<Located<FileGlob>>,
}

impl Draft {
    fn clause(&mut self, parser: &mut Parser, word: FileClause, keyword: Keyword) -> Result<(), SpecError> {
        match word {
            FileClause::Op(op) => self.ops.entry(op).or_default().set(parser, keyword, ()),
            FileClause::File => {
                let (glob, span) = parser.quantity(keyword, Quantity::Glob, FileGlob::read)?;
                self.glob.set(parser, keyword, Located::new(glob, span))
            }
        }
    }

    fn finish(self) -> FileFilter {
        FileFilter { ops: self.ops.into_keys().collect::<BTreeSet<_>>(), glob: self.glob.value() }
    }
}
