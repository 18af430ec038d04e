//! Who may depend on whom, as data, and the reading of the workspace that it is held against.
//!
//! [`Workspace`] is what cargo says is there; [`rules`] are pure functions over it that return what they find
//! wrong, so that each can be shown a planted violation. [`source`] looks at what cargo cannot see: tokens.

pub mod rules;
pub mod source;
mod workspace;

pub use workspace::{Member, Workspace};
