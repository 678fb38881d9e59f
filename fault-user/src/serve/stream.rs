//! Injections as they come, for one who listens: lines of JSON, or server-sent events (HTML Living Standard, section 9.2).

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use fault_common::counters::Counter;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{connection::Busy, events::Chunk, hub::Entry};

/// How often a client hears that there is nothing to hear, and the service that the client has gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The media type of server-sent events.
pub(super) const SERVER_SENT: &str = "text/event-stream";
/// The media type of lines of JSON.
pub(super) const LINES: &str = "application/x-ndjson";

/// What a listener hears.
enum Piece {
    /// So many injections are missing here: the listener was too slow.
    Lost(u64),
    Injections(Chunk),
    /// The session is over.
    End(Value),
}

/// Whether the client asks for server-sent events.
pub(super) fn is_server_sent(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(SERVER_SENT))
}

/// From now on to the end of the session. The connection counts as busy that long.
fn pieces(receiver: Receiver<Chunk>, entry: Entry, busy: Busy) -> impl Stream<Item = Piece> {
    let start = (Some(receiver), entry, None::<u64>, 0u64, busy);
    stream::unfold(start, |(receiver, entry, next, lost, busy)| async move {
        let mut receiver = receiver?;
        loop {
            match receiver.recv().await {
                Ok(chunk) => {
                    // The first line that is heard is where listening began.
                    let missed = chunk.first - next.unwrap_or(chunk.first);
                    let next = Some(chunk.first + chunk.lines);
                    let gap = (missed > 0).then_some(Piece::Lost(missed));
                    let heard = gap.into_iter().chain([Piece::Injections(chunk)]).collect::<Vec<_>>();
                    return Some((heard, (Some(receiver), entry, next, lost + missed, busy)));
                }
                // The next chunk shows how many lines that were.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => {
                    let report = entry.wait().await.ok();
                    let kernel = report.map(|report| report.counters.get(Counter::EventsLost));
                    let end = Piece::End(json!({"lost": lost, "lost_in_kernel": kernel}));
                    return Some((vec![end], (None, entry, next, lost, busy)));
                }
            }
        }
    })
    .flat_map(stream::iter)
}

/// One line for each.
pub(super) fn lines(receiver: Receiver<Chunk>, entry: Entry, busy: Busy) -> Response {
    let text = pieces(receiver, entry, busy).map(|piece| {
        Ok::<_, Infallible>(match piece {
            Piece::Lost(missed) => Bytes::from(format!("{}\n", json!({"lost": missed}))),
            Piece::Injections(chunk) => chunk.text,
            Piece::End(end) => Bytes::from(format!("{}\n", json!({"end": end}))),
        })
    });
    ([(header::CONTENT_TYPE, LINES)], Body::from_stream(text)).into_response()
}

/// One event for each; the id of an injection is its number in the session.
pub(super) fn server_sent(receiver: Receiver<Chunk>, entry: Entry, busy: Busy) -> Response {
    let events = pieces(receiver, entry, busy).flat_map(|piece| {
        let events: Vec<_> = match piece {
            Piece::Lost(missed) => vec![named("lost", &json!({"lost": missed}).to_string())],
            Piece::Injections(chunk) => {
                let text = String::from_utf8_lossy(&chunk.text);
                let numbered = (chunk.first..).zip(text.lines());
                numbered.map(|(number, line)| named("injection", line).id(number.to_string())).collect()
            }
            Piece::End(end) => vec![named("end", &end.to_string())],
        };
        stream::iter(events.into_iter().map(Ok::<_, Infallible>))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn named(name: &str, data: &str) -> Event {
    Event::default().event(name).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_server_sent_events_gets_them() {
        let accepts = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::ACCEPT, axum::http::HeaderValue::from_static(value))]);
            is_server_sent(&headers)
        };
        assert!(accepts("text/event-stream") && accepts("text/html, Text/Event-Stream;q=0.9"));
        assert!(!accepts("*/*") && !accepts("application/x-ndjson") && !is_server_sent(&HeaderMap::new()));
    }
}
