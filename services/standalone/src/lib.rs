//! A whole Weir in one process: the same controller and the same broker as in a cluster, speaking gRPC to each other
//! over loopback. Nothing here knows records or metadata; it starts the parts in order and stops them in reverse.

mod process;
mod standalone;

pub use process::{Ready, run};
pub use standalone::{Error, Standalone};
pub use weir_broker::main as broker_main;
pub use weir_controller::main as controller_main;
pub use weir_controller::{Found as FoundController, Lost as LostController};
