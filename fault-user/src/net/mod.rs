//! The network side of a session, as seen from userspace.
//!
//! | module | concern |
//! |---|---|
//! | [`netns`] | holding, entering and making network namespaces |
//! | [`session_bit`] | one bit of the packet tag per session and namespace |
//! | [`interfaces`] | what there is to hook, and what appears while a session lives |
//! | [`attach`] | programs on interfaces: tcx, or clsact below Linux 6.6 |
//! | [`devices`] | what lane and cutter are made of |
//! | [`cutter`] | where super-packets become the packets of the wire |
//! | [`lane`] | where delayed packets wait |
//! | [`sockets`] | sockets that were open before the session |
//! | [`peers`] | `to`: addresses and names → entries of the longest-prefix-match map |
//! | [`leftover`] | what could outlive us, for the keeper and `fault sweep` |

pub mod attach;
mod bpf;
mod clsact;
pub mod cutter;
pub mod devices;
pub mod error;
pub mod interfaces;
pub mod lane;
pub mod leftover;
mod netlink;
pub mod netns;
pub mod peers;
pub mod session_bit;
pub mod sockets;

pub use clsact::ClsactFilter;
pub use error::NetError;
