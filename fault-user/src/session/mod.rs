//! The lifetime of one controller and its rules: planned → armed → active → healed.
//!
//! Each state is a type, so that nothing can be activated that is not armed and nothing reported that is not
//! healed: [`plan::Plan`] → [`arm::Armed`] → [`Active`] → [`heal::Healed`].

pub mod active;
pub mod arm;
pub mod audience;
mod bell;
pub mod compile;
pub mod error;
mod events;
pub mod heal;
pub mod history;
pub mod keeper;
pub mod lever;
mod packets;
pub mod pause;
pub mod plan;
pub mod prepare;
pub mod residue;
mod rules;
pub mod simulate;
mod sockets;
mod succession;
pub mod switch;
pub mod tables;
mod tasks;
mod whereabouts;

pub use active::{Active, End};
pub use error::SessionError;
pub use packets::check_interfaces;
pub use rules::check_patterns;
