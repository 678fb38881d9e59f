//! Operations on files.

use std::collections::{BTreeMap, BTreeSet};

use super::super::delay::DISK_HOLD_MAX;
use super::super::errno::FileErrno;
use super::super::error::SpecError;
use super::super::file::{FileFault, FileFilter, FileOp, FileVerb};
use super::super::glob::FileGlob;
use super::super::problem::Problem;
use super::super::quantity::Quantity;
use super::super::source::Located;
use super::super::units::Flaw;
use super::super::words::{FILE, FileClause, FileVerbWord};
use super::once::Once;
use super::{Clause, Keyword, Parser, delay, trigger};

/// A file fault.
pub(in super::super) fn fault(text: &str) -> Result<FileFault, SpecError> {
    let mut parser = Parser::new(FILE.layer, text)?;
    let (word, verb) = parser.verb(&FILE)?;
    let mut action = match word {
        FileVerbWord::Error => Action::Error(parser.quantity(verb, Quantity::FileErrno, errno)?.0),
        FileVerbWord::Delay => Action::Delay(Box::new(delay::Draft::new(&mut parser, verb, DISK_HOLD_MAX)?)),
    };
    let mut filter = Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&FILE, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(word) => match &mut action {
                Action::Delay(draft) => draft.clause(&mut parser, word, keyword)?,
                Action::Error(_) => return Err(parser.wrong_verb(keyword, verb, &["delay"])),
            },
            Clause::Own(word) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    let verb = match action {
        Action::Error(errno) => FileVerb::Error(errno),
        Action::Delay(draft) => {
            filter.must_bear_delay(&parser, verb)?;
            FileVerb::Delay(draft.finish(&parser)?)
        }
    };
    Ok(FileFault { verb, filter: filter.finish(), trigger: trigger.finish(&parser)?, source: parser.source })
}

/// A verb under construction.
#[derive(Debug)]
enum Action {
    Error(FileErrno),
    Delay(Box<delay::Draft>),
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

    /// `delay` is of operations that may be late, and has to name them: nobody shall believe that everything is.
    fn must_bear_delay(&self, parser: &Parser, verb: Keyword) -> Result<(), SpecError> {
        for (op, once) in &self.ops {
            if let (Err(because), Some(other)) = (op.may_be_late(), once.keyword()) {
                return Err(parser.error(other.span, Problem::NeverLate { op: *op, because }));
            }
        }
        match self.ops.is_empty() {
            true => Err(parser.error(verb.span, Problem::LateWhat)),
            false => Ok(()),
        }
    }

    fn finish(self) -> FileFilter {
        FileFilter { ops: self.ops.into_keys().collect::<BTreeSet<_>>(), glob: self.glob.value() }
    }
}
