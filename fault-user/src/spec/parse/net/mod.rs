//! Packets.

mod action;
mod filter;

use super::{Clause, Keyword, Parser, delay, peer, trigger};
use crate::spec::error::SpecError;
use crate::spec::net::NetFault;
use crate::spec::words::{NET, NetClause};

/// A net fault.
pub(in crate::spec) fn fault(text: &str) -> Result<NetFault, SpecError> {
    let mut parser = Parser::new(NET.layer, text)?;
    let (word, verb) = parser.verb(&NET)?;
    let mut action = action::Action::new(&mut parser, word, verb)?;
    let mut filter = filter::Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&NET, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(word) => {
                action.delay(&parser, keyword, verb)?.clause(&mut parser, word, keyword)?
            }
            Clause::Own(NetClause::Ordered) => {
                action.delay(&parser, keyword, verb)?.ordered(&parser, keyword)?
            }
            Clause::Own(NetClause::PerConnection) => action.per_connection(&parser, keyword, verb)?,
            Clause::Own(NetClause::By) => action.by(&mut parser, keyword, verb)?,
            Clause::Own(NetClause::Filter(word)) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    action.agree(&parser, verb, &filter, &trigger)?;
    Ok(NetFault {
        verb: action.finish(&parser)?,
        filter: filter.finish(&parser)?,
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}
