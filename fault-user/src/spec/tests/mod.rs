//! Tests of the whole language.

mod accepted;
mod round_trip;
