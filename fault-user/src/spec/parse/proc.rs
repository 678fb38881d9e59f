//! Whole processes.

use super::super::Layer;
use super::super::error::SpecError;
use super::super::problem::Problem;
use super::super::proc::{PAUSE_MAX, ProcFault, ProcVerb};
use super::super::words::{PROC, ProcClause, ProcVerbWord, TriggerWord};
use super::{Clause, Keyword, Parser, trigger};

/// A fault of processes.
pub(in super::super) fn fault(text: &str) -> Result<ProcFault, SpecError> {
    let mut parser = Parser::new(PROC.layer, text)?;
    let (ProcVerbWord::Pause, verb) = parser.verb(&PROC)?;
    let (duration, _) = parser.duration(verb, false, PAUSE_MAX)?;
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&PROC, verb)? {
        match clause {
            Clause::Own(ProcClause::After) => trigger.clause(&mut parser, TriggerWord::After, keyword)?,
            Clause::Probability | Clause::Trigger(_) => return Err(counts(&parser, keyword, verb)),
            Clause::Delay(_) => {
                let problem =
                    Problem::OtherLayer { word: keyword.word, other: Layer::Net, layer: parser.layer };
                return Err(parser.error(keyword.span, problem));
            }
        }
    }
    Ok(ProcFault {
        verb: ProcVerb::Pause(duration),
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}

/// A word that chooses among operations, and there are none.
fn counts(parser: &Parser, keyword: Keyword, verb: Keyword) -> SpecError {
    parser
        .error(keyword.span, Problem::HappensOnce { word: keyword.word, verb: verb.word })
        .with_related(verb.span, "the verb")
}
