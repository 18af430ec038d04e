//! The cluster as its parts see it: metadata on disk and on the wire, and the way to the controllers.
//!
//! [`Row`] turns the types of `weir-metadata` into the messages of `weir.internal.v1` and back. [`Controllers`]
//! finds the controller that leads and asks it; [`Follower`] keeps the newest image. Brokers and controllers both
//! stand on this crate; it holds no state of its own that must survive, and decides nothing.

mod asked;
mod channel;
mod controllers;
mod follower;
mod mutant;
mod names;
#[cfg(test)]
mod pacing_tests;
mod problem;
pub mod public;
mod rows;
mod session;

pub use asked::in_words;
pub use channel::channel;
pub use controllers::{Client, Controllers, Meant, fact, is_for, leader_hint, said};
pub use follower::Follower;
pub use mutant::Mutant;
pub use names::{Names, by_name, partition_name};
pub use problem::{PARTITION_EPOCH_STALE, problem, refusal_name};
pub use rows::{ImageReader, Row, RowError, image_rows};
pub use session::Session;

/// The fact of an error that names the leader's endpoint, `host:port`.
pub const LEADER_FACT: &str = "leader_endpoint";

/// The metadata of a call that names the cluster it is meant for. A controller of another one refuses it; who has no
/// cluster yet names none.
pub const CLUSTER_HEADER: &str = "weir-cluster-id";

/// The metadata of a call that says where it is to be answered. [`ROUTE_DIRECT`]: by the controller that is asked, which says
/// who leads if it does not. Without it any controller passes the call on to the one that leads.
pub const ROUTE_HEADER: &str = "weir-route";
/// See [`ROUTE_HEADER`].
pub const ROUTE_DIRECT: &str = "direct";

/// The longest message that controllers and brokers take from each other, in bytes. A command entry holds at most
/// a quarter of it; an image is cut into rows.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
