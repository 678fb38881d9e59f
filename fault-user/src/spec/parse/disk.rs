//! Block I/O.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::super::delay::DISK_HOLD_MAX;
use super::super::disk::{
    BAD_SECTORS_MAX, DiskFault, DiskFilter, DiskManner, DiskOp, DiskVerb, Hold, SectorRange,
};
use super::super::error::SpecError;
use super::super::glob::FileGlob;
use super::super::net::ByteRate;
use super::super::problem::Problem;
use super::super::quantity::Quantity;
use super::super::rate;
use super::super::source::Located;
use super::super::units;
use super::super::words::{DISK, DiskClause, DiskFilterWord, DiskVerbWord};
use super::once::Once;
use super::{Clause, Keyword, Parser, delay, path, shown, trigger};

/// The one error the block layer's hook can give.
const EIO: &str = "EIO";

/// A disk fault.
pub(in super::super) fn fault(text: &str) -> Result<DiskFault, SpecError> {
    let mut parser = Parser::new(DISK.layer, text)?;
    let (word, verb) = parser.verb(&DISK)?;
    let mut action = Action::new(&mut parser, word, verb)?;
    let mut filter = Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&DISK, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(word) => {
                action.delay(&parser, keyword, verb)?.clause(&mut parser, word, keyword)?
            }
            Clause::Own(DiskClause::Then) => action.then(&mut parser, keyword, verb)?,
            Clause::Own(DiskClause::Filter(word)) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    if let (Action::Rate(_), Some(bare)) = (&action, filter.discard.keyword().or(filter.flush.keyword())) {
        return Err(parser.contradiction(verb, bare, "it moves no data, and so takes no time at any rate"));
    }
    Ok(DiskFault {
        verb: action.finish(&parser)?,
        filter: filter.finish(&parser)?,
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}

/// A verb under construction.
#[derive(Debug)]
enum Action {
    Error,
    Delay(Box<delay::Draft>),
    Hang { hold: Hold, then: Once<()> },
    Rate(ByteRate),
    Iops(u64),
}

impl Action {
    fn new(parser: &mut Parser, word: DiskVerbWord, verb: Keyword) -> Result<Self, SpecError> {
        Ok(match word {
            DiskVerbWord::Error => {
                errno(parser)?;
                Self::Error
            }
            DiskVerbWord::Delay => Self::Delay(Box::new(delay::Draft::new(parser, verb, DISK_HOLD_MAX)?)),
            DiskVerbWord::Rate => Self::Rate(parser.quantity(verb, Quantity::Rate, rate::read)?.0),
            DiskVerbWord::Iops => Self::Iops(parser.quantity(verb, Quantity::Iops, units::iops)?.0),
            DiskVerbWord::Hang => Self::Hang { hold: hold(parser, verb)?, then: Once::default() },
        })
    }

    fn delay(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<&mut delay::Draft, SpecError> {
        match self {
            Self::Delay(draft) => Ok(draft),
            Self::Error | Self::Hang { .. } | Self::Rate(_) | Self::Iops(_) => {
                Err(parser.wrong_verb(clause, verb, &["delay"]))
            }
        }
    }

    /// `then error`, from after `then`.
    fn then(&mut self, parser: &mut Parser, keyword: Keyword, verb: Keyword) -> Result<(), SpecError> {
        let then = match self {
            Self::Hang { then, .. } => then,
            Self::Error | Self::Delay(_) | Self::Rate(_) | Self::Iops(_) => {
                return Err(parser.wrong_verb(keyword, verb, &["hang"]));
            }
        };
        then.set(parser, keyword, ())?;
        let is_error = |word: &super::Word| !word.quoted && word.text == "error";
        if parser.words.next_if(is_error).is_none() {
            let next = parser.words.peek().map(|word| word.span);
            return Err(parser.error(next.unwrap_or(keyword.span), Problem::ThenWhat));
        }
        errno(parser)
    }

    fn finish(self, parser: &Parser) -> Result<DiskVerb, SpecError> {
        Ok(match self {
            Self::Error => DiskVerb::Error,
            Self::Delay(draft) => DiskVerb::Delay(draft.finish(parser)?),
            Self::Rate(rate) => DiskVerb::Rate(rate),
            Self::Iops(number) => DiskVerb::Iops(number),
            Self::Hang { hold, then } => DiskVerb::Hang { hold, then_error: then.value().is_some() },
        })
    }
}

/// The operand of `hang`.
fn hold(parser: &mut Parser, verb: Keyword) -> Result<Hold, SpecError> {
    let is_forever = |word: &super::Word| !word.quoted && word.text == "forever";
    if parser.words.next_if(is_forever).is_some() {
        return Ok(Hold::Forever);
    }
    Ok(Hold::For(parser.duration(verb, false, DISK_HOLD_MAX)?.0))
}

/// `EIO` after `error` may be written; any other errno is beyond the block layer.
fn errno(parser: &mut Parser) -> Result<(), SpecError> {
    let looks_like_errno = |word: &super::Word| {
        let mut letters = word.text.chars();
        let capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        let known = word.text.eq_ignore_ascii_case(EIO);
        known || (letters.next() == Some('E') && word.text.len() > 2 && letters.all(capital))
    };
    match parser.words.next_if(|word| looks_like_errno(word) && !is_keyword(word)) {
        Some(word) if word.text != EIO => {
            let problem = Problem::Errno { word: shown(&word.text) };
            let near = strsim::damerau_levenshtein(&word.text.to_uppercase(), EIO) <= 1;
            Err(parser.error(word.span, problem).with_advice(near.then(|| EIO.to_owned()), None))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether a word written in capitals is a keyword nevertheless: `EVERY`.
fn is_keyword(word: &super::Word) -> bool {
    super::words::find(DISK.layer, &word.text.to_lowercase()).is_some()
}

/// A filter under construction.
#[derive(Debug, Default)]
struct Draft {
    read: Once<()>,
    write: Once<()>,
    flush: Once<()>,
    discard: Once<()>,
    fua: Once<()>,
    meta: Once<()>,
    sync: Once<()>,
    on: Once<Located<PathBuf>>,
    sectors: Once<Located<SectorRange>>,
    until_written: Once<()>,
    glob: Once<Located<FileGlob>>,
}

impl Draft {
    fn clause(
        &mut self,
        parser: &mut Parser,
        word: DiskFilterWord,
        keyword: Keyword,
    ) -> Result<(), SpecError> {
        match word {
            DiskFilterWord::Op(op) => self.op(op).set(parser, keyword, ()),
            DiskFilterWord::Manner(manner) => self.manner(manner).set(parser, keyword, ()),
            DiskFilterWord::On => {
                let (path, span) = parser.quantity(keyword, Quantity::Path, path)?;
                self.on.set(parser, keyword, Located::new(path, span))
            }
            DiskFilterWord::Sectors => {
                let (sectors, span) = parser.quantity(keyword, Quantity::Sectors, units::sectors)?;
                self.sectors.set(parser, keyword, Located::new(sectors, span))
            }
            DiskFilterWord::UntilWritten => self.until_written.set(parser, keyword, ()),
            DiskFilterWord::File => {
                let (glob, span) = parser.quantity(keyword, Quantity::Glob, FileGlob::read)?;
                self.glob.set(parser, keyword, Located::new(glob, span))
            }
        }
    }

    fn op(&mut self, op: DiskOp) -> &mut Once<()> {
        match op {
            DiskOp::Read => &mut self.read,
            DiskOp::Write => &mut self.write,
            DiskOp::Flush => &mut self.flush,
            DiskOp::Discard => &mut self.discard,
        }
    }

    fn manner(&mut self, manner: DiskManner) -> &mut Once<()> {
        match manner {
            DiskManner::Fua => &mut self.fua,
            DiskManner::Meta => &mut self.meta,
            DiskManner::Sync => &mut self.sync,
        }
    }

    fn finish(mut self, parser: &Parser) -> Result<DiskFilter, SpecError> {
        if let (Some(flush), Some(sectors)) = (self.flush.keyword(), self.sectors.keyword()) {
            return Err(parser.contradiction(flush, sectors, "a flush touches no sectors"));
        }
        if let Some(file) = self.glob.keyword() {
            let nothing = [
                (&self.flush, "a flush is about a whole device, and no file of it"),
                (&self.discard, "what is given up is in no file any more"),
                (&self.meta, "a file system's own data is in no file"),
            ];
            if let Some((other, why)) = nothing.iter().find_map(|(once, why)| Some((once.keyword()?, *why))) {
                return Err(parser.contradiction(file, other, why));
            }
        }
        let ops: BTreeSet<_> =
            DiskOp::ALL.into_iter().filter(|op| self.op(*op).keyword().is_some()).collect();
        let manners: BTreeSet<_> =
            DiskManner::ALL.into_iter().filter(|manner| self.manner(*manner).keyword().is_some()).collect();
        // A flush may come ahead of a write, and be one operation with it.
        let writes = ops.is_empty() || ops.contains(&DiskOp::Write) || ops.contains(&DiskOp::Flush);
        if let (Some(fua), Some(op)) = (self.fua.keyword(), self.read.keyword().or(self.discard.keyword()))
            && !writes
        {
            return Err(parser.contradiction(fua, op, "only writes are `fua`"));
        }
        if let Some(until) = self.until_written.keyword() {
            let written = [&self.write, &self.flush, &self.discard, &self.fua];
            if let Some(other) = written.into_iter().find_map(Once::keyword) {
                return Err(parser.contradiction(
                    until,
                    other,
                    "it is reads that fail until something is written",
                ));
            }
            let sectors = self.sectors.get().map_or(u64::MAX, |(sectors, _)| sectors.end() - sectors.start());
            if self.on.keyword().is_none() || sectors > BAD_SECTORS_MAX {
                return Err(parser.error(until.span, Problem::BadSectorsWhere { longest: BAD_SECTORS_MAX }));
            }
        }
        let until_written = self.until_written.value().is_some();
        Ok(DiskFilter {
            ops,
            manners,
            on: self.on.value(),
            sectors: self.sectors.value(),
            until_written,
            glob: self.glob.value(),
        })
    }
}
