//! Packets.

mod action;
mod agree;
mod exception;
mod filter;
mod framing;
mod part;

use super::{Clause, Keyword, Parser, Word, delay, peer, trigger};
use crate::spec::error::SpecError;
use crate::spec::net::NetFault;
use crate::spec::words::{NET, NetClause, TriggerWord};

pub(super) use action::is_bits;
pub(in crate::spec) use exception::exception;

/// A net fault.
pub(in crate::spec) fn fault(text: &str) -> Result<NetFault, SpecError> {
    let mut parser = Parser::new(NET.layer, text)?;
    let (word, verb) = parser.verb(&NET)?;
    let mut action = action::Action::new(&mut parser, word, verb)?;
    let mut filter = filter::Draft::default();
    let mut part = part::Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&NET, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(TriggerWord::After) => part.after(&mut parser, keyword, &mut trigger)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(word) => {
                action.delay(&parser, keyword, verb)?.clause(&mut parser, word, keyword)?
            }
            Clause::Own(NetClause::Ecn) => action.ecn(&parser, keyword, verb)?,
            Clause::Own(NetClause::Ordered) => action.ordered(&parser, keyword, verb)?,
            Clause::Own(NetClause::PerConnection) => action.per_connection(&parser, keyword, verb)?,
            Clause::Own(NetClause::Overhead) => {
                action.framing(&parser, keyword, verb)?.overhead(&mut parser, keyword)?
            }
            Clause::Own(NetClause::Cell) => {
                action.framing(&parser, keyword, verb)?.cell(&mut parser, keyword)?
            }
            Clause::Own(NetClause::CellOverhead) => {
                action.framing(&parser, keyword, verb)?.cell_overhead(&mut parser, keyword)?
            }
            Clause::Own(NetClause::Packets) => action.packets(&mut parser, keyword, verb)?,
            Clause::Own(NetClause::Bytes) => action.bytes(&mut parser, keyword, verb)?,
            Clause::Own(NetClause::By) => action.by(&mut parser, keyword, verb)?,
            Clause::Own(NetClause::FixChecksum) => action.fix_checksum(&parser, keyword, verb)?,
            Clause::Own(NetClause::Call(call)) => action.call(&parser, call, keyword, verb)?,
            Clause::Own(NetClause::Connection) => part.connection(&mut parser, keyword)?,
            Clause::Own(NetClause::Connections) => part.connections(&mut parser, keyword)?,
            Clause::Own(NetClause::Filter(word)) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    agree::check(&parser, (&action, verb), &filter, &part, &trigger)?;
    Ok(NetFault {
        verb: action.finish(&parser)?,
        part: part.finish(&parser, &filter)?,
        filter: filter.finish(&parser)?,
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}
