//! `fault top`: the live view.
//!
//! | file | concern |
//! |---|---|
//! | `model` | what is known: snapshots, rates between them, what is selected |
//! | `draw` | the model as a screen; pure |
//! | `details` | its lower half: the selected fault or session |
//! | `words` | numbers and events, in few columns |
//! | `terminal` | keys in, screens out, and the terminal as it was |
//! | `text` | one snapshot, for pipes |

mod details;
mod draw;
mod model;
mod terminal;
pub mod text;
mod words;

#[cfg(test)]
mod tests;

pub use terminal::live;

/// What there is to say when there are no sessions.
pub const NOBODY: &str = "nothing is being injected on this machine; start with `fault run`, `fault inject`, `fault play` or `fault serve`";
