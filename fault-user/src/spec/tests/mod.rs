//! Tests of the whole language.

mod accepted;
mod documented;
mod rejected;
mod round_trip;
mod strategies;
