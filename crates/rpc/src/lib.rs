//! What every listener shares: how failures are said, deadlines kept, connections counted and tuned.
//!
//! It knows the public error registry and HTTP/2, and nothing of logs, topics or clusters.

mod connections;
pub mod deadline;
mod heard;
mod library;
mod listen;
mod messages;
mod problem;
pub mod reasons;
pub mod tuning;
mod with_body;

pub use connections::{
    Acceptor, Arriving, ConnectionInfo, ConnectionLimits, LongCall, ServedConnection, ServerConnections,
    servers,
};
pub use library::{cause, with_reason};
pub use listen::listen;
pub use messages::{Messages, duplex};
pub use problem::Problem;
pub use with_body::WithBody;

/// What the public API says of itself, behind name and version, to whoever comes to its port without gRPC.
pub const GREETING: &str = ", a durable log. This port speaks gRPC";

/// Said of an answer, in its headers: for how many milliseconds the broker that it came from has not heard a controller, where
/// that is longer than a session. What it says of brokers, leaders and settings is as old as that.
pub const CONTROLLERS_SILENT: &str = "weir-controllers-silent-ms";

/// The fact of a refusal by a broker that is up and does not serve yet: whoever asked may ask another one.
pub const STARTING_FACT: &str = "starting";
